"""Boxes of heat maps: what is hot hangs together, and what is not has no box."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mammoclip.localization.heat_boxes import boxes_from_heat


def two_blobs() -> np.ndarray:
    """Smooth blobs about (row 20, column 30) and (row 70, column 15), the second half as hot."""
    rows, columns = np.mgrid[:100, :60]
    first = np.exp(-((rows - 20) ** 2 / 50 + (columns - 30) ** 2 / 18))
    second = np.exp(-((rows - 70) ** 2 / 18 + (columns - 15) ** 2 / 32))
    return (first + 0.5 * second).astype(np.float32)


def around(heat: np.ndarray, hot: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(hot)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_two_blobs_are_two_boxes_the_hotter_first() -> None:
    heat = two_blobs()
    found = boxes_from_heat(heat, 0.25)
    hot = heat >= 0.25 * heat.max()
    top, bottom = hot.copy(), hot.copy()
    top[45:], bottom[:45] = False, False
    assert found.boxes.tolist() == [around(heat, top), around(heat, bottom)]
    assert found.scores == pytest.approx([1.0, 0.5])
    assert found.boxes.dtype == found.scores.dtype == np.float64


def test_a_higher_threshold_has_only_the_hotter_one() -> None:
    found = boxes_from_heat(two_blobs(), 0.75)
    assert len(found.boxes) == 1
    x_min, y_min, x_max, y_max = found.boxes[0]
    assert x_min <= 30 < x_max
    assert y_min <= 20 < y_max


def test_the_threshold_is_a_share_of_the_largest_heat_whatever_its_scale() -> None:
    heat = two_blobs()
    assert np.array_equal(boxes_from_heat(heat / 8, 0.4).boxes, boxes_from_heat(heat, 0.4).boxes)


def test_a_quantile_lets_a_share_of_the_pixels_be_hot() -> None:
    heat = np.arange(100.0).reshape(10, 10)
    assert boxes_from_heat(heat, 0.8, relative_to="quantile").boxes.tolist() == [[0, 8, 10, 10]]
    sparse = np.zeros((10, 10))
    sparse[4, 5] = 0.1
    assert boxes_from_heat(sparse, 0.5, relative_to="quantile").boxes.tolist() == [[5, 4, 6, 5]]  # the quantile is 0


def test_parts_of_few_pixels_have_no_box() -> None:
    heat = np.zeros((20, 20))
    heat[2:4, 2:5] = 1.0
    heat[10:15, 10:15] = 0.9
    for smallest, count in ((6, 2), (7, 1), (25, 1), (26, 0)):
        assert len(boxes_from_heat(heat, min_area_px=smallest).boxes) == count


def test_parts_hang_together_over_corners() -> None:
    assert boxes_from_heat(np.eye(5)).boxes.tolist() == [[0, 0, 5, 5]]


def test_the_mean_is_that_of_the_part_and_not_of_the_box() -> None:
    heat = np.zeros((5, 5))
    heat[1, 1:4], heat[1:4, 1] = 0.6, 1.0
    assert boxes_from_heat(heat, score="max").scores.tolist() == [1.0]
    assert boxes_from_heat(heat, score="mean").scores == pytest.approx([(3 * 1.0 + 2 * 0.6) / 5])


def test_boxes_of_equal_score_come_from_the_top_and_from_the_left() -> None:
    heat = np.zeros((30, 30))
    for top, left in ((20, 3), (5, 20), (5, 2)):
        heat[top : top + 2, left : left + 2] = 1.0
    expected = [[2, 5, 4, 7], [20, 5, 22, 7], [3, 20, 5, 22]]
    assert boxes_from_heat(heat).boxes.tolist() == expected
    assert boxes_from_heat(np.asfortranarray(heat)).boxes.tolist() == expected


def test_what_is_sure_of_the_image_scales_its_scores() -> None:
    heat = two_blobs()
    plain, scaled = boxes_from_heat(heat, 0.25), boxes_from_heat(heat, 0.25, image_score=0.2)
    assert np.array_equal(scaled.boxes, plain.boxes)
    assert scaled.scores == pytest.approx(0.2 * plain.scores)


@pytest.mark.parametrize("heat", [np.zeros((4, 5)), np.full((4, 5), -1.0)])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_no_heat_is_no_box(heat: np.ndarray, threshold: float) -> None:
    found = boxes_from_heat(heat, threshold)
    assert (found.boxes.shape, found.scores.shape) == ((0, 4), (0,))


def test_boxes_hold_every_hot_pixel_and_each_part_once() -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).random((24, 18), np.float32)
        heat = cv2.GaussianBlur(noise, (5, 5), 1.5)
        found = boxes_from_heat(heat, 0.8)
        covered = np.zeros(heat.shape, bool)
        for x_min, y_min, x_max, y_max in found.boxes.astype(int):
            covered[y_min:y_max, x_min:x_max] = True
        hot = heat >= np.float32(0.8) * heat.max()
        assert covered[hot].all()
        assert len(found.boxes) == cv2.connectedComponents(hot.astype(np.uint8))[0] - 1
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize(
    ("heat", "threshold"),
    [(np.zeros(4), 0.5), (np.full((2, 2), np.nan), 0.5), (np.ones((2, 2)), 1.1), (np.ones((2, 2)), -0.1)],
)
def test_what_is_no_heat_map_is_refused(heat: np.ndarray, threshold: float) -> None:
    with pytest.raises(ValueError, match="expected finite heat, H x W, and a threshold"):
        boxes_from_heat(heat, threshold)
