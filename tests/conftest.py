from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Snakemake = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    """Run the real Snakemake in the checkout; the stages' ``python`` is the one that runs the tests."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        folder = Path(sys.executable).parent
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run
