"""The main run in subgroups."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mammoclip.artifacts import METRICS
from mammoclip.config import EvaluateSection
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.subgroup_table import subgroup_grid, subgroup_table

FEW = "fewer than 10 positive cases"


def _row(subgroup: str, group: str | None, value: float | None = 0.75, **more: object) -> dict[str, object]:
    numbers = {"value": value, "ci_low": 0.7, "ci_high": 0.8, "reason": None}
    if value is None:
        numbers = {"value": None, "ci_low": None, "ci_high": None, "reason": FEW}
    return {
        "run": "main-run",
        "dataset": "cohort",
        "task": "mass",
        "protocol": "zero-shot",
        "fraction": 0.0,
        "seed": 0,
        "mode": "strict",
        "level": "image",
        "pooling": "none",
        "subgroup": subgroup,
        "group": group,
        "metric": "auroc",
        "n": 40,
        "n_positive": 15,
        "num_patients": 20,
        **numbers,
        **more,
    }


@pytest.fixture
def with_rows(inputs: Inputs) -> object:
    """Return the inputs with these metrics of the main run."""

    def replaced(*rows: dict[str, object]) -> Inputs:
        main = replace(inputs.main, metrics=pl.DataFrame(list(rows), schema=METRICS.schema))
        return replace(inputs, runs=[main, *inputs.runs[1:]])

    return replaced


def test_groups_have_counts_and_a_value_or_the_reason(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(
        _row("all", None),
        _row("density", "A"),
        _row("density", "B", value=None, n_positive=9),
        _row("density", None, value=0.5),
    )
    grid = subgroup_grid(subgroup_table(inputs, evaluate), is_compat=False)
    assert grid.header == [
        "Data set", "Task", "Protocol", "Subgroup", "Group", "Train", "Images", "Positive", "AUROC",
    ]  # fmt: skip
    assert [list(row) for row in grid.rows] == [
        ["cohort", "Mass", "zero-shot", "density", "A", "-", "40", "15", "0.75 [0.70, 0.80]"],
        ["cohort", "Mass", "zero-shot", "density", "B", "-", "40", "9", f"n/a: {FEW}"],
        ["cohort", "Mass", "zero-shot", "density", "not known", "-", "40", "15", "0.50 [0.70, 0.80]"],
    ]


def test_of_the_probe_all_training_patients_and_the_lowest_seed_are_shown(
    with_rows: object, evaluate: EvaluateSection
) -> None:
    probes = [
        _row("view", "CC", value, protocol="linear-probe", fraction=fraction, seed=seed)
        for value, fraction, seed in ((0.1, 0.5, 0), (0.2, 1.0, 1), (0.3, 1.0, 0))
    ]
    tuned = _row("view", "CC", 0.4, protocol="fine-tune", fraction=1.0)
    table = subgroup_table(with_rows(*probes, _row("view", "CC"), tuned), evaluate)
    assert table.select("protocol", "value").rows() == [("zero-shot", 0.75), ("linear-probe", 0.3)]


def test_tasks_come_in_the_order_of_the_configuration_and_groups_as_they_are(
    with_rows: object, evaluate: EvaluateSection
) -> None:
    inputs = with_rows(
        _row("age", "50-59", task="suspicious_calcification"),
        _row("age", "90-99"),
        _row("age", "100-109"),
    )
    rows = subgroup_table(inputs, evaluate).select("task", "group").rows()
    assert rows == [("mass", "90-99"), ("mass", "100-109"), ("suspicious_calcification", "50-59")]


def test_mode_compat_is_labelled(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(_row("view", "CC", mode="compat"))
    grid = subgroup_grid(subgroup_table(inputs, evaluate), inputs.is_compat)
    assert (grid.header[6], grid.num_labels, grid.rows[0][6]) == ("Mode", 7, "compat")


def test_without_subgroups_the_table_has_no_row(with_rows: object, evaluate: EvaluateSection) -> None:
    assert subgroup_grid(subgroup_table(with_rows(_row("all", None)), evaluate), is_compat=False).rows == []


def test_the_stage_s_own_subgroups_are_those_of_the_main_run(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = subgroup_table(inputs, evaluate)
    assert set(table["run"]) == {"main-run"}
    assert {"density", "view"} <= set(table["subgroup"])
    assert set(table["fraction"]) == {0.0, 1.0}
    few = [row[-1] for row in subgroup_grid(table, is_compat=False).rows if row[3] == "density"]
    assert few
    assert all(cell.startswith("n/a: fewer than 10 positive and fewer than 10 negative cases") for cell in few)
