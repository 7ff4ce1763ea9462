"""Resamples of whole clusters as weights of the cases, and metrics of many resamples at once from these weights.

Drawing C clusters out of C with replacement gives each a multiplicity, and a resample is nothing but a weight per case.
What a metric needs of a resample are weighted sums: of cases in a bin of scores, of a confusion matrix, of squared
errors. Cases are summed per cluster once, in a sparse matrix (rows, C), and its product with the multiplicities (C, B)
has the sums of all resamples. Counts stay integers up to the last division, so results are those of the metric called
on the repeated cases, to rounding.

Shapes: N cases, C clusters, B resamples, K classes, G distinct scores of positive cases.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse  # type: ignore[import-untyped]

from mammoclip.evaluation import calibration, metrics
from mammoclip.evaluation.checks import (
    FloatArray,
    IntArray,
    check_binary,
    check_classes,
    check_multiclass,
    check_probabilities,
)

Metric = Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], float]
"""``metric(labels, scores) -> float``, NaN where it has no value; see `mammoclip.evaluation.metrics`."""

Counts = npt.NDArray[np.int32]  # up to 2^31 cases in a resample

_CELLS_PER_CHUNK = 200_000  # rows x resamples held at once: a megabyte or so, which stays in the cache


@dataclass(frozen=True)
class Draws:
    """The cluster of each case (N,) and the multiplicity of each cluster in each resample (C, B)."""

    cluster_of_case: IntArray
    multiplicities: Counts

    @classmethod
    def of(cls, clusters: npt.ArrayLike, num_resamples: int, seed: int) -> Draws:
        """Draw from the distinct values of ``clusters`` (N,), at least one; any dtype that sorts.

        The same clusters, whatever the order of the cases, and the same seed give the same draws.
        """
        names, cluster_of_case = np.unique(np.asarray(clusters), return_inverse=True)
        num_clusters = len(names)
        rng = np.random.default_rng(seed)
        multiplicities = np.empty((num_clusters, num_resamples), np.int32)
        for resample in range(num_resamples):
            drawn = rng.integers(num_clusters, size=num_clusters)
            multiplicities[:, resample] = np.bincount(drawn, minlength=num_clusters)
        return cls(cluster_of_case.astype(np.int64), multiplicities)

    @property
    def num_clusters(self) -> int:
        """C."""
        return len(self.multiplicities)

    @property
    def num_resamples(self) -> int:
        """B."""
        return int(self.multiplicities.shape[1])

    def cases(self, resample: int) -> IntArray:
        """Return the places of the cases of one resample, each as often as its cluster was drawn."""
        return np.repeat(np.arange(len(self.cluster_of_case)), self.multiplicities[self.cluster_of_case, resample])

    def per_cluster(
        self, rows: IntArray, num_rows: int, cases: npt.NDArray[np.bool_] | slice = slice(None)
    ) -> scipy.sparse.csr_array:
        """Count the ``cases`` of each cluster in each row, (rows, C); ``rows`` says the row of each of these cases."""
        ones, clusters = np.ones(len(rows), np.int32), self.cluster_of_case[cases]
        return scipy.sparse.csr_array((ones, (rows, clusters)), shape=(num_rows, self.num_clusters))

    def sums(self, values: npt.NDArray[np.generic], rows: IntArray | None = None, num_rows: int = 1) -> FloatArray:
        """Sum ``values`` (N,) of the cases in every resample, (rows, B), by the row of each case; without, one row."""
        at = (np.zeros(len(values), np.int64) if rows is None else rows, self.cluster_of_case)
        by_cluster = scipy.sparse.csr_array((values.astype(np.float64), at), shape=(num_rows, self.num_clusters))
        return np.asarray(by_cluster @ self.multiplicities, np.float64)

    @property
    def sizes(self) -> FloatArray:
        """Number of cases of every resample, (B,)."""
        return np.asarray(self.sums(np.ones(len(self.cluster_of_case)))[0], np.float64)


def resampled(
    metric: Metric, labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic], draws: Draws
) -> FloatArray:
    """Return ``metric`` of every resample, (B,), NaN where it has no value.

    The metrics of `metrics` and `calibration` are computed for all resamples at once, with keywords given by
    `functools.partial` as well; any other is called once per resample on the repeated cases.
    """
    function, keywords = metric, {}
    if isinstance(metric, functools.partial) and not metric.args:
        function, keywords = metric.func, metric.keywords
    if function in _AT_ONCE:
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: a class is missing
            return _AT_ONCE[function](labels, scores, draws, **keywords)
    return np.array([metric(labels[cases], scores[cases]) for cases in map(draws.cases, range(draws.num_resamples))])


def _auroc(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws) -> FloatArray:
    """AUROC of every resample.

    The G distinct positive scores cut the axis into 2G + 1 bins: even ones lie between two of them, odd ones hold ties.
    With the weight of the negatives summed up to bin k as W_k, AUROC = sum_g w_g (W_2g + W_2g+1) / (2 W_pos W_neg).
    """
    y, s = check_binary(labels, scores)
    if 2 * y.sum() > y.size:
        y, s = 1 - y, -s  # the same AUROC, with fewer bins
    positive = y == 1
    levels, level_of_positive = np.unique(s[positive], return_inverse=True)
    below = np.searchsorted(levels, s[~positive], side="left")
    not_above = np.searchsorted(levels, s[~positive], side="right")
    positives_GC = draws.per_cluster(level_of_positive, len(levels), positive)
    negatives_KC = draws.per_cluster(below + not_above, 2 * len(levels) + 1, ~positive)
    values = np.empty(draws.num_resamples)
    for chunk, weights_CB in _chunks(draws, 2 * len(levels) + 1):
        weights_GB = positives_GC @ weights_CB
        cumulative_KB = np.cumsum(negatives_KC @ weights_CB, axis=0, dtype=np.int64)
        twice_won = np.einsum("gb,gb->b", weights_GB, cumulative_KB[:-1:2] + cumulative_KB[1::2])
        values[chunk] = twice_won / (2 * weights_GB.sum(axis=0) * cumulative_KB[-1])
    return values


def _macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws) -> FloatArray:
    y, s = check_multiclass(labels, scores)
    return np.asarray(np.mean([_auroc(y == k, s[:, k], draws) for k in range(s.shape[1])], axis=0), np.float64)


@dataclass(frozen=True)
class _Calls:
    """What is called positive at the threshold of each distinct positive score, highest first, in B resamples.

    ``weights`` (G, B): positives that have this score; ``true`` and ``false`` (G, B): positives and negatives that
    score at least as high; ``positives`` and ``negatives`` (B,): all of them.
    """

    weights: Counts
    true: Counts
    false: Counts
    positives: Counts
    negatives: Counts


def _by_calls(
    of_calls: Callable[[_Calls], FloatArray], labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws
) -> FloatArray:
    """Return what ``of_calls`` computes, (B,), in chunks of resamples; NaN where a class is missing."""
    y, s = check_binary(labels, scores)
    positive = y == 1
    levels, level_of_positive = np.unique(-s[positive], return_inverse=True)
    positives_GC = draws.per_cluster(level_of_positive, len(levels), positive)
    # The first threshold that calls a negative; those that none calls go into one row more.
    negatives_GC = draws.per_cluster(np.searchsorted(levels, -s[~positive]), len(levels) + 1, ~positive)
    values = np.empty(draws.num_resamples)
    for chunk, weights_CB in _chunks(draws, len(levels) + 1):
        weights = positives_GC @ weights_CB
        true = np.cumsum(weights, axis=0, dtype=np.int32)
        false = np.cumsum(negatives_GC @ weights_CB, axis=0, dtype=np.int32)
        positives, negatives = weights.sum(axis=0, dtype=np.int32), false[-1]
        found = of_calls(_Calls(weights, true, false[:-1], positives, negatives))
        values[chunk] = np.where((positives > 0) & (negatives > 0), found, np.nan)
    return values


def _auprc(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws) -> FloatArray:
    def average(at: _Calls) -> FloatArray:
        precision = at.true / np.maximum(at.true + at.false, 1)
        return np.asarray(np.einsum("gb,gb->b", at.weights, precision) / at.positives, np.float64)

    return _by_calls(average, labels, scores, draws)


def _sensitivity(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws, specificity: float = 0.9) -> FloatArray:
    def best(at: _Calls) -> FloatArray:
        allowed = np.floor((1 - specificity) * at.negatives + 1e-9).astype(np.int32)
        return np.asarray(np.einsum("gb,gb->b", at.weights, at.false <= allowed) / at.positives, np.float64)

    return _by_calls(best, labels, scores, draws)


def _specificity(labels: npt.ArrayLike, scores: npt.ArrayLike, draws: Draws, sensitivity: float = 0.9) -> FloatArray:
    def best(at: _Calls) -> FloatArray:
        missed = np.floor((1 - sensitivity) * at.positives + 1e-9).astype(np.int32)
        called = np.min(at.false, axis=0, where=at.positives - at.true <= missed, initial=np.iinfo(np.int32).max)
        return np.where(missed >= at.positives, 1.0, 1 - called / at.negatives)

    return _by_calls(best, labels, scores, draws)


def _probabilistic_f1(labels: npt.ArrayLike, probabilities: npt.ArrayLike, draws: Draws) -> FloatArray:
    y, p = check_probabilities(labels, probabilities)
    positives = draws.sums(y)[0]
    return np.where(positives > 0, 2 * draws.sums(y * p)[0] / (draws.sums(p)[0] + positives), np.nan)


def _brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike, draws: Draws) -> FloatArray:
    errors = calibration.squared_errors(*check_probabilities(labels, probabilities))
    return np.asarray(draws.sums(errors)[0] / draws.sizes, np.float64)


def _calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, draws: Draws, num_bins: int = calibration.NUM_BINS
) -> FloatArray:
    bins, gaps = calibration.calibration_gaps(*check_probabilities(labels, probabilities), num_bins)
    return np.asarray(np.abs(draws.sums(gaps, bins, num_bins)).sum(axis=0) / draws.sizes, np.float64)


def _confusion(labels: npt.ArrayLike, predictions: npt.ArrayLike, draws: Draws) -> FloatArray:
    """Confusion matrix of every resample, (K, K, B), true classes first."""
    y, p = check_classes(labels, predictions)
    size = int(max(y.max(), p.max())) + 1
    return draws.sums(np.ones(y.size), y * size + p, size * size).reshape(size, size, -1)


def _accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike, draws: Draws) -> FloatArray:
    right = np.einsum("kkb->b", _confusion(labels, predictions, draws))
    return np.asarray(right / draws.sizes, np.float64)


def _balanced_accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike, draws: Draws) -> FloatArray:
    counts = _confusion(labels, predictions, draws)
    of_class = counts.sum(axis=1)
    recalls = np.einsum("kkb->kb", counts) / np.maximum(of_class, 1)
    return np.asarray(recalls.sum(axis=0) / (of_class > 0).sum(axis=0), np.float64)


def _cohen_kappa(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, draws: Draws, quadratic: bool = False
) -> FloatArray:
    """One minus the cost of the disagreement over that of independent labels and predictions."""
    counts = _confusion(labels, predictions, draws)
    classes = np.arange(len(counts))
    distance = np.abs(np.subtract.outer(classes, classes))
    cost = distance**2 if quadratic else distance > 0
    observed = np.einsum("jk,jkb->b", cost, counts)
    expected = np.einsum("jk,jb,kb->b", cost, counts.sum(axis=1), counts.sum(axis=0)) / draws.sizes
    return np.asarray(1 - observed / expected, np.float64)


def _chunks(draws: Draws, num_rows: int) -> Iterator[tuple[slice, Counts]]:
    """Yield ranges of resamples and their multiplicities, so that ``num_rows`` times their number stays bounded."""
    step = max(1, _CELLS_PER_CHUNK // num_rows)
    for start in range(0, draws.num_resamples, step):
        chunk = slice(start, start + step)
        yield chunk, np.ascontiguousarray(draws.multiplicities[:, chunk])


_AT_ONCE: dict[Callable[..., float], Callable[..., FloatArray]] = {
    metrics.auroc: _auroc,
    metrics.auprc: _auprc,
    metrics.macro_auroc: _macro_auroc,
    metrics.probabilistic_f1: _probabilistic_f1,
    metrics.sensitivity_at_specificity: _sensitivity,
    metrics.specificity_at_sensitivity: _specificity,
    metrics.accuracy: _accuracy,
    metrics.balanced_accuracy: _balanced_accuracy,
    metrics.cohen_kappa: _cohen_kappa,
    calibration.brier_score: _brier_score,
    calibration.expected_calibration_error: _calibration_error,
}
