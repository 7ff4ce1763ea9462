"""Retrieval of every run, beside chance."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mammoclip.artifacts import RETRIEVAL
from mammoclip.errors import ArtifactError
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.retrieval_table import retrieval_grid, retrieval_table
from mammoclip.paper.wording import format_interval

METRICS = ("recall@1", "recall@5", "recall@10", "median rank")
COLUMNS = {
    "recall@1": "recall_at_1",
    "recall@5": "recall_at_5",
    "recall@10": "recall_at_10",
    "median rank": "median_rank",
}


def _with_retrieval(inputs: Inputs, *tables: pl.DataFrame) -> Inputs:
    changed = [replace(run, retrieval=table) for run, table in zip(inputs.runs, tables, strict=False)]
    return replace(inputs, runs=[*changed, *inputs.runs[len(changed) :]])


def test_rows_are_both_directions_of_every_metric(inputs: Inputs) -> None:
    grid = retrieval_grid(inputs)
    assert grid.header == [
        "Data set", "Searched", "Direction", "Metric", "main-run", "untrained", "shuffled_reports",
        "Chance", "Breasts", "Patients",
    ]  # fmt: skip
    assert [tuple(row[:4]) for row in grid.rows] == [
        ("cohort", "cohort", direction, metric)
        for direction in ("image to text", "text to image")
        for metric in METRICS
    ]
    assert {tuple(row[8:]) for row in grid.rows} == {("12", "6")}


def test_cells_are_those_of_the_tables_with_one_digit_of_ranks(inputs: Inputs) -> None:
    for row in retrieval_grid(inputs).rows:
        metric = f"{row[2].replace(' ', '_')}_{COLUMNS[row[3]]}"
        for cell, run in zip(row[4:7], inputs.runs, strict=True):
            numbers = run.retrieval.filter(metric=metric).select("value", "ci_low", "ci_high").row(0)
            assert cell == format_interval(*numbers, digits=1 if row[3] == "median rank" else 2)


def test_chance_stands_beside_recall_and_there_is_none_of_a_rank(inputs: Inputs) -> None:
    chance = dict(inputs.main.retrieval.select("metric", "value").rows())
    for row in retrieval_grid(inputs).rows:
        if row[3] == "median rank":
            assert row[7] == "n/a"
        else:
            assert row[7] == f"{chance[f'chance_{COLUMNS[row[3]]}']:.2f}"


def test_several_data_sets_are_searched_alone_and_together(inputs: Inputs) -> None:
    tables = [pl.concat([run.retrieval, run.retrieval.with_columns(candidates=pl.lit("all"))]) for run in inputs.runs]
    groups = retrieval_grid(_with_retrieval(inputs, *tables)).groups()
    assert [(group[0][1], len(group)) for group in groups] == [("cohort", 8), ("all", 8)]


def test_the_table_says_which_runs_are_controls(inputs: Inputs) -> None:
    table = retrieval_table(inputs)
    assert len(table) == sum(len(run.retrieval) for run in inputs.runs)
    assert table.select("run", "control").unique(maintain_order=True).rows() == [
        ("main-run", "none"), ("untrained", "untrained"), ("shuffled_reports", "shuffled_reports"),
    ]  # fmt: skip


def test_without_retrieval_there_is_no_row(inputs: Inputs) -> None:
    empty = _with_retrieval(inputs, *[RETRIEVAL.empty()] * 3)
    assert retrieval_grid(empty).rows == []
    assert retrieval_table(empty).is_empty()


def test_a_metric_that_a_run_lacks_names_the_file(inputs: Inputs) -> None:
    lost = inputs.runs[1].retrieval.filter(pl.col("metric") != "text_to_image_median_rank")
    with pytest.raises(ArtifactError, match=r"evaluate/untrained/retrieval\.parquet: .*text_to_image_median_rank"):
        retrieval_grid(_with_retrieval(inputs, inputs.main.retrieval, lost))


def test_runs_that_searched_other_breasts_are_not_put_side_by_side(inputs: Inputs) -> None:
    other = inputs.runs[1].retrieval.with_columns(n=pl.lit(11, pl.Int32))
    with pytest.raises(ArtifactError, match="did not retrieve the same breasts of 'cohort'"):
        retrieval_grid(_with_retrieval(inputs, inputs.main.retrieval, other))
