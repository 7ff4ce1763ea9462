import base64
import io

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from mammoclip.paper.crops import (
    Crop,
    assign_colours,
    crop_data_uri,
    draw_contact_sheet,
    read_crops,
    sample_images,
)
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.rendering import render_figure

COLOURS = assign_colours(["mass", "suspicious_calcification"])


def _crop(grey: int, **changes: object) -> Crop:
    box = ("mass", 20.0, 50.0, 60.0, 90.0)
    values = {"image": np.full((160, 96), grey, np.uint8), "boxes": [box], **changes}
    return Crop("an-image", "L", "MLO", "test", **values)


def _pixels(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"), np.int64)


def test_the_sample_is_seeded_ordered_and_without_replacement(inputs: Inputs) -> None:
    images = inputs.datasets["cohort"].images
    first, again, other = (sample_images(images, 5, seed)["image_id"].to_list() for seed in (1, 1, 2))
    assert first == again == sorted(set(first))
    assert len(first) == 5
    assert first != other


def test_the_sample_does_not_depend_on_the_order_of_the_rows(inputs: Inputs) -> None:
    images = inputs.datasets["cohort"].images
    assert sample_images(images.reverse(), 5, 1).equals(sample_images(images, 5, 1))


def test_a_small_data_set_is_shown_whole(inputs: Inputs) -> None:
    images = inputs.datasets["cohort"].images
    assert sample_images(images, 1000, 1).equals(images.sort("image_id"))


def test_crops_are_read_with_their_own_boxes(inputs: Inputs) -> None:
    tables = inputs.datasets["cohort"]
    for crop in read_crops(tables, tables.images):
        expected = [("suspicious_calcification", 10.0, 20.0, 30.0, 50.0)] if crop.view == "CC" else []
        assert list(crop.boxes) == expected
        assert crop.image.shape == (96, 64)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_box_is_visible_on_any_background(grey: int) -> None:
    pixels = _pixels(crop_data_uri(_crop(grey), COLOURS))
    scale = pixels.shape[1] / 96
    # A row of pixels through the middle of the box crosses its left side.
    across = pixels[round(70 * scale), round(14 * scale) : round(27 * scale)]
    colour = np.round(np.array(to_rgb(COLOURS["mass"])) * 255)
    assert np.abs(across - colour).sum(axis=1).min() < 120
    assert across.sum(axis=1).min() < 120
    assert np.ptp(across.sum(axis=1)) > 250


def test_the_box_lies_where_the_table_says() -> None:
    pixels = _pixels(crop_data_uri(_crop(128), COLOURS))
    scale = pixels.shape[1] / 96
    coloured = np.ptp(pixels, axis=2) > 100
    coloured[: round(48 * scale)] = False  # the label above the box
    rows, columns = np.nonzero(coloured)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(edges) / scale - [20, 50, 60, 90]).max() < 1.5


def test_the_picture_has_the_shape_of_the_image_and_is_small() -> None:
    uri = crop_data_uri(_crop(0, image=np.zeros((1520, 912), np.uint8), boxes=[]), COLOURS)
    assert _pixels(uri).shape == (500, 300, 3)
    assert len(uri) < 50_000


def test_the_description_names_side_view_and_findings() -> None:
    assert _crop(0).description == "Mammogram crop, left breast, MLO view; boxes: mass"
    assert _crop(0, boxes=[]).description == "Mammogram crop, left breast, MLO view"


def test_findings_have_different_colours_in_any_order() -> None:
    assert assign_colours(["b", "a", "b"]) == assign_colours(["a", "b"])
    assert len(set(assign_colours([f"finding {number}" for number in range(6)]).values())) == 6


def test_many_findings_share_colours() -> None:
    assert len(assign_colours([f"finding {number}" for number in range(9)])) == 9


@pytest.mark.parametrize("number", [0, 1, 6, 7])
def test_the_sheet_has_a_place_for_every_crop(number: int) -> None:
    figure = draw_contact_sheet([_crop(100)] * number, COLOURS)
    assert [axes.get_title() for axes in figure.axes if axes.images] == ["L MLO, test"] * number


def test_the_sheet_is_the_same_twice(inputs: Inputs) -> None:
    tables = inputs.datasets["cohort"]
    sheets = [
        render_figure(draw_contact_sheet(read_crops(tables, tables.images[:7]), COLOURS), "png") for _ in range(2)
    ]
    assert sheets[0] == sheets[1]


def test_a_label_at_the_top_lies_below_its_box() -> None:
    axes = draw_contact_sheet([_crop(0, boxes=[("mass", 60.0, 2.0, 90.0, 30.0)])], COLOURS).axes[0]
    label = axes.texts[0]
    assert label.get_position()[1] > 30
    assert label.get_horizontalalignment() == "right"


def test_boxes_of_other_images_are_not_drawn(inputs: Inputs) -> None:
    tables = inputs.datasets["cohort"]
    crops = read_crops(tables, tables.images.filter(pl.col("view") == "MLO"))
    assert all(not crop.boxes for crop in crops)
