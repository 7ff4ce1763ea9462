"""What Snakemake plans, without running anything."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Snakemake = Callable[..., subprocess.CompletedProcess[str]]
DEMO = ("--configfile", "workflow/demo.yaml")
EVALUATION = (
    *("extract_features", "embed_prompts", "predict_zero_shot", "fit_probe", "fine_tune", "retrieve"),
    "compute_metrics",
)


def planned_jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from the first table that a dry run prints."""
    table = output.split("Job stats:")[1].split("\n\n", maxsplit=1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


def test_the_demo_plans_every_stage_once_per_data_set_run_and_shard(snakemake: Snakemake, tmp_path: Path) -> None:
    plan = snakemake("--dry-run", *DEMO, "--config", f"results={tmp_path}")
    assert plan.returncode == 0, plan.stderr
    assert planned_jobs(plan.stdout + plan.stderr) == {
        "generate_phantom": 1,
        "index_dataset": 2,
        "crop_shard": 4,
        "gather_shards": 2,
        "describe_shards": 2,
        "tabulate_dataset": 2,
        "paraphrase_texts": 1,
        "train_clip": 3,
        "extract_features": 4,
        "embed_prompts": 3,
        "predict_zero_shot": 12,
        "fit_probe": 15,
        "fine_tune": 2,
        "compute_metrics": 3,
        "retrieve": 3,
        "train_detector": 1,
        "train_factor": 1,
        "compute_localization": 1,
        "build_paper": 1,
        "all": 1,
        "total": 64,
    }


@pytest.mark.parametrize(
    ("target", "last_rule"),
    [
        ("index", "index_dataset"),
        ("shard", "gather_shards"),
        ("tabulate", "paraphrase_texts"),
        ("pretrain", "train_clip"),
        ("evaluate", "compute_metrics"),
        ("localize", "compute_localization"),
        ("paper", "build_paper"),
    ],
)
def test_each_stage_is_a_target_that_stops_there(
    target: str, last_rule: str, snakemake: Snakemake, tmp_path: Path
) -> None:
    plan = snakemake("--dry-run", *DEMO, "--config", f"results={tmp_path}", "--", target)
    assert plan.returncode == 0, plan.stderr
    street = [
        *("generate_phantom", "index_dataset", "crop_shard", "gather_shards", "tabulate_dataset", "paraphrase_texts"),
        *("train_clip", "extract_features", "embed_prompts", "predict_zero_shot", "fit_probe", "fine_tune"),
        *("retrieve", "compute_metrics", "train_detector", "train_factor", "compute_localization", "build_paper"),
    ]
    wanted = street[: street.index(last_rule) + 1]
    if target == "localize":  # it needs the models, not their evaluation
        wanted = [rule for rule in wanted if rule not in EVALUATION]
    page = {"describe_shards"} if target == "shard" else set()  # beside the street: nothing is made from it
    assert planned_jobs(plan.stdout + plan.stderr).keys() == {*wanted, *page, target, "total"}


def test_vindr_at_its_real_size_plans_in_seconds(snakemake: Snakemake, tmp_path: Path) -> None:
    start = time.monotonic()
    plan = snakemake("--dry-run", "--config", f"results={tmp_path}")
    assert plan.returncode == 0, plan.stderr
    assert planned_jobs(plan.stdout + plan.stderr)["crop_shard"] == 64
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_profiles_are_accepted(profile: str, snakemake: Snakemake, tmp_path: Path) -> None:
    arguments = ("--workflow-profile", f"workflow/profiles/{profile}", "--config", f"results={tmp_path}")
    plan = snakemake("--dry-run", *DEMO, *arguments)
    assert plan.returncode == 0, plan.stderr


def test_an_unknown_key_is_refused_with_the_nearest_valid_one(snakemake: Snakemake, tmp_path: Path) -> None:
    override = tmp_path / "wrong.yaml"
    override.write_text(yaml.safe_dump({"shard": {"height_mm": 240}}), encoding="utf-8")
    plan = snakemake("--dry-run", "--configfile", override)
    assert plan.returncode == 1
    assert "unknown key 'shard.height_mm'; did you mean 'height_px'?" in plan.stdout + plan.stderr
    assert "Traceback" not in plan.stdout + plan.stderr


def test_a_value_of_the_wrong_type_is_refused_by_name(snakemake: Snakemake, tmp_path: Path) -> None:
    override = tmp_path / "wrong.yaml"
    override.write_text(yaml.safe_dump({"pretrain": {"global_batch_size": "eight"}}), encoding="utf-8")
    plan = snakemake("--dry-run", "--configfile", override)
    assert plan.returncode == 1
    assert "pretrain.global_batch_size" in plan.stdout + plan.stderr


def test_every_rule_declares_log_benchmark_threads_memory_and_runtime() -> None:
    for path in sorted((ROOT / "rules").glob("*.smk")):
        rules = re.split(r"^rule ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        for rule in rules:
            for part in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "shell:", "stage="):
                assert part in rule, f"{path.name}: {rule.splitlines()[0]} lacks {part}"


@pytest.mark.parametrize(("recipe", "runs"), [("compat", 4), ("strict", 0)])
def test_the_recipes_plan_their_runs(recipe: str, runs: int, snakemake: Snakemake, tmp_path: Path) -> None:
    """Beside the runs of config.yaml, two of which train; the embedded reports stand for one's own."""
    arguments = ("--configfile", "config.yaml", f"workflow/recipes/{recipe}.yaml", "--config", f"results={tmp_path}")
    plan = snakemake("--dry-run", *arguments, "--", "pretrain")
    assert plan.returncode == 0, plan.stderr
    assert planned_jobs(plan.stdout + plan.stderr)["train_clip"] == 3 + runs


def test_the_full_matrix_of_the_paper_plans_in_seconds(snakemake: Snakemake, tmp_path: Path) -> None:
    """VinDr-Mammo and RSNA, as released: a probe is trained with augmentation there, as an encoder is fine-tuned."""
    arguments = ("--configfile", "config.yaml", "workflow/recipes/compat.yaml", "--config", f"results={tmp_path}")
    start = time.monotonic()
    plan = snakemake("--dry-run", *arguments, "--", "evaluate")
    assert plan.returncode == 0, plan.stderr
    jobs = planned_jobs(plan.stdout + plan.stderr)
    runs, findings = 7, 3
    assert jobs["predict_zero_shot"] == runs * (findings + 1)
    assert jobs["fine_tune"] == runs * (findings * (3 + 1) + 1 + 3)
    assert "fit_probe" not in jobs
    assert time.monotonic() - start < 60


def test_the_localisation_charts_of_the_paper_are_planned_for_every_encoder(
    snakemake: Snakemake, tmp_path: Path
) -> None:
    """Mass and calcification: frozen encoders on all patients, fine-tuned ones on 10, 50 and 100 %."""
    arguments = ("--configfile", "config.yaml", "workflow/recipes/compat.yaml", "--config", f"results={tmp_path}")
    plan = snakemake("--dry-run", *arguments, "--", "localize")
    assert plan.returncode == 0, plan.stderr
    jobs = planned_jobs(plan.stdout + plan.stderr)
    runs, findings = 4, 2
    assert jobs["train_detector"] == runs * findings * (1 + 3)


def test_a_row_more_in_the_matrix_adds_its_jobs(snakemake: Snakemake, tmp_path: Path) -> None:
    override = tmp_path / "matrix.yaml"
    demo = yaml.safe_load((ROOT / "workflow" / "demo.yaml").read_text(encoding="utf-8"))
    row = {
        "runs": ["mammo-clip"],
        "datasets": ["phantom"],
        "tasks": ["mass"],
        "protocols": ["fine-tune"],
        "seeds": [0, 1],
    }
    override.write_text(yaml.safe_dump({"evaluate": {"matrix": [*demo["evaluate"]["matrix"], row]}}), encoding="utf-8")
    plan = snakemake("--dry-run", *DEMO, override, "--config", f"results={tmp_path}")
    assert plan.returncode == 0, plan.stderr
    jobs = planned_jobs(plan.stdout + plan.stderr)
    assert (jobs["fine_tune"], jobs["total"]) == (4, 64 + 2)


@pytest.mark.parametrize(("gpus", "processes", "resources"), [(0, 1, ("gpu=0",)), (4, 4, ("gpu=8", "gres=gpu:4"))])
def test_a_run_of_two_nodes_is_started_by_srun_with_a_task_a_node(
    gpus: int, processes: int, resources: tuple[str, ...], snakemake: Snakemake, tmp_path: Path
) -> None:
    override = tmp_path / "nodes.yaml"
    runs = {
        "two": {"changes": {"nodes": 2, "gpus": gpus}},
        "initial": {"control": "untrained", "changes": {"nodes": 2}},
    }
    override.write_text(yaml.safe_dump({"pretrain": {"runs": runs}}), encoding="utf-8")
    snakefile = tmp_path / "Snakefile"  # a job without a message is told with its resources
    message = "workflow.get_rule('train_clip').message = None"
    snakefile.write_text(f"include: {str(ROOT / 'Snakefile')!r}\n{message}\n", encoding="utf-8")
    profile = ("--workflow-profile", "workflow/profiles/slurm", "--config", f"results={tmp_path}")
    arguments = ("--snakefile", snakefile, *DEMO, override, *profile, "--printshellcmds")
    models = [tmp_path / "pretrain" / run / "model.safetensors" for run in runs]
    plan = snakemake("--dry-run", *arguments, "--", *models)
    assert plan.returncode == 0, plan.stderr
    told = plan.stdout + plan.stderr
    two, initial = (next(job for job in told.split("\n\n") if f"wildcards: run={run}\n" in job) for run in runs)
    torchrun = "torchrun --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    agents = f"{torchrun} --nnodes 2 --nproc-per-node {processes} --rdzv-backend c10d"
    assert f"srun --nodes 2 --ntasks-per-node 1 --cpus-per-task {processes} {agents}" in two
    assert " -m -- pipelines.pretrain --config " in two
    wanted = {"nodes=2", "tasks=2", "mpi=srun", *resources}
    assert wanted <= set(re.search(r"resources: (.*)", two)[1].split(", ")), two
    assert "Shell command: python -m pipelines.pretrain" in initial and "mpi=" not in initial  # a single process
