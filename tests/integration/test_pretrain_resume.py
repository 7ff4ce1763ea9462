"""A killed training continues as if nothing had happened: real processes, SIGKILL, real checkpoints.

A tiny model sees random images; 14 breasts in batches of 3 make 4 steps an epoch, three epochs 12.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
CONFIGS = sorted((HERE.parents[1] / "workflow" / "deepspeed").glob("*.json"))
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT_SECONDS = 150
STEPS_PER_EPOCH = 4

EVERY_STEP = {"checkpoint_minutes": 1e-9}
TEXTS_ALONE = {"image_text": 0.0, "image_image": 0.0, "text_text": 1.0}
KILLS = {
    "in-an-epoch": {"rank": 0, "split": "train", "step": 5},
    "in-a-validation": {"rank": 0, "split": "validation", "step": 2 * STEPS_PER_EPOCH},
}

STOPS = ("SIGTERM", "SIGUSR1")
STOPPED_AFTER = 6


def launch(folder: Path, jobs: list[dict[str, Any]], *, processes: int = 1, killed: bool = False) -> None:
    """Run the jobs in that many processes; when one dies, and ``killed`` says that it must, the others are killed."""
    jobs = [{"deepspeed": str(CONFIGS[0]), **job, "folder": str(folder / job["folder"])} for job in jobs]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    logs = [folder / f"log-{rank}.txt" for rank in range(processes)]
    running = []
    try:
        for rank, path in enumerate(logs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            command = [sys.executable, str(HERE / "pretrain_process.py"), str(folder / "jobs.json")]
            with path.open("w") as log:
                running.append(subprocess.Popen(command, env=environment | own, stdout=log, stderr=subprocess.STDOUT))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            if any(process.poll() for process in running):
                break
            time.sleep(0.05)
        codes = [process.poll() for process in running]
        story = "\n".join(path.read_text()[-3000:] for path in logs)
        assert (-signal.SIGKILL in codes) if killed else codes == [0] * processes, f"exit codes {codes}\n{story}"
    finally:
        for process in running:
            process.kill()
            process.wait()


def steps_of(folder: Path, rank: int = 0) -> pl.DataFrame:
    bugs = [path.read_text() for path in folder.glob("bug-*.txt")]
    assert not bugs, bugs[0]
    return pl.read_parquet(folder / f"steps-{rank}.parquet")


def assert_same_run(found: Path, expected: Path, rank: int = 0) -> None:
    """Equal step by step and bit by bit."""
    assert steps_of(found, rank).equals(steps_of(expected, rank))
    weights, expected_weights = (load_file(folder / f"{rank}.safetensors") for folder in (found, expected))
    assert weights.keys() == expected_weights.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected_weights[name])] == []


def checkpoints(folder: Path) -> list[Path]:
    """The resume checkpoints in a job's work folder, oldest first."""
    return sorted((folder / "work").glob("step-*.pt"), key=lambda path: int(path.stem.removeprefix("step-")))


def damage(checkpoint: Path) -> None:
    """Leave half of the file, as a full disk or a lost page cache does."""
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of uninterrupted and of killed runs in one process, the killed ones resumed."""
    folder = tmp_path_factory.mktemp("runs")
    killed = [{"folder": name, "kill": kill, "section": EVERY_STEP} for name, kill in KILLS.items()]
    uninterrupted = [
        {"folder": "reference"},
        {"folder": "again"},
        {"folder": "more-threads", "section": {"threads": 5}},
        {"folder": "diverging", "section": {"learning_rate": 1e30}},
        {"folder": "too-large", "section": {"global_batch_size": 8}, "num_training": 7},
        {"folder": "overfitting", "contradict": True, "section": {"learning_rate": 0.05, "loss": TEXTS_ALONE}},
        *({"folder": name, "kill": KILLS["in-an-epoch"] | {"signal": name}, "section": EVERY_STEP} for name in STOPS),
        {"folder": "frozen", "section": {"freeze_image_blocks": 5, "freeze_text_layers": 1, "num_epochs": 1}},
    ]
    launch(folder, [*uninterrupted, killed[0]], killed=True)
    launch(folder, [killed[1]], killed=True)
    lower = [
        {"folder": "bf16", "section": {"precision": "bf16"}},
        {"folder": "bf16-scattered", "section": {"precision": "bf16"}, "deepspeed": str(CONFIGS[3])},
        {"folder": "fp16", "section": {"precision": "fp16", "num_epochs": 6}},
        {"folder": "fp16-scattered", "section": {"precision": "fp16"}, "deepspeed": str(CONFIGS[1])},
    ]
    launch(folder, lower)  # a process of their own: DeepSpeed remembers for good that one run was in autocast
    for name in ("damaged", "all-damaged", "half-written"):
        shutil.copytree(folder / "in-an-epoch", folder / name)
    damage(checkpoints(folder / "damaged")[-1])
    for checkpoint in checkpoints(folder / "all-damaged"):
        damage(checkpoint)
    newest = checkpoints(folder / "half-written")[-1]
    damage(shutil.copy(newest, newest.with_name("step-11.pt")))
    (newest.with_name(".step-12.pt.partial")).write_bytes(newest.read_bytes()[:1000])
    shutil.copytree(folder / "reference", folder / "finished")
    resumed = [*KILLS, *STOPS, "damaged", "all-damaged", "half-written", "finished"]
    launch(folder, [{"folder": name} for name in resumed])
    return folder


def test_a_table_of_steps_holds_every_step_and_every_validation(runs: Path) -> None:
    steps = steps_of(runs / "reference")
    expected = [
        row
        for epoch in range(3)
        for row in [
            *(("train", epoch, STEPS_PER_EPOCH * epoch + step + 1) for step in range(STEPS_PER_EPOCH)),
            ("validation", epoch, STEPS_PER_EPOCH * (epoch + 1)),
        ]
    ]
    assert steps.select("split", "epoch", "step").rows() == expected
    train = steps.filter(pl.col("split") == "train")
    assert train["learning_rate"].head(5).to_list() == pytest.approx([0, 5e-4, 1e-3, 1.5e-3, 2e-3])


def test_the_loss_is_the_weighted_sum_of_its_terms(runs: Path) -> None:
    steps = steps_of(runs / "reference")
    total = steps["image_text"] + steps["image_image"] + 0.5 * steps["text_text"]
    assert steps["loss"].to_list() == pytest.approx(total.to_list(), rel=1e-5)


def test_the_same_job_twice_gives_the_same_bits(runs: Path) -> None:
    assert_same_run(runs / "again", runs / "reference")


def test_the_number_of_threads_does_not_matter(runs: Path) -> None:
    assert_same_run(runs / "more-threads", runs / "reference")


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_resumes_to_the_same_steps_and_bits(runs: Path, kill: str) -> None:
    assert_same_run(runs / kill, runs / "reference")


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_is_asked_to_stop_keeps_its_last_step_and_goes_on_to_the_same_bits(runs: Path, stop: str) -> None:
    message = (runs / stop / "error-0.txt").read_text()
    assert message == f"pretraining was asked to stop after step {STOPPED_AFTER} of 12; run it again"
    assert_same_run(runs / stop, runs / "reference")


def test_a_damaged_newest_checkpoint_does_not_stop_the_resume(runs: Path) -> None:
    assert_same_run(runs / "damaged", runs / "reference")


def test_with_no_readable_checkpoint_training_starts_again(runs: Path) -> None:
    assert_same_run(runs / "all-damaged", runs / "reference")


def test_a_half_written_checkpoint_is_none(runs: Path) -> None:
    assert_same_run(runs / "half-written", runs / "reference")


def test_a_finished_run_resumes_to_its_result(runs: Path) -> None:
    assert_same_run(runs / "finished", runs / "reference")


def test_the_model_is_that_of_the_epoch_with_the_lowest_validation_loss(runs: Path) -> None:
    losses = steps_of(runs / "overfitting").filter(pl.col("split") == "validation")["loss"].to_list()
    assert min(losses) < 0.8 * losses[-1]  # the last epoch is far from the best
    recomputed = float((runs / "overfitting" / "validation_loss.txt").read_text())
    assert recomputed == pytest.approx(min(losses), rel=1e-5)


def test_what_is_frozen_stays_and_the_rest_moves(runs: Path) -> None:
    initial, trained = (load_file(runs / "frozen" / f"{name}.safetensors") for name in ("initial", "0"))
    frozen = ("image_encoder._conv_stem", "image_encoder._bn0", *(f"image_encoder._blocks.{n}." for n in range(5)))
    same = {name for name in initial if torch.equal(initial[name], trained[name])}
    assert same == {name for name in initial if name.startswith((*frozen, "text_encoder."))}


@pytest.mark.parametrize("lower", ["bf16", "bf16-scattered", "fp16"])
def test_lower_precision_trains_to_nearly_the_same_validation_loss(runs: Path, lower: str) -> None:
    losses, expected = (steps_of(runs / name)["loss"].to_list() for name in (lower, "reference"))
    assert losses[-1] == pytest.approx(expected[-1], rel=0.02)
    assert losses[0] != expected[0]
    initial, trained = (load_file(runs / path) for path in ("frozen/initial.safetensors", f"{lower}/0.safetensors"))
    assert not torch.equal(initial["logit_scale"], trained["logit_scale"])
    assert {weights.dtype for weights in trained.values()} == {torch.float32, torch.int64}


def test_fp16_is_refused_where_its_loss_scale_would_never_fall(runs: Path) -> None:
    assert "fp16 works with ZeRO stage 0 alone" in (runs / "fp16-scattered" / "error-0.txt").read_text()


def test_a_loss_that_is_not_finite_ends_with_a_sentence(runs: Path) -> None:
    message = (runs / "diverging" / "error-0.txt").read_text()
    assert message.startswith("the train loss is not finite at step ")
    assert "pretrain.learning_rate" in message


def test_a_batch_larger_than_the_data_ends_with_the_arithmetic(runs: Path) -> None:
    message = (runs / "too-large" / "error-0.txt").read_text()
    assert "7 training breasts" in message
    assert "pretrain.global_batch_size=8" in message


@pytest.fixture(scope="module", params=[path.name for path in CONFIGS])
def two_processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes and one of which the second was killed, resumed."""
    folder = tmp_path_factory.mktemp("two-processes")
    deepspeed = str(next(path for path in CONFIGS if path.name == request.param))
    # The clocks of the two run apart (see pretrain_process.py), and a checkpoint is due every few steps.
    section = {"global_batch_size": 4, "checkpoint_minutes": 0.3 / 60}
    jobs = [
        {"folder": "reference", "deepspeed": deepspeed, "section": section},
        {"folder": "too-few", "deepspeed": deepspeed, "section": section, "num_validation": 1},
    ]
    kill = {"rank": 1, "split": "train", "step": STEPS_PER_EPOCH}
    resumed = {"folder": "resumed", "deepspeed": deepspeed, "section": section | EVERY_STEP}
    launch(folder, [*jobs, resumed | {"kill": kill}], processes=2, killed=True)
    launch(folder, [resumed], processes=2)
    shrunk = {"folder": "shrunk", "deepspeed": deepspeed, "section": section | EVERY_STEP}
    launch(folder, [shrunk | {"kill": kill}], processes=2, killed=True)
    shutil.copytree(folder / "shrunk", folder / "killed")
    launch(folder, [shrunk])
    return folder


def test_processes_end_with_the_same_weights(two_processes: Path) -> None:
    one, other = (load_file(two_processes / "reference" / f"{rank}.safetensors") for rank in range(2))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_processes_keep_the_same_table_of_steps(two_processes: Path) -> None:
    one, other = (steps_of(two_processes / "reference", rank) for rank in range(2))
    assert one.filter(pl.col("split") == "validation")["epoch"].to_list() == [0, 1, 2]
    assert one.equals(other)


def test_a_killed_run_of_two_processes_resumes_to_the_same_steps_and_bits(two_processes: Path) -> None:
    for rank in range(2):
        assert_same_run(two_processes / "resumed", two_processes / "reference", rank)


def test_fewer_validation_breasts_than_processes_end_with_a_sentence(two_processes: Path) -> None:
    assert "1 validation breasts" in (two_processes / "too-few" / "error-0.txt").read_text()


def test_a_run_goes_on_with_another_number_of_processes(two_processes: Path) -> None:
    killed, shrunk = checkpoints(two_processes / "killed")[-1], steps_of(two_processes / "shrunk")
    reference = steps_of(two_processes / "reference")
    done = int(killed.stem.removeprefix("step-"))
    assert 0 < done < 9
    before = shrunk.filter(pl.col("step") <= done, pl.col("split") == "train")
    assert before.equals(reference.filter(pl.col("step") <= done, pl.col("split") == "train"))
    # Dropout and batch statistics are those of a process; the examples of a step are the same (test_batches).
    assert shrunk.select("split", "epoch", "step", "learning_rate").equals(
        reference.select("split", "epoch", "step", "learning_rate")
    )
    assert shrunk["loss"].is_finite().all()
