"""The main run and the untrained control in subgroups."""

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
    """Return the inputs with these metrics and no others."""

    def replaced(*rows: dict[str, object]) -> Inputs:
        metrics = pl.DataFrame(list(rows), schema=METRICS.schema)
        return replace(inputs, runs=[replace(run, metrics=metrics.filter(run=run.name)) for run in inputs.runs])

    return replaced


def test_groups_have_counts_and_a_value_or_the_reason(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(
        _row("all", None),
        _row("density", "A"),
        _row("density", "B", value=None, n_positive=9),
        _row("density", None, value=0.5),
    )
    grid = subgroup_grid(subgroup_table(inputs, evaluate), inputs)
    assert grid.header == [
        "Data set", "Task", "Protocol", "Subgroup", "Group", "Train", "Images", "Positive",
        "AUROC, main-run", "AUROC, untrained",
    ]  # fmt: skip
    assert [list(row[:-1]) for row in grid.rows] == [
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
    grid = subgroup_grid(subgroup_table(inputs, evaluate), inputs)
    assert (grid.header[6], grid.num_labels, grid.rows[0][6]) == ("Mode", 7, "compat")


def test_without_subgroups_the_table_has_no_row(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(_row("all", None))
    assert subgroup_grid(subgroup_table(inputs, evaluate), inputs).rows == []


def test_the_untrained_control_stands_beside_the_main_run(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(
        *(_row("density", group, value) for group, value in (("A", 0.8), (None, 0.7))),
        *(_row("density", group, value, run="untrained") for group, value in ((None, 0.4), ("A", 0.5))),
        _row("density", "A", 0.9, run="shuffled_reports"),
    )
    table = subgroup_table(inputs, evaluate)
    assert table.select("run", "control", "group", "value").rows() == [
        ("main-run", "none", "A", 0.8),
        ("main-run", "none", None, 0.7),
        ("untrained", "untrained", None, 0.4),
        ("untrained", "untrained", "A", 0.5),
    ]
    assert [list(row[4:5] + row[-2:]) for row in subgroup_grid(table, inputs).rows] == [
        ["A", "0.80 [0.70, 0.80]", "0.50 [0.70, 0.80]"],
        ["not known", "0.70 [0.70, 0.80]", "0.40 [0.70, 0.80]"],
    ]


def test_a_group_that_is_too_small_has_its_reason_in_the_control_too(
    with_rows: object, evaluate: EvaluateSection
) -> None:
    inputs = with_rows(_row("density", "A"), _row("density", "A", value=None, run="untrained"))
    (row,) = subgroup_grid(subgroup_table(inputs, evaluate), inputs).rows
    assert list(row[-2:]) == ["0.75 [0.70, 0.80]", f"n/a: {FEW}"]


@pytest.mark.parametrize(
    "other",
    [{"protocol": "zero-shot", "fraction": 0.0}, {"task": "suspicious_calcification"}, {"fraction": 0.5}, {"seed": 1}],
)
def test_a_control_without_the_evaluation_is_not_available(
    with_rows: object, evaluate: EvaluateSection, other: dict[str, object]
) -> None:
    probe = {"protocol": "linear-probe", "fraction": 1.0}
    inputs = with_rows(_row("view", "CC", **probe), _row("view", "CC", run="untrained", **(probe | other)))
    (row,) = subgroup_grid(subgroup_table(inputs, evaluate), inputs).rows
    assert list(row[-2:]) == ["0.75 [0.70, 0.80]", "n/a"]


def test_without_an_untrained_control_there_is_one_column(with_rows: object, evaluate: EvaluateSection) -> None:
    inputs = with_rows(_row("view", "CC"))
    alone = replace(inputs, runs=[inputs.main, *(run for run in inputs.runs[1:] if run.control != "untrained")])
    grid = subgroup_grid(subgroup_table(alone, evaluate), alone)
    assert (list(grid.header[-2:]), len(grid.rows[0])) == (["Positive", "AUROC, main-run"], 9)


def test_the_stage_s_own_subgroups_are_those_of_the_main_run_and_the_untrained_control(
    inputs: Inputs, evaluate: EvaluateSection
) -> None:
    table = subgroup_table(inputs, evaluate)
    assert table["run"].unique(maintain_order=True).to_list() == ["main-run", "untrained"]
    assert {"density", "view"} <= set(table["subgroup"])
    assert set(table["fraction"]) == {0.0, 1.0}
    few = [cell for row in subgroup_grid(table, inputs).rows if row[3] == "density" for cell in row[-2:]]
    assert few
    assert all(cell.startswith("n/a: fewer than 10 positive and fewer than 10 negative cases") for cell in few)
