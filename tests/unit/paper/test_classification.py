import csv
import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import METRICS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.classification import classification_csv, classification_grid, compare_with_controls
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.wording import format_interval


def test_every_cell_is_the_metric_of_its_run(inputs: Inputs, evaluate: EvaluateSection, results: Path) -> None:
    grid = classification_grid(inputs, evaluate)
    names = {"Mass": "mass", "Suspicious calcification": "suspicious_calcification", "Breast density": "density"}
    metrics = {"AUROC": "auroc", "balanced accuracy": "balanced_accuracy", "quadratic kappa": "kappa"}
    compared = 0
    for row in grid.rows:
        if row[2] not in metrics:
            continue
        for column, run in enumerate(grid.header[4:7], start=4):
            table = read_table(METRICS, results / "evaluate" / run / "cohort" / "metrics.parquet")
            found = table.filter(task=names[row[1]], metric=metrics[row[2]], protocol=row[3])
            value, low, high, n = found.select("value", "ci_low", "ci_high", "n").row(0)
            assert row[column] == format_interval(value, low, high)
            assert row[7] == str(n)
            compared += 1
    assert compared >= 3 * 3 * 4


def test_columns_are_the_main_run_then_the_others(inputs: Inputs, evaluate: EvaluateSection) -> None:
    assert classification_grid(inputs, evaluate).header == [
        "Data set", "Task", "Metric", "Protocol", "main-run", "untrained", "shuffled_reports",
        "Images", "Positive", "Patients",
    ]  # fmt: skip


def test_every_task_has_every_protocol(inputs: Inputs, evaluate: EvaluateSection) -> None:
    groups = classification_grid(inputs, evaluate).groups()
    assert {group[0][1] for group in groups} == {"Mass", "Suspicious calcification", "Breast density"}
    assert all(
        [row[3] for row in group] == ["zero-shot", "zero-shot-random", "probe", "probe-shuffled"] for group in groups
    )


def test_the_csv_holds_every_metric_in_full_precision(inputs: Inputs) -> None:
    rows = list(csv.DictReader(io.StringIO(classification_csv(inputs))))
    assert len(rows) == sum(len(run.metrics) for run in inputs.runs)
    assert rows[0]["run"] == "main-run"
    assert rows[0]["control"] == "none"
    assert float(rows[0]["value"]) == inputs.main.metrics["value"][0]


@pytest.fixture
def undefined(results: Path, load: Callable[[], Inputs]) -> Inputs:
    """Give the main run no value for mass by zero-shot."""
    path = results / "evaluate" / "main-run" / "cohort" / "metrics.parquet"
    chosen = (pl.col("task") == "mass") & (pl.col("protocol") == "zero-shot")
    gone = [pl.when(chosen).then(float("nan")).otherwise(name).alias(name) for name in ("value", "ci_low", "ci_high")]
    write_table(read_table(METRICS, path).with_columns(gone), METRICS, path)
    return load()


def test_an_undefined_metric_is_shown_as_not_available(undefined: Inputs, evaluate: EvaluateSection) -> None:
    rows = classification_grid(undefined, evaluate).rows
    assert next(row for row in rows if row[1] == "Mass" and row[3] == "zero-shot")[4] == "n/a"
    assert "mass,zero-shot,auroc,n/a,n/a,n/a," in classification_csv(undefined)


def test_an_undefined_metric_is_not_compared(undefined: Inputs, evaluate: EvaluateSection) -> None:
    comparison = compare_with_controls(undefined, evaluate)[0]
    assert (comparison.value, comparison.interval, list(comparison.above)) == ("n/a", "", [])


def test_the_answer_compares_intervals_with_every_control(inputs: Inputs, evaluate: EvaluateSection) -> None:
    comparisons = compare_with_controls(inputs, evaluate)
    assert [(c.task, c.protocol) for c in comparisons] == [
        ("Mass", "zero-shot"),
        ("Mass", "probe"),
        ("Suspicious calcification", "zero-shot"),
        ("Suspicious calcification", "probe"),
    ]
    for comparison in comparisons:
        assert [name for name, _ in comparison.controls] == ["untrained", "shuffled_reports"]
        low = float(comparison.interval[1:].split(",")[0])
        highs = [float(text.split(", ")[1].rstrip("]")) for _, text in comparison.controls]
        assert list(comparison.above) == [low > high for high in highs]


def test_a_metric_that_a_run_lacks_names_the_file(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "untrained" / "cohort" / "metrics.parquet"
    write_table(read_table(METRICS, path).filter(pl.col("protocol") != "probe"), METRICS, path)
    with pytest.raises(ArtifactError, match=r"evaluate/untrained/cohort/metrics\.parquet"):
        classification_grid(load(), evaluate)


def test_a_task_without_metrics_names_the_file(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "main-run" / "cohort" / "metrics.parquet"
    write_table(read_table(METRICS, path).filter(pl.col("task") != "density"), METRICS, path)
    with pytest.raises(ArtifactError, match=r"evaluate/main-run/cohort/metrics\.parquet: no macro_auroc"):
        classification_grid(load(), evaluate)


def test_runs_tested_on_different_images_are_not_put_side_by_side(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "untrained" / "cohort" / "metrics.parquet"
    write_table(read_table(METRICS, path).with_columns(n=pl.col("n") - 1), METRICS, path)
    with pytest.raises(ArtifactError, match="same images of 'cohort'"):
        classification_grid(load(), evaluate)
