"""Confidence intervals that respect patients: the cluster bootstrap (Field and Welsh 2007, "randomized cluster").

Images of one patient are not independent, so whole patients are drawn with replacement. Drawing C clusters out of C
gives each a multiplicity, and a resample is nothing but a weight per case. `auroc` and `macro_auroc` are computed for
many resamples at once from these weights; every other metric is called once per resample on the repeated cases.

Shapes: N cases, C clusters, B resamples, G distinct positive scores, K = 2G + 1 bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse  # type: ignore[import-untyped]

from mammoclip.evaluation.metrics import auroc, check_binary, check_multiclass, macro_auroc

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Metric = Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], float]
"""``metric(labels, scores) -> float``, NaN where it has no value; see `mammoclip.evaluation.metrics`."""

_CELLS_PER_CHUNK = 4_000_000  # score levels x resamples held at once: 32 MB per int64 array


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
        metric: called with arrays of labels and scores; `auroc` and `macro_auroc` themselves take the fast path.
        labels: shape (N,).
        scores: shape (N,) or (N, K), or predicted classes (N,), as the metric wants them.
        clusters: shape (N,), what is resampled, normally the patient id; any dtype that sorts.
        num_resamples: number of resamples, at least 1.
        confidence: coverage of the interval, between 0 and 1.
        seed: same seed, same interval, whatever the order of the cases.

    Raises:
        ValueError: lengths differ, there is no case, or ``num_resamples`` or ``confidence`` is out of range.
    """
    y, s = np.asarray(labels), np.asarray(scores)
    draws = _Draws.of(clusters, num_resamples, seed, (y, s))
    values = _resampled(metric, y, s, draws)
    return _interval(float(metric(y, s)), values, draws, confidence)


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
    draws = _Draws.of(clusters, num_resamples, seed, (y, a, b))
    values = _resampled(metric, y, a, draws) - _resampled(metric, y, b, draws)
    return _interval(float(metric(y, a)) - float(metric(y, b)), values, draws, confidence)


@dataclass(frozen=True)
class _Draws:
    """The cluster of each case (N,) and the multiplicity of each cluster in each resample (C, B)."""

    cluster_of_case: IntArray
    multiplicities: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls,
        clusters: npt.ArrayLike,
        num_resamples: int,
        seed: int,
        arrays: tuple[npt.NDArray[np.generic], ...],
    ) -> _Draws:
        ids = np.asarray(clusters)
        lengths = [len(array) for array in (ids, *arrays)]
        if len(set(lengths)) > 1 or not lengths[0]:
            raise ValueError(f"clusters, labels and scores must have the same length of at least 1; got {lengths}.")
        if num_resamples < 1:
            raise ValueError(f"num_resamples is {num_resamples}; expected at least 1.")
        names, cluster_of_case = np.unique(ids, return_inverse=True)
        num_clusters = len(names)
        rng = np.random.default_rng(seed)
        multiplicities = np.empty((num_clusters, num_resamples), np.int32)
        for resample in range(num_resamples):
            drawn = rng.integers(num_clusters, size=num_clusters)
            multiplicities[:, resample] = np.bincount(drawn, minlength=num_clusters)
        return cls(cluster_of_case.astype(np.int64), multiplicities)

    @property
    def num_clusters(self) -> int:
        return len(self.multiplicities)

    @property
    def num_resamples(self) -> int:
        return int(self.multiplicities.shape[1])


def _resampled(
    metric: Metric, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic], draws: _Draws
) -> FloatArray:
    if metric is auroc:
        y, s = check_binary(labels, scores)
        return _resampled_auroc(y, s, draws)
    if metric is macro_auroc:
        y, s = check_multiclass(labels, scores)
        per_class = [_resampled_auroc((y == k).astype(np.int64), s[:, k], draws) for k in range(s.shape[1])]
        return np.asarray(np.mean(per_class, axis=0), np.float64)
    values = np.empty(draws.num_resamples)
    for resample in range(draws.num_resamples):
        cases = np.repeat(np.arange(len(labels)), draws.multiplicities[draws.cluster_of_case, resample])
        values[resample] = metric(labels[cases], scores[cases])
    return values


def _resampled_auroc(labels: IntArray, scores: FloatArray, draws: _Draws) -> FloatArray:
    """AUROC of every resample (B,), NaN where a class is missing.

    The G distinct positive scores cut the axis into 2G + 1 bins: even ones lie between two of them, odd ones hold ties.
    With the weight of the negatives summed up to bin k as W_k, AUROC = sum_g w_g (W_2g + W_2g+1) / (2 W_pos W_neg).
    Binning is one sparse matrix for all resamples; integers up to the division, so equal to `auroc` on repeated cases.
    """
    if 2 * labels.sum() > labels.size:
        labels, scores = 1 - labels, -scores  # the same AUROC, with fewer bins
    positive = labels == 1
    levels, level_of_positive = np.unique(scores[positive], return_inverse=True)
    below = np.searchsorted(levels, scores[~positive], side="left")
    not_above = np.searchsorted(levels, scores[~positive], side="right")
    positives_GC = _count_by_cluster(level_of_positive, draws.cluster_of_case[positive], len(levels), draws)
    negatives_KC = _count_by_cluster(below + not_above, draws.cluster_of_case[~positive], 2 * len(levels) + 1, draws)
    values = np.empty(draws.num_resamples)
    step = max(1, _CELLS_PER_CHUNK // (2 * len(levels) + 1))
    for start in range(0, draws.num_resamples, step):
        weights_CB = np.ascontiguousarray(draws.multiplicities[:, start : start + step])
        weights_GB = positives_GC @ weights_CB
        cumulative_KB = np.cumsum(negatives_KC @ weights_CB, axis=0, dtype=np.int64)
        twice_won = np.sum(weights_GB * (cumulative_KB[:-1:2] + cumulative_KB[1::2]), axis=0)
        pairs = weights_GB.sum(axis=0) * cumulative_KB[-1]
        with np.errstate(invalid="ignore"):
            values[start : start + step] = twice_won / (2 * pairs)  # 0 / 0 is NaN: a class is missing
    return values


def _count_by_cluster(rows: IntArray, clusters: IntArray, num_rows: int, draws: _Draws) -> scipy.sparse.csr_array:
    ones = np.ones(len(rows), np.int64)
    return scipy.sparse.csr_array((ones, (rows, clusters)), shape=(num_rows, draws.num_clusters))


def _interval(value: float, resampled: FloatArray, draws: _Draws, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1.")
    defined = resampled[~np.isnan(resampled)]
    low = high = float("nan")
    if draws.num_clusters > 1 and defined.size:
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    return Interval(value, low, high, draws.num_clusters, int(resampled.size - defined.size))
