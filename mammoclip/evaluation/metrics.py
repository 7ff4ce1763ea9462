"""Metrics of the field as pure functions on arrays.

Shapes: N cases, K classes. Binary ``labels`` are 0 or 1 (integer, bool or float dtype), multi-class ``labels`` and
``predictions`` are integers from 0. ``scores`` are finite floats, higher meaning more positive; only their order
matters to `auroc`, `auprc`, `roc_curve`, `macro_auroc` and `sensitivity_at_specificity`.

A metric without a value for its input (one class only, no case) is NaN, never an error and never 0.5: a bootstrap
counts and drops such resamples, a table shows them as missing. Arrays that do not fit together raise ``ValueError``;
values that no data set should hold (NaN scores, labels other than classes) raise `mammoclip.errors.MammoClipError`.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from mammoclip.errors import MammoClipError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a positive case scores above a negative one, ties counting 1/2.

    Mann-Whitney statistic from ranks, exact up to one division; O(N log N). NaN when a single class is present.

    Worked example: positives score 0.8 and 0.4, negatives 0.4 and 0.1. Of the four pairs, 0.8 > 0.4, 0.8 > 0.1 and
    0.4 > 0.1 are won, 0.4 = 0.4 is a tie: (3 + 1/2) / 4.

    >>> auroc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    y, s = check_binary(labels, scores)
    positives, negatives = np.sort(s[y == 1]), np.sort(s[y == 0])
    if not positives.size or not negatives.size:
        return float("nan")
    # Negatives below plus negatives below or equal is twice the pairs won, a tie counting once: an exact integer.
    below = np.searchsorted(negatives, positives, side="left").sum()
    not_above = np.searchsorted(negatives, positives, side="right").sum()
    return float((below + not_above) / (2 * positives.size * negatives.size))


def auprc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as average precision, the step-wise sum of (recall gain) x precision.

    A score without information has the prevalence as its value. NaN when a single class is present.
    """
    y, s = check_binary(labels, scores)
    return float(sklearn.metrics.average_precision_score(y, s)) if _has_both_classes(y) else float("nan")


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ``(fpr, tpr, thresholds)``, each of shape (points,), for the rule "positive when score >= threshold".

    From (0, 0) at threshold infinity to (1, 1) at the lowest score; points on a straight line between others are left
    out, so the trapezoidal area is `auroc`. The rate of a class that is absent is NaN throughout.

    Raises:
        ValueError: there is no case.
    """
    y, s = check_binary(labels, scores)
    if not y.size:
        raise ValueError("A ROC curve needs at least one case; got none.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.UndefinedMetricWarning)
        fpr, tpr, thresholds = sklearn.metrics.roc_curve(y, s)
    return np.asarray(fpr, np.float64), np.asarray(tpr, np.float64), np.asarray(thresholds, np.float64)


def sensitivity_at_specificity(labels: npt.ArrayLike, scores: npt.ArrayLike, specificity: float = 0.9) -> float:
    """Highest sensitivity of a threshold on ``scores`` whose specificity is at least ``specificity`` (0 to 1).

    An operating point of the empirical curve: no interpolation, tied scores are called positive together. NaN when a
    single class is present.

    Raises:
        ValueError: ``specificity`` lies outside [0, 1].

    >>> sensitivity_at_specificity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], specificity=0.9)
    0.5
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity is {specificity}; expected a number from 0 to 1.")
    y, s = check_binary(labels, scores)
    if not _has_both_classes(y):
        return float("nan")
    negatives = np.sort(s[y == 0])[::-1]
    # Rounding of 1 - 0.9 must not cost the false positive that 90 % of 10 negatives allows.
    allowed = int(np.floor((1 - specificity) * negatives.size + 1e-9))
    if allowed == negatives.size:
        return 1.0
    # The first negative that must stay below the threshold; what ties with it stays below as well.
    return float(np.mean(s[y == 1] > negatives[allowed]))


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Share of cases whose predicted class is the true one; NaN without a case."""
    y, p = _check_classes(labels, predictions)
    return float(np.mean(y == p)) if y.size else float("nan")


def balanced_accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Mean recall over the classes that occur in ``labels``; chance is 1/K. NaN without a case."""
    counts = confusion_matrix(labels, predictions)
    present = counts.sum(axis=1) > 0
    return float(np.mean(np.diag(counts)[present] / counts.sum(axis=1)[present])) if present.any() else float("nan")


def cohen_kappa(labels: npt.ArrayLike, predictions: npt.ArrayLike, *, quadratic: bool = False) -> float:
    """Cohen's kappa: agreement beyond chance, 1 for perfect agreement, 0 for chance.

    With ``quadratic`` a disagreement costs the squared distance of the class numbers (Cohen 1968), the form for ordered
    classes such as breast density. Distances are those of the numbers even when a class between does not occur. NaN
    when labels and predictions all are one and the same class, or without a case.
    """
    y, p = _check_classes(labels, predictions)
    if not y.size or (y.min() == y.max() == p.min() == p.max()):
        return float("nan")
    classes = np.arange(max(y.max(), p.max()) + 1)
    weights = "quadratic" if quadratic else None
    return float(sklearn.metrics.cohen_kappa_score(y, p, labels=classes, weights=weights))


def macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Unweighted mean over K classes of the one-versus-rest `auroc`; ``scores`` has shape (N, K), K >= 2.

    NaN when one of the K classes has no case or all of them: a mean over fewer classes would be another quantity.

    Raises:
        ValueError: ``scores`` is not (N, K) with K >= 2.
        MammoClipError: a label lies outside 0 .. K-1.
    """
    y, s = check_multiclass(labels, scores)
    return float(np.mean([auroc(y == k, s[:, k]) for k in range(s.shape[1])]))


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> IntArray:
    """Count cases by true class (row) and predicted class (column), int64 of shape (K, K).

    K is ``num_classes``, or without it the highest class that occurs plus 1.

    Raises:
        MammoClipError: a class is ``num_classes`` or more.
    """
    y, p = _check_classes(labels, predictions)
    highest = int(max(y.max(), p.max())) if y.size else -1
    size = highest + 1 if num_classes is None else num_classes
    if highest >= size:
        raise MammoClipError(f"Class {highest} occurs where {size} classes are expected; check the label mapping.")
    return np.bincount(y * size + p, minlength=size * size).reshape(size, size).astype(np.int64)


def check_binary(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) as int64 and scores (N,) as float64, or raise as the module says."""
    y, s = _as_classes(labels, "labels"), np.asarray(scores, np.float64)
    if y.shape != s.shape:
        raise ValueError(f"labels and scores must both have shape (N,); got {y.shape} and {s.shape}.")
    if y.size and y.max() > 1:
        raise MammoClipError(f"Binary labels must be 0 or 1; found {y.max()}: use a multi-class metric.")
    _check_finite(s)
    return y, s


def check_multiclass(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) as int64 and scores (N, K) as float64, or raise as `macro_auroc` says."""
    y, s = _as_classes(labels, "labels"), np.asarray(scores, np.float64)
    if s.ndim != 2 or s.shape[0] != y.size or s.shape[1] < 2:
        raise ValueError(f"scores must have shape (N, K) with N = {y.size} and K >= 2; got {s.shape}.")
    if y.size and y.max() >= s.shape[1]:
        raise MammoClipError(f"Label {y.max()} has none of the {s.shape[1]} score columns; check the label mapping.")
    _check_finite(s)
    return y, s


def _check_classes(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    y, p = _as_classes(labels, "labels"), _as_classes(predictions, "predictions")
    if y.shape != p.shape:
        raise ValueError(f"labels and predictions must have the same shape (N,); got {y.shape} and {p.shape}.")
    return y, p


def _as_classes(values: npt.ArrayLike, name: str) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (N,); got {array.shape}.")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or (array < 0).any() or not (array == np.floor(array)).all():
        raise MammoClipError(f"{name} must be classes 0, 1, 2, ...; found something else: drop or map those cases.")
    return array.astype(np.int64)


def _check_finite(scores: FloatArray) -> None:
    num_bad = int(scores.size - np.isfinite(scores).sum())
    if num_bad:
        raise MammoClipError(f"{num_bad} of {scores.size} scores are NaN or infinite; did the model diverge?")


def _has_both_classes(labels: IntArray) -> bool:
    return bool(labels.size) and bool(labels.min() != labels.max())
