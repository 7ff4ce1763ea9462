"""Variance of AUROC and a test for the difference of two, for images that belong to patients.

DeLong et al. 1988 write the variance of AUROC as that of two means: over positive cases of the share of negatives that
a case scores above, and over negative cases of the share of positives that it scores below, ties counting 1/2. Ranks
give these shares in O(N log N) (Sun and Xu 2014). The variance holds for independent cases. Images of one patient are
not, and it is then too small and its p-values too low; so here the shares are summed per patient before their variance
is taken (Obuchowski 1997). With every case a patient of its own that is DeLong's variance exactly.

Shapes: N cases, P positive and Q negative ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats  # type: ignore[import-untyped]

from mammoclip.evaluation.checks import FloatArray, IntArray, check_binary


@dataclass(frozen=True)
class AurocDifference:
    """Two models on the same cases.

    Attributes:
        difference: AUROC of the first minus that of the second; NaN when a single class is present.
        standard_error: of the difference; NaN with fewer than two patients with a positive or with a negative case.
        p_value: two-sided, for no difference; 1 for models that rank alike, NaN when there is no standard error.
    """

    difference: float
    standard_error: float
    p_value: float


def delong_variance(labels: npt.ArrayLike, scores: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Return the variance of `metrics.auroc`, cases of one cluster being dependent.

    Args:
        labels: shape (N,), 0 or 1.
        scores: shape (N,).
        clusters: shape (N,), normally the patient id, any dtype that sorts; ``range(N)`` for DeLong's variance.

    Returns:
        The variance; NaN with fewer than two clusters that have a positive case, or a negative one.

    Worked example: positives 2 and 4, negatives 1 and 3. Of the two negatives, 2 is above 1/2 and 4 above 2/2: sample
    variance 1/8; so for the negatives. 1/8 / 2 + 1/8 / 2.

    >>> delong_variance([0, 1, 0, 1], [1, 2, 3, 4], clusters=range(4))
    0.125

    Raises:
        ValueError: shapes differ.
        MammoClipError: a score is not finite, or a label is not 0 or 1.
    """
    y, s = check_binary(labels, scores)
    return _variance(y, _shares(y, s), _cluster_numbers(clusters, y))


def delong_test(
    labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, clusters: npt.ArrayLike
) -> AurocDifference:
    """Compare the AUROC of two models on the same cases, cases of one cluster being dependent.

    The difference over its standard error is compared with a normal distribution, which takes some tens of patients
    with a positive case. Arguments and errors as in `delong_variance`.

    Worked example: on these four patients the first model wins all four pairs, the second three, as above. The first
    model's shares are all 1, so the variance is the second's.

    >>> found = delong_test([0, 1, 0, 1], [1, 3, 2, 4], [1, 2, 3, 4], clusters=["a", "b", "c", "d"])
    >>> found.difference, round(found.standard_error, 4), round(found.p_value, 4)
    (0.25, 0.3536, 0.4795)
    """
    y, a = check_binary(labels, scores_a)
    _, b = check_binary(labels, scores_b)
    shares = _shares(y, a) - _shares(y, b)  # the variance of a difference is that of the differences
    positives = shares[y == 1]
    difference = float(positives.mean()) if 0 < positives.size < y.size else float("nan")
    standard_error = float(np.sqrt(_variance(y, shares, _cluster_numbers(clusters, y))))
    p_value = float("nan")
    if standard_error > 0:
        p_value = float(2 * scipy.stats.norm.sf(abs(difference) / standard_error))
    elif standard_error == 0 and difference == 0:
        p_value = 1.0
    return AurocDifference(difference, standard_error, p_value)


def _shares(labels: IntArray, scores: FloatArray) -> FloatArray:
    """Return for each case the share of the other class that it is on the right side of, (N,); NaN without another.

    The rank of a positive among all cases, minus that among positives, counts the negatives below it, ties half.
    """
    positive = labels == 1
    overall = scipy.stats.rankdata(scores)
    shares = np.full(len(labels), np.nan)
    num_positive = int(positive.sum())
    num_negative = len(labels) - num_positive
    if num_positive and num_negative:
        shares[positive] = (overall[positive] - scipy.stats.rankdata(scores[positive])) / num_negative
        above = overall[~positive] - scipy.stats.rankdata(scores[~positive])
        shares[~positive] = 1 - above / num_positive
    return shares


def _variance(labels: IntArray, shares: FloatArray, clusters: IntArray) -> float:
    """Return Obuchowski's variance: sums of deviations per cluster, squared, and the product of both classes' sums."""
    sums = []
    variance = 0.0
    for value in (1, 0):
        of_class = labels == value
        num_clusters = len(np.unique(clusters[of_class]))
        if num_clusters < 2:
            return float("nan")
        deviations = shares[of_class] - shares[of_class].mean()
        means = np.bincount(clusters[of_class], weights=deviations, minlength=clusters.max() + 1) / of_class.sum()
        variance += num_clusters / (num_clusters - 1) * float(means @ means)
        sums.append(means)
    num_all = len(np.unique(clusters))
    variance += 2 * num_all / (num_all - 1) * float(sums[0] @ sums[1])
    return max(variance, 0.0)  # the factors differ, so with few clusters it may come out below 0


def _cluster_numbers(clusters: npt.ArrayLike, labels: IntArray) -> IntArray:
    ids = np.asarray(clusters)
    if ids.shape != labels.shape:
        raise ValueError(f"clusters must have shape (N,) as labels; got {ids.shape} and {labels.shape}.")
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)
