from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.errors import MammoClipError
from mammoclip.evaluation import metrics

Case = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@st.composite
def binary_cases(draw: st.DrawFn, levels: int = 6) -> Case:
    """Labels with both classes, scores on few levels so that ties are common."""
    size = draw(st.integers(2, 40))
    labels = draw(hnp.arrays(np.int64, size, elements=st.integers(0, 1)))
    labels[:2] = 0, 1
    return labels, draw(hnp.arrays(np.int64, size, elements=st.integers(0, levels))) / 4


@st.composite
def class_cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 40))
    classes = hnp.arrays(np.int64, size, elements=st.integers(0, 3))
    return draw(classes), draw(classes)


def pairs_won(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """AUROC by its definition: every positive against every negative."""
    won = [(p > n) + (p == n) / 2 for p in scores[labels == 1] for n in scores[labels == 0]]
    return float(np.mean(won))


@given(binary_cases())
def test_auroc_is_the_share_of_pairs_won_and_equals_sklearn(case: Case) -> None:
    assert metrics.auroc(*case) == pytest.approx(pairs_won(*case), abs=1e-12)
    assert metrics.auroc(*case) == pytest.approx(sklearn.metrics.roc_auc_score(*case), abs=1e-12)


def test_auroc_of_hand_checked_cases() -> None:
    assert metrics.auroc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8]) == 3.5 / 4
    assert metrics.auroc([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert metrics.auroc([True, False], [0.0, 1.0]) == 0
    assert metrics.auroc([0, 1, 1], [0.5, 0.5, 0.5]) == 0.5


@given(binary_cases())
def test_auroc_depends_on_the_order_of_scores_only(case: Case) -> None:
    labels, scores = case
    assert metrics.auroc(labels, np.exp(scores) * 3 - 7) == metrics.auroc(labels, scores)


@given(binary_cases())
def test_flipping_labels_or_scores_mirrors_auroc(case: Case) -> None:
    labels, scores = case
    assert metrics.auroc(1 - labels, scores) == pytest.approx(1 - metrics.auroc(labels, scores), abs=1e-12)
    assert metrics.auroc(labels, -scores) == pytest.approx(1 - metrics.auroc(labels, scores), abs=1e-12)


@given(binary_cases(), st.integers(0, 2**32 - 1))
def test_auroc_does_not_depend_on_the_order_of_cases(case: Case, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(case[0]))
    assert metrics.auroc(case[0][order], case[1][order]) == metrics.auroc(*case)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.auroc,
        metrics.auprc,
        metrics.sensitivity_at_specificity,
        metrics.specificity_at_sensitivity,
    ],
)
@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_ranking_metrics_are_nan_when_a_class_is_missing(metric: Any, labels: list[int]) -> None:
    assert math.isnan(metric(labels, [0.5] * len(labels)))


@given(binary_cases())
def test_area_under_the_roc_curve_is_auroc(case: Case) -> None:
    fpr, tpr, thresholds = metrics.roc_curve(*case)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert math.isinf(thresholds[0]) and (np.diff(thresholds) < 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auroc(*case), abs=1e-12)


def test_the_roc_rate_of_a_missing_class_is_nan_and_no_case_is_refused() -> None:
    fpr, tpr, _ = metrics.roc_curve([0, 0], [0.1, 0.2])
    assert np.isnan(tpr).all() and fpr[-1] == 1
    with pytest.raises(ValueError, match="at least one case"):
        metrics.roc_curve([], [])


def test_auprc_is_average_precision() -> None:
    # Best first: positive (precision 1/1), negative, positive (precision 2/3).
    assert metrics.auprc([1, 0, 1], [0.9, 0.5, 0.1]) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.auprc([1, 0, 0, 0], [0.5] * 4) == pytest.approx(0.25)


@given(binary_cases(), st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.9, 1.0]))
def test_sensitivity_is_the_best_over_thresholds_that_are_specific_enough(case: Case, specificity: float) -> None:
    labels, scores = case
    best = 0.0
    for threshold in [*scores, np.inf]:
        called = scores >= threshold
        if np.mean(~called[labels == 0]) >= specificity - 1e-9:
            best = max(best, float(np.mean(called[labels == 1])))
    assert metrics.sensitivity_at_specificity(labels, scores, specificity) == pytest.approx(best)


def test_ninety_percent_of_ten_negatives_allows_one_false_positive() -> None:
    labels, scores = [0] * 10 + [1], [*range(10), 8.5]
    assert metrics.sensitivity_at_specificity(labels, scores, 0.9) == 1
    assert metrics.sensitivity_at_specificity(labels, scores, 0.91) == 0


@given(binary_cases(), st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.9, 1.0]))
def test_specificity_is_the_best_over_thresholds_that_are_sensitive_enough(case: Case, sensitivity: float) -> None:
    labels, scores = case
    best = 0.0
    for threshold in [*scores, np.inf]:
        called = scores >= threshold
        if np.mean(called[labels == 1]) >= sensitivity - 1e-9:
            best = max(best, float(np.mean(~called[labels == 0])))
    assert metrics.specificity_at_sensitivity(labels, scores, sensitivity) == pytest.approx(best)


def kaggle_pf1(labels: np.ndarray[Any, Any], probabilities: np.ndarray[Any, Any]) -> float:
    """Case by case, as the organisers of the RSNA challenge write it."""
    true_positives = sum(p for y, p in zip(labels, probabilities, strict=True) if y == 1)
    false_positives = sum(p for y, p in zip(labels, probabilities, strict=True) if y == 0)
    if true_positives == 0:
        return 0.0
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / sum(labels)
    return float(2 * precision * recall / (precision + recall))


@given(binary_cases(levels=4))
def test_pf1_is_the_harmonic_mean_of_probabilistic_precision_and_recall(case: Case) -> None:
    assert metrics.probabilistic_f1(*case) == pytest.approx(kaggle_pf1(*case), abs=1e-12)


@given(binary_cases(levels=1))
def test_pf1_of_certain_calls_is_f1(case: Case) -> None:
    labels, certain = case[0], (case[1] > 0).astype(int)
    expected = sklearn.metrics.f1_score(labels, certain, zero_division=0)
    assert metrics.probabilistic_f1(labels, certain) == pytest.approx(expected, abs=1e-12)


def test_pf1_without_a_positive_is_nan_and_refuses_what_is_no_probability() -> None:
    assert math.isnan(metrics.probabilistic_f1([0, 0], [0.1, 0.2]))
    assert metrics.probabilistic_f1([1, 1], [0.5, 0.5]) == pytest.approx(2 * 1 / (1 + 2))
    with pytest.raises(MammoClipError, match=r"from 0 to 1; found -1\.0 to 0\.5: are these logits"):
        metrics.probabilistic_f1([0, 1], [-1, 0.5])


@given(class_cases())
def test_class_metrics_equal_sklearn(case: Case) -> None:
    labels, predictions = case
    assert metrics.accuracy(*case) == pytest.approx(sklearn.metrics.accuracy_score(*case))
    recalls = sklearn.metrics.recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    assert metrics.balanced_accuracy(*case) == pytest.approx(recalls)
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(4))
    assert (metrics.confusion_matrix(labels, predictions, num_classes=4) == expected).all()


@given(class_cases(), st.booleans())
def test_kappa_is_one_minus_observed_over_expected_cost(case: Case, quadratic: bool) -> None:
    labels, predictions = case
    cost = np.subtract.outer(np.arange(4), np.arange(4)) ** 2 if quadratic else 1 - np.eye(4)
    observed = np.mean([cost[y, p] for y, p in zip(labels, predictions, strict=True)])
    expected = np.mean([cost[y, p] for y in labels for p in predictions])
    kappa = metrics.cohen_kappa(labels, predictions, quadratic=quadratic)
    if expected == 0:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx(1 - observed / expected, abs=1e-12)


def test_quadratic_kappa_keeps_the_distance_over_a_class_that_does_not_occur() -> None:
    labels, predictions = [0, 0, 2, 3], [0, 2, 2, 3]
    squeezed = sklearn.metrics.cohen_kappa_score(labels, predictions, weights="quadratic")
    assert metrics.cohen_kappa(labels, predictions, quadratic=True) != pytest.approx(squeezed)


def test_confusion_matrix_has_truth_in_rows() -> None:
    assert metrics.confusion_matrix([0, 0, 1], [0, 1, 1]).tolist() == [[1, 1], [0, 1]]
    assert metrics.confusion_matrix([], []).shape == (0, 0)
    with pytest.raises(MammoClipError, match="Class 3"):
        metrics.confusion_matrix([3], [0], num_classes=2)


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.balanced_accuracy, metrics.cohen_kappa])
def test_scores_of_classes_predict_the_highest_of_equal_ones_the_first(metric: Any) -> None:
    labels, scores = [0, 1, 2, 1], [[0.5, 0.5, 0], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]
    assert metric(labels, scores) == metric(labels, [0, 2, 2, 1])


@given(class_cases())
def test_the_majority_baseline_has_the_share_of_its_class_no_kappa_and_half_the_area(case: Case) -> None:
    labels = np.concatenate([case[0], np.arange(4)])  # every class occurs
    baseline = metrics.majority_scores(labels, num_classes=4)
    assert baseline.shape == (len(labels), 4)
    assert metrics.accuracy(labels, baseline) == max(np.bincount(labels)) / len(labels)
    assert metrics.balanced_accuracy(labels, baseline) == 1 / 4
    assert metrics.cohen_kappa(labels, baseline, quadratic=True) == pytest.approx(0, abs=1e-12)
    assert metrics.macro_auroc(labels, baseline) == 0.5


def test_the_majority_baseline_needs_labels_of_its_classes() -> None:
    with pytest.raises(MammoClipError, match="found class 4"):
        metrics.majority_scores([0, 4], num_classes=4)
    with pytest.raises(MammoClipError, match="found no case"):
        metrics.majority_scores([], num_classes=4)


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.balanced_accuracy, metrics.cohen_kappa])
def test_class_metrics_without_a_case_are_nan(metric: Any) -> None:
    assert math.isnan(metric([], []))


def test_macro_auroc_is_the_mean_of_one_versus_rest() -> None:
    rng = np.random.default_rng(0)
    labels, scores = np.arange(30) % 3, rng.dirichlet(np.ones(3), 30)
    expected = sklearn.metrics.roc_auc_score(labels, scores, multi_class="ovr")
    assert metrics.macro_auroc(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(metrics.macro_auroc(labels % 2, scores))


@pytest.mark.parametrize(
    ("labels", "scores", "error", "message"),
    [
        ([0, 1], [0.1, math.nan], MammoClipError, "1 of 2 scores"),
        ([0, 2], [0.1, 0.2], MammoClipError, "0 or 1"),
        ([0, -1], [0.1, 0.2], MammoClipError, "classes"),
        ([0, math.nan], [0.1, 0.2], MammoClipError, "classes"),
        ([0, 1], [0.1], ValueError, "shape"),
        ([[0, 1]], [[0.1, 0.2]], ValueError, "shape"),
    ],
)
def test_bad_input_is_refused(labels: Any, scores: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.auroc(labels, scores)


def test_bad_shapes_labels_and_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        metrics.macro_auroc([0, 1], [0.1, 0.2])
    with pytest.raises(MammoClipError, match="Label 2"):
        metrics.macro_auroc([0, 2], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="same shape"):
        metrics.accuracy([0, 1], [0])
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.sensitivity_at_specificity([0, 1], [0.1, 0.2], 90)
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.specificity_at_sensitivity([0, 1], [0.1, 0.2], 90)
