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
        "extract_features": 6,
        "embed_prompts": 3,
        "classify": 6,
        "build_paper": 1,
        "all": 1,
        "total": 34,
    }


@pytest.mark.parametrize(
    ("target", "last_rule"),
    [
        ("index", "index_dataset"),
        ("shard", "gather_shards"),
        ("tabulate", "paraphrase_texts"),
        ("pretrain", "train_clip"),
        ("evaluate", "classify"),
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
        *("train_clip", "extract_features", "embed_prompts", "classify", "build_paper"),
    ]
    wanted = street[: street.index(last_rule) + 1]
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
