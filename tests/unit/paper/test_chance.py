"""Whether a control lies in the range of random directions."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mammoclip.config import EvaluateSection
from mammoclip.paper.chance import ChanceCheck, Outlier, check_chance
from mammoclip.paper.inputs import Inputs

CONTROLS = ("untrained", "shuffled_reports")


def _with_zero_shot(inputs: Inputs, run: str, task: str, metric: str, value: float | None) -> Inputs:
    """Return the inputs with this value of zero-shot, and 0.4 to 0.6 as the range of random directions."""
    of_task = (pl.col("task") == task) & (pl.col("metric") == metric) & (pl.col("subgroup") == "all")
    of_task &= pl.col("level") == "image"
    zero, random = (of_task & (pl.col("protocol") == name) for name in ("zero-shot", "zero-shot-random"))

    def changed(table: pl.DataFrame) -> pl.DataFrame:
        assert (len(table.filter(zero)), len(table.filter(random))) == (1, 1)
        return table.with_columns(
            value=pl.when(zero).then(value).otherwise("value"),
            ci_low=pl.when(random).then(0.4).otherwise("ci_low"),
            ci_high=pl.when(random).then(0.6).otherwise("ci_high"),
        )

    runs = [replace(each, metrics=changed(each.metrics)) if each.name == run else each for each in inputs.runs]
    return replace(inputs, runs=runs)


@pytest.fixture
def within(inputs: Inputs) -> Inputs:
    """Both controls at chance, in three tasks."""
    for run in CONTROLS:
        for task, metric in (("mass", "auroc"), ("suspicious_calcification", "auroc"), ("density", "macro_auroc")):
            inputs = _with_zero_shot(inputs, run, task, metric, 0.41)
    return inputs


def test_controls_in_the_range_are_counted_and_the_main_run_is_not_asked(
    within: Inputs, evaluate: EvaluateSection
) -> None:
    assert check_chance(within, evaluate) == [ChanceCheck(run, 3, []) for run in CONTROLS]
    assert [check.num_within for check in check_chance(within, evaluate)] == [3, 3]


@pytest.mark.parametrize(("value", "num_within"), [(0.39, 2), (0.4, 3), (0.6, 3), (0.61, 2)])
def test_the_ends_belong_to_the_range(within: Inputs, evaluate: EvaluateSection, value: float, num_within: int) -> None:
    changed = _with_zero_shot(within, "untrained", "mass", "auroc", value)
    assert [check.num_within for check in check_chance(changed, evaluate)] == [num_within, 3]


def test_a_control_outside_is_named_with_its_numbers(within: Inputs, evaluate: EvaluateSection) -> None:
    changed = _with_zero_shot(within, "untrained", "density", "macro_auroc", 0.345)
    assert check_chance(changed, evaluate)[0].outliers == [Outlier("cohort", "Breast density", "0.34", "0.40", "0.60")]


def test_the_interval_over_patients_plays_no_part(within: Inputs, evaluate: EvaluateSection) -> None:
    zero = pl.col("protocol") == "zero-shot"
    runs = [
        replace(run, metrics=run.metrics.with_columns(ci_high=pl.when(zero).then(0.45).otherwise("ci_high")))
        for run in within.runs
    ]
    assert [check.num_within for check in check_chance(replace(within, runs=runs), evaluate)] == [3, 3]


def test_a_task_without_a_value_is_not_counted(within: Inputs, evaluate: EvaluateSection) -> None:
    changed = _with_zero_shot(within, "untrained", "mass", "auroc", None)
    assert [check.num_compared for check in check_chance(changed, evaluate)] == [2, 3]


def test_a_control_that_was_not_evaluated_is_left_out(within: Inputs, evaluate: EvaluateSection) -> None:
    runs = [replace(run, metrics=run.metrics.clear()) if run.name == "untrained" else run for run in within.runs]
    assert [check.run for check in check_chance(replace(within, runs=runs), evaluate)] == ["shuffled_reports"]
