"""Boxes, scores and heat on a mammogram."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.paper.overlays import draw_box, label_boxes, show_crop, show_heat

SHAPE = (160, 100)
WIDTH_IN = 1.25


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, WIDTH_IN * SHAPE[0] / SHAPE[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    show_crop(axes, np.zeros(SHAPE, np.uint8), 250)
    return figure, axes


@pytest.mark.parametrize(
    "boxes",
    [
        [(20.0, 40.0, 60.0, 80.0)] * 3,
        [(0.0, 0.0, 30.0, 20.0), (2.0, 1.0, 28.0, 22.0), (70.0, 140.0, 100.0, 160.0)],
        [(0.0, 0.0, 100.0, 160.0)] * 3,
        [(95.0, 150.0, 100.0, 160.0), (94.0, 149.0, 99.0, 159.0), (93.0, 151.0, 100.0, 160.0)],
    ],
)
def test_scores_lie_inside_the_picture_and_on_no_other_score(boxes: list[tuple[float, float, float, float]]) -> None:
    figure, axes = _panel()
    label_boxes(axes, boxes, ["0.91", "0.52", "0.08"][: len(boxes)], "white", SHAPE, WIDTH_IN)
    figure.canvas.draw()
    placed = [text.get_window_extent() for text in axes.texts]
    assert len(placed) >= 2
    outline = axes.get_window_extent()
    for extent in placed:
        assert outline.x0 <= extent.x0 <= extent.x1 <= outline.x1
        assert outline.y0 <= extent.y0 <= extent.y1 <= outline.y1
    assert not any(one.overlaps(other) for one, other in itertools.combinations(placed, 2))


def test_a_box_lies_where_its_corners_say() -> None:
    _, axes = _panel()
    draw_box(axes, (10, 20, 30, 50), "white", dashed=True)
    assert axes.patches[0].get_bbox().extents.tolist() == [10, 20, 30, 50]
    assert axes.patches[0].get_linestyle() != "-"


def test_heat_is_a_share_of_its_maximum_and_what_is_negative_is_nothing() -> None:
    _, axes = _panel()
    show_heat(axes, np.array([[-4.0, 0.0], [0.0, 2.0]]), SHAPE, 50)
    heat = axes.images[1].get_array()
    assert axes.images[1].get_extent() == [0, 100, 160, 0]
    assert (heat.min(), heat.max()) == (0, 1)
    assert np.unravel_index(heat.argmax(), heat.shape)[0] > heat.shape[0] / 2


def test_a_map_without_heat_shows_none() -> None:
    _, axes = _panel()
    show_heat(axes, np.full((3, 2), -1.0), SHAPE, 50)
    assert not axes.images[1].get_array().any()


def test_a_large_crop_is_drawn_small_in_its_own_coordinates() -> None:
    _, axes = _panel()
    show_crop(axes, np.zeros((1520, 912), np.uint8), 250)
    assert axes.images[1].get_array().shape == (417, 250)
    assert axes.images[1].get_extent() == [0, 912, 1520, 0]
