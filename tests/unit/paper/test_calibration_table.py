"""Calibration of every run before and after temperature scaling."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.paper.calibration_table import calibration_grid, calibration_table
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.wording import format_interval, format_number

NO_VALIDATION = "there are no validation images"


def test_every_evaluation_has_a_row_with_its_metrics_and_choices(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = calibration_table(inputs, evaluate)
    assert len(table) == 3 * 3 * 3  # runs, tasks, zero-shot and two shares of the probe
    for row in table.iter_rows(named=True):
        (run,) = [run for run in inputs.runs if run.name == row["run"]]
        cell = {name: row[name] for name in ("dataset", "task", "protocol", "fraction", "seed")}
        metrics = run.metrics.filter(level="image", subgroup="all", **cell)
        values = {metric: bounds for metric, *bounds in metrics.select("metric", "value", "ci_low", "ci_high").rows()}
        for metric in ("ece", "ece_calibrated", "brier", "brier_calibrated"):
            assert [row[metric], row[f"{metric}_ci_low"], row[f"{metric}_ci_high"]] == values[metric]
        chosen = dict(run.choices.filter(**cell).select("choice", "value").rows())
        assert (row["temperature"], row["threshold"]) == (chosen["temperature"], chosen["threshold"])


def test_rows_come_by_data_set_and_task_with_the_main_run_first(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = calibration_table(inputs, evaluate)
    assert table["task"].unique(maintain_order=True).to_list() == ["mass", "suspicious_calcification", "density"]
    assert table.filter(task="mass").select("run", "protocol", "fraction").rows() == [
        (run, *evaluation)
        for run in ("main-run", "untrained", "shuffled_reports")
        for evaluation in (("zero-shot", 0.0), ("linear-probe", 0.5), ("linear-probe", 1.0))
    ]


def test_the_grid_shows_the_largest_share_with_three_digits(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = calibration_table(inputs, evaluate)
    grid = calibration_grid(table, is_compat=False)
    assert grid.header == [
        "Data set", "Task", "Run", "Protocol", "Train", "ECE", "ECE, scaled", "Brier", "Brier, scaled",
        "Temperature", "Threshold", "Images",
    ]  # fmt: skip
    assert len(grid.rows) == 3 * 3 * 2
    row = table.filter(run="main-run", task="mass", protocol="linear-probe", fraction=1.0).row(0, named=True)
    bounds = [[row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high")] for metric in ("ece", "brier_calibrated")]
    shown = list(grid.rows[1])
    assert shown[:5] == ["cohort", "Mass", "main-run", "linear-probe", "100 %"]
    assert (shown[5], shown[8]) == tuple(format_interval(*bound, 3) for bound in bounds)
    assert shown[9:] == [format_number(row["temperature"], 3), format_number(row["threshold"], 3), "23"]


def test_a_missing_temperature_or_threshold_says_why(inputs: Inputs, evaluate: EvaluateSection) -> None:
    rows = calibration_grid(calibration_table(inputs, evaluate), is_compat=False).rows
    zero_shot = list(rows[0])
    assert (zero_shot[6], zero_shot[8]) == ("n/a", "n/a")
    assert zero_shot[9:11] == [f"n/a: {NO_VALIDATION}"] * 2
    (density,) = [row for row in rows if tuple(row[1:4]) == ("Breast density", "main-run", "linear-probe")]
    assert density[9] != "n/a"
    assert density[10] == "n/a: more than two classes"


def test_a_choice_that_is_not_in_the_table_is_not_available(inputs: Inputs, evaluate: EvaluateSection) -> None:
    main = replace(inputs.main, choices=inputs.main.choices.clear())
    table = calibration_table(replace(inputs, runs=[main, *inputs.runs[1:]]), evaluate)
    assert list(calibration_grid(table, is_compat=False).rows[1][9:11]) == ["n/a", "n/a"]


def test_mode_compat_is_labelled(inputs: Inputs, evaluate: EvaluateSection) -> None:
    runs = [replace(run, metrics=run.metrics.with_columns(mode=pl.lit("compat"))) for run in inputs.runs]
    compat = replace(inputs, runs=runs)
    grid = calibration_grid(calibration_table(compat, evaluate), compat.is_compat)
    assert (grid.header[5], grid.num_labels) == ("Mode", 6)
    assert {row[5] for row in grid.rows} == {"compat"}


def test_a_run_that_was_not_evaluated_has_no_row(inputs: Inputs, evaluate: EvaluateSection) -> None:
    absent = replace(inputs.runs[1], metrics=inputs.main.metrics.clear(), choices=inputs.main.choices.clear())
    table = calibration_table(replace(inputs, runs=[inputs.main, absent]), evaluate)
    assert table["run"].unique().to_list() == ["main-run"]
