from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.data.boxes import check_boxes, place_boxes
from mammoclip.datasets.base import BOX, FINDINGS
from mammoclip.dicom import CropBox, Placement

PLACE = {"crop_top": 10, "crop_bottom": 110, "crop_left": 20, "crop_right": 70, "scale_x": 2.0, "scale_y": 4.0,
         "pad_left": 3, "pad_top": 5}  # fmt: skip
UNPLACED = dict.fromkeys(PLACE)


def frame(*boxes: tuple[float, ...], place: dict[str, Any] = PLACE, rows: Any = 120, columns: Any = 80) -> pl.DataFrame:
    """Findings with these boxes in an image of 120 rows and 80 columns; the source is the place in the list."""
    named = [
        {"image_id": "i", "finding": "mass", "birads": 4, **dict(zip(BOX, box, strict=True)), "source": f"row {n}"}
        for n, box in enumerate(boxes)
    ]
    findings = pl.DataFrame(named, schema=FINDINGS)
    types = {name: pl.Float64 if "scale" in name else pl.Int32 for name in PLACE}
    values = {**place, "rows": rows, "columns": columns}
    return findings.with_columns(pl.lit(value, types.get(name, pl.Int32)).alias(name) for name, value in values.items())


@pytest.mark.parametrize(
    ("box", "detail"),
    [
        ((10, 10, 10, 20), "the box is empty or inverted"),
        ((10, 20, 30, 20), "the box is empty or inverted"),
        ((30, 10, 10, 20), "the box is empty or inverted"),
        ((10, 40, 30, 20), "the box is empty or inverted"),
        ((-9, 10, 0, 20), "the box lies outside the image"),
        ((10, -9, 30, -1), "the box lies outside the image"),
        ((80, 10, 90, 20), "the box lies outside the image"),
        ((10, 120, 30, 130), "the box lies outside the image"),
    ],
)
def test_an_impossible_box_is_rejected_with_its_row(box: tuple[float, ...], detail: str) -> None:
    kept, rejects = check_boxes(frame((10, 10, 20, 20), box), "strict")
    assert kept["source"].to_list() == ["row 0"]
    assert rejects.rows() == [("row 1", "bad_box", detail)]
    assert len(check_boxes(frame(box), "compat")[0]) == 1


@pytest.mark.parametrize("box", [(-9, -9, 1, 1), (79, 119, 99, 130), (-5, -5, 500, 500)])
def test_a_box_that_reaches_into_the_image_is_kept(box: tuple[float, ...]) -> None:
    assert len(check_boxes(frame(box), "strict")[0]) == 1


def test_without_the_size_of_the_image_a_far_box_is_kept() -> None:
    assert len(check_boxes(frame((800, 10, 900, 20), rows=None, columns=None), "strict")[0]) == 1


def test_boxes_are_moved_cut_and_told() -> None:
    moved, rejects = place_boxes(frame((30, 40, 50, 60), (0, 100, 30, 120), (0, 0, 20, 10)), "strict")
    assert moved.select("source", *BOX).rows() == [
        ("row 0", 23.0, 125.0, 63.0, 205.0),
        ("row 1", 3.0, 365.0, 23.0, 405.0),
    ]
    assert rejects.select("path", "reason").rows() == [("row 2", "box_outside_crop")]


def test_compat_moves_every_box() -> None:
    moved, rejects = place_boxes(frame((5, 5, 15, 9)), "compat")
    assert moved.select(BOX).rows() == [(-27.0, -15.0, -7.0, 1.0)]
    assert len(rejects) == 0


def test_boxes_of_images_that_are_not_converted_stay_in_stored_pixels() -> None:
    boxes = ((30, 40, 50, 60), (-4, 100, 90, 130))
    moved, _ = place_boxes(frame(*boxes, place=UNPLACED), "strict")
    assert moved.select(BOX).rows() == [(30, 40, 50, 60), (0, 100, 80, 120)]
    assert place_boxes(frame(*boxes, place=UNPLACED), "compat")[0].select(BOX).rows() == list(boxes)
    unsized, _ = place_boxes(frame(*boxes, place=UNPLACED, rows=None, columns=None), "strict")
    assert unsized.select(BOX).rows() == [(30, 40, 50, 60), (0, 100, 90, 130)]


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(-50, 200)] * 4), min_size=1, max_size=8), st.sampled_from(["strict", "compat"]))
def test_boxes_of_many_images_move_as_each_does_alone(boxes: list[tuple[int, ...]], mode: Any) -> None:
    places = [{**PLACE, "crop_left": n, "scale_x": 1.0 + n, "pad_top": n} for n in range(len(boxes))]
    together = pl.concat(
        frame(box, place=place, rows=120 + n).with_columns(source=pl.lit(f"row {n}"))
        for n, (box, place) in enumerate(zip(boxes, places, strict=True))
    )
    moved, _ = place_boxes(together, mode)
    found = {row[0]: row[1:] for row in moved.select("source", *BOX).rows()}
    for n, (box, place) in enumerate(zip(boxes, places, strict=True)):
        crop = CropBox(*(place[f"crop_{edge}"] for edge in ("top", "bottom", "left", "right")))
        placement = Placement(crop, place["scale_x"], place["scale_y"], place["pad_left"], place["pad_top"])
        array = np.array([box], np.float64)
        if mode == "compat":
            expected, kept = placement.boxes_to_png_compat(array, (120 + n, 80)), np.array([True])
        else:
            expected, kept = placement.boxes_to_png(array)
        assert (f"row {n}" in found) == kept[0]
        if kept[0]:
            assert found[f"row {n}"] == tuple(expected[0])
