"""What ends a training from outside: a process that dies beside the others, a disk that is full.

The tiny model of ``pretrain_process`` writes checkpoints of about 41 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "workflow" / "deepspeed" / "zero0.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SECONDS_TO_END = 60


def write_jobs(folder: Path, jobs: list[dict[str, Any]]) -> list[str]:
    """Write the jobs and return what runs them."""
    jobs = [{"deepspeed": str(CONFIG), **job, "folder": str(folder / job["folder"])} for job in jobs]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    return [str(HERE / "pretrain_process.py"), str(folder / "jobs.json")]


def run_two(folder: Path, jobs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *write_jobs(folder, jobs)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def test_when_a_process_dies_the_others_end_within_a_minute_and_the_rerun_goes_on(tmp_path: Path) -> None:
    section = {"global_batch_size": 4, "checkpoint_minutes": 1e-9}
    killed = {"folder": "killed", "section": section, "kill": {"rank": 1, "split": "train", "step": 4}}
    died = run_two(tmp_path, [{"folder": "reference", "section": section}, killed])
    ended = time.time()
    newest = max((tmp_path / "killed" / "work").glob("step-*.pt"), key=lambda path: path.stat().st_mtime)
    assert died.returncode != 0
    assert ended - newest.stat().st_mtime < SECONDS_TO_END
    assert not (tmp_path / "killed" / "steps-0.parquet").exists()

    assert run_two(tmp_path, [{"folder": "killed", "section": section}]).returncode == 0
    resumed, reference = (tmp_path / name for name in ("killed", "reference"))
    assert pl.read_parquet(resumed / "steps-0.parquet").equals(pl.read_parquet(reference / "steps-0.parquet"))
    weights, expected = (load_file(folder / "0.safetensors") for folder in (resumed, reference))
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_a_full_disk_is_one_sentence_and_with_room_the_run_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "full" / "work"
    work.mkdir(parents=True)
    kept = tmp_path / "kept"
    command = [sys.executable, *write_jobs(tmp_path, [{"folder": "full"}])]
    script = (
        'mount -t tmpfs -o size=110m tmpfs "$0" && kept=$1 && shift && { "$@"; status=$?; cp -r "$0" "$kept"; '
        "exit $status; }"
    )
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(work), str(kept)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "missing: a user namespace, in which a small disk is mounted; whoever runs the machine allows it "
            "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
        )
    kept.rmdir()
    run = subprocess.run([*inside, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    message = (tmp_path / "full" / "error-0.txt").read_text()
    assert message.endswith("cannot be written: the disk is full; make room and rerun")
    whole = sorted(path.name for path in kept.glob("*") if path.suffix == ".pt")
    assert whole and not list(kept.glob("*.partial")) and not list(kept.glob(".*.partial"))

    work.rmdir()
    kept.rename(work)
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0 and "resuming after step" in (again.stdout + again.stderr)
    assert len(pl.read_parquet(tmp_path / "full" / "steps-0.parquet")) == 15
