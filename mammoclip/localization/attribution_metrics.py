"""How well heat maps, and boxes drawn from them, show where a finding is: one number per image.

Shapes: I images, N, M and K boxes, H x W pixels. Boxes are rows of ``x_min, y_min, x_max, y_max``, half-open, in pixels
of the heat map; a pixel is inside when its centre is. What is measured against true boxes is NaN for an image without
any; `mean_over_images` leaves those out. Average precision of the boxes is that of `detection_metrics`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.checks import FloatArray
from mammoclip.evaluation.statistics import Interval, clustered_bootstrap

BoolArray = npt.NDArray[np.bool_]


def box_iou(boxes: npt.ArrayLike, others: npt.ArrayLike) -> FloatArray:
    """Return the intersection over union of each of N boxes with each of M others, (N, M); without an area it is 0.

    Worked example: two squares of side 2 share a column of 1 x 2; 2 / (4 + 4 - 2).

    >>> box_iou([[0, 0, 2, 2]], [[1, 0, 3, 2], [2, 0, 4, 2]]).round(4).tolist()
    [[0.3333, 0.0]]

    Raises:
        ValueError, MammoClipError: as `check_boxes`.
    """
    a, b = check_boxes(boxes)[:, None], check_boxes(others)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(union), where=union > 0), np.float64)


def region_iou(boxes: npt.ArrayLike, truths: npt.ArrayLike) -> float:
    """Intersection over union of what the N boxes cover together and what the M true boxes cover together, 0 to 1.

    That of the boxes where either side has one. Boxes beside the finding cost as much as parts of it that are missed,
    and two boxes on one place count once. 0 without a box, NaN without a true box that has an area.

    Worked example: of a true square of area 4 one box covers half and another nothing but 2 beside it; 2 / 6.

    >>> round(region_iou([[0, 0, 1, 2], [5, 0, 6, 2]], [[0, 0, 2, 2]]), 4)
    0.3333

    Raises:
        ValueError, MammoClipError: as `check_boxes`.
    """
    found, true = check_boxes(boxes), check_boxes(truths)
    x, y = (np.unique(np.vstack([found, true])[:, [axis, axis + 2]]) for axis in (0, 1))
    # Between the coordinates that occur a cell is covered wholly or not at all.
    of_found, of_true = (_covered(each, x[:-1], y[:-1]) for each in (found, true))
    areas = np.outer(np.diff(y), np.diff(x))
    if not areas[of_true].sum():
        return float("nan")
    return float(areas[of_found & of_true].sum() / areas[of_found | of_true].sum())


def pointing_game(heat: npt.ArrayLike, truths: npt.ArrayLike) -> float:
    """1 when the maximum of ``heat`` (H, W) is inside one of the K true boxes, else 0; NaN without a true box.

    Of several equal maxima the share that is inside: what one of them picked at random would score. So a map that is
    the same everywhere scores what chance does, the share of the image inside the boxes. No margin is granted.

    Worked example: one of two maxima is inside.

    >>> pointing_game([[3, 0, 0], [0, 1, 3]], [[0, 0, 1, 1]])
    0.5

    Raises:
        ValueError: ``heat`` is not (H, W) with at least one pixel, or as `check_boxes`.
        MammoClipError: a value is NaN or infinite, or as `check_boxes`.
    """
    values, inside = _check_heat(heat, truths)
    return float(inside[values == values.max()].mean()) if len(check_boxes(truths)) else float("nan")


def energy_inside(heat: npt.ArrayLike, truths: npt.ArrayLike) -> float:
    """Share of the positive part of ``heat`` (H, W) that is inside the K true boxes; NaN without a true box.

    Chance is the share of the image inside the boxes, ``energy_inside(np.ones_like(heat), truths)``. A map without
    any positive value points nowhere and has 0: as NaN it would be left out of the mean, which would reward it.

    Worked example: 3 of 3 + 1, where -5 counts as 0.

    >>> energy_inside([[3, -5], [0, 1]], [[0, 0, 1, 1]])
    0.75

    Raises:
        ValueError, MammoClipError: as `pointing_game`.
    """
    values, inside = _check_heat(heat, truths)
    if not len(check_boxes(truths)):
        return float("nan")
    positive = values.clip(min=0)
    total = positive.sum()
    return float(positive[inside].sum() / total) if total > 0 else 0.0


def mean_over_images(
    values: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """Return the mean of ``values`` (I,) of images that are not NaN, with a patient-clustered interval.

    ``patients`` (I,) has the patient of each image; the rest is that of `statistics.clustered_bootstrap`. NaN with no
    cluster when no image has a value.

    Worked example: the mean of a, a and b; the NaN of c is left out, and c with it.

    >>> mean_over_images([1, 1, 0.25, float("nan")], ["a", "a", "b", "c"], seed=0)
    Interval(value=0.75, low=0.25, high=1.0, num_clusters=2, num_undefined=0)

    Raises:
        ValueError: lengths differ, or ``num_resamples`` or ``confidence`` is out of range.
    """
    numbers, ids = np.asarray(values, np.float64), np.asarray(patients)
    if numbers.ndim != 1 or numbers.shape != ids.shape:
        raise ValueError(f"values and patients must both have shape (I,); got {numbers.shape} and {ids.shape}.")
    known = ~np.isnan(numbers)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"), num_clusters=0)
    return clustered_bootstrap(
        lambda _, drawn: float(drawn.astype(np.float64).mean()),
        np.zeros(int(known.sum())),
        numbers[known],
        ids[known],
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )


def check_boxes(boxes: npt.ArrayLike) -> FloatArray:
    """Return boxes (N, 4) as float64; an empty list has shape (0, 4).

    Raises:
        ValueError: the shape is not (N, 4).
        MammoClipError: a coordinate is not finite, or a maximum lies below its minimum.
    """
    corners = np.asarray(boxes, np.float64)
    if corners.shape == (0,):
        return corners.reshape(0, 4)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4); got {corners.shape}.")
    wrong = ~np.isfinite(corners).all(axis=1) | (corners[:, 2:] < corners[:, :2]).any(axis=1)
    if wrong.any():
        raise MammoClipError(f"{wrong.sum()} of {len(corners)} boxes are not finite x_min <= x_max, y_min <= y_max.")
    return corners


def _check_heat(heat: npt.ArrayLike, truths: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Return the heat (H, W) and which of its pixels are inside a true box."""
    values = np.asarray(heat, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"heat must have shape (H, W); got {values.shape}.")
    if num_bad := int((~np.isfinite(values)).sum()):
        raise MammoClipError(f"{num_bad} of {values.size} values of a heat map are NaN or infinite.")
    y, x = (np.arange(size, dtype=np.float64) + 0.5 for size in values.shape)
    return values, _covered(check_boxes(truths), x, y)


def _covered(boxes: FloatArray, x: FloatArray, y: FloatArray) -> BoolArray:
    """Return which of the points of a grid, (rows ``y``, columns ``x``), lie in a box, half-open."""
    inside = np.zeros((len(y), len(x)), np.bool_)
    for x_min, y_min, x_max, y_max in boxes:
        inside |= np.outer((y >= y_min) & (y < y_max), (x >= x_min) & (x < x_max))
    return inside
