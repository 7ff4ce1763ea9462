"""Average precision of detected boxes against true ones, with intervals that respect patients.

Shapes: I images, D detections, T true boxes, L levels. Boxes are rows of ``x_min, y_min, x_max, y_max`` in pixels,
half-open; those of many images lie in one array, each with the number of its image, from 0. Images without a true box
count: detections on them are false positives. `images_with_truths` leaves them out, as the released evaluation does.

Detections are called from the highest score down; those of equal score together, so the order of rows never matters and
an image that a resample holds twice counts twice. A metric without a value (no true box) is NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse  # type: ignore[import-untyped]
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

from mammoclip.evaluation.checks import FloatArray, IntArray, check_binary
from mammoclip.evaluation.statistics import Interval, Metric, clustered_bootstraps
from mammoclip.localization.attribution_metrics import BoolArray, box_iou, check_boxes

IOUS = (0.25, 0.5)
COCO_IOUS = tuple(percent / 100 for percent in range(50, 100, 5))
MISS, REPEAT = -1, -2

_COCO_DETECTIONS_PER_IMAGE = 100
_COCO_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Truths:
    """True boxes (T, 4), the image of each (T,) and the number of images, those without a box included."""

    images: IntArray
    boxes: FloatArray
    num_images: int

    @classmethod
    def of(cls, images: npt.ArrayLike, boxes: npt.ArrayLike, num_images: int) -> Truths:
        """Check and convert; raises ``ValueError`` for shapes and images, ``MammoClipError`` for what is no box."""
        numbers, corners = _as_boxes(images, boxes)
        if numbers.max(initial=-1) >= num_images:
            raise ValueError(f"A true box is on image {numbers.max()} of {num_images}, counted from 0.")
        return cls(numbers, corners, num_images)


@dataclass(frozen=True)
class Detections:
    """Detected boxes (D, 4), the image and the score of each (D,), higher meaning surer."""

    images: IntArray
    boxes: FloatArray
    scores: FloatArray

    @classmethod
    def of(cls, images: npt.ArrayLike, boxes: npt.ArrayLike, scores: npt.ArrayLike) -> Detections:
        """Check and convert; raises ``ValueError`` for shapes, ``MammoClipError`` for what is no box or score."""
        numbers, corners = _as_boxes(images, boxes)
        _, sureness = check_binary(np.zeros(len(numbers)), scores)
        return cls(numbers, corners, sureness)

    def at(self, rows: BoolArray | IntArray) -> Detections:
        """Return these rows."""
        return Detections(self.images[rows], self.boxes[rows], self.scores[rows])


@dataclass(frozen=True)
class CountsAtLevels:
    """Hits and false detections of each image, (L, I), called at each level but not at the one before.

    Levels are the distinct scores of the hits, highest first: between two of them sensitivity stays and precision only
    falls. What scores below the lowest is left out.
    """

    hits: scipy.sparse.csr_array
    false: scipy.sparse.csr_array

    @classmethod
    def of(cls, detections: Detections, hit: BoolArray, false: BoolArray, num_images: int) -> CountsAtLevels:
        """Count the detections that are a ``hit`` (D,) and those that are ``false`` (D,)."""
        levels = np.unique(-detections.scores[hit])

        def count(chosen: BoolArray) -> scipy.sparse.csr_array:
            level, image = np.searchsorted(levels, -detections.scores[chosen]), detections.images[chosen]
            called = level < len(levels)
            ones, at = np.ones(int(called.sum()), np.int64), (level[called], image[called])
            return scipy.sparse.csr_array((ones, at), shape=(len(levels), num_images))

        return cls(count(hit), count(false))

    def weighted(self, weights: IntArray) -> tuple[IntArray, IntArray]:
        """Return the hits (L,) of each level and the false detections (L,) up to it; ``weights`` (I,) of the images."""
        return self.hits @ weights, np.cumsum(self.false @ weights)


def match(detections: Detections, truths: Truths, iou: float) -> IntArray:
    """Return for each detection the row of its true box, or `MISS`, or `REPEAT` (D,).

    The surest detection of an image chooses first: of the true boxes that are free and reach ``iou`` the one with the
    highest (COCO's rule). A `REPEAT` reaches ``iou``, but only with boxes that surer detections hold.

    >>> truths = Truths.of([0], [[0, 0, 10, 10]], num_images=1)
    >>> twice_and_elsewhere = Detections.of([0, 0, 0], [[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]], [0.8, 0.9, 1])
    >>> match(twice_and_elsewhere, truths, iou=0.5).tolist()
    [-2, 0, -1]

    Raises:
        ValueError: ``iou`` is not above 0 and at most 1, or a detection is on an image that ``truths`` has not.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}; expected a number above 0 and at most 1.")
    if detections.images.max(initial=-1) >= truths.num_images:
        raise ValueError(f"A detection is on image {detections.images.max()} of {truths.num_images}, counted from 0.")
    matches = np.full(len(detections.images), MISS)
    rows, columns = _order(detections), _order(truths)
    for image in np.intersect1d(detections.images, truths.images):
        mine = rows[slice(*np.searchsorted(detections.images[rows], [image, image + 1]))]
        true = columns[slice(*np.searchsorted(truths.images[columns], [image, image + 1]))][::-1]
        overlaps = box_iou(detections.boxes[mine], truths.boxes[true])
        for row in np.flatnonzero(overlaps.max(axis=1) >= iou):
            best = overlaps[row].argmax()
            free = overlaps[row, best] >= iou
            matches[mine[row]] = true[best] if free else REPEAT
            if free:
                overlaps[row + 1 :, best] = -1
    return matches


def average_precision(detections: Detections, truths: Truths, iou: float) -> float:
    """Area under the precision-recall curve with all-point interpolation, 0 to 1; NaN without a true box.

    At each recall the best precision at this or any higher recall. A repeated detection of a true box is false.

    Worked example: of two true boxes the surest detection hits one (precision 1/1), the next none, the third the other
    (2/3): half of the recall each, (1 + 2/3) / 2.

    >>> truths = Truths.of([0, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], num_images=2)
    >>> detections = Detections.of([0, 1, 1], [[0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7])
    >>> round(average_precision(detections, truths, iou=0.5), 4)
    0.8333
    """
    return _precision_of_weights(detections, truths, iou)(np.ones(truths.num_images, np.int64))


def coco_average_precision(detections: Detections, truths: Truths, ious: Sequence[float] = COCO_IOUS) -> float:
    """COCO's AP by its evaluator: mean over ``ious`` of 101-point AP, of the best 100 detections of an image.

    NaN without a true box. Here alone detections of equal score are called one after the other.
    """
    match(detections, truths, 1.0)  # for its errors
    if not truths.images.size:
        return float("nan")
    gt = [box | {"id": row + 1, "area": box["bbox"][2] * box["bbox"][3]} for row, box in enumerate(_as_coco(truths))]
    coco = COCO({"images": [{"id": i} for i in range(truths.num_images)], "categories": [{"id": 1}], "annotations": gt})
    scored = zip(_as_coco(detections), detections.scores[_order(detections)].tolist(), strict=True)
    results = coco.loadRes([box | {"score": score} for box, score in scored])
    evaluator = COCOeval_faster(coco, results, "bbox", print_function=logging.getLogger(__name__).debug)
    evaluator.params.iouThrs, evaluator.params.maxDets = np.array(ious), [_COCO_DETECTIONS_PER_IMAGE]
    evaluator.evaluate()
    evaluator.accumulate()
    return float(np.mean(evaluator.eval["precision"][:, :, 0, 0, 0]))  # thresholds, recalls, class, sizes, detections


def average_precision_intervals(
    detections: Detections,
    truths: Truths,
    patients: npt.ArrayLike,
    ious: Sequence[float] = IOUS,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Interval]:
    """Return ``AP@0.25``, ``AP@0.5`` (all-point, at ``ious``) and ``COCO AP`` with patient-clustered intervals.

    ``patients`` (I,) has the patient of each image; the rest and the errors are those of
    `statistics.clustered_bootstrap`. Boxes are matched once. ``COCO AP`` calls detections of equal score together.
    """
    return mean_average_precision_intervals(
        [(detections, truths)], patients, ious, num_resamples=num_resamples, confidence=confidence, seed=seed
    )


def mean_average_precision_intervals(
    findings: Sequence[tuple[Detections, Truths]],
    patients: npt.ArrayLike,
    ious: Sequence[float] = IOUS,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Interval]:
    """Return the mean over findings of what `average_precision_intervals` has of each, all on the same resamples.

    ``findings`` has detections and true boxes of each, of the same I images; the rest is that of
    `average_precision_intervals`. As in COCO's evaluation a finding counts where it has a true box: one without any, in
    all images or in a resample, is left out of that mean.

    Raises:
        ValueError: the findings have different numbers of images, or as `average_precision_intervals`.
    """
    sizes = {truths.num_images for _, truths in findings}
    if len(sizes) != 1:
        raise ValueError(f"findings must be of the same images, one finding at least; got {sorted(sizes)} images.")
    of_each = [_precisions(detections, truths, ious) for detections, truths in findings]

    def mean_of(name: str) -> Callable[[IntArray], float]:
        def value(weights: IntArray) -> float:
            values = np.array([precisions[name](weights) for precisions in of_each])
            return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")

        return value

    (num_images,) = sizes
    images = np.arange(num_images)
    return clustered_bootstraps(
        {name: of_images(mean_of(name), num_images) for name in of_each[0]},
        images,
        images,
        patients,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )


def images_with_truths(detections: Detections, truths: Truths) -> tuple[Detections, Truths, IntArray]:
    """Leave out images without a true box; the others are numbered anew, and their old numbers returned last."""
    kept, numbers = np.unique(truths.images, return_inverse=True)
    found = detections.at(np.isin(detections.images, kept))
    renumbered = Detections(np.searchsorted(kept, found.images).astype(np.int64), found.boxes, found.scores)
    return renumbered, Truths(numbers.astype(np.int64), truths.boxes, len(kept)), kept


def of_images(value: Callable[[IntArray], float], num_images: int) -> Metric:
    """Return ``value`` of weights (I,) of the images as a metric of drawn images, as the bootstraps want it."""
    return lambda images, _: value(np.bincount(images, minlength=num_images))


def _precisions(
    detections: Detections, truths: Truths, ious: Sequence[float]
) -> dict[str, Callable[[IntArray], float]]:
    """Return ``AP@`` each of ``ious`` and ``COCO AP`` as functions of weights (I,) of the images."""
    best = detections.at(_order(detections))
    rank = np.arange(len(best.images)) - np.searchsorted(best.images, best.images)
    best = best.at(rank < _COCO_DETECTIONS_PER_IMAGE)
    at_each = [_precision_of_weights(best, truths, iou, _COCO_RECALLS) for iou in COCO_IOUS]
    values = {f"AP@{iou:g}": _precision_of_weights(detections, truths, iou) for iou in ious}
    values["COCO AP"] = lambda weights: float(np.mean([value(weights) for value in at_each]))
    return values


def _precision_of_weights(
    detections: Detections, truths: Truths, iou: float, recalls: FloatArray | None = None
) -> Callable[[IntArray], float]:
    """Return average precision, all-point or as the mean at ``recalls``, as a function of weights (I,) of images."""
    hit = match(detections, truths, iou) >= 0
    counts = CountsAtLevels.of(detections, hit, ~hit, truths.num_images)

    def value(weights: IntArray) -> float:
        num_truths = int(weights[truths.images].sum())
        if not num_truths:
            return float("nan")
        hits, false = counts.weighted(weights)
        true = np.cumsum(hits)
        precision = np.maximum.accumulate((true / np.maximum(true + false, 1))[::-1])[::-1]
        if recalls is None:
            return float(hits @ precision / num_truths)
        return float(np.append(precision, 0)[np.searchsorted(true / num_truths, recalls)].mean())

    return value


def _order(boxes: Truths | Detections) -> IntArray:
    """Return rows by image, then from the highest score, then by coordinates: the same boxes, however they come."""
    scores = boxes.scores if isinstance(boxes, Detections) else np.zeros(len(boxes.images))
    return np.lexsort((*boxes.boxes.T, -scores, boxes.images)).astype(np.int64)


def _as_coco(boxes: Truths | Detections) -> list[dict[str, Any]]:
    images, corners = boxes.images[_order(boxes)], boxes.boxes[_order(boxes)]
    found = zip(images.tolist(), np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist(), strict=True)
    return [{"image_id": image, "bbox": box, "category_id": 1, "iscrowd": 0} for image, box in found]


def _as_boxes(images: npt.ArrayLike, boxes: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    numbers, corners = np.asarray(images), check_boxes(boxes)
    if numbers.shape != (len(corners),):
        raise ValueError(f"images and boxes must have shapes (N,) and (N, 4); got {numbers.shape} and {corners.shape}.")
    if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0):
        raise ValueError("images must be numbers 0, 1, 2, ...")
    return numbers.astype(np.int64), corners
