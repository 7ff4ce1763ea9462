import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import METRICS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.classification import (
    classification_csv,
    classification_grid,
    compare_with_controls,
    summarise_seeds,
)
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.wording import format_interval

NAMES = {"Mass": "mass", "Suspicious calcification": "suspicious_calcification", "Breast density": "density"}
TRAIN = {"-": 0.0, "50 %": 0.5, "100 %": 1.0}


def _with_metrics(inputs: Inputs, *metrics: pl.DataFrame) -> Inputs:
    """Return the inputs with the metrics of the first runs replaced."""
    changed = [replace(run, metrics=table) for run, table in zip(inputs.runs, metrics, strict=False)]
    return replace(inputs, runs=[*changed, *inputs.runs[len(changed) :]])


def _row(grid: Grid, *labels: str) -> list[str]:
    (row,) = [list(row) for row in grid.rows if tuple(row[: len(labels)]) == labels]
    return row


def test_every_cell_is_the_metric_of_its_run(inputs: Inputs, evaluate: EvaluateSection, results: Path) -> None:
    grid = classification_grid(inputs, evaluate)
    metrics = {
        "AUROC": ("auroc", "image"),
        "AUROC (breast)": ("auroc", "breast"),
        "macro AUROC": ("macro_auroc", "image"),
        "balanced accuracy": ("balanced_accuracy", "image"),
        "quadratic kappa": ("kappa", "image"),
    }
    pooling = {"image": "none", "breast": "mean"}
    tables = {
        run: read_table(METRICS, results / "evaluate" / run / "cohort" / "metrics.parquet") for run in grid.header[5:8]
    }
    for row in grid.rows:
        metric, level = metrics[row[2]]
        for column, run in enumerate(grid.header[5:8], start=5):
            found = tables[run].filter(
                task=NAMES[row[1]], metric=metric, level=level, pooling=pooling[level], protocol=row[3],
                fraction=TRAIN[row[4]], subgroup="all",
            )  # fmt: skip
            value, low, high, n = found.select("value", "ci_low", "ci_high", "n").row(0)
            assert len(found) == 1
            assert row[column] == format_interval(value, low, high)
            assert row[8] == str(n)
    assert {row[2] for row in grid.rows} == set(metrics)


def test_columns_are_the_main_run_then_the_others(inputs: Inputs, evaluate: EvaluateSection) -> None:
    assert classification_grid(inputs, evaluate).header == [
        "Data set", "Task", "Metric", "Protocol", "Train", "main-run", "untrained", "shuffled_reports",
        "Cases", "Positive", "Patients",
    ]  # fmt: skip


def test_every_task_has_every_protocol_and_fraction(inputs: Inputs, evaluate: EvaluateSection) -> None:
    groups = classification_grid(inputs, evaluate).groups()
    trained = [(name, share) for name in ("linear-probe", "linear-probe-shuffled") for share in ("50 %", "100 %")]
    expected = [("zero-shot", "-"), ("zero-shot-random", "-"), *trained]
    assert {group[0][1] for group in groups} == set(NAMES)
    for group in groups:
        found = [tuple(row[3:5]) for row in group]
        if group[0][1] == "Breast density":
            assert found == [*expected, ("majority", "-")]
        elif group[0][2] == "AUROC":
            assert found == expected
        else:  # of breasts there is no control
            assert found == [expected[0], *trained[:2]]


def test_metrics_depend_on_the_number_of_classes_and_not_on_the_name(inputs: Inputs, evaluate: EvaluateSection) -> None:
    names = {"density": "birads", "mass": "my_finding"}
    runs = [
        replace(
            run,
            metrics=run.metrics.with_columns(pl.col("task").replace(names)),
            predictions={k: table.with_columns(pl.col("task").replace(names)) for k, table in run.predictions.items()},
        )
        for run in inputs.runs
    ]
    section = EvaluateSection.model_validate(
        {
            **evaluate.model_dump(),
            "matrix": [
                {**row.model_dump(), "tasks": ["my_finding", "suspicious_calcification", "birads"]}
                for row in evaluate.matrix
            ],
            "tasks": {"my_finding": {"attribute": "mass"}},
        }
    )
    groups = classification_grid(replace(inputs, runs=runs), section).groups()
    assert [tuple(group[0][1:3]) for group in groups] == [
        ("My finding", "AUROC"), ("My finding", "AUROC (breast)"),
        ("Suspicious calcification", "AUROC"), ("Suspicious calcification", "AUROC (breast)"),
        ("BI-RADS", "macro AUROC"), ("BI-RADS", "balanced accuracy"), ("BI-RADS", "quadratic kappa"),
    ]  # fmt: skip


def test_breasts_of_one_image_each_are_not_shown_twice(inputs: Inputs, evaluate: EvaluateSection) -> None:
    same = [run.metrics.with_columns(n=pl.lit(23, pl.Int32)) for run in inputs.runs]
    metrics = {row[2] for row in classification_grid(_with_metrics(inputs, *same), evaluate).rows}
    assert "AUROC" in metrics
    assert "AUROC (breast)" not in metrics


def test_the_csv_holds_every_metric_in_full_precision(inputs: Inputs) -> None:
    rows = list(csv.DictReader(io.StringIO(classification_csv(inputs))))
    assert len(rows) == sum(len(run.metrics) for run in inputs.runs)
    assert rows[0]["run"] == "main-run"
    assert rows[0]["control"] == "none"
    assert float(rows[0]["value"]) == inputs.main.metrics["value"][0]
    assert {"auprc", "pf1"} <= {row["metric"] for row in rows}


@pytest.fixture
def undefined(results: Path, load: Callable[[], Inputs]) -> Inputs:
    """Give the main run no value for mass by zero-shot."""
    path = results / "evaluate" / "main-run" / "cohort" / "metrics.parquet"
    chosen = (pl.col("task") == "mass") & (pl.col("protocol") == "zero-shot") & (pl.col("metric") == "auroc")
    gone = [pl.when(~chosen).then(name).alias(name) for name in ("value", "ci_low", "ci_high")]
    why = pl.when(chosen).then(pl.lit("no image of class 1 is tested")).otherwise("reason").alias("reason")
    write_table(read_table(METRICS, path).with_columns(*gone, why), METRICS, path)
    return load()


def test_an_undefined_metric_is_shown_as_not_available(undefined: Inputs, evaluate: EvaluateSection) -> None:
    assert _row(classification_grid(undefined, evaluate), "cohort", "Mass", "AUROC", "zero-shot")[5] == "n/a"
    rows = csv.DictReader(io.StringIO(classification_csv(undefined)))
    row = next(row for row in rows if (row["run"], row["task"], row["metric"]) == ("main-run", "mass", "auroc"))
    assert (row["value"], row["ci_low"], row["reason"]) == ("n/a", "n/a", "no image of class 1 is tested")


def test_an_undefined_metric_is_not_compared(undefined: Inputs, evaluate: EvaluateSection) -> None:
    headline = compare_with_controls(undefined, evaluate)[0]
    assert (headline.value, headline.interval, list(headline.above)) == ("n/a", "", [])


def test_the_answer_compares_intervals_with_every_control(inputs: Inputs, evaluate: EvaluateSection) -> None:
    headlines = compare_with_controls(inputs, evaluate)
    assert [(headline.task, headline.protocol, headline.fraction) for headline in headlines] == [
        ("Mass", "zero-shot", 0.0),
        ("Mass", "linear-probe", 1.0),
        ("Suspicious calcification", "zero-shot", 0.0),
        ("Suspicious calcification", "linear-probe", 1.0),
    ]
    for headline in headlines:
        assert [name for name, _ in headline.controls] == ["untrained", "shuffled_reports"]
        low = float(headline.interval[1:].split(",")[0])
        highs = [float(text.split(", ")[1].rstrip("]")) for _, text in headline.controls]
        assert list(headline.above) == [low > high for high in highs]


def test_the_answer_says_what_of_it_is_not_usual(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = inputs.main.metrics.filter(pl.col("fraction") < 1).with_columns(mode=pl.lit("compat"))
    hows = [headline.how for headline in compare_with_controls(_with_metrics(inputs, table), evaluate)]
    assert hows[:2] == ["zero-shot, compat", "linear-probe on 50 %, compat"]
    assert compare_with_controls(inputs, evaluate)[1].how == "linear-probe"


def test_several_seeds_are_their_mean_and_the_outermost_bounds() -> None:
    rows = pl.DataFrame({"value": [0.6, 0.7, 0.8], "ci_low": [0.5, 0.4, 0.7], "ci_high": [0.7, 0.9, 0.85]})
    summary = summarise_seeds(rows)
    assert summary[:3] == pytest.approx((0.7, 0.4, 0.9))
    assert summary.text == "0.70 [0.40, 0.90] (3 seeds)"
    assert summarise_seeds(rows[:1]).text == "0.60 [0.50, 0.70]"


def test_seeds_without_a_value_are_counted_and_one_without_bounds_leaves_none() -> None:
    rows = pl.DataFrame({"value": [0.6, None, 0.8], "ci_low": [0.5, None, None], "ci_high": [0.7, None, None]})
    assert summarise_seeds(rows).text == "0.70 [n/a] (2 of 3 seeds)"
    assert summarise_seeds(rows[1:2]).text == "n/a"
    assert summarise_seeds(rows.clear()).text == "n/a"


def test_a_row_of_the_table_brings_the_seeds_together(inputs: Inputs, evaluate: EvaluateSection) -> None:
    trained = pl.col("fraction") > 0
    tables = []
    for run in inputs.runs:
        other = run.metrics.filter(trained).with_columns(pl.col("value") - 0.1, seed=pl.lit(1, pl.Int32))
        tables.append(pl.concat([run.metrics, other]))
    plain = classification_grid(inputs, evaluate)
    seeds = classification_grid(_with_metrics(inputs, *tables), evaluate)
    for before, after in zip(plain.rows, seeds.rows, strict=True):
        if before[4] == "-":
            assert after == before
        else:
            assert after[5].endswith("] (2 seeds)")
            assert after[5].split("[")[1].startswith(before[5].split("[")[1])
            values = [float(row[5].split(" ")[0].replace("\N{MINUS SIGN}", "-")) for row in (before, after)]
            assert values[0] - values[1] == pytest.approx(0.05, abs=0.0101)


def test_a_run_outside_the_matrix_is_not_available(inputs: Inputs, evaluate: EvaluateSection) -> None:
    rows = [row.model_copy(update={"runs": ["main-run", "shuffled_reports"]}) for row in evaluate.matrix]
    absent = _with_metrics(inputs, inputs.main.metrics, METRICS.empty())
    section = evaluate.model_copy(update={"matrix": rows})
    plain = classification_grid(inputs, evaluate)
    for row, before in zip(classification_grid(absent, section).rows, plain.rows, strict=True):
        assert row[6] == "n/a"
        assert [*row[:6], *row[7:]] == [*before[:6], *before[7:]]
    controls = compare_with_controls(absent, section)[0].controls
    assert controls[0] == ("untrained", "n/a")


def test_mode_compat_has_a_column_of_its_own(inputs: Inputs, evaluate: EvaluateSection) -> None:
    assert "Mode" not in classification_grid(inputs, evaluate).header
    tables = [run.metrics.with_columns(mode=pl.lit("compat")) for run in inputs.runs]
    grid = classification_grid(_with_metrics(inputs, *tables), evaluate)
    assert (grid.header[5], grid.num_labels) == ("Mode", 6)
    assert {row[5] for row in grid.rows} == {"compat"}
    mixed = classification_grid(_with_metrics(inputs, tables[0]), evaluate)
    assert {row[5] for row in mixed.rows} == {"compat and strict"}


def test_a_metric_that_a_run_lacks_names_the_file(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "untrained" / "cohort" / "metrics.parquet"
    lost = (pl.col("protocol") == "linear-probe") & (pl.col("fraction") == 0.5)
    write_table(read_table(METRICS, path).filter(~lost), METRICS, path)
    with pytest.raises(ArtifactError, match=r"evaluate/untrained/cohort/metrics\.parquet: .*mass/linear-probe-0\.5-0"):
        classification_grid(load(), evaluate)


def test_a_share_of_many_digits_is_that_of_the_file_s_name(inputs: Inputs, evaluate: EvaluateSection) -> None:
    rows = [row.model_copy(update={"fractions": [1 / 3, 1.0]}) for row in evaluate.matrix]
    tables = [run.metrics.with_columns(pl.col("fraction").replace(0.5, 0.333333)) for run in inputs.runs]
    section = evaluate.model_copy(update={"matrix": rows})
    assert {row[4] for row in classification_grid(_with_metrics(inputs, *tables), section).rows} == {
        "-", "33.3333 %", "100 %",
    }  # fmt: skip


def test_a_task_without_metrics_names_the_file(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "main-run" / "cohort" / "metrics.parquet"
    write_table(read_table(METRICS, path).filter(pl.col("task") != "density"), METRICS, path)
    with pytest.raises(ArtifactError, match=r"evaluate/main-run/cohort/metrics\.parquet: .*'macro_auroc'"):
        classification_grid(load(), evaluate)


def test_runs_tested_on_different_images_are_not_put_side_by_side(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    path = results / "evaluate" / "untrained" / "cohort" / "metrics.parquet"
    write_table(read_table(METRICS, path).with_columns(n=pl.col("n") - 1), METRICS, path)
    with pytest.raises(ArtifactError, match="same images of 'cohort'"):
        classification_grid(load(), evaluate)
