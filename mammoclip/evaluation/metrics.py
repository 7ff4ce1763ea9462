"""Metrics of the field as pure functions on arrays.

Shapes: N cases, K classes. Binary ``labels`` are 0 or 1 (integer, bool or float dtype), multi-class ``labels`` are
integers from 0, and ``predictions`` are classes, shape (N,), or scores of the classes, shape (N, K), of which the
highest is predicted (of equal ones the first). ``scores`` are finite floats, higher meaning more positive; only their
order matters, except to `probabilistic_f1`. `mammoclip.evaluation.calibration` measures probabilities.

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
from mammoclip.evaluation.checks import (
    FloatArray,
    IntArray,
    as_classes,
    check_binary,
    check_classes,
    check_multiclass,
    check_probabilities,
)


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

    Worked example: best first are a positive (precision 1/1), a negative and a positive (2/3), each positive being
    half of the recall: (1 + 2/3) / 2.

    >>> round(auprc([1, 0, 1], [0.9, 0.5, 0.1]), 4)
    0.8333
    """
    y, s = check_binary(labels, scores)
    return float(sklearn.metrics.average_precision_score(y, s)) if _has_both_classes(y) else float("nan")


def probabilistic_f1(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """F1 score of probabilities, pF1, from 0 to 1: the metric of the RSNA screening mammography challenge.

    With T the sum of the probabilities of the P positive cases and S that of all cases, T is counted as true positives
    and S as calls: precision T/S, recall T/P, and their harmonic mean is 2T / (S + P) (Yacouby and Axman 2020,
    "Probabilistic extension of precision, recall, and F1 score"). It depends on calibration, and where positives are
    rare it is low for most models that are calibrated. NaN without a positive case.

    Worked example: T = 0.9 of P = 1 positive, S = 0.9 + 0.2 + 0.1; 2 * 0.9 / (1.2 + 1).

    >>> round(probabilistic_f1([1, 0, 0], [0.9, 0.2, 0.1]), 4)
    0.8182

    Raises:
        MammoClipError: a probability lies outside [0, 1] (the challenge clipped them).
    """
    y, p = check_probabilities(*check_binary(labels, probabilities))
    positives = int(y.sum())
    return float(2 * p[y == 1].sum() / (p.sum() + positives)) if positives else float("nan")


def roc_curve(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ``(fpr, tpr, thresholds)``, each of shape (points,), for the rule "positive when score >= threshold".

    From (0, 0) at threshold infinity to (1, 1) at the lowest score; points on a straight line between others are left
    out, so the trapezoidal area is `auroc`. The rate of a class that is absent is NaN throughout.

    >>> fpr, tpr, _ = roc_curve([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8])
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])

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

    Worked example: of two negatives none may be called at 90 %, so the threshold lies above 0.6, where one of the two
    positives is.

    >>> sensitivity_at_specificity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], specificity=0.9)
    0.5

    Raises:
        ValueError: ``specificity`` lies outside [0, 1].
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


def specificity_at_sensitivity(labels: npt.ArrayLike, scores: npt.ArrayLike, sensitivity: float = 0.9) -> float:
    """Highest specificity of a threshold on ``scores`` whose sensitivity is at least ``sensitivity`` (0 to 1).

    `sensitivity_at_specificity` with the classes exchanged, and what is said there holds here.

    Worked example: both positives must be called at 90 %, so the threshold is 0.5 at most; one of two negatives is
    below.

    >>> specificity_at_sensitivity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], sensitivity=0.9)
    0.5

    Raises:
        ValueError: ``sensitivity`` lies outside [0, 1].
    """
    if not 0 <= sensitivity <= 1:
        raise ValueError(f"sensitivity is {sensitivity}; expected a number from 0 to 1.")
    y, s = check_binary(labels, scores)
    return sensitivity_at_specificity(1 - y, -s, sensitivity)


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Share of cases whose predicted class is the true one, 0 to 1; NaN without a case.

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    y, p = check_classes(labels, predictions)
    return float(np.mean(y == p)) if y.size else float("nan")


def balanced_accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Mean recall over the classes that occur in ``labels``, 0 to 1; chance is 1/K. NaN without a case.

    Worked example: two of three 0s and the only 1 are recognised: (2/3 + 1) / 2.

    >>> round(balanced_accuracy([0, 0, 0, 1], [0, 0, 1, 1]), 4)
    0.8333
    """
    counts = confusion_matrix(labels, predictions)
    present = counts.sum(axis=1) > 0
    return float(np.mean(np.diag(counts)[present] / counts.sum(axis=1)[present])) if present.any() else float("nan")


def cohen_kappa(labels: npt.ArrayLike, predictions: npt.ArrayLike, *, quadratic: bool = False) -> float:
    """Cohen's kappa: agreement beyond chance, from -1 to 1 for perfect agreement, 0 for chance (Cohen 1960).

    With ``quadratic`` a disagreement costs the squared distance of the class numbers (Cohen 1968), the form for ordered
    classes such as breast density. Distances are those of the numbers even when a class between does not occur. NaN
    when labels and predictions all are one and the same class, or without a case.

    Worked example: of three cases one is off by one class, which costs 1/3 on average; were labels and predictions
    paired at random, the nine pairs would cost (0+1+1 + 1+0+0 + 4+1+1) / 9 = 1: kappa is 1 - 1/3.

    >>> round(cohen_kappa([0, 1, 2], [0, 1, 1], quadratic=True), 4)
    0.6667
    """
    y, p = check_classes(labels, predictions)
    if not y.size or (y.min() == y.max() == p.min() == p.max()):
        return float("nan")
    classes = np.arange(max(y.max(), p.max()) + 1)
    weights = "quadratic" if quadratic else None
    return float(sklearn.metrics.cohen_kappa_score(y, p, labels=classes, weights=weights))


def macro_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Unweighted mean over K classes of the one-versus-rest `auroc`; ``scores`` has shape (N, K), K >= 2.

    NaN when one of the K classes has no case or all of them: a mean over fewer classes would be another quantity.

    Worked example: classes 0 and 2 stand out perfectly by their columns, 1 ties with one of its two others: 3/4.

    >>> round(macro_auroc([0, 1, 2], [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]), 4)
    0.9167

    Raises:
        ValueError: ``scores`` is not (N, K) with K >= 2.
        MammoClipError: a label lies outside 0 .. K-1.
    """
    y, s = check_multiclass(labels, scores)
    return float(np.mean([auroc(y == k, s[:, k]) for k in range(s.shape[1])]))


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_classes: int | None = None) -> IntArray:
    """Count cases by true class (row) and predicted class (column), int64 of shape (K, K).

    K is ``num_classes``, or without it the highest class that occurs plus 1.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1]).tolist()
    [[1, 1], [0, 1]]

    Raises:
        MammoClipError: a class is ``num_classes`` or more.
    """
    y, p = check_classes(labels, predictions)
    highest = int(max(y.max(), p.max())) if y.size else -1
    size = highest + 1 if num_classes is None else num_classes
    if highest >= size:
        raise MammoClipError(f"Class {highest} occurs where {size} classes are expected; check the label mapping.")
    return np.bincount(y * size + p, minlength=size * size).reshape(size, size).astype(np.int64)


def majority_scores(labels: npt.ArrayLike, num_classes: int) -> FloatArray:
    """Return the scores of the majority baseline, shape (N, K): 1 for the most frequent class of ``labels``, else 0.

    What a classifier reaches without looking: any metric of these scores, and its interval, stands beside a model's.
    Accuracy is the share of that class, balanced accuracy 1/K, kappa 0 and macro-AUROC 1/2. Of classes that are
    equally frequent the first is taken.

    Worked example: three of four breasts have density C (2).

    >>> labels = [2, 2, 1, 2]
    >>> baseline = majority_scores(labels, num_classes=4)
    >>> accuracy(labels, baseline), cohen_kappa(labels, baseline, quadratic=True)
    (0.75, 0.0)

    Raises:
        MammoClipError: there is no case, or a label is ``num_classes`` or more.
    """
    y = as_classes(labels, "labels")
    if not y.size or y.max() >= num_classes:
        found = f"class {y.max()}" if y.size else "no case"
        raise MammoClipError(f"The majority baseline needs labels of {num_classes} classes; found {found}.")
    return np.tile(np.eye(num_classes)[np.bincount(y).argmax()], (y.size, 1))


def _has_both_classes(labels: IntArray) -> bool:
    return bool(labels.size) and bool(labels.min() != labels.max())
