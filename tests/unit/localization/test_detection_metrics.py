from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.statistics import clustered_bootstrap
from mammoclip.localization import detection_metrics
from mammoclip.localization.detection_metrics import (
    COCO_IOUS,
    MISS,
    REPEAT,
    CountsAtLevels,
    Detections,
    Truths,
    average_precision,
    average_precision_intervals,
    coco_average_precision,
    images_with_truths,
    match,
    mean_average_precision_intervals,
)

Array = np.ndarray[Any, Any]
relaxed = settings(deadline=None, max_examples=50)
Cohort = tuple[Detections, Truths]

NONE = Detections.of([], [], [])


@st.composite
def cohorts(draw: st.DrawFn, ties: bool = True, min_truths: int = 0) -> Cohort:
    """Few places and few sizes, so that boxes often hit, repeat or coincide; scores tie unless told otherwise."""
    num_images = draw(st.integers(1, 6))

    def boxes(size: int) -> Array:
        corner = np.array(draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=size, max_size=size)))
        sides = np.array(draw(st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=size, max_size=size)))
        return np.hstack([corner.reshape(-1, 2), (corner + sides).reshape(-1, 2)])

    def images(size: int) -> Array:
        return np.array(draw(st.lists(st.integers(0, num_images - 1), min_size=size, max_size=size)), np.int64)

    num_truths, num_detections = draw(st.integers(min_truths, 8)), draw(st.integers(0, 14))
    scores = (
        np.array(draw(st.lists(st.integers(0, 4), min_size=num_detections, max_size=num_detections)), float)
        if ties
        else np.array(draw(st.permutations(range(num_detections))), float)
    )
    truths = Truths.of(images(num_truths), boxes(num_truths), num_images)
    return Detections.of(images(num_detections), boxes(num_detections), scores), truths


def overlap(a: Array, b: Array) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return float(width * height / union)


def spelled_out(detections: Detections, truths: Truths, iou: float) -> float:
    """AP of scores without ties: one detection after the other, then the best precision at or after each recall."""
    taken: set[int] = set()
    hits = []
    for row in np.argsort(-detections.scores):
        candidates = [
            (overlap(detections.boxes[row], truths.boxes[t]), *truths.boxes[t][::-1], t)
            for t in range(len(truths.images))
            if truths.images[t] == detections.images[row] and t not in taken
        ]
        best, *_, place = max(candidates, default=(0.0, 0))
        hits.append(best >= iou)
        if best >= iou:
            taken.add(place)
    precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    return sum(max(precision[k:]) for k in range(len(hits)) if hits[k]) / len(truths.images)


@pytest.fixture
def worked() -> Cohort:
    """Two lesions: one found with IoU 0.8 at score 0.9, one exactly at 0.7, a false positive at 0.8."""
    truths = Truths.of([0, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], num_images=2)
    return Detections.of([0, 1, 1], [[0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7]), truths


def test_average_precision_of_a_hand_checked_case(worked: Cohort) -> None:
    # Recall 1/2 at precision 1/1, recall 1 at 2/3.
    assert average_precision(*worked, iou=0.5) == (1 + 2 / 3) / 2
    # Above IoU 0.8 the third alone hits: recall 1/2 at precision 1/3.
    assert average_precision(*worked, iou=0.9) == (1 / 3) / 2


def test_coco_of_a_hand_checked_case(worked: Cohort) -> None:
    # Of 101 recalls 0.00 to 0.50 are reached at precision 1, the 50 others at 2/3.
    low = (51 * 1 + 50 * 2 / 3) / 101
    assert coco_average_precision(*worked, ious=[0.5]) == pytest.approx(low, abs=1e-12)
    # The IoU of 0.8 counts at .5, .55, ... .8; at .85, .9 and .95 51 recalls are reached at precision 1/3.
    high = 51 * (1 / 3) / 101
    assert coco_average_precision(*worked) == pytest.approx((7 * low + 3 * high) / 10, abs=1e-12)


@relaxed
@given(cohorts(ties=False, min_truths=1), st.sampled_from([0.25, 0.5, 0.75]))
def test_average_precision_equals_the_one_spelled_out(cohort: Cohort, iou: float) -> None:
    assert average_precision(*cohort, iou) == pytest.approx(spelled_out(*cohort, iou), abs=1e-12)


@relaxed
@given(cohorts(ties=False, min_truths=1), st.sampled_from([0.25, 0.5, 0.75]))
def test_average_precision_is_cocos_to_the_rounding_of_recalls(cohort: Cohort, iou: float) -> None:
    # A step of precision lies off a recall of 0.00, 0.01, ... by less than 0.01; recall 0 counts as one of 101.
    difference = average_precision(*cohort, iou) - coco_average_precision(*cohort, ious=[iou])
    assert abs(difference) <= 0.01 * len(cohort[1].images) + 1 / 101


@relaxed
@given(cohorts(ties=False, min_truths=1))
def test_the_interval_of_coco_ap_is_around_what_its_evaluator_says(cohort: Cohort) -> None:
    patients = np.arange(cohort[1].num_images)
    interval = average_precision_intervals(*cohort, patients, num_resamples=2, seed=0)["COCO AP"]
    assert interval.value == pytest.approx(coco_average_precision(*cohort), abs=1e-9)


def test_coco_takes_the_best_hundred_of_an_image() -> None:
    truths = Truths.of([0, 0], [[0, 0, 10, 10], [50, 50, 60, 60]], 1)
    elsewhere = [[200, 200, 210, 210]] * 99
    boxes = [[0, 0, 10, 10], *elsewhere, [50, 50, 60, 60]]
    detections = Detections.of([0] * 101, boxes, np.linspace(1, 0.1, 101))
    assert coco_average_precision(detections, truths) == pytest.approx(51 / 101)
    assert average_precision(detections, truths, 0.5) == pytest.approx((1 + 2 / 101) / 2)
    interval = average_precision_intervals(detections, truths, ["a"], num_resamples=2, seed=0)["COCO AP"]
    assert interval.value == pytest.approx(51 / 101) and math.isnan(interval.low)


@relaxed
@given(cohorts(min_truths=1), st.sampled_from([0.25, 0.5, 1.0]))
def test_detections_of_every_true_box_have_average_precision_1(cohort: Cohort, iou: float) -> None:
    truths = cohort[1]
    perfect = Detections.of(truths.images, truths.boxes, np.linspace(0.1, 0.9, len(truths.images)))
    assert average_precision(perfect, truths, iou) == 1
    # What scores below all of them costs nothing.
    more = Detections.of([*truths.images, 0], [*truths.boxes, [90, 90, 99, 99]], [*perfect.scores, 0.01])
    assert average_precision(more, truths, iou) == 1


@relaxed
@given(cohorts(), st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5]))
def test_the_order_of_rows_does_not_matter(cohort: Cohort, seed: int, iou: float) -> None:
    detections, truths = cohort
    rng = np.random.default_rng(seed)
    order, order_of_truths = rng.permutation(len(detections.scores)), rng.permutation(len(truths.images))
    shuffled = Truths(truths.images[order_of_truths], truths.boxes[order_of_truths], truths.num_images)
    expected = average_precision(detections, truths, iou)
    assert average_precision(detections.at(order), shuffled, iou) == pytest.approx(expected, abs=0, nan_ok=True)


@relaxed
@given(cohorts(min_truths=1), st.sampled_from([0.25, 0.5]))
def test_a_false_positive_at_the_top_does_not_raise_it(cohort: Cohort, iou: float) -> None:
    detections, truths = cohort
    worse = Detections.of([*detections.images, 0], [*detections.boxes, [90, 90, 99, 99]], [*detections.scores, 10])
    assert average_precision(worse, truths, iou) <= average_precision(detections, truths, iou)


@relaxed
@given(cohorts(), st.sampled_from([0.25, 0.5]))
def test_only_the_order_of_scores_matters(cohort: Cohort, iou: float) -> None:
    detections, truths = cohort
    stretched = Detections.of(detections.images, detections.boxes, np.exp(detections.scores) * 3 - 7)
    expected = average_precision(detections, truths, iou)
    assert average_precision(stretched, truths, iou) == pytest.approx(expected, abs=0, nan_ok=True)


@relaxed
@given(cohorts(), st.sampled_from([0.25, 0.5, 0.75]))
def test_each_true_box_is_found_once_and_repeats_reach_only_what_is_taken(cohort: Cohort, iou: float) -> None:
    detections, truths = cohort
    matches = match(detections, truths, iou)
    hits = matches[matches >= 0]
    assert len(set(hits)) == len(hits)
    for row, matched in enumerate(matches):
        same = np.flatnonzero(truths.images == detections.images[row])
        reached = {t for t in same if overlap(detections.boxes[row], truths.boxes[t]) >= iou}
        assert (matched in reached) if matched >= 0 else matched == (REPEAT if reached else MISS)
        assert matched != REPEAT or reached <= set(hits)


def test_the_surest_detection_chooses_first_and_leaves_the_rest() -> None:
    truths = Truths.of([0, 0], [[0, 0, 10, 10], [0, 4, 10, 14]], 1)
    # Both lie closest to the second; the surer one takes it, and the other the first, which it overlaps as well.
    detections = Detections.of([0, 0], [[0, 3, 10, 13], [0, 4, 10, 14]], [0.5, 0.9])
    assert match(detections, truths, 0.5).tolist() == [0, 1]
    assert match(detections, truths, 0.9).tolist() == [MISS, 1]


@pytest.mark.parametrize("scores", [[0.5, 0.5], [0.9, 0.5]])
def test_of_equal_scores_and_equal_overlaps_the_coordinates_decide_not_the_rows(scores: list[float]) -> None:
    # One detection overlaps both true boxes alike, the other only the lower: whether one or two are found depends on
    # which comes first.
    boxes, found = [[0, 0, 10, 10], [0, 10, 10, 20]], [[0, 3, 10, 17], [0, 10, 10, 20]]
    values = {
        (average_precision(detections, truths, iou), coco_average_precision(detections, truths, [iou]))
        for rows in ([0, 1], [1, 0])
        for columns in ([0, 1], [1, 0])
        for iou in (0.25, 0.3)
        for detections in [Detections.of([0, 0], np.array(found)[rows], np.array(scores)[rows])]
        for truths in [Truths.of([0, 0], np.array(boxes)[columns], 1)]
    }
    assert len(values) == 1


def test_of_equal_overlaps_the_same_true_box_is_taken_as_by_coco() -> None:
    truths = Truths.of([0, 0], [[0, 0, 10, 10], [0, 10, 10, 20]], 1)
    detections = Detections.of([0, 0], [[0, 3, 10, 17], [0, 10, 10, 20]], [0.9, 0.5])
    assert match(detections, truths, 0.3).tolist() == [1, REPEAT]
    assert coco_average_precision(detections, truths, [0.3]) == pytest.approx(51 / 101)


def test_equal_scores_are_called_together() -> None:
    truths = Truths.of([0], [[0, 0, 10, 10]], 2)
    for boxes in ([[0, 0, 10, 10], [50, 0, 60, 10]], [[50, 0, 60, 10], [0, 0, 10, 10]]):
        assert average_precision(Detections.of([0, 0], boxes, [0.5, 0.5]), truths, 0.5) == 0.5


def test_images_without_a_finding_count_unless_they_are_left_out() -> None:
    truths = Truths.of([3, 1], [[0, 0, 10, 10], [5, 5, 9, 9]], 4)
    detections = Detections.of([0, 3, 1], [[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 9, 9]], [0.9, 0.8, 0.7])
    assert average_precision(detections, truths, 0.5) == pytest.approx(2 / 3)
    found, true, kept = images_with_truths(detections, truths)
    assert average_precision(found, true, 0.5) == 1
    assert (kept.tolist(), true.num_images) == ([1, 3], 2)
    assert (found.images.tolist(), true.images.tolist()) == ([1, 0], [1, 0])


def test_without_a_true_box_there_is_no_value_and_without_a_detection_it_is_0(worked: Cohort) -> None:
    detections, truths = worked
    empty = Truths.of([], [], 2)
    assert math.isnan(average_precision(detections, empty, 0.5))
    assert math.isnan(coco_average_precision(detections, empty))
    assert average_precision(NONE, truths, 0.5) == coco_average_precision(NONE, truths) == 0
    assert images_with_truths(detections, empty)[1].num_images == 0


def test_random_boxes_have_next_to_no_average_precision() -> None:
    rng = np.random.default_rng(0)

    def boxes(size: int) -> Array:
        corners = rng.uniform(0, 900, (size, 2))
        return np.hstack([corners, corners + rng.uniform(20, 100, (size, 2))])

    truths = Truths.of(rng.integers(0, 100, 60), boxes(60), 100)
    detections = Detections.of(np.repeat(np.arange(100), 20), boxes(2000), rng.uniform(size=2000))
    assert average_precision(detections, truths, 0.25) < 0.02
    assert coco_average_precision(detections, truths) < 0.02


def simulate(seed: int) -> tuple[Detections, Truths, Array]:
    """Forty images of ten patients, some with lesions that are found more or less exactly, and false positives."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, 30)
    corners = rng.uniform(0, 500, (30, 2))
    boxes = np.hstack([corners, corners + 40])
    found = boxes[:20] + rng.normal(0, 4, (20, 1))
    others = rng.uniform(600, 900, (30, 2))
    scores = np.round(np.append(rng.normal(1, 1, 20), rng.normal(0, 1, 30)), 1)
    detections = Detections.of(
        np.append(images[:20], rng.integers(0, 40, 30)), np.vstack([found, np.hstack([others, others + 30])]), scores
    )
    return detections, Truths.of(images, boxes, 40), np.arange(40) // 4


def repeated(detections: Detections, truths: Truths, images: Array) -> Cohort:
    """The cohort of these images spelled out, one that is drawn twice as two images."""
    rows = [np.flatnonzero(detections.images == image) for image in images]
    columns = [np.flatnonzero(truths.images == image) for image in images]
    new, old = np.repeat(np.arange(len(images)), [len(r) for r in rows]), np.concatenate(rows)
    new_true, old_true = np.repeat(np.arange(len(images)), [len(c) for c in columns]), np.concatenate(columns)
    return (
        Detections(new, detections.boxes[old], detections.scores[old]),
        Truths(new_true, truths.boxes[old_true], len(images)),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_those_of_resamples_spelled_out(seed: int) -> None:
    detections, truths, patients = simulate(seed)

    def at_half(images: Array, _: Array) -> float:
        return average_precision(*repeated(detections, truths, images), 0.5)

    everything = np.arange(truths.num_images)
    expected = clustered_bootstrap(at_half, everything, everything, patients, num_resamples=100, seed=seed)
    intervals = average_precision_intervals(detections, truths, patients, num_resamples=100, seed=seed)
    assert list(intervals) == ["AP@0.25", "AP@0.5", "COCO AP"]
    found = intervals["AP@0.5"]
    assert [found.value, found.low, found.high] == pytest.approx([expected.value, expected.low, expected.high])
    assert found.num_clusters == 10 and found.low < found.value < found.high
    assert intervals["AP@0.25"].value >= found.value > intervals["COCO AP"].value > 0


def test_the_mean_over_findings_is_of_those_with_a_true_box_in_the_resample() -> None:
    often, (detections, truths, patients) = simulate(0)[:2], simulate(1)
    first = truths.images < 8  # of two patients alone: some resamples have none of these
    rare = detections, Truths.of(truths.images[first], truths.boxes[first], truths.num_images)
    never = detections, Truths.of([], [], truths.num_images)

    def spelled(images: Array, _: Array) -> float:
        values = [average_precision(*repeated(*cohort, images), 0.5) for cohort in (often, rare)]
        return float(np.nanmean(values))

    everything = np.arange(truths.num_images)
    options: dict[str, Any] = {"num_resamples": 100, "seed": 2}
    expected = clustered_bootstrap(spelled, everything, everything, patients, **options)
    found = mean_average_precision_intervals([often, rare, never], patients, **options)["AP@0.5"]
    assert [found.value, found.low, found.high] == pytest.approx([expected.value, expected.low, expected.high])
    assert found.num_undefined == 0
    alone = mean_average_precision_intervals([often], patients, **options)
    assert alone == average_precision_intervals(*often, patients, **options)
    assert math.isnan(mean_average_precision_intervals([never], patients, **options)["COCO AP"].value)


def test_findings_of_different_images_have_no_mean() -> None:
    with pytest.raises(ValueError, match=r"the same images, one finding at least; got \[2, 3\] images"):
        mean_average_precision_intervals([(NONE, Truths.of([], [], n)) for n in (2, 3)], [0, 0], seed=0)


def test_coco_ap_is_the_mean_over_its_thresholds() -> None:
    detections, truths, _ = simulate(0)
    each = [coco_average_precision(detections, truths, [iou]) for iou in COCO_IOUS]
    assert coco_average_precision(detections, truths) == pytest.approx(np.mean(each))


def test_counts_leave_out_what_scores_below_the_last_hit() -> None:
    detections = Detections.of([0, 1, 1, 0], [[0, 0, 1, 1]] * 4, [0.9, 0.8, 0.7, 0.6])
    hit = np.array([False, True, True, False])
    counts = CountsAtLevels.of(detections, hit, ~hit, num_images=2)
    assert counts.hits.toarray().tolist() == [[0, 1], [0, 1]]
    assert counts.false.toarray().tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Truths.of([0, 1], [[0, 0, 1, 1]], 2), ValueError, r"\(N,\) and \(N, 4\)"),
        (lambda: Truths.of([2], [[0, 0, 1, 1]], 2), ValueError, "image 2 of 2"),
        (lambda: Truths.of([-1], [[0, 0, 1, 1]], 2), ValueError, "0, 1, 2"),
        (lambda: Truths.of([0.5], [[0, 0, 1, 1]], 2), ValueError, "0, 1, 2"),
        (lambda: Truths.of([0], [[1, 0, 0, 1]], 2), MammoClipError, "1 of 1 boxes"),
        (lambda: Detections.of([0], [[0, 0, 1, 1]], [math.nan]), MammoClipError, "1 of 1 scores"),
        (lambda: Detections.of([0], [[0, 0, 1, 1]], [0.1, 0.2]), ValueError, "shape"),
        (lambda: match(NONE, Truths.of([], [], 1), 0), ValueError, "above 0"),
        (lambda: match(Detections.of([1], [[0, 0, 1, 1]], [1]), Truths.of([], [], 1), 0.5), ValueError, "image 1 of 1"),
    ],
)
def test_bad_input_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_worked_examples_hold() -> None:
    failed, attempted = doctest.testmod(detection_metrics)
    assert (failed, attempted) == (0, 6)
