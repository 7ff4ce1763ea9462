"""FROC: the share of lesions found against the false positives of an image, by lesion size, with intervals.

Shapes as in `detection_metrics`: I images, D detections, T true boxes (lesions). A false positive is a detection on no
lesion at all; another detection of a lesion that is found already is neither a hit nor a false positive, as in the
challenges LUNA16 and CAMELYON16. Images without a lesion count, unless `detection_metrics.images_with_truths` left them
out. The curve has steps: nothing is interpolated, and detections of equal score are called together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.evaluation.checks import FloatArray, IntArray
from mammoclip.evaluation.statistics import clustered_bootstraps
from mammoclip.localization.attribution_metrics import BoolArray
from mammoclip.localization.detection_metrics import MISS, CountsAtLevels, Detections, Truths, match, of_images

RATES = (0.25, 0.5, 1.0, 2.0)
"""False positives per image at which sensitivity is reported."""

MIN_LESIONS = 10
"""A group with fewer lesions than this gets no number, as in `mammoclip.evaluation.subgroups`."""

ALL = "all"

_SCHEMA = pl.Schema(
    {
        "group": pl.String,
        "num_lesions": pl.Int64,
        "false_positives_per_image": pl.Float64,
        "sensitivity": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "num_undefined": pl.Int64,
        "reason": pl.String,
    }
)


def froc_curve(detections: Detections, truths: Truths, iou: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ``(false_positives_per_image, sensitivity, thresholds)``, each (points,), for "call when score >= it".

    From (0, 0) at threshold infinity to the lowest score, one point per distinct score. Sensitivity is NaN without a
    lesion.

    Worked example: two images, a lesion each; the surest detection hits one, the next none, the third the other.

    >>> truths = Truths.of([0, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], num_images=2)
    >>> detections = Detections.of([0, 1, 1], [[0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7])
    >>> false_positives, sensitivity, _ = froc_curve(detections, truths, iou=0.5)
    >>> false_positives.tolist(), sensitivity.tolist()
    ([0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 0.5, 1.0])

    Raises:
        ValueError: there is no image, or what `detection_metrics.match` raises.
    """
    if not truths.num_images:
        raise ValueError("A FROC curve needs at least one image; got none.")
    matches = match(detections, truths, iou)
    levels, level = np.unique(-detections.scores, return_inverse=True)

    def called(chosen: BoolArray) -> IntArray:
        return np.append(0, np.cumsum(np.bincount(level[chosen], minlength=len(levels)))).astype(np.int64)

    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no lesion
        sensitivity = called(matches >= 0) / np.float64(len(truths.images))
    return called(matches == MISS) / truths.num_images, sensitivity, np.append(np.inf, -levels)


def sensitivity_at_false_positives(
    detections: Detections, truths: Truths, iou: float, rates: Sequence[float] = RATES
) -> FloatArray:
    """Return the highest share of lesions found with at most each of ``rates`` false positives per image, (rates,).

    NaN without a lesion.

    Worked example: that of `froc_curve`; the second lesion costs 1 false positive in 2 images.

    >>> truths = Truths.of([0, 1], [[0, 0, 10, 10], [0, 0, 10, 10]], num_images=2)
    >>> detections = Detections.of([0, 1, 1], [[0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 10]], [0.9, 0.8, 0.7])
    >>> sensitivity_at_false_positives(detections, truths, iou=0.5).tolist()
    [0.5, 1.0, 1.0, 1.0]

    Raises:
        ValueError: a rate is negative, or what `detection_metrics.match` raises.
    """
    _check_rates(rates)
    matches, lesions = match(detections, truths, iou), np.ones(len(truths.images), np.bool_)
    sensitivities = _sensitivities(detections, truths, matches, lesions, rates)
    weights = np.ones(truths.num_images, np.int64)
    return np.array([sensitivity(weights) for sensitivity in sensitivities])


def froc_table(
    detections: Detections,
    truths: Truths,
    patients: npt.ArrayLike,
    iou: float,
    rates: Sequence[float] = RATES,
    lesion_groups: pl.Series | Sequence[object] | None = None,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> pl.DataFrame:
    """Return `sensitivity_at_false_positives` of all lesions and of each group, with patient-clustered intervals.

    A group's sensitivity counts its lesions alone, at the thresholds that the false positives of all images allow.

    Args:
        detections: of all images.
        truths: the lesions of all images.
        patients: shape (I,), the patient of each image.
        iou: of a detection that finds a lesion.
        rates: false positives per image that are allowed.
        lesion_groups: shape (T,), the group of each lesion, normally its size by `subgroups.size_bins`; null where it
            is not known.
        num_resamples: number of resamples, which all rows share.
        confidence: coverage of the intervals.
        seed: of the resamples.

    Returns:
        A row per group and rate; groups are `ALL`, then sorted, then null for lesions of no known group:

        - group, num_lesions, false_positives_per_image;
        - sensitivity, ci_low, ci_high: null with fewer than `MIN_LESIONS` lesions; the bounds also if there is no
          interval;
        - num_undefined: resamples without a lesion of the group, which were dropped; null where there is no number;
        - reason: a sentence, else null.

    Raises:
        ValueError: lengths differ, a rate is negative, or what `match` and `clustered_bootstraps` raise.
    """
    _check_rates(rates)
    matches, groups = match(detections, truths, iou), _members(truths, lesion_groups)
    values = [
        sensitivity
        for lesions in groups.values()
        for sensitivity in _sensitivities(detections, truths, matches, lesions, rates)
    ]
    images = np.arange(truths.num_images)
    intervals = clustered_bootstraps(
        {str(row): of_images(value, truths.num_images) for row, value in enumerate(values)},
        images,
        images,
        patients,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )
    at = [(group, int(lesions.sum()), float(rate)) for group, lesions in groups.items() for rate in rates]
    rows: list[tuple[object, ...]] = []
    for key, interval in zip(at, intervals.values(), strict=True):
        short = key[1] < MIN_LESIONS
        numbers = (interval.value, interval.low, interval.high, interval.num_undefined)
        why = f"fewer than {MIN_LESIONS} lesions" if short else None
        rows.append((*key, *([None] * len(numbers) if short else numbers), why))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row").with_columns(pl.col("ci_low", "ci_high").fill_nan(None))


def _members(truths: Truths, lesion_groups: pl.Series | Sequence[object] | None) -> dict[str | None, BoolArray]:
    """Return which lesions (T,) belong to each group, all of them first."""
    members: dict[str | None, BoolArray] = {ALL: np.ones(len(truths.images), np.bool_)}
    if lesion_groups is None:
        return members
    names = pl.Series("group", lesion_groups)
    if len(names) != len(truths.images):
        raise ValueError(f"lesion_groups must have one group for each of {len(truths.images)}; got {len(names)}.")
    for name in names.unique().sort(nulls_last=True):
        member = names.is_null() if name is None else (names == name).fill_null(False)
        members[None if name is None else str(name)] = member.to_numpy()
    return members


def _sensitivities(
    detections: Detections,
    truths: Truths,
    matches: IntArray,
    lesions: BoolArray,
    rates: Sequence[float],
) -> list[Callable[[IntArray], float]]:
    """Return the sensitivity for some of the lesions (T,) at each rate, as functions of weights (I,) of the images."""
    hit = matches >= 0
    hit[hit] = lesions[matches[hit]]
    counts = CountsAtLevels.of(detections, hit, matches == MISS, truths.num_images)
    images = truths.images[lesions]

    def at(rate: float) -> Callable[[IntArray], float]:
        def sensitivity(weights: IntArray) -> float:
            num_lesions = int(weights[images].sum())
            if not num_lesions:
                return float("nan")
            hits, false = counts.weighted(weights)
            allowed = rate * weights.sum() + 1e-9  # rounding of the product must not cost a false positive
            return float(hits[false <= allowed].sum() / num_lesions)

        return sensitivity

    return [at(rate) for rate in rates]


def _check_rates(rates: Sequence[float]) -> None:
    if not all(rate >= 0 for rate in rates):
        raise ValueError(f"rates are {list(rates)}; expected false positives per image of at least 0.")
