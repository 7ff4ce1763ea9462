"""From tables of boxes and heat maps to the table of metrics, against values by hand and metrics spelled out."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import (
    ATTRIBUTES,
    ATTRIBUTIONS,
    DETECTIONS,
    FINDING_NAMES,
    FINDINGS,
    IMAGES,
    INDEX,
    LABELS,
    LOCALIZATION,
    Table,
    read_table,
    write_table,
)
from mammoclip.config import ALL_FINDINGS, FACTOR, FactorSection, LocalizeSection, Mode
from mammoclip.errors import ArtifactError
from mammoclip.localization.detection_metrics import Detections, Truths, average_precision_intervals
from mammoclip.localization.froc import sensitivity_at_false_positives
from mammoclip.localization.protocols import BASELINES
from mammoclip.localization.summary import Cell, Row, summarise_attributions, summarise_detections
from pipelines import compute_localization

CELL = Cell("mass", "detection-frozen", 0.5, 3)
CONTROL = "detection-frozen-shuffled"
SENSITIVITIES = [f"sensitivity_at_{rate}_fp" for rate in ("0.25", "0.5", "1", "2")]
WITHOUT_VALUE = {"value": None, "ci_low": None, "ci_high": None}

Box = tuple[float, float, float, float]
A: Box = (0, 0, 100, 100)
B: Box = (300, 300, 400, 400)


def section(mode: Mode = "strict", num_resamples: int = 20, **options: Any) -> LocalizeSection:
    return LocalizeSection(mode=mode, num_resamples=num_resamples, confidence=0.8, **options)


def make_tested(ids: list[str], patients: list[str] | None = None) -> pl.DataFrame:
    """Images of 1000 x 500 pixels, by default of a patient each."""
    return pl.DataFrame(
        {"image_id": ids, "patient_id": patients or [f"p{name}" for name in ids]},
        {"image_id": pl.String, "patient_id": pl.String},
    ).with_columns(height_px=pl.lit(1000, pl.Int32), width_px=pl.lit(500, pl.Int32))


def make_findings(boxes: list[tuple[str, Box]], finding: str = "mass") -> pl.DataFrame:
    return pl.DataFrame([("d", name, finding, None, *box) for name, box in boxes], schema=FINDINGS.schema, orient="row")


def make_detections(found: list[tuple[str, Box, float]], cell: Cell = CELL, finding: str = "mass") -> pl.DataFrame:
    rows = [
        {"image_id": name, "finding": finding, **asdict(cell), "score": score, "selected": 0}
        | dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
        for name, box, score in found
    ]
    return pl.DataFrame(rows, schema=DETECTIONS.schema)


def find(rows: list[Row], metric: str, **wanted: Any) -> Row:
    wanted = {"metric": metric, "protocol": CELL.protocol, "finding": "mass", "lesion_size": None, **wanted}
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def detected(
    found: pl.DataFrame, tested: pl.DataFrame, findings: pl.DataFrame, cell: Cell = CELL, seed: int = 1, **options: Any
) -> list[Row]:
    rows = list(summarise_detections(found, tested, findings, cell, section(**options), seed))
    assert all(set(row) == {*LOCALIZATION.columns} - {"run", "dataset"} for row in rows)
    assert not any(isinstance(value, float) and np.isnan(value) for row in rows for value in row.values())
    assert all((row["value"] is None) == (row["reason"] is not None) for row in rows)
    return rows


def simulate(seed: int = 0, num_lesions: int = 30) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Detections, forty images of ten patients, and lesions of 30 to 300 pixels, of which most are found."""
    rng = np.random.default_rng(seed)
    ids = [f"i{n:02d}" for n in range(40)]
    corners = rng.uniform(0, [200, 700], (num_lesions, 2))
    boxes = np.hstack([corners, corners + rng.uniform(30, 300, (num_lesions, 1))])
    images = rng.integers(0, 30, num_lesions)  # the last ten have none
    moved = boxes + rng.normal(0, 8, (num_lesions, 1))
    other = np.hstack([corners, corners + 40])
    found = [(ids[n], tuple(box), score) for n, box, score in zip(images, moved, rng.uniform(0.2, 1, 99), strict=False)]
    found += [
        (ids[n], tuple(box), score)
        for n, box, score in zip(rng.integers(0, 40, num_lesions), other, rng.uniform(0, 0.8, 99), strict=False)
    ]
    return (
        make_detections(found),
        make_tested(ids, [f"p{n // 4}" for n in range(40)]),
        make_findings([(ids[n], tuple(box)) for n, box in zip(images, boxes, strict=True)]),
    )


def as_arrays(found: pl.DataFrame, tested: pl.DataFrame, findings: pl.DataFrame) -> tuple[Detections, Truths]:
    corners = ["x_min", "y_min", "x_max", "y_max"]
    places = {name: number for number, name in enumerate(tested["image_id"])}
    of_found, of_truths = ([places[name] for name in table["image_id"]] for table in (found, findings))
    return (
        Detections.of(np.array(of_found, np.int64), found.select(corners).to_numpy(), found["score"].to_numpy()),
        Truths.of(np.array(of_truths, np.int64), findings.select(corners).to_numpy(), len(tested)),
    )


def test_a_case_by_hand() -> None:
    tested = make_tested(["a", "b", "c"])
    findings = make_findings([("a", A), ("b", A)])
    found = make_detections([("a", (0, 0, 100, 80), 0.9), ("b", B, 0.8), ("b", A, 0.7), ("c", A, 0.6)])
    row = find(detected(found, tested, findings), "ap_50")
    # Of two lesions the surest box hits one (precision 1/1), the next none, the third the other (2/3).
    assert row["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert {name: row[name] for name in ("num_images", "num_lesions", "num_patients", "mode", "target")} == {
        "num_images": 3, "num_lesions": 2, "num_patients": 3, "mode": "strict", "target": "mass",
    }  # fmt: skip
    assert (row["fraction"], row["seed"]) == (0.5, 3)


def test_strict_counts_false_positives_in_images_without_the_finding_and_compat_leaves_those_out() -> None:
    tested = make_tested(["a", "b", "c"])
    findings = make_findings([("a", A), ("b", A)])
    found = make_detections([("c", B, 0.9), ("a", A, 0.8), ("b", A, 0.7)])
    strict, compat = (find(detected(found, tested, findings, mode=mode), "ap_50") for mode in ("strict", "compat"))
    assert strict["value"] == pytest.approx(2 / 3)
    assert compat["value"] == 1
    assert (compat["num_images"], compat["num_patients"], compat["mode"]) == (2, 2, "compat")


def test_metrics_are_those_of_all_tested_images_with_intervals_over_patients() -> None:
    found, tested, findings = simulate()
    rows = detected(found, tested, findings)
    arrays = as_arrays(found, tested, findings)
    options: dict[str, Any] = {"num_resamples": 20, "confidence": 0.8, "seed": 1}
    intervals = average_precision_intervals(*arrays, tested["patient_id"].to_numpy(), **options)
    for metric, name in (("ap_25", "AP@0.25"), ("ap_50", "AP@0.5"), ("coco_ap", "COCO AP")):
        row, expected = find(rows, metric), intervals[name]
        assert (row["value"], row["ci_low"], row["ci_high"]) == (expected.value, expected.low, expected.high)
        assert (row["num_images"], row["num_lesions"], row["num_patients"]) == (40, 30, 10)
    values = [find(rows, metric)["value"] for metric in SENSITIVITIES]
    assert values == sensitivity_at_false_positives(*arrays, iou=0.5).tolist()
    assert 0 < values[0] < values[-1] <= 1


def test_sensitivity_by_lesion_size_divides_the_longer_side_by_the_height() -> None:
    sides = [(49, 20), (20, 50), (99, 99), (100, 1), (20, 200)]
    boxes = {f"i{n}{k}": (0, 0, *side) for n, side in enumerate(sides) for k in range(10)}
    findings = make_findings(list(boxes.items()))
    found = make_detections([(name, box, 0.9) for name, box in boxes.items() if name[1] != "0"])
    rows = detected(found, make_tested(list(boxes)), findings)
    by_size = {
        row["lesion_size"]: (row["value"], row["num_lesions"])
        for row in rows
        if row["metric"] == "sensitivity_at_1_fp" and row["protocol"] == CELL.protocol
    }
    assert by_size == {None: (0.8, 50), "< 0.05": (0, 10), "0.05 to < 0.1": (1, 20), "0.1 to < 0.2": (1, 10),
                       ">= 0.2": (1, 10)}  # fmt: skip


def test_too_few_lesions_of_a_size_have_a_reason_in_place_of_a_number() -> None:
    tested, findings = make_tested(["a", "b"]), make_findings([("a", A)])
    row = find(detected(make_detections([("a", A, 0.9)]), tested, findings), "sensitivity_at_1_fp")
    assert row | WITHOUT_VALUE == row
    assert row["reason"] == "fewer than 10 lesions"


def test_without_a_single_detection_the_metrics_are_0() -> None:
    _, tested, findings = simulate()
    rows = detected(DETECTIONS.empty(), tested, findings)
    assert [find(rows, metric)["value"] for metric in ("ap_25", "ap_50", "coco_ap", *SENSITIVITIES)] == [0] * 7
    assert find(rows, "ap_50", protocol=CONTROL)["value"] == 0


@pytest.mark.parametrize("mode", ["strict", "compat"])
@pytest.mark.parametrize("ids", [["a", "b"], []])
def test_without_a_true_box_there_is_a_reason_and_no_number(ids: list[str], mode: Mode) -> None:
    found = make_detections([(name, A, 0.9) for name in ids])
    rows = detected(found, make_tested(ids), make_findings([("elsewhere", A)]), mode=mode)
    assert len(rows) == 3 + 4 + 2 + 4
    assert all(row | WITHOUT_VALUE == row for row in rows)
    assert {row["reason"] for row in rows} == {"no tested image has a box of mass"}
    assert {row["num_images"] for row in rows} == {len(ids) if mode == "strict" else 0}


def test_true_boxes_of_other_patients_are_a_control_that_loses() -> None:
    rows = detected(*simulate())
    for metric in ("ap_25", "ap_50", *SENSITIVITIES):
        row, control = find(rows, metric), find(rows, metric, protocol=CONTROL)
        assert control["value"] < row["value"] / 3
        assert (control["num_images"], control["num_lesions"]) == (row["num_images"], row["num_lesions"])
    assert {(row["metric"], row["lesion_size"]) for row in rows if row["protocol"] == CONTROL} == {
        (metric, None) for metric in ("ap_25", "ap_50", *SENSITIVITIES)
    }


def test_the_control_loses_nothing_where_all_findings_are_in_one_place() -> None:
    # In shares of the image: the boxes come from an image of half the size.
    tested = make_tested(["a", "b"]).with_columns(
        height_px=pl.Series([1000, 500], dtype=pl.Int32), width_px=pl.Series([500, 250], dtype=pl.Int32)
    )
    half: Box = (0, 0, 50, 50)
    rows = detected(make_detections([("a", A, 0.9), ("b", half, 0.8)]), tested, make_findings([("a", A), ("b", half)]))
    assert find(rows, "ap_50", protocol=CONTROL)["value"] == 1


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_the_control_of_a_single_patient_has_a_reason(mode: Mode) -> None:
    tested = make_tested(["a", "b", "c"], ["p", "p", "q"])
    rows = detected(make_detections([("a", A, 0.9)]), tested, make_findings([("a", A), ("b", B)]), mode=mode)
    assert find(rows, "ap_50")["value"] == 0.5
    assert "one patient alone" in find(rows, "ap_50", protocol=CONTROL)["reason"]


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_several_findings_have_a_mean_over_those_with_a_box(mode: Mode) -> None:
    cell = Cell(ALL_FINDINGS, "detection-frozen", 1.0, 0)
    parts = [simulate(0), simulate(1, num_lesions=20)]
    tested = parts[0][1]
    names = ("mass", "asymmetry")
    found = pl.concat([
        part[0].with_columns(finding=pl.lit(name), target=pl.lit(ALL_FINDINGS), fraction=1.0, seed=pl.lit(0, pl.Int32))
        for part, name in zip(parts, names, strict=True)
    ])  # fmt: skip
    findings = pl.concat(part[2].with_columns(finding=pl.lit(n)) for part, n in zip(parts, names, strict=True))
    rows = detected(found, tested, findings, cell, mode=mode)
    for metric in ("ap_25", "ap_50", "coco_ap"):
        each = [find(rows, metric, finding=name)["value"] for name in names]
        mean = find(rows, metric, finding=ALL_FINDINGS)
        assert mean["value"] == pytest.approx(np.mean(each))
        assert mean["ci_low"] < mean["value"] < mean["ci_high"]
        assert (mean["num_images"], mean["num_lesions"], mean["num_patients"]) == (40, 50, 10)
    assert {row["finding"] for row in rows} == {*FINDING_NAMES, ALL_FINDINGS}
    assert find(rows, "ap_50", finding="skin_retraction")["reason"] == "no tested image has a box of skin_retraction"


def test_the_mean_of_no_finding_has_a_reason() -> None:
    cell = Cell(ALL_FINDINGS, "detection-frozen", 1.0, 0)
    rows = detected(DETECTIONS.empty(), make_tested(["a"]), FINDINGS.empty(), cell)
    assert find(rows, "ap_50", finding=ALL_FINDINGS)["reason"] == "no tested image has a box of any finding"


def test_boxes_in_images_that_are_not_tested_are_a_sentence() -> None:
    found = make_detections([("a", A, 0.9), ("z", A, 0.9)])
    with pytest.raises(ArtifactError, match=r"boxes in 1 images that are not tested, such as 'z'; delete them"):
        detected(found, make_tested(["a"]), make_findings([("a", A)]))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_rows_changes_nothing_and_the_seed_changes_the_intervals(seed: int) -> None:
    tables = simulate()
    rng = np.random.default_rng(seed)
    moved = [table[rng.permutation(len(table))] for table in tables]
    rows = detected(*tables)
    assert detected(*moved) == rows
    others = detected(*tables, seed=2)
    assert find(others, "ap_50")["value"] == find(rows, "ap_50")["value"]
    assert find(others, "ap_50")["ci_low"] != find(rows, "ap_50")["ci_low"]
    assert find(others, "ap_25", protocol=CONTROL) != find(rows, "ap_25", protocol=CONTROL)


def make_attributions(values: dict[str, float], protocol: str = FACTOR) -> pl.DataFrame:
    rows = [(name, "mass", protocol, value, value / 2, value / 4) for name, value in values.items()]
    return pl.DataFrame(rows, schema=ATTRIBUTIONS.schema, orient="row")


def test_attributions_are_means_over_images_with_a_box() -> None:
    tested = make_tested(["a", "b", "c", "d"], ["p", "p", "q", "r"])
    findings = make_findings([("a", A), ("a", B), ("b", A), ("c", A)])
    shown = make_attributions({"a": 1.0, "b": 0.0, "c": 0.5})
    cell = Cell("mass", FACTOR, 1.0, 0)
    tables = [shown, tested, findings]
    rows = list(summarise_attributions(*tables, cell, section(), 1))
    assert {row["metric"]: row["value"] for row in rows} == {"pointing_game": 0.5, "energy_inside": 0.25,
                                                             "region_iou": 0.125}  # fmt: skip
    row = rows[0]
    assert (row["num_images"], row["num_lesions"], row["num_patients"]) == (3, 4, 2)
    assert (row["ci_low"], row["ci_high"]) == (0.5, 0.5), "both patients have a mean of one half"
    assert set(row) == {*LOCALIZATION.columns} - {"run", "dataset"}
    assert list(summarise_attributions(*(each.reverse() for each in tables), cell, section(), 1)) == rows


def test_attributions_that_lack_an_image_are_a_sentence() -> None:
    tested, findings = make_tested(["a", "b"]), make_findings([("a", A), ("b", A)])
    for protocol in (FACTOR, f"{FACTOR}-shuffled"):
        shown = make_attributions({"a": 1.0}, protocol)
        with pytest.raises(ArtifactError, match=r"lack 1 of 2 tested images with a box"):
            list(summarise_attributions(shown, tested, findings, Cell("mass", protocol, 1.0, 0), section(), 1))


def test_attributions_without_a_box_or_another_patient_have_a_reason() -> None:
    tested, nothing = make_tested(["a"]), make_attributions({})
    control = Cell("mass", f"{FACTOR}-shuffled", 1.0, 0)
    for cell, findings, reason in (
        (control, make_findings([("a", A)]), "one patient alone"),
        (control, FINDINGS.empty(), "no tested image has a box of mass"),
        (Cell("mass", FACTOR, 1.0, 0), FINDINGS.empty(), "no tested image has a box of mass"),
    ):
        rows = list(summarise_attributions(nothing, tested, findings, cell, section(), 1))
        assert [row["value"] for row in rows] == [None] * 3
        assert all(reason in row["reason"] for row in rows)


def filled(table: Table, num_rows: int, **values: Any) -> pl.DataFrame:
    """Rows of a table: a list of values or one for all of them, and null where nothing is given."""
    columns = {name: values.get(name) for name in table.columns}
    rows = {name: value if isinstance(value, list) else [value] * num_rows for name, value in columns.items()}
    return pl.DataFrame(rows, schema=table.schema)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The tables of four images: a and b are tested, with a mass, c is tested and without; d is not tested."""
    shared = {"dataset": "d", "laterality": "L", "view": "CC", "study_id": "s", "height_px": 1000, "width_px": 500}
    of_image = {"image_id": list("dcba"), "patient_id": list("srqp"), "split": ["train", "test", "test", "test"]}
    for table, frame in (
        (IMAGES, filled(IMAGES, 4, **shared, **of_image)),
        (LABELS, filled(LABELS, 4, **shared, **of_image)),
        (FINDINGS, make_findings([("a", A), ("b", A), ("d", A)])),
        (ATTRIBUTES, filled(ATTRIBUTES, 1, dataset="d", image_id="c", attribute="mass", value=0, source="table")),
    ):
        write_table(frame, table, tmp_path / "tabulate" / "d" / f"{table.name}.parquet")
    write_table(INDEX.empty(), INDEX, tmp_path / "index" / "d.parquet")
    return tmp_path


def compute(results: Path, **options: Any) -> pl.DataFrame:
    given = {"results": results, "run": "r", "dataset": "d", "seed": 0, "out": results / "out.parquet",
             "config": section(), "detections": [], "factor": None}  # fmt: skip
    compute_localization.run(argparse.Namespace(**given | options))
    return read_table(LOCALIZATION, results / "out.parquet")


def test_the_stage_writes_the_published_table_of_a_case_by_hand(
    results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = make_detections([("c", A, 0.9), ("a", A, 0.8), ("b", B, 0.7), ("b", A, 0.6)])
    write_table(found, DETECTIONS, results / "some.parquet")
    write_table(DETECTIONS.empty(), DETECTIONS, results / "none.parquet")
    with caplog.at_level(logging.INFO, "mammoclip.localize"):
        table = compute(
            results,
            detections=[
                ["mass", "detection-frozen", "0.5", "3", str(results / "some.parquet")],
                ["mass", "detection-fine-tune", "1", "0", str(results / "none.parquet")],
            ],
        )
    of_metric = table.filter(metric="ap_50").select("protocol", "fraction", "seed", "value").rows()
    # Precision 1/2 at the first lesion and 2/4 at the second; the control's boxes are those of the other image, alike.
    assert of_metric == [
        ("detection-frozen", 0.5, 3, 0.5),
        ("detection-frozen-shuffled", 0.5, 3, 0.5),
        ("detection-fine-tune", 1.0, 0, 0.0),
        ("detection-fine-tune-shuffled", 1.0, 0, 0.0),
    ]
    assert set(table["run"]) == {"r"} and set(table["dataset"]) == {"d"} and set(table["num_images"]) == {3}
    assert "localize r/d: mass detection-frozen 0.5 ap_50 0.500" in caplog.messages


def test_the_stage_evaluates_mammo_factor_and_its_baselines_for_each_attribute(results: Path) -> None:
    cell = Cell("mass", "grad-cam", 1.0, 0)
    write_table(make_detections([("a", A, 0.8), ("b", A, 0.7)], cell), DETECTIONS, results / "boxes.parquet")
    endings = [protocol + ending for protocol in (FACTOR, *BASELINES) for ending in ("", "-shuffled")]
    shown = pl.concat(make_attributions({"a": 1.0, "b": 0.0}, protocol) for protocol in endings)
    write_table(shown, ATTRIBUTIONS, results / "shown.parquet")
    config = section(factor=FactorSection(attributes=["mass", "asymmetry"]))
    table = compute(results, config=config, factor=[results / "boxes.parquet", results / "shown.parquet"])
    precisions = table.filter(metric="ap_50", finding="mass")
    assert set(precisions["protocol"]) == {*endings}
    values = dict(precisions.select("protocol", "value").rows())
    assert (values["grad-cam"], values[FACTOR]) == (1, 0)
    assert table.filter(metric="pointing_game", finding="mass")["value"].to_list() == [0.5] * len(endings)
    reasons = set(table.filter(finding="asymmetry")["reason"])
    assert reasons == {"no tested image has a box of asymmetry"}


def test_the_stage_refuses_rows_that_nobody_asked_for(results: Path) -> None:
    write_table(make_detections([("a", A, 0.8)]), DETECTIONS, results / "some.parquet")
    with pytest.raises(ArtifactError, match=r"some.parquet has 1 of 1 rows of other targets"):
        compute(results, detections=[["mass", "detection-frozen", "1", "3", str(results / "some.parquet")]])
