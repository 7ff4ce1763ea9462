"""Confidence intervals that respect patients, and a correction for many tests.

Images of one patient are not independent, so whole patients are drawn with replacement: the cluster bootstrap (Field
and Welsh 2007, "randomized cluster"). The metrics of the field are computed for all resamples at once, see
`mammoclip.evaluation.resampling`; every other metric is called once per resample on the repeated cases. For
differences of AUROC `mammoclip.evaluation.delong` has a test beside it.

Shapes: N cases, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mammoclip.evaluation.checks import FloatArray
from mammoclip.evaluation.resampling import Draws, Metric, resampled

__all__ = ["Interval", "Metric", "clustered_bootstrap", "clustered_bootstraps", "holm", "paired_clustered_bootstrap"]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval.

    Attributes:
        value: the metric on all cases, or the difference of two.
        low: lower bound; NaN with fewer than two clusters or when the metric is undefined on every resample.
        high: upper bound; NaN when ``low`` is.
        num_clusters: clusters that were resampled.
        num_undefined: resamples dropped because the metric was NaN on them.
    """

    value: float
    low: float
    high: float
    num_clusters: int
    num_undefined: int = 0


def clustered_bootstrap(
    metric: Metric,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """Return ``metric(labels, scores)`` with a percentile interval from resampled clusters.

    Args:
        metric: called with arrays of labels and scores; those of `metrics` and `calibration` themselves, also with
            keywords set by `functools.partial`, take the fast path.
        labels: shape (N,).
        scores: shape (N,) or (N, K), or predicted classes (N,), as the metric wants them.
        clusters: shape (N,), what is resampled, normally the patient id; any dtype that sorts.
        num_resamples: number of resamples, at least 1.
        confidence: coverage of the interval, between 0 and 1.
        seed: same seed, same interval, whatever the order of the cases.

    Worked example: patients a, b and c hold one right image of two, two of two and none of one. A resample of the
    three is right between 0/3 (c three times) and 6/6 (b three times), each with probability 1/27 > 2.5 %.

    >>> from mammoclip.evaluation.metrics import accuracy
    >>> clustered_bootstrap(accuracy, [0, 0, 1, 1, 1], [0, 1, 1, 1, 0], ["a", "a", "b", "b", "c"], seed=0)
    Interval(value=0.6, low=0.0, high=1.0, num_clusters=3, num_undefined=0)

    Raises:
        ValueError: lengths differ, there is no case, or ``num_resamples`` or ``confidence`` is out of range.
    """
    intervals = clustered_bootstraps(
        {"metric": metric},
        labels,
        scores,
        clusters,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )
    return intervals["metric"]


def clustered_bootstraps(
    metrics: Mapping[str, Metric],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> dict[str, Interval]:
    """Return `clustered_bootstrap` of several metrics by name, all on the same resamples, which are drawn once.

    Arguments and errors as in `clustered_bootstrap`.
    """
    y, s = np.asarray(labels), np.asarray(scores)
    draws = _draw(clusters, num_resamples, seed, (y, s))
    return {
        name: _interval(float(metric(y, s)), resampled(metric, y, s, draws), draws, confidence)
        for name, metric in metrics.items()
    }


def paired_clustered_bootstrap(
    metric: Metric,
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """Return ``metric`` of ``scores_a`` minus that of ``scores_b`` on the same cases, with its interval.

    Both models see the same resamples, so what makes a resample easy for both cancels; the interval says whether the
    models differ, which two separate intervals do not. Arguments and errors as in `clustered_bootstrap`.
    """
    y, a, b = np.asarray(labels), np.asarray(scores_a), np.asarray(scores_b)
    draws = _draw(clusters, num_resamples, seed, (y, a, b))
    value = float(metric(y, a)) - float(metric(y, b))
    return _interval(value, resampled(metric, y, a, draws) - resampled(metric, y, b, draws), draws, confidence)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Return p-values adjusted for their number M, in the same order (Holm 1979): reject where at most alpha.

    The chance of rejecting any true hypothesis is then at most alpha, however the tests depend on each other. The k-th
    smallest of M is multiplied by M - k + 1, capped at 1, and is at least as large as the ones before it. NaN, a test
    that could not be made, stays NaN and does not count.

    Worked example: 3 * 0.01; 2 * 0.03; and 1 * 0.04, raised to the one before.

    >>> holm([0.04, 0.01, 0.03]).round(4).tolist()
    [0.06, 0.03, 0.06]

    Raises:
        ValueError: the shape is not (M,), or a p-value lies outside [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise ValueError(f"p_values must have shape (M,) and lie from 0 to 1; got {p_values!r}.")
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1)
    return adjusted


def _draw(clusters: npt.ArrayLike, num_resamples: int, seed: int, arrays: tuple[npt.NDArray[np.generic], ...]) -> Draws:
    ids = np.asarray(clusters)
    lengths = [len(array) for array in (ids, *arrays)]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"clusters, labels and scores must have the same length of at least 1; got {lengths}.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; expected at least 1.")
    return Draws.of(ids, num_resamples, seed)


def _interval(value: float, values: FloatArray, draws: Draws, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1.")
    defined = values[~np.isnan(values)]
    low = high = float("nan")
    if draws.num_clusters > 1 and defined.size:
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    return Interval(value, low, high, draws.num_clusters, int(values.size - defined.size))
