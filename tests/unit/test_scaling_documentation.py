from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_scaling", ROOT / "benchmarks" / "bench_scaling.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_tables_are_those_of_the_benchmark(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_scaling.py", "--no-measurement"])
    bench.main()
    documented = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in documented, "run python benchmarks/bench_scaling.py and copy what it prints"


@pytest.mark.parametrize("way", ["flat", "hierarchical"])
@pytest.mark.parametrize("gpus", [2, 8, 16, 64])
def test_the_walked_schedule_takes_the_time_of_the_formula(bench: Any, way: str, gpus: int) -> None:
    network = bench.Network(intra=3e11, inter=2.5e10, intra_latency=3e-6, inter_latency=1e-5)
    for size in (1e4, 1e6, 5e8):
        assert bench.simulate(network, gpus, size, way) == pytest.approx(getattr(network, way)(gpus, size, 2), rel=0.05)
