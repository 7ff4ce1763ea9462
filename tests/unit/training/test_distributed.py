"""Two real processes (gloo) against one: the global batch must not know how many processes divide it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mammoclip.errors import ConfigError
from mammoclip.training.distributed import check_gpus, start_processes
from tests.unit.training import worker

HERE = Path(__file__).parent
CONFIGS = sorted((HERE.parents[2] / "workflow" / "deepspeed").glob("*.json"))
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT_SECONDS = 120
DEFAULT = ("multi_view", True)

Case = tuple[str, bool]  # objective, with masks
each_case = pytest.mark.parametrize("case", worker.CASES)


def run_processes(number: int, out: Path) -> list[dict[str, Any]]:
    """Run ``worker.py`` in that many processes; a single one starts without a launcher's environment."""
    base = {name: value for name, value in os.environ.items() if name not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        launcher = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    try:
        for rank in range(number):
            own = {} if number == 1 else {**launcher, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, str(HERE / "worker.py"), str(out), *map(str, CONFIGS)]
            with (out / f"{rank}.log").open("w") as log:
                processes.append(subprocess.Popen(command, env=base | own, stdout=log, stderr=subprocess.STDOUT))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if any(process.poll() for process in processes):
                break  # one failed; the others would wait for it for ever
            time.sleep(0.05)
        codes = [process.poll() for process in processes]
        assert codes == [0] * number, [(out / f"{rank}.log").read_text() for rank in range(number)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [torch.load(out / f"{rank}.pt") for rank in range(number)]


@pytest.fixture(scope="module", params=[1, 2])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of one or two processes computed."""
    return run_processes(request.param, tmp_path_factory.mktemp(f"processes-{request.param}"))


@pytest.fixture(scope="module")
def expected() -> dict[Case, dict[str, dict[str, Tensor]]]:
    """The same in this process, on the whole batch, with plain torch."""
    return {case: on_the_whole_batch(*case) for case in worker.CASES}


def on_the_whole_batch(objective: str, masked: bool) -> dict[str, dict[str, Tensor]]:
    model = worker.make_model(objective)
    terms = worker.loss_terms(model, 0, 1, objective, masked)
    terms["loss"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"terms": {name: term.detach() for name, term in terms.items()}, "gradients": gradients}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].reshape(value.shape), value, atol=atol, rtol=1e-5)


def test_processes_know_their_rank(found: list[dict[str, Any]]) -> None:
    assert [(f["rank"], f["world_size"]) for f in found] == [(rank, len(found)) for rank in range(len(found))]


def test_what_is_decided_together_is_decided_by_process_0(found: list[dict[str, Any]]) -> None:
    assert [f["decided"] for f in found] == [5] * len(found)


def test_the_mean_over_processes_is_the_same_everywhere_and_without_gradient(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert process["mean"].tolist() == [4.0, 0.0 if len(found) == 1 else 1.0]
        assert not process["mean"].requires_grad


def test_everyone_gathers_all_rows_in_the_order_of_ranks(found: list[dict[str, Any]]) -> None:
    everyone = torch.cat([torch.arange(6.0).reshape(2, 3) + 10 * rank for rank in range(len(found))])
    strided = torch.cat([torch.tensor([[0.0, 2, 4], [1, 3, 5]]) + rank for rank in range(len(found))])
    for process in found:
        assert torch.equal(process["gather"]["gathered"], everyone)
        assert process["gather"]["integers"].tolist() == [n for rank in range(len(found)) for n in (rank, 7)]
        assert torch.equal(process["gather"]["strided"], strided)


def test_the_gradient_of_gathered_rows_is_summed_over_processes(found: list[dict[str, Any]]) -> None:
    total = sum(worker.gather_weights(rank, len(found)) for rank in range(len(found)))
    for rank, process in enumerate(found):
        assert torch.equal(process["gather"]["gradient"], total[2 * rank : 2 * rank + 2])


def test_gathering_leaves_the_gradients_of_others_alone(found: list[dict[str, Any]]) -> None:
    for rank, process in enumerate(found):
        assert torch.equal(process["gather"]["gradient_beside"], worker.gather_weights(rank, len(found)))


@each_case
@pytest.mark.parametrize("terms", ["terms", "cached_terms"])
def test_the_mean_loss_of_processes_is_that_of_the_whole_batch(
    found: list[dict[str, Any]], expected: dict[Case, Any], case: Case, terms: str
) -> None:
    names = expected[case]["terms"]
    means = {name: sum(f["cases"][case][terms][name] for f in found) / len(found) for name in names}
    assert_same(means, expected[case]["terms"])


@each_case
def test_averaged_gradients_are_those_of_the_whole_batch(
    found: list[dict[str, Any]], expected: dict[Case, Any], case: Case
) -> None:
    assert all(gradient.abs().max() > 1e-3 for gradient in expected[case]["gradients"].values())
    for process in found:
        assert_same(process["cases"][case]["gradients"], expected[case]["gradients"])


@each_case
def test_replayed_micro_batches_have_the_gradients_of_the_whole_batch(
    found: list[dict[str, Any]], expected: dict[Case, Any], case: Case
) -> None:
    for process in found:
        assert_same(process["cases"][case]["cached_gradients"], expected[case]["gradients"])


@pytest.mark.parametrize("config", [path.name for path in CONFIGS])
def test_the_deepspeed_engine_averages_to_the_gradients_of_the_whole_batch(
    found: list[dict[str, Any]], expected: dict[Case, Any], config: str
) -> None:
    losses = [f["engines"][config]["loss"] for f in found]
    torch.testing.assert_close(sum(losses) / len(found), expected[DEFAULT]["terms"]["loss"])
    for process in found:
        assert_same(process["engines"][config]["gradients"], expected[DEFAULT]["gradients"])


@pytest.mark.parametrize("config", [path.name for path in CONFIGS])
def test_one_step_of_the_deepspeed_engine_is_one_step_of_plain_adamw(
    found: list[dict[str, Any]], expected: dict[str, Any], config: str
) -> None:
    model = worker.make_model()
    worker.loss_terms(model, 0, 1)["loss"].backward()
    clipping = next(json.loads(path.read_text())["gradient_clipping"] for path in CONFIGS if path.name == config)
    assert clipping < torch.nn.utils.clip_grad_norm_(model.parameters(), clipping)  # it does clip
    torch.optim.AdamW(model.parameters(), lr=worker.LEARNING_RATE).step()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for process in found:
        assert_same(process["engines"][config]["weights"], weights, atol=1e-5)


def test_more_gpus_than_are_visible_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(0)
    check_gpus(2)
    with pytest.raises(ConfigError, match=rf"pretrain\.gpus is 4, but {socket.gethostname()} shows 2; lower it"):
        check_gpus(4)


def test_a_missing_deepspeed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.setenv(name, "0")  # as under a launcher
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"pretraining needs DeepSpeed .*; pip install deepspeed"):
        start_processes()


LOST = """
import datetime, os, signal
from mammoclip.training import distributed
distributed._LOST_AFTER = datetime.timedelta(seconds=5)
rank, _ = distributed.start_processes()
if rank:
    os.kill(os.getpid(), signal.SIGSTOP)  # its connections stay open, as those of a node that is cut off
distributed.decide_together(1)
"""


def test_a_peer_that_says_nothing_any_more_ends_the_run() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        values = ("0", "0", "2", "127.0.0.1", str(free.getsockname()[1]))
    base = {**os.environ, **dict(zip(LAUNCHER, values, strict=True)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOST]
    lost = subprocess.Popen(command, env={**base, "RANK": "1", "LOCAL_RANK": "1"})
    try:
        waiting = subprocess.run(command, env=base, capture_output=True, text=True, timeout=60, check=False)
    finally:
        lost.kill()
        lost.wait()
    assert waiting.returncode and "Timed out" in waiting.stderr, waiting.stderr
