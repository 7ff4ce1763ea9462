from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.errors import MammoClipError
from mammoclip.localization import attribution_metrics
from mammoclip.localization.attribution_metrics import (
    box_iou,
    check_boxes,
    energy_inside,
    mean_over_images,
    pointing_game,
    region_iou,
)

Array = np.ndarray[Any, Any]
relaxed = settings(deadline=None, max_examples=50)
SIDE = 12


@st.composite
def boxes(draw: st.DrawFn, min_size: int = 1) -> list[list[int]]:
    """Boxes with an area on a grid of 12 x 12 pixels."""
    size = draw(st.integers(min_size, 4))
    found = []
    for _ in range(size):
        x, y = draw(st.integers(0, SIDE - 2)), draw(st.integers(0, SIDE - 2))
        found.append([x, y, draw(st.integers(x + 1, SIDE)), draw(st.integers(y + 1, SIDE))])
    return found


heats = hnp.arrays(np.float64, (SIDE, SIDE), elements=st.integers(-2, 5).map(float))


def painted(some: list[list[int]]) -> Array:
    """The pixels that boxes with whole coordinates cover."""
    mask = np.zeros((SIDE, SIDE), bool)
    for x_min, y_min, x_max, y_max in some:
        mask[y_min:y_max, x_min:x_max] = True
    return mask


@relaxed
@given(boxes(), boxes())
def test_iou_of_boxes_is_that_of_their_pixels_and_symmetric(some: list[list[int]], others: list[list[int]]) -> None:
    found = box_iou(some, others)
    assert found.shape == (len(some), len(others))
    for row, a in enumerate(some):
        for column, b in enumerate(others):
            ours, theirs = painted([a]), painted([b])
            assert found[row, column] == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
    assert (box_iou(others, some) == found.T).all()
    assert (np.diag(box_iou(some, some)) == 1).all()


@relaxed
@given(boxes(), boxes())
def test_iou_of_regions_is_that_of_their_pixels_and_symmetric(some: list[list[int]], others: list[list[int]]) -> None:
    ours, theirs = painted(some), painted(others)
    expected = (ours & theirs).sum() / (ours | theirs).sum()
    assert region_iou(some, others) == region_iou(others, some) == pytest.approx(expected)
    assert region_iou(some, some) == 1
    shifted = [[value / 7 - 3 for value in box] for box in some], [[value / 7 - 3 for value in box] for box in others]
    assert region_iou(*shifted) == pytest.approx(expected)


@relaxed
@given(boxes(), boxes())
def test_with_one_box_on_either_side_the_regions_are_the_boxes(some: list[list[int]], others: list[list[int]]) -> None:
    assert region_iou(some[:1], others[:1]) == pytest.approx(box_iou(some, others)[0, 0])


def test_iou_of_nothing() -> None:
    assert box_iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0]]
    assert region_iou([], [[0, 0, 1, 1]]) == 0
    assert region_iou([[0, 0, 0, 5]], [[0, 0, 1, 1]]) == 0
    assert math.isnan(region_iou([[0, 0, 1, 1]], []))
    assert math.isnan(region_iou([], []))
    assert math.isnan(region_iou([[0, 0, 1, 1]], [[0, 0, 0, 5]]))


@relaxed
@given(heats, boxes())
def test_the_pointing_game_scores_a_maximum_picked_at_random(heat: Array, truths: list[list[int]]) -> None:
    inside = painted(truths)
    hits = [inside[place] for place in zip(*np.nonzero(heat == heat.max()), strict=True)]
    assert pointing_game(heat, truths) == pytest.approx(np.mean(hits))
    only = np.where(inside, heat - heat.min() + 1, 0)
    assert pointing_game(only, truths) == 1


@relaxed
@given(heats, boxes())
def test_the_energy_of_a_map_is_the_sum_of_its_positive_pixels(heat: Array, truths: list[list[int]]) -> None:
    total = sum(value for value in heat.ravel() if value > 0)
    inside = sum(value for value in heat[painted(truths)] if value > 0)
    assert energy_inside(heat, truths) == pytest.approx(inside / total if total else 0)
    assert energy_inside(3 * heat, truths) == pytest.approx(energy_inside(heat, truths))
    assert 0 <= energy_inside(heat, truths) <= 1


@relaxed
@given(heats, boxes(), boxes())
def test_more_true_boxes_never_lower_either(heat: Array, some: list[list[int]], others: list[list[int]]) -> None:
    assert pointing_game(heat, some + others) >= pointing_game(heat, some)
    assert energy_inside(heat, some + others) >= energy_inside(heat, some)


@relaxed
@given(boxes())
def test_a_map_that_is_the_same_everywhere_scores_chance(truths: list[list[int]]) -> None:
    chance = painted(truths).mean()
    assert pointing_game(np.full((SIDE, SIDE), 0.5), truths) == pytest.approx(chance)
    assert energy_inside(np.full((SIDE, SIDE), 0.5), truths) == pytest.approx(chance)


def test_random_maps_score_about_the_area_of_the_box() -> None:
    rng = np.random.default_rng(0)
    truth, maps = [[2, 3, 6, 9]], rng.uniform(size=(2000, SIDE, SIDE))
    area = 4 * 6 / SIDE**2
    assert np.mean([pointing_game(heat, truth) for heat in maps]) == pytest.approx(area, abs=0.03)
    assert np.mean([energy_inside(heat, truth) for heat in maps]) == pytest.approx(area, abs=0.01)


def test_a_pixel_is_inside_when_its_centre_is() -> None:
    heat = [[0.0, 1.0, 0.0]]
    assert pointing_game(heat, [[1, 0, 2, 1]]) == 1
    assert pointing_game(heat, [[0, 0, 1, 1]]) == pointing_game(heat, [[2, 0, 3, 1]]) == 0
    assert pointing_game(heat, [[1.5, 0, 3, 1]]) == 1
    assert pointing_game(heat, [[1.6, 0, 3, 1]]) == pointing_game(heat, [[0, 0, 1.5, 1]]) == 0


def test_without_a_true_box_there_is_no_value_and_without_heat_it_is_0() -> None:
    assert math.isnan(pointing_game([[1.0]], [])) and math.isnan(energy_inside([[1.0]], []))
    assert energy_inside([[-1.0, 0.0]], [[0, 0, 1, 1]]) == 0


def test_the_mean_weighs_images_and_its_interval_patients() -> None:
    rng = np.random.default_rng(0)
    of_patient = rng.uniform(size=50)
    values, patients = np.repeat(of_patient, 4), np.repeat(np.arange(50), 4)
    interval = mean_over_images([*values, math.nan], [*patients, 99], seed=0)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.num_clusters, interval.num_undefined) == (50, 0)
    # Fifty numbers, not two hundred: the half-width is about two standard errors of their mean.
    expected = 1.96 * of_patient.std() / math.sqrt(50)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.15)


def test_the_mean_of_no_value_is_nan() -> None:
    interval = mean_over_images([math.nan, math.nan], ["a", "b"], seed=0)
    assert math.isnan(interval.value) and math.isnan(interval.low) and interval.num_clusters == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: check_boxes([[0, 0, 1]]), ValueError, r"\(N, 4\); got \(1, 3\)"),
        (lambda: check_boxes([0, 0, 1, 1]), ValueError, r"got \(4,\)"),
        (lambda: check_boxes([[0, 0, 1, 1], [0, 2, 1, 1]]), MammoClipError, "1 of 2 boxes"),
        (lambda: check_boxes([[0, 0, math.inf, 1]]), MammoClipError, "1 of 1 boxes"),
        (lambda: pointing_game([1, 2], [[0, 0, 1, 1]]), ValueError, r"\(H, W\); got \(2,\)"),
        (lambda: pointing_game(np.zeros((0, 3)), []), ValueError, r"\(H, W\)"),
        (lambda: energy_inside([[math.nan, 1]], [[0, 0, 1, 1]]), MammoClipError, "1 of 2 values"),
        (lambda: mean_over_images([1, 2], ["a"], seed=0), ValueError, r"got \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_worked_examples_hold() -> None:
    failed, attempted = doctest.testmod(attribution_metrics)
    assert (failed, attempted) == (0, 5)
