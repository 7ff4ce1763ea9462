"""Detectors, Mammo-FActOR and its baselines in numbers."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mammoclip.config import LocalizeSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.localization.table import (
    attribution_grid,
    attribution_table,
    detection_grid,
    detection_table,
    lesion_size_grid,
    lesion_size_table,
    localization_table,
)
from mammoclip.paper.wording import format_interval
from tests.unit.paper.localized import NO_BOX, SIZES

RUNS = ["main-run", "untrained", "shuffled_reports"]
FINDING = "Suspicious calcification"


def _with_rows(inputs: Inputs, *tables: pl.DataFrame) -> Inputs:
    changed = [replace(run, localization=table) for run, table in zip(inputs.runs, tables, strict=False)]
    return replace(inputs, runs=[*changed, *inputs.runs[len(changed) :]])


def _change(inputs: Inputs, **columns: pl.Expr) -> Inputs:
    return _with_rows(inputs, *(run.localization.with_columns(**columns) for run in inputs.runs))


def test_detectors_are_rows_by_finding_protocol_share_and_run(inputs: Inputs, localize: LocalizeSection) -> None:
    grid = detection_grid(inputs, localize)
    assert list(grid.header[:8]) == [
        "Data set", "Finding", "Protocol", "Train", "Run", "AP@.25", "AP@.5", "COCO AP",
    ]  # fmt: skip
    assert list(grid.header[8:]) == [
        *(f"Sens. at {rate} FP" for rate in ("1/4", "1/2", "1", "2")), "Images", "Lesions", "Patients",
    ]  # fmt: skip
    assert {tuple(row[:2]) for row in grid.rows} == {("cohort", "Mass"), ("cohort", FINDING)}
    expected = []
    for protocol in ("detection-frozen", "detection-fine-tune"):
        expected += [(protocol, share, run) for share in ("50 %", "100 %") for run in RUNS]
        if protocol == "detection-frozen":
            expected.append(("detection-frozen (all findings)", "100 %", "main-run"))
        expected += [(f"{protocol}-shuffled", share, "main-run") for share in ("50 %", "100 %")]
        if protocol == "detection-frozen":
            expected.append(("detection-frozen-shuffled (all findings)", "100 %", "main-run"))
    assert [tuple(row[2:5]) for row in grid.rows if row[1] == FINDING] == expected


def test_cells_are_those_of_the_table(inputs: Inputs, localize: LocalizeSection) -> None:
    rows = {tuple(row[1:5]): row for row in detection_grid(inputs, localize).rows}
    row = rows[FINDING, "detection-fine-tune", "50 %", "untrained"]
    found = inputs.runs[1].localization.filter(
        pl.col("lesion_size").is_null(), protocol="detection-fine-tune", fraction=0.5
    )
    numbers = {metric: (value, low, high) for metric, value, low, high in found.select(
        "metric", "value", "ci_low", "ci_high"
    ).rows()}  # fmt: skip
    metrics = ["ap_25", "ap_50", "coco_ap", *(f"sensitivity_at_{rate}_fp" for rate in ("0.25", "0.5", "1", "2"))]
    assert list(row[5:12]) == [format_interval(*numbers[metric]) for metric in metrics]
    assert list(row[12:]) == ["23", "11", "6"]


def test_of_several_seeds_the_mean_the_lowest_low_and_the_highest_high(
    inputs: Inputs, localize: LocalizeSection
) -> None:
    rows = {tuple(row[1:5]): row for row in detection_grid(inputs, localize).rows}
    value = 0.4 + 0.2 * 2.0  # of seed 0; that of seed 1 is half of it
    assert rows[FINDING, "detection-frozen (all findings)", "100 %", "main-run"][5] == (
        f"{0.75 * value:.2f} [{value / 4:.2f}, {(1 + value) / 2:.2f}] (2 seeds)"
    )


def test_a_reason_is_given_once_where_cells_of_a_row_share_it(inputs: Inputs, localize: LocalizeSection) -> None:
    rows = [row for row in detection_grid(inputs, localize).rows if row[1] == "Mass"]
    assert [row[2] for row in rows] == ["detection-frozen (all findings)", "detection-frozen-shuffled (all findings)"]
    assert list(rows[0][5:12]) == [f"n/a: {NO_BOX}", *["n/a"] * 6]
    assert rows[0][13] == "0"


def test_methods_are_rows_of_every_run_and_what_needs_no_model_comes_once(
    inputs: Inputs, localize: LocalizeSection
) -> None:
    grid = attribution_grid(inputs, localize)
    assert list(grid.header) == [
        "Data set", "Finding", "Method", "Run", "Pointing game", "Energy inside", "Region IoU", "AP@.25", "AP@.5",
        "Lesions", "Patients",
    ]  # fmt: skip
    expected = []
    for method in ("mammo-factor", "grad-cam", "similarity-map"):
        expected += [(method, run) for run in RUNS] + [(f"{method}-shuffled", "main-run")]
    expected += [("centre-prior", "-"), ("random", "-")]
    assert [tuple(row[2:4]) for row in grid.rows] == expected
    assert "n/a" not in {cell for row in grid.rows for cell in row}


def test_sizes_are_of_the_main_run_and_the_largest_share(inputs: Inputs, localize: LocalizeSection) -> None:
    grid = lesion_size_grid(inputs, localize)
    assert list(grid.header[2:6]) == ["Protocol", "Train", "Size", "Sens. at 1/4 FP"]
    protocols = ["detection-frozen", "detection-frozen (all findings)", "detection-fine-tune"]
    assert [tuple(row[2:5]) for row in grid.rows] == [
        (protocol, "100 %", size) for protocol in protocols for size in SIZES
    ]
    assert {tuple(row[5:]) for row in grid.rows} == {
        ("n/a: fewer than 10 lesions", "n/a", "n/a", "n/a", "3", "6"),
    }
    assert set(lesion_size_table(inputs, localize)["run"]) == {"main-run"}


def test_every_row_is_in_one_of_the_tables_with_the_control_of_its_run(
    inputs: Inputs, localize: LocalizeSection
) -> None:
    table = localization_table(inputs, localize)
    assert len(table) == sum(len(run.localization) for run in inputs.runs)
    parts = [detection_table(inputs, localize), attribution_table(inputs, localize)]
    assert sum(map(len, parts)) == len(table)
    assert set(table.select("run", "control").rows()) == {
        ("main-run", "none"), ("untrained", "untrained"), ("shuffled_reports", "shuffled_reports"),
    }  # fmt: skip


def test_in_mode_compat_every_table_says_so(inputs: Inputs, localize: LocalizeSection) -> None:
    compat = _change(inputs, mode=pl.lit("compat"))
    for make in (detection_grid, attribution_grid, lesion_size_grid):
        assert "Mode" not in make(inputs, localize).header
        grid = make(compat, localize)
        place = list(grid.header).index("Mode")
        assert place < grid.num_labels
        assert {row[place] for row in grid.rows} == {"compat"}


def test_a_detector_that_a_run_lacks_names_the_file(inputs: Inputs, localize: LocalizeSection) -> None:
    lost = inputs.main.localization.filter(~((pl.col("target") == "all_findings") & (pl.col("seed") == 1)))
    with pytest.raises(
        ArtifactError,
        match=r"localize/main-run/cohort/localization\.parquet has no row of all_findings/detection-frozen-1-1",
    ):
        detection_grid(_with_rows(inputs, lost), localize)


def test_mammo_factor_that_a_run_lacks_names_the_file(inputs: Inputs, localize: LocalizeSection) -> None:
    lost = inputs.main.localization.filter(pl.col("protocol") != "mammo-factor")
    with pytest.raises(ArtifactError, match=r"localize/main-run/cohort/localization\.parquet .* mammo-factor;"):
        attribution_grid(_with_rows(inputs, lost), localize)


def test_runs_that_looked_in_other_images_are_not_put_side_by_side(inputs: Inputs, localize: LocalizeSection) -> None:
    other = inputs.main.localization.with_columns(num_lesions=pl.lit(12, pl.Int32))
    with pytest.raises(ArtifactError, match="did not look for suspicious calcification in the same images of 'cohort'"):
        detection_grid(_with_rows(inputs, other), localize)


def test_without_localisation_there_is_no_row(inputs: Inputs) -> None:
    nothing = _with_rows(inputs, *(run.localization.clear() for run in inputs.runs))
    for make in (detection_grid, attribution_grid, lesion_size_grid):
        assert make(nothing, LocalizeSection()).rows == []
    assert localization_table(nothing, LocalizeSection()).is_empty()
