"""What metrics are computed from, checked: labels, scores and probabilities as arrays of one dtype, or an error.

Shapes: N cases, K classes. Arrays that do not fit together raise ``ValueError``; values that no data set should hold
raise `mammoclip.errors.MammoClipError`. No case at all is fine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mammoclip.errors import MammoClipError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def check_binary(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) as int64 and scores (N,) as float64.

    Raises:
        ValueError: shapes differ or are not (N,).
        MammoClipError: a score is NaN or infinite, or a label is not 0 or 1.
    """
    y, s = as_classes(labels, "labels"), np.asarray(scores, np.float64)
    if y.shape != s.shape:
        raise ValueError(f"labels and scores must both have shape (N,); got {y.shape} and {s.shape}.")
    if y.size and y.max() > 1:
        raise MammoClipError(f"Binary labels must be 0 or 1; found {y.max()}: use a multi-class metric.")
    _check_finite(s)
    return y, s


def check_multiclass(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) as int64 and scores (N, K) as float64.

    Raises:
        ValueError: ``scores`` is not (N, K) with K >= 2.
        MammoClipError: a score is NaN or infinite, or a label lies outside 0 .. K-1.
    """
    y, s = as_classes(labels, "labels"), np.asarray(scores, np.float64)
    if s.ndim != 2 or s.shape[0] != y.size or s.shape[1] < 2:
        raise ValueError(f"scores must have shape (N, K) with N = {y.size} and K >= 2; got {s.shape}.")
    if y.size and y.max() >= s.shape[1]:
        raise MammoClipError(f"Label {y.max()} has none of the {s.shape[1]} score columns; check the label mapping.")
    _check_finite(s)
    return y, s


def check_probabilities(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) and probabilities, (N,) of the positive class or (N, K) of all classes.

    Raises:
        ValueError: shapes do not fit together.
        MammoClipError: a probability is not finite or outside [0, 1], or those of a case do not sum to 1 within 1e-4.
    """
    y, p = check_scores(labels, probabilities)
    if p.size and not 0 <= p.min() <= p.max() <= 1:
        raise MammoClipError(f"Probabilities must lie from 0 to 1; found {p.min()} to {p.max()}: are these logits?")
    if p.ndim == 2 and np.abs(p.sum(axis=1) - 1).max(initial=0) > 1e-4:
        raise MammoClipError("The probabilities of a case must sum to 1 over the classes; take their softmax.")
    return y, p


def check_scores(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels (N,) and scores as float64: of shape (N,) as `check_binary`, of (N, K) as `check_multiclass`."""
    return (check_multiclass if np.ndim(scores) == 2 else check_binary)(labels, scores)


def check_classes(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """Return labels and predicted classes, both (N,) as int64; of scores (N, K) the first highest is predicted.

    Raises:
        ValueError: shapes do not fit together.
        MammoClipError: a label or prediction is not a class.
    """
    y, scores_or_classes = as_classes(labels, "labels"), np.asarray(predictions)
    if scores_or_classes.ndim == 2:
        y, scores = check_multiclass(y, scores_or_classes)
        return y, scores.argmax(axis=1).astype(np.int64)
    p = as_classes(scores_or_classes, "predictions")
    if y.shape != p.shape:
        raise ValueError(f"labels and predictions must have the same shape (N,); got {y.shape} and {p.shape}.")
    return y, p


def as_classes(values: npt.ArrayLike, name: str) -> IntArray:
    """Return ``values`` (N,) as int64; ``name`` is what errors call them.

    Raises:
        ValueError: the shape is not (N,).
        MammoClipError: a value is not 0, 1, 2, ...
    """
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
