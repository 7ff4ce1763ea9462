"""Calibration: how far probabilities are from frequencies, and temperature scaling, which brings them closer.

Shapes: N cases, K classes. Probabilities are those of the positive class, shape (N,), or of all classes, shape (N, K),
rows summing to 1; labels are 0 or 1, or 0 .. K-1. Metrics without a case are NaN; what cannot be used raises as in
`mammoclip.evaluation.checks`.

The temperature is fitted on validation cases and applied to test cases: fitted where it is measured, calibration error
says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize  # type: ignore[import-untyped]
import scipy.special  # type: ignore[import-untyped]

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.checks import FloatArray, IntArray, check_probabilities, check_scores

NUM_BINS = 15
"""Bins of the calibration error, as Guo et al. 2017 have them."""


def brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Brier score: the mean squared distance of probabilities and truth; lower is better, 0 is perfect.

    With (N,) that of the positive class, from 0 to 1: a constant prevalence q scores q (1 - q). With (N, K) the sum
    over the classes, from 0 to 2 (Brier 1950), which for two classes is twice the former.

    Worked example: (0.2^2 + 0.4^2) / 2.

    >>> round(brier_score([0, 1], [0.2, 0.6]), 4)
    0.1
    """
    y, p = check_probabilities(labels, probabilities)
    return float(np.mean(squared_errors(y, p))) if y.size else float("nan")


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, num_bins: int = NUM_BINS
) -> float:
    """Expected calibration error (ECE), from 0 to 1: how far confidence is from the frequency of being right.

    Cases are put into ``num_bins`` bins of equal width over [0, 1], each with its upper edge, the first with 0 as well;
    ECE is the mean over bins of |mean confidence - frequency|, weighted by their cases. With (N,) the confidence is the
    probability of the positive class and the frequency that of positives (Naeini et al. 2015); with (N, K) they are the
    probability of the likeliest class, the first of equal ones, and the frequency of that class being the true one
    (top-label ECE, Guo et al. 2017). For two classes these differ. The value depends on the number of bins and is
    biased upwards with few cases: state both.

    Worked example with two bins: in (0.5, 1] are 0.6 and 0.8, both positive: |0.7 - 1| = 0.3; in [0, 0.5] are 0.1 and
    0.3, one of them positive: |0.2 - 0.5| = 0.3.

    >>> round(expected_calibration_error([0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8], num_bins=2), 4)
    0.3

    Raises:
        ValueError: ``num_bins`` is less than 1.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; expected at least 1.")
    y, p = check_probabilities(labels, probabilities)
    bins, gaps = calibration_gaps(y, p, num_bins)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / y.size) if y.size else float("nan")


def squared_errors(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Return what each case adds to the Brier score, shape (N,); input as `check_probabilities` returns it."""
    if probabilities.ndim == 1:
        return np.asarray((probabilities - labels) ** 2, np.float64)
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1), np.float64)


def calibration_gaps(labels: IntArray, probabilities: FloatArray, num_bins: int) -> tuple[IntArray, FloatArray]:
    """Return the bin of each case and its confidence minus 1 if it is right, both (N,).

    ECE is the sum over bins of the absolute sum of these, divided by N. Input as `check_probabilities` returns it.
    """
    if probabilities.ndim == 1:
        confidence, right = probabilities, labels == 1
    else:
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, num_bins + 1)[1:-1]
    return np.searchsorted(inner_edges, confidence, side="left").astype(np.int64), confidence - right


def to_logits(probabilities: npt.ArrayLike) -> FloatArray:
    """Return logits of probabilities, of the same shape: log p/(1-p) of (N,), log p of (N, K).

    Sigmoid and softmax are their inverses. A probability of 0 (a class that training did not have) or 1 counts as the
    closest number to it: the logit is finite and temperature scaling leaves the probability next to 0 or 1.

    >>> to_logits([0.5, 0.731059]).round(4).tolist()
    [0.0, 1.0]
    """
    p = np.asarray(probabilities, np.float64)
    p = np.clip(p, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)
    return np.asarray(scipy.special.logit(p) if p.ndim == 1 else np.log(p), np.float64)


@dataclass(frozen=True)
class TemperatureScaling:
    """Logits are divided by ``temperature``, greater than 0, and ``bias`` is added, for the positive class alone.

    A monotone map: of two classes the order of cases, so AUROC and what else depends on it only, stays as it was; of
    more classes the order of each case's classes, so what is predicted. (Where a probability comes to differ from 1 by
    less than floating point can tell, cases tie: rank cases by their logits.)
    """

    temperature: float
    bias: float = 0.0

    def probabilities(self, logits: npt.ArrayLike) -> FloatArray:
        """Return probabilities of logits, of the same shape: sigmoid of (N,), softmax of (N, K).

        Worked example: at temperature 2 a logit of log 9 is one of log 3: 3/4 instead of 9/10.

        >>> TemperatureScaling(2.0).probabilities([np.log(9)]).round(4).tolist()
        [0.75]
        """
        z = np.asarray(logits, np.float64) / self.temperature
        return np.asarray(scipy.special.expit(z + self.bias) if z.ndim == 1 else scipy.special.softmax(z, axis=1))


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike, *, with_bias: bool = False) -> TemperatureScaling:
    """Fit temperature scaling to validation cases: the lowest mean negative log-likelihood (Guo et al. 2017).

    The likelihood is concave in 1/temperature and the bias, so there is one optimum; Newton steps in a trust region
    find it, the same one for the same cases.

    Args:
        labels: shape (N,).
        logits: shape (N,) of the positive class, or (N, K); see `to_logits` for probabilities.
        with_bias: fit a bias too (Platt 1999), for logits of two classes, shape (N,). It mends what a scale cannot:
            a probe that was trained with weighted classes calls positives too often at every confidence.

    Raises:
        ValueError: shapes do not fit together, or ``with_bias`` comes with logits of several classes.
        MammoClipError: a class does not occur; a logit is not finite; the logits separate the classes perfectly
            (the lower the temperature the better, without end) or rank them no better than chance (the higher).

    Worked example: of ten cases with logit 4 nine are positive, of ten with -4 one is. Logits of log 9 would be right.

    >>> labels, logits = [1] * 9 + [0] + [0] * 9 + [1], [4.0] * 10 + [-4.0] * 10
    >>> round(fit_temperature(labels, logits).temperature, 4), round(4 / float(np.log(9)), 4)
    (1.8205, 1.8205)
    """
    y, z = check_scores(labels, logits)
    if with_bias and z.ndim == 2:
        raise ValueError(f"A bias is fitted to logits of shape (N,); got {z.shape}.")
    directions = np.stack([np.zeros_like(z), z], axis=1) if z.ndim == 1 else z
    num_classes = directions.shape[1]
    if missing := sorted(set(range(num_classes)) - set(y.tolist())):
        raise MammoClipError(
            f"A temperature needs validation cases of all {num_classes} classes; there is none of {missing}: "
            "use a larger validation part."
        )
    _check_optimum(y, directions, with_bias)
    scale = np.abs(directions).max()  # keeps the steps of the search of one size, whatever the logits
    basis = [directions / scale]
    if with_bias:
        basis.append(np.tile([0.0, 1.0], (y.size, 1)))
    inverse_temperature, *bias = _most_likely(y, np.stack(basis))
    return TemperatureScaling(float(scale / inverse_temperature), *bias)


def _check_optimum(labels: IntArray, logits: FloatArray, with_bias: bool) -> None:
    """Raise unless the likelihood has its maximum at a temperature that is positive and finite.

    The loss is convex in 1/temperature. It rises from 0 on unless own classes have the higher logits on average, and
    falls for ever if no case has a higher logit for another class (with a bias: than any case of that class).
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    others = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits).max(axis=1)
    if with_bias:
        positive = logits[:, 1][labels == 1]
        negative = logits[:, 1][labels == 0]
        gain, separate = positive.mean() - negative.mean(), positive.min() >= negative.max()
    else:
        gain, separate = float(np.mean(own - logits.mean(axis=1))), bool((own >= others).all())
    if gain <= 1e-9 * np.abs(logits).max():
        raise MammoClipError(
            "The validation cases are ranked no better than chance, so the higher the temperature the better."
        )
    if separate:
        raise MammoClipError(
            "The validation cases are separated perfectly, so the lower the temperature the better; take more of them."
        )


def _most_likely(labels: IntArray, basis: FloatArray) -> list[float]:
    """Return the weights of P basis logits (P, N, K) that maximise the likelihood of ``labels``."""
    truth = np.eye(basis.shape[2])[labels]

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logits = np.tensordot(weights, basis, axes=1)
        residuals = scipy.special.softmax(logits, axis=1) - truth
        value = -np.mean(scipy.special.log_softmax(logits, axis=1)[truth == 1])
        return float(value), np.einsum("nk,pnk->p", residuals, basis) / len(labels)

    def curvature(weights: FloatArray) -> FloatArray:
        p = scipy.special.softmax(np.tensordot(weights, basis, axes=1), axis=1)
        means = np.einsum("nk,pnk->pn", p, basis)
        return np.asarray((np.einsum("nk,pnk,qnk->pq", p, basis, basis) - means @ means.T) / len(labels))

    start = np.eye(len(basis))[0]
    found = scipy.optimize.minimize(
        loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-8, "maxiter": 1000}
    )
    weights: list[float] = found.x.tolist()
    return weights
