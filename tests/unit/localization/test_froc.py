from __future__ import annotations

import doctest
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.evaluation.statistics import clustered_bootstrap
from mammoclip.evaluation.subgroups import size_bins
from mammoclip.localization import froc
from mammoclip.localization.detection_metrics import Detections, Truths, images_with_truths
from mammoclip.localization.froc import (
    MIN_LESIONS,
    RATES,
    froc_curve,
    froc_table,
    sensitivity_at_false_positives,
)

Array = np.ndarray[Any, Any]
relaxed = settings(deadline=None, max_examples=50)
LESION, ELSEWHERE = [0, 0, 10, 10], [50, 50, 60, 60]


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Detections, Truths]:
    """Every image may have one lesion; each detection is exactly on its place or elsewhere; scores tie."""
    num_images = draw(st.integers(1, 6))
    lesions = sorted(draw(st.sets(st.integers(0, num_images - 1), min_size=1)))
    found = draw(st.lists(st.tuples(st.integers(0, num_images - 1), st.booleans(), st.integers(0, 5)), max_size=15))
    boxes = [LESION if on_place else ELSEWHERE for _, on_place, _ in found]
    detections = Detections.of([i for i, *_ in found], boxes, [s for *_, s in found])
    return detections, Truths.of(lesions, [LESION] * len(lesions), num_images)


def spelled_out(detections: Detections, truths: Truths, threshold: float) -> tuple[float, float]:
    """False positives per image and sensitivity of one threshold, for the boxes of `cohorts`."""
    called = [
        (image, box[0] == 0)
        for image, box, score in zip(detections.images, detections.boxes, detections.scores, strict=True)
        if score >= threshold
    ]
    lesions = set(truths.images)
    found = {image for image, on_place in called if on_place and image in lesions}
    false = [image for image, on_place in called if not (on_place and image in lesions)]
    return len(false) / truths.num_images, len(found) / len(lesions)


@pytest.fixture
def worked() -> tuple[Detections, Truths]:
    """Four images, two lesions; by score: a hit, a false positive, the same lesion again, two false ones, a hit."""
    truths = Truths.of([0, 1], [LESION, LESION], num_images=4)
    boxes = [LESION, ELSEWHERE, [0, 0, 10, 9], ELSEWHERE, LESION, LESION]
    return Detections.of([0, 2, 0, 3, 3, 1], boxes, [0.9, 0.8, 0.75, 0.7, 0.6, 0.5]), truths


def test_a_hand_checked_curve(worked: tuple[Detections, Truths]) -> None:
    false_positives, sensitivity, thresholds = froc_curve(*worked, iou=0.5)
    assert false_positives.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.75, 0.75]
    assert sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 1]
    assert thresholds.tolist() == [np.inf, 0.9, 0.8, 0.75, 0.7, 0.6, 0.5]
    assert sensitivity_at_false_positives(*worked, iou=0.5).tolist() == [0.5, 0.5, 1, 1]
    assert sensitivity_at_false_positives(*worked, iou=0.5, rates=[0, 0.74, 0.75]).tolist() == [0.5, 0.5, 1]
    # Without the images that have no lesion nothing false is left.
    found, true, _ = images_with_truths(*worked)
    assert sensitivity_at_false_positives(found, true, iou=0.5, rates=[0]).tolist() == [1]


@relaxed
@given(cohorts())
def test_every_point_of_the_curve_is_its_threshold_spelled_out(cohort: tuple[Detections, Truths]) -> None:
    for false_positives, sensitivity, threshold in zip(*froc_curve(*cohort, iou=0.5), strict=True):
        assert (false_positives, sensitivity) == pytest.approx(spelled_out(*cohort, threshold))


@relaxed
@given(cohorts(), st.lists(st.floats(0, 3), min_size=1))
def test_sensitivity_is_the_best_of_the_curve_that_the_rate_allows(
    cohort: tuple[Detections, Truths], rates: list[float]
) -> None:
    false_positives, sensitivity, _ = froc_curve(*cohort, iou=0.5)
    expected = [sensitivity[false_positives <= rate + 1e-9].max() for rate in rates]
    assert sensitivity_at_false_positives(*cohort, 0.5, rates).tolist() == pytest.approx(expected)


@relaxed
@given(cohorts())
def test_more_false_positives_never_lower_the_sensitivity(cohort: tuple[Detections, Truths]) -> None:
    false_positives, sensitivity, _ = froc_curve(*cohort, iou=0.5)
    assert (np.diff(false_positives) >= 0).all() and (np.diff(sensitivity) >= 0).all()
    at_rates = sensitivity_at_false_positives(*cohort, 0.5, [0, *RATES])
    assert (np.diff(at_rates) >= 0).all()


def test_29_false_positives_in_100_images_are_a_rate_of_29_percent() -> None:
    assert 0.29 * 100 < 29  # rounding must not decide
    truths = Truths.of([0], [LESION], 100)
    detections = Detections.of([*range(1, 30), 0], [ELSEWHERE] * 29 + [LESION], np.linspace(0.9, 0.1, 30))
    assert sensitivity_at_false_positives(detections, truths, 0.5, [0.29, 0.289]).tolist() == [1, 0]


def test_without_a_lesion_sensitivity_is_nan_and_without_an_image_there_is_no_curve() -> None:
    none = Truths.of([], [], 2)
    detections = Detections.of([0], [ELSEWHERE], [0.5])
    false_positives, sensitivity, _ = froc_curve(detections, none, 0.5)
    assert false_positives.tolist() == [0, 0.5] and np.isnan(sensitivity).all()
    assert np.isnan(sensitivity_at_false_positives(detections, none, 0.5)).all()
    with pytest.raises(ValueError, match="at least one image"):
        froc_curve(Detections.of([], [], []), Truths.of([], [], 0), 0.5)
    with pytest.raises(ValueError, match="at least 0"):
        sensitivity_at_false_positives(detections, none, 0.5, [-1])


def test_random_boxes_find_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 900, (1060, 2))
    boxes = np.hstack([corners, corners + rng.uniform(20, 100, (1060, 2))])
    truths = Truths.of(rng.integers(0, 100, 60), boxes[:60], 100)
    detections = Detections.of(np.repeat(np.arange(100), 10), boxes[60:], rng.uniform(size=1000))
    assert sensitivity_at_false_positives(detections, truths, 0.25)[-1] < 0.05


def simulate() -> tuple[Detections, Truths, Array, Array]:
    """Sixty images of ten patients, some with many; thirty lesions, of which large ones are found more often; sizes."""
    rng = np.random.default_rng(3)
    sizes = np.repeat([5.0, 30.0, 80.0], [13, 13, 4])
    corners = np.stack([np.arange(30) * 100.0, np.zeros(30)], axis=1)
    boxes = np.hstack([corners, corners + sizes[:, None]])
    images = rng.integers(0, 60, 30)
    found = rng.uniform(size=30) < np.where(sizes > 10, 0.9, 0.4)
    false = rng.uniform(0, 50, (50, 2)) + 5000
    detections = Detections.of(
        np.append(images[found], rng.integers(0, 60, 50)),
        np.vstack([boxes[found], np.hstack([false, false + 20])]),
        np.round(np.append(rng.normal(1, 1, found.sum()), rng.normal(0, 1, 50)), 1),
    )
    return detections, Truths.of(images, boxes, 60), np.sqrt(np.arange(60) * 1.6).astype(int), sizes


def test_a_table_by_lesion_size_has_the_numbers_of_its_groups_and_their_intervals() -> None:
    detections, truths, patients, sizes = simulate()
    table = froc_table(
        detections, truths, patients, 0.5, lesion_groups=size_bins(sizes.tolist(), [20, 50]), num_resamples=50, seed=1
    )
    assert table["group"].to_list() == [g for g in ("all", "< 20", "20 to < 50", ">= 50") for _ in RATES]
    assert table["num_lesions"].to_list() == [n for n in (30, 13, 13, 4) for _ in RATES]
    assert table["false_positives_per_image"].to_list() == [*RATES] * 4

    numbers = table["sensitivity"].to_list()
    assert numbers[:4] == pytest.approx(sensitivity_at_false_positives(detections, truths, 0.5).tolist())
    assert numbers[8] > numbers[4]
    assert numbers[12:] == [None] * 4
    assert table["reason"].to_list() == [None] * 12 + [f"fewer than {MIN_LESIONS} lesions"] * 4

    # Where the false positives of all images allow a threshold, the lesions of the group that score as high.
    false_positives, _, thresholds = froc_curve(detections, truths, 0.5)
    small = Truths(truths.images[:13], truths.boxes[:13], 60)
    for rate, value in zip(RATES, numbers[4:8], strict=True):
        lowest = thresholds[false_positives <= rate].min()
        found = [((detections.boxes == box).all(axis=1) & (detections.scores >= lowest)).any() for box in small.boxes]
        assert value == pytest.approx(np.mean(found))


def test_intervals_are_those_of_resamples_spelled_out() -> None:
    detections, truths, patients, _ = simulate()

    def at_one(images: Array, _: Array) -> float:
        rows = [np.flatnonzero(detections.images == image) for image in images]
        columns = [np.flatnonzero(truths.images == image) for image in images]
        found = detections.at(np.concatenate(rows))
        drawn = Detections(np.repeat(np.arange(len(images)), [len(r) for r in rows]), found.boxes, found.scores)
        new = np.repeat(np.arange(len(images)), [len(c) for c in columns])
        return float(
            sensitivity_at_false_positives(
                drawn, Truths(new, truths.boxes[np.concatenate(columns)], len(images)), 0.5, [1 / 4]
            )[0]
        )

    images = np.arange(60)
    expected = clustered_bootstrap(at_one, images, images, patients, num_resamples=60, seed=5)
    row = froc_table(detections, truths, patients, 0.5, [1 / 4], num_resamples=60, seed=5).row(0, named=True)
    assert (row["sensitivity"], row["ci_low"], row["ci_high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert row["ci_low"] < row["sensitivity"] < row["ci_high"]


def test_lesions_of_unknown_size_come_last_and_groups_must_fit() -> None:
    detections, truths, patients, _ = simulate()
    groups = ["known"] * 18 + [None] * 12
    table = froc_table(detections, truths, patients, 0.5, [1], groups, num_resamples=5, seed=0)
    assert table["group"].to_list() == ["all", "known", None]
    assert table["num_lesions"].to_list() == [30, 18, 12]
    total, *parts = (n * s for n, s in table.select("num_lesions", "sensitivity").rows())
    assert total == pytest.approx(sum(parts))
    with pytest.raises(ValueError, match="each of 30; got 2"):
        froc_table(detections, truths, patients, 0.5, [1], ["a", "b"], seed=0)
    with pytest.raises(ValueError, match="same length"):
        froc_table(detections, truths, patients[:-1], 0.5, [1], seed=0)


def test_the_table_has_no_interval_of_a_single_patient() -> None:
    detections, truths, patients, _ = simulate()
    table = froc_table(detections, truths, np.zeros_like(patients), 0.5, num_resamples=5, seed=0)
    assert table["sensitivity"].null_count() == 0 and table["ci_low"].null_count() == len(RATES)


def test_lower_rates_use_higher_thresholds_in_every_group() -> None:
    detections, truths, patients, sizes = simulate()
    table = froc_table(detections, truths, patients, 0.5, lesion_groups=(sizes > 10).tolist(), num_resamples=2, seed=0)
    for _, rows in itertools.groupby(table.select("group", "sensitivity").rows(), key=lambda row: row[0]):
        values = [value for _, value in rows]
        assert values == sorted(values)


def test_the_worked_examples_hold() -> None:
    failed, attempted = doctest.testmod(froc)
    assert (failed, attempted) == (0, 7)
