from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import sklearn.calibration
import sklearn.linear_model
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.calibration import (
    TemperatureScaling,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    to_logits,
)
from mammoclip.evaluation.metrics import accuracy, auprc, auroc, sensitivity_at_specificity

Array = np.ndarray[Any, Any]


def calibrated(seed: int, num: int = 400, temperature: float = 1.0, bias: float = 0.0) -> tuple[Array, Array]:
    """Labels drawn from the probabilities of logits, and the logits before they were scaled and shifted."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, num)
    labels = (rng.random(num) < 1 / (1 + np.exp(-logits / temperature - bias))).astype(np.int64)
    return labels, logits


def calibrated_classes(seed: int, num: int = 400, temperature: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num, 4))
    return (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1), logits


def negative_log_likelihood(labels: Array, logits: Array, temperature: float) -> float:
    return float(sklearn.metrics.log_loss(labels, TemperatureScaling(temperature).probabilities(logits)))


# Brier score


@given(st.integers(0, 2**32 - 1))
def test_brier_score_equals_sklearn(seed: int) -> None:
    labels, logits = calibrated(seed, num=30)
    probabilities = TemperatureScaling(1).probabilities(logits)
    expected = sklearn.metrics.brier_score_loss(labels, probabilities, labels=[0, 1])
    assert brier_score(labels, probabilities) == pytest.approx(expected, abs=1e-12)
    labels, logits = calibrated_classes(seed, num=30)
    probabilities = TemperatureScaling(1).probabilities(logits)
    expected = sklearn.metrics.brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_brier_score_of_two_columns_is_twice_that_of_the_positive_one() -> None:
    both = np.array([[0.8, 0.2], [0.4, 0.6]])
    assert brier_score([0, 1], both) == pytest.approx(2 * brier_score([0, 1], both[:, 1]))


def test_a_constant_prevalence_scores_its_variance() -> None:
    assert brier_score([1, 0, 0, 0], [0.25] * 4) == pytest.approx(0.25 * 0.75)


# Expected calibration error


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_calibration_error_is_the_weighted_gap_of_the_calibration_curve(seed: int, num_bins: int) -> None:
    labels, logits = calibrated(seed, num=60)
    probabilities = TemperatureScaling(1).probabilities(logits)
    frequencies, confidences = sklearn.calibration.calibration_curve(labels, probabilities, n_bins=num_bins)
    bins = np.ceil(probabilities * num_bins)
    counts = np.unique(bins, return_counts=True)[1]
    expected = np.abs(frequencies - confidences) @ counts / 60
    assert expected_calibration_error(labels, probabilities, num_bins=num_bins) == pytest.approx(expected, abs=1e-12)


def test_of_several_classes_the_likeliest_is_measured() -> None:
    # Right at 0.9 and at 0.7, wrong at 0.6: three bins of ten with gaps 0.1, 0.3 and 0.6.
    probabilities = [[0.9, 0.1, 0.0], [0.1, 0.7, 0.2], [0.6, 0.2, 0.2]]
    assert expected_calibration_error([0, 1, 2], probabilities, num_bins=10) == pytest.approx((0.1 + 0.3 + 0.6) / 3)


def test_an_upper_edge_belongs_to_its_bin_and_zero_to_the_first() -> None:
    # Bins [0, 0.5] and (0.5, 1]; in the first 0, 0.5 with one positive of two, in the second 1.
    assert expected_calibration_error([0, 1, 1], [0.0, 0.5, 1.0], num_bins=2) == pytest.approx(2 / 3 * 0.25)


def test_a_certain_and_right_model_has_no_error_and_a_certain_and_wrong_one_the_largest() -> None:
    assert (brier_score([0, 1], [0, 1]), expected_calibration_error([0, 1], [0, 1])) == (0, 0)
    assert (brier_score([0, 1], [1, 0]), expected_calibration_error([0, 1], [1, 0])) == (1, 1)


@pytest.mark.parametrize("metric", [brier_score, expected_calibration_error])
def test_calibration_without_a_case_is_nan(metric: Any) -> None:
    assert math.isnan(metric([], []))
    assert math.isnan(metric([], np.empty((0, 3))))


@pytest.mark.parametrize("metric", [brier_score, expected_calibration_error])
@pytest.mark.parametrize(
    ("labels", "probabilities", "error", "message"),
    [
        ([0, 1], [0.1, math.nan], MammoClipError, "1 of 2 scores"),
        ([0, 1], [0.1, 1.5], MammoClipError, "from 0 to 1"),
        ([0, 2], [[0.1, 0.9], [0.5, 0.5]], MammoClipError, "Label 2"),
        ([0, 1], [[0.1, 0.8], [0.5, 0.5]], MammoClipError, "sum to 1"),
        ([0, 1], [0.1], ValueError, "shape"),
    ],
)
def test_what_is_no_probability_is_refused(
    metric: Any, labels: Any, probabilities: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        metric(labels, probabilities)


def test_a_calibration_error_needs_a_bin() -> None:
    with pytest.raises(ValueError, match="num_bins is 0"):
        expected_calibration_error([0, 1], [0.1, 0.9], num_bins=0)


# Temperature scaling


@pytest.mark.parametrize("data", [calibrated, calibrated_classes])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(data: Any, temperature: float) -> None:
    labels, logits = data(0, num=20_000, temperature=temperature)
    assert fit_temperature(labels, logits).temperature == pytest.approx(temperature, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(-5, 5))
def test_no_other_temperature_is_likelier(seed: int, several: bool, exponent: float) -> None:
    """Against a search over the temperature that knows nothing of gradients, whatever the unit of the logits."""
    labels, logits = (calibrated_classes if several else calibrated)(seed, num=200)
    found = fit_temperature(labels, logits * 10**exponent).temperature / 10**exponent
    searched = scipy.optimize.minimize_scalar(
        lambda log_temperature: negative_log_likelihood(labels, logits, math.exp(log_temperature)),
        bounds=(math.log(0.01), math.log(100)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(math.exp(searched.x), rel=1e-4)
    assert negative_log_likelihood(labels, logits, found) <= searched.fun + 1e-12


def test_temperature_and_bias_are_a_logistic_regression() -> None:
    labels, logits = calibrated(1, num=2000, temperature=2, bias=-1.5)
    found = fit_temperature(labels, logits, with_bias=True)
    model = sklearn.linear_model.LogisticRegression(C=1e10, tol=1e-10).fit(logits[:, None], labels)
    assert 1 / found.temperature == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.bias == pytest.approx(model.intercept_[0], rel=1e-4)
    assert found.probabilities(logits) == pytest.approx(model.predict_proba(logits[:, None])[:, 1], abs=1e-4)
    assert fit_temperature(labels, logits).bias == 0


def test_two_columns_are_scaled_as_the_difference_of_their_logits() -> None:
    labels, logits = calibrated(2)
    columns = np.stack([-logits / 2, logits / 2], axis=1)
    single, both = fit_temperature(labels, logits), fit_temperature(labels, columns)
    assert both.temperature == pytest.approx(single.temperature, rel=1e-6)
    assert both.probabilities(columns)[:, 1] == pytest.approx(single.probabilities(logits), abs=1e-6)


def test_the_same_cases_have_the_same_temperature() -> None:
    labels, logits = calibrated(3)
    assert fit_temperature(labels, logits) == fit_temperature(labels, logits)


@pytest.mark.parametrize("data", [calibrated, calibrated_classes])
def test_overconfident_test_cases_are_better_calibrated_after_scaling(data: Any) -> None:
    labels, logits = data(4, num=2000, temperature=3.0)
    validation, test = slice(0, 1000), slice(1000, None)
    scaling = fit_temperature(labels[validation], logits[validation])
    before, after = (s.probabilities(logits[test]) for s in (TemperatureScaling(1.0), scaling))
    assert brier_score(labels[test], after) < brier_score(labels[test], before)
    ece_before, ece_after = (expected_calibration_error(labels[test], p) for p in (before, after))
    assert ece_after < ece_before / 2


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5), st.floats(-3, 3))
def test_scaling_does_not_change_what_depends_on_the_order_of_cases(seed: int, temperature: float, bias: float) -> None:
    labels, logits = calibrated(seed, num=40)
    logits = np.clip(np.round(logits, 1), -5, 5)
    scaled = TemperatureScaling(temperature, bias).probabilities(logits)
    for metric in (auroc, auprc, sensitivity_at_specificity):
        assert metric(labels, scaled) == pytest.approx(metric(labels, logits), abs=1e-12, nan_ok=True)


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 5))
def test_scaling_does_not_change_the_predicted_class(seed: int, temperature: float) -> None:
    labels, logits = calibrated_classes(seed, num=40)
    assert accuracy(labels, TemperatureScaling(temperature).probabilities(logits)) == accuracy(labels, logits)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_logits_are_the_inverse_of_probabilities(probabilities: list[float]) -> None:
    unscaled = TemperatureScaling(1.0)
    assert np.isfinite(to_logits(probabilities)).all()
    assert unscaled.probabilities(to_logits(probabilities)) == pytest.approx(np.array(probabilities), abs=1e-15)
    both = np.stack([1 - np.array(probabilities), probabilities], axis=1)
    assert unscaled.probabilities(to_logits(both)) == pytest.approx(both, abs=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0, 0, 1, 1], [-2.0, -1.0, 1.0, 2.0], "separated perfectly"),
        ([0, 0, 1, 1], [-2.0, 0.0, 0.0, 2.0], "separated perfectly"),
        ([0, 0, 1, 1], [1.0, 2.0, -2.0, -1.0], "no better than chance"),
        ([0, 0, 1, 1], [1.0, -1.0, 1.0, -1.0], "no better than chance"),
        ([0, 1], [0.0, 0.0], "no better than chance"),
        ([1, 1], [1.0, -1.0], r"none of \[0\]"),
        ([0, 1], [1.0, math.inf], "1 of 2 scores"),
    ],
)
def test_cases_without_a_best_temperature_are_refused(
    labels: list[int], logits: list[float], message: str, with_bias: bool
) -> None:
    with pytest.raises(MammoClipError, match=message):
        fit_temperature(labels, logits, with_bias=with_bias)


def test_classes_that_a_bias_separates_are_refused_with_it_alone() -> None:
    labels, logits = [0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0]
    assert fit_temperature([0, *labels], [-9.0, *logits]).temperature > 0
    with pytest.raises(MammoClipError, match="separated perfectly"):
        fit_temperature([0, *labels], [-9.0, *logits], with_bias=True)


def test_several_classes_have_no_bias_and_each_must_occur() -> None:
    labels, logits = calibrated_classes(0)
    with pytest.raises(ValueError, match="A bias is fitted to logits"):
        fit_temperature(labels, logits, with_bias=True)
    with pytest.raises(MammoClipError, match=r"all 4 classes; there is none of \[2, 3\]"):
        fit_temperature(labels % 2, logits)
