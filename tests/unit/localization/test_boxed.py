"""Which images detectors see, and that boxes mean the same places in PNG, detector and tables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.artifacts import ATTRIBUTES, DETECTIONS, FINDINGS, IMAGES, LABELS, read_table, write_table
from mammoclip.errors import ArtifactError
from mammoclip.localization import boxed as boxed_module
from mammoclip.localization.boxed import (
    boxed_images,
    detections_frame,
    other_patients,
    to_boxed_images,
    true_boxes,
)
from mammoclip.localization.boxes import ImageDetections

relaxed = settings(deadline=None, max_examples=50)

Box = tuple[float, float, float, float]
BOX: Box = (10, 20, 30, 60)
MADE: dict[str, Any] = {"target": "mass", "protocol": "detection-frozen", "fraction": 0.5, "seed": 3, "selected": 7}


def make_images(splits: dict[str, str], size_px: tuple[int, int] = (200, 100)) -> pl.DataFrame:
    """A patient each, ``p-`` and the image's first letter."""
    rows = [
        {"dataset": "d", "image_id": name, "patient_id": f"p-{name[0]}", "split": split}
        | {"height_px": size_px[0], "width_px": size_px[1]}
        for name, split in splits.items()
    ]
    return pl.DataFrame(rows, schema=IMAGES.schema)


def make_findings(boxes: list[tuple[str, str, Box]]) -> pl.DataFrame:
    rows = [("d", image, finding, None, *box) for image, finding, box in boxes]
    return pl.DataFrame(rows, schema=FINDINGS.schema, orient="row")


def make_attributes(values: dict[tuple[str, str], int], source: str = "table") -> pl.DataFrame:
    rows = [("d", image, name, value, source) for (image, name), value in values.items()]
    return pl.DataFrame(rows, schema=ATTRIBUTES.schema, orient="row")


def make_labels(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=LABELS.schema)


def strict(
    images: pl.DataFrame,
    findings: pl.DataFrame,
    attributes: pl.DataFrame,
    targets: tuple[str, ...] = ("mass",),
    **options: Any,
) -> pl.DataFrame:
    return boxed_images(images, findings, attributes, LABELS.empty(), targets, "strict", **options)


def test_strict_takes_images_with_a_box_and_those_that_tables_say_have_none() -> None:
    images = make_images({"b": "test", "a": "train", "c": "validation", "d": "test", "e": "test", "f": "test"})
    attributes = pl.concat([
        make_attributes({("a", "mass"): 0, ("b", "mass"): 1, ("c", "mass"): 0, ("d", "mass"): 1, ("e", "density"): 0}),
        make_attributes({("f", "mass"): 0}, source="report"),
    ])  # fmt: skip
    rows = strict(images, make_findings([("b", "mass", BOX), ("b", "mass", BOX)]), attributes)
    # d is said to have a mass that nobody has marked, of e nothing is known, and a report is no ground truth.
    assert rows.columns == ["image_id", "patient_id", "split", "height_px", "width_px", "label"]
    assert rows.rows() == [
        ("a", "p-a", "train", 200, 100, 0),
        ("b", "p-b", "test", 200, 100, 1),
        ("c", "p-c", "validation", 200, 100, 0),
    ]


def test_how_many_images_are_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    images = make_images({"a": "train", "b": "test", "c": "test"})
    with caplog.at_level(logging.INFO):
        strict(images, make_findings([("a", "mass", BOX), ("b", "mass", BOX)]), ATTRIBUTES.empty())
    assert [record.message for record in caplog.records] == [
        "boxes of mass: 1 of 3 images are left out: the tables do not say whether, or not where, they have it"
    ]


def test_of_several_targets_each_has_to_be_known() -> None:
    images = make_images(dict.fromkeys("abcd", "test"))
    findings = make_findings([("a", "mass", BOX), ("b", "mass", BOX), ("c", "asymmetry", BOX), ("a", "asymmetry", BOX)])
    attributes = make_attributes({("b", "asymmetry"): 0, ("d", "mass"): 0, ("d", "asymmetry"): 0})
    rows = strict(images, findings, attributes, ("mass", "asymmetry"), parts=("test",))
    # Of c nothing is known about a mass.
    assert rows.select("image_id", "label").rows() == [("a", 1), ("b", 1), ("d", 0)]


def test_a_box_holds_against_a_table_that_says_absent_and_does_not_stand_for_another_target() -> None:
    images = make_images(dict.fromkeys("ab", "test"))
    findings = make_findings([("a", "mass", BOX), ("b", "asymmetry", BOX), ("b", "mass", BOX)])
    attributes = make_attributes({("a", "mass"): 0, ("b", "mass"): 0})
    assert strict(images, findings, attributes, parts=())["label"].to_list() == [1, 1]
    assert strict(images, findings, attributes, ("mass", "asymmetry"), parts=())["image_id"].to_list() == ["b"]


def test_a_target_without_a_box_in_the_data_set_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    images = make_images({"a": "train", "b": "test"})
    findings = make_findings([("a", "mass", BOX), ("b", "mass", BOX), ("elsewhere", "asymmetry", BOX)])
    with caplog.at_level(logging.INFO):
        rows = strict(images, findings, ATTRIBUTES.empty(), ("mass", "asymmetry"))
    assert rows["image_id"].to_list() == ["a", "b"]
    assert "boxes: the data set has none of asymmetry" in caplog.messages


def test_compat_takes_images_with_a_box_alone_in_the_released_splits() -> None:
    images = make_images(dict.fromkeys("abcde", "train"))
    findings = make_findings([(name, "mass", BOX) for name in "abcd"])
    labels = make_labels([
        {"image_id": "a", "split": "train", "given_split": "test"},
        {"image_id": "a", "split": "train", "given_split": "test"},  # a row for each of its findings
        {"image_id": "b", "split": "validation"},
        {"image_id": "c", "split": "train", "fold": 0},
        {"image_id": "d", "split": "train", "fold": 3},
        {"image_id": "e", "split": "test"},
    ])  # fmt: skip
    attributes = make_attributes({("e", "mass"): 0})
    rows = boxed_images(images, findings, attributes, labels, ("mass",), "compat")
    assert rows.select("image_id", "split", "label").rows() == [("a", "test", 1), ("b", "train", 1), ("c", "test", 1)]


def test_compat_has_no_validation_images_even_where_the_data_set_has() -> None:
    labels = make_labels(
        [{"image_id": name, "given_split": split} for name, split in (("a", "validation"), ("b", "test"))]
    )
    images, findings = make_images(dict.fromkeys("ab", "test")), make_findings([(name, "mass", BOX) for name in "ab"])
    rows = boxed_images(images, findings, ATTRIBUTES.empty(), labels, ("mass",), "compat")
    assert rows["split"].to_list() == ["train", "test"]


def test_a_missing_part_is_a_sentence_and_so_is_a_data_set_without_boxes() -> None:
    images = make_images({"a": "train", "b": "validation"})
    findings = make_findings([("a", "mass", BOX)])
    with pytest.raises(ArtifactError, match=r"no test image .* boxes of mass: .* correct the splits"):
        strict(images, findings, ATTRIBUTES.empty())
    with pytest.raises(ArtifactError, match="no train image"):
        strict(images, make_findings([("b", "mass", BOX)]), ATTRIBUTES.empty())
    ten = tuple(f"finding{n}" for n in range(10))
    with pytest.raises(ArtifactError, match="a box of finding0, finding1, finding2 and 7 other findings; take"):
        strict(images, findings, ATTRIBUTES.empty(), ten)
    assert strict(images, findings, ATTRIBUTES.empty(), ("asymmetry",), parts=()).is_empty()


@relaxed
@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_of_rows_does_not_matter(order: list[int], seed: int) -> None:
    images = make_images({f"{'abcdef'[n]}": ("train", "test")[n % 2] for n in range(6)})
    findings = make_findings([("a", "mass", BOX), ("b", "mass", BOX), ("b", "mass", (0, 0, 5, 5)), ("d", "mass", BOX)])
    attributes = make_attributes({(name, "mass"): 0 for name in "cef"})
    rng = np.random.default_rng(seed)
    moved = [table[rng.permutation(len(table))] for table in (findings, attributes)]
    rows = strict(images, findings, attributes)
    assert strict(images[order], *moved).equals(rows)
    one, two = (to_boxed_images(rows, table, ("mass",), (50, 50)) for table in (findings, moved[0]))
    assert [each.tolist() for each in one.boxes] == [each.tolist() for each in two.boxes]


def test_true_boxes_are_those_of_the_targets_with_their_places_as_classes() -> None:
    small: Box = (1, 2, 3, 4)
    findings = make_findings([
        ("b", "mass", BOX), ("a", "asymmetry", small), ("a", "mass", BOX), ("a", "scar", BOX), ("z", "mass", BOX),
    ])  # fmt: skip
    boxed = true_boxes(findings, ["b", "none", "a"], ("mass", "asymmetry"))
    assert boxed.image_ids == ["b", "none", "a"]
    assert [boxes.tolist() for boxes in boxed.boxes] == [[list(BOX)], [], [list(BOX), list(small)]]
    assert [labels.tolist() for labels in boxed.labels] == [[0], [], [0, 1]]
    assert all(boxes.shape[1] == 4 and boxes.dtype == np.float64 for boxes in boxed.boxes)
    assert true_boxes(findings, [], ("mass",)).boxes == []


def test_boxes_are_scaled_to_the_height_and_the_width_of_the_detector() -> None:
    rows = pl.DataFrame({"image_id": ["b", "a"], "height_px": [200, 400], "width_px": [100, 100]})
    boxed = to_boxed_images(rows, make_findings([("b", "mass", BOX), ("a", "mass", BOX)]), ("mass",), (100, 200))
    assert [boxes.tolist() for boxes in boxed.boxes] == [[[20, 10, 60, 30]], [[20, 5, 60, 15]]]


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(1, 4000)), draw(st.integers(1, 4000))


@relaxed
@given(
    st.lists(st.tuples(sizes(), st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=3)), max_size=4),
    sizes(),
)
def test_to_the_detector_and_back_changes_no_box(
    images: list[tuple[tuple[int, int], list[Box]]], size_px: tuple[int, int]
) -> None:
    rows, boxes = [], []
    for number, ((height, width), shares) in enumerate(images):
        rows.append((f"i{number}", height, width))
        for x, y, right, down in shares:
            boxes.append((f"i{number}", "mass", (x * width, y * height, (x + right) * width, (y + down) * height)))
    findings = make_findings(boxes)
    tested = pl.DataFrame(rows, {"image_id": pl.String, "height_px": pl.Int32, "width_px": pl.Int32}, orient="row")
    boxed = to_boxed_images(tested, findings, ("asymmetry", "mass"), size_px)
    found = [
        ImageDetections(each, np.ones(len(each)), labels)
        for each, labels in zip(boxed.boxes, boxed.labels, strict=True)
    ]
    frame = detections_frame(found, tested, ("asymmetry", "mass"), size_px, **MADE)
    corners = ["x_min", "y_min", "x_max", "y_max"]
    expected = findings.select("image_id", "finding", *corners).sort("image_id", *corners)
    assert frame.select("image_id", "finding").equals(expected.select("image_id", "finding"))
    np.testing.assert_allclose(frame.select(corners).to_numpy(), expected.select(corners).to_numpy(), rtol=1e-12)


def test_detections_are_the_published_table(tmp_path: Path) -> None:
    rows = pl.DataFrame({"image_id": ["a", "b"], "height_px": [200, 200], "width_px": [100, 100]})
    found = [
        ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)),
        ImageDetections(np.array([[10.0, 10, 20, 20]]), np.array([0.75]), np.array([1])),
    ]
    frame = detections_frame(found, rows, ("mass", "asymmetry"), (50, 50), **MADE)
    write_table(frame, DETECTIONS, tmp_path / "d.parquet")
    (row,) = read_table(DETECTIONS, tmp_path / "d.parquet").iter_rows(named=True)
    assert row == {**MADE, "image_id": "b", "finding": "asymmetry", "score": 0.75,
                   "x_min": 20, "y_min": 40, "x_max": 40, "y_max": 80}  # fmt: skip
    nothing = detections_frame(found[:1], rows[:1], ("mass",), (50, 50), **MADE | {"selected": None})
    write_table(nothing, DETECTIONS, tmp_path / "nothing.parquet")
    with pytest.raises(ValueError, match="argument"):
        detections_frame(found, rows[:1], ("mass",), (50, 50), **MADE)


@relaxed
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(0, 9))
def test_every_image_gets_one_of_another_patient(owners: list[int], seed: int) -> None:
    patients = [f"p{owner}" for owner in owners]
    others = other_patients(patients, seed)
    if len(set(patients)) < 2:
        assert others.shape == (0,)
        return
    assert all(patients[other] != own for other, own in zip(others, patients, strict=True))
    if max(map(patients.count, patients)) * 2 <= len(patients):
        assert sorted(others) == list(range(len(patients)))
    assert other_patients(patients, seed).tolist() == others.tolist()


def test_the_seed_draws_the_other_patients() -> None:
    patients = [f"p{n}" for n in range(40)]
    assert other_patients(patients, 0).tolist() != other_patients(patients, 1).tolist()


def test_tested_images_have_true_boxes_and_those_of_another_patient_in_shares_of_their_sides() -> None:
    images = make_images({"a": "test", "b": "test", "c": "test", "d": "train"})
    findings = make_findings([("a", "mass", BOX), ("b", "mass", (0, 0, 50, 50)), ("d", "asymmetry", BOX)])
    attributes = make_attributes({("c", "mass"): 0, ("a", "asymmetry"): 0})
    tested = boxed_module.tested_images(
        images, findings, attributes, LABELS.empty(), ["mass", "asymmetry", "density"], "strict", seed=0
    )
    assert list(tested) == ["mass"]
    of_mass = tested["mass"]
    assert of_mass.rows["image_id"].to_list() == ["a", "b", "c"]
    true = {"a": [[0.1, 0.1, 0.3, 0.3]], "b": [[0, 0, 0.5, 0.25]]}
    assert {name: boxes.tolist() for name, boxes in of_mass.true_boxes.items()} == true
    assert {name: boxes.tolist() for name, boxes in of_mass.other_boxes.items()} == {"a": true["b"], "b": true["a"]}
    alone = boxed_module.tested_images(images, findings[:1], attributes, LABELS.empty(), ["mass"], "strict", seed=0)
    assert (len(alone["mass"].true_boxes), len(alone["mass"].other_boxes)) == (1, 0)
