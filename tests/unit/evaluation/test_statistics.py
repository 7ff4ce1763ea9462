from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.evaluation import metrics, resampling
from mammoclip.evaluation.calibration import brier_score, expected_calibration_error
from mammoclip.evaluation.metrics import accuracy, auprc, auroc, macro_auroc
from mammoclip.evaluation.statistics import (
    Interval,
    clustered_bootstrap,
    clustered_bootstraps,
    holm,
    paired_clustered_bootstrap,
)

Array = np.ndarray[Any, Any]


def simulate(seed: int, num_clusters: int = 40, per_cluster: int = 4, levels: int = 8) -> tuple[Array, Array, Array]:
    """Images of a patient share their label and most of their score; scores are coarse, so ties are common."""
    rng = np.random.default_rng(seed)
    patient_label = rng.integers(0, 2, num_clusters)
    patient_score = patient_label + rng.normal(size=num_clusters)
    clusters = np.repeat(np.arange(num_clusters), per_cluster)
    scores = patient_score[clusters] + 0.2 * rng.normal(size=clusters.size)
    return patient_label[clusters], np.round(scores * levels / 4), clusters


def naive_bootstrap(metric: Any, labels: Array, scores: Array, clusters: Array, *, num: int, seed: int) -> Array:
    """Every resample spelled out: draw patients one by one, list their cases, hand them to the metric."""
    names, rng, values = np.unique(clusters), np.random.default_rng(seed), []
    for _ in range(num):
        drawn = names[rng.integers(len(names), size=len(names))]
        cases = np.concatenate([np.flatnonzero(clusters == name) for name in drawn])
        values.append(metric(labels[cases], scores[cases]) if len(set(labels[cases])) > 1 else math.nan)
    return np.array(values)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 4))
def test_fast_auroc_equals_sklearn_on_every_spelled_out_resample(
    seed: int, num_clusters: int, per_cluster: int
) -> None:
    labels, scores, clusters = simulate(seed, num_clusters, per_cluster)
    values = naive_bootstrap(sklearn.metrics.roc_auc_score, labels, scores, clusters, num=40, seed=seed)
    interval = clustered_bootstrap(auroc, labels, scores, clusters, num_resamples=40, seed=seed)
    assert interval.num_undefined == np.isnan(values).sum()
    expected = np.nanquantile(values, [0.025, 0.975]) if not np.isnan(values).all() else [math.nan] * 2
    assert [interval.low, interval.high] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def best_sensitivity(labels: Array, scores: Array, *, specificity: float) -> float:
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[1 - fpr >= specificity - 1e-9].max())


def best_specificity(labels: Array, scores: Array, *, sensitivity: float) -> float:
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    return float(1 - fpr[tpr >= sensitivity - 1e-9].min())


def probabilistic_f1(labels: Array, probabilities: Array) -> float:
    precision = probabilities[labels == 1].sum() / probabilities.sum()
    recall = probabilities[labels == 1].sum() / labels.sum()
    return float(2 * precision * recall / (precision + recall))


def calibration_error(right: Array, confidence: Array, num_bins: int = 15) -> float:
    """Mean of |confidence - frequency| over sklearn's bins, weighted by their cases."""
    frequencies, confidences = sklearn.calibration.calibration_curve(right, confidence, n_bins=num_bins)
    bins = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], confidence)
    counts = np.unique(bins, return_counts=True)[1]
    return float(np.abs(frequencies - confidences) @ counts / len(right))


def of_classes(metric: Any) -> Any:
    return lambda labels, scores: metric(labels, scores.argmax(axis=1))


partial = functools.partial
BINARY: dict[str, tuple[Any, Any]] = {
    "auroc": (auroc, sklearn.metrics.roc_auc_score),
    "auprc": (auprc, sklearn.metrics.average_precision_score),
    "pf1": (metrics.probabilistic_f1, probabilistic_f1),
    "sensitivity": (metrics.sensitivity_at_specificity, partial(best_sensitivity, specificity=0.9)),
    "sensitivity at 70 %": (
        partial(metrics.sensitivity_at_specificity, specificity=0.7),
        partial(best_sensitivity, specificity=0.7),
    ),
    "specificity": (metrics.specificity_at_sensitivity, partial(best_specificity, sensitivity=0.9)),
    "specificity at 70 %": (
        partial(metrics.specificity_at_sensitivity, sensitivity=0.7),
        partial(best_specificity, sensitivity=0.7),
    ),
    "brier": (brier_score, sklearn.metrics.brier_score_loss),
    "ece": (expected_calibration_error, calibration_error),
    "ece of 4 bins": (partial(expected_calibration_error, num_bins=4), partial(calibration_error, num_bins=4)),
}
MULTICLASS: dict[str, tuple[Any, Any]] = {
    "macro_auroc": (macro_auroc, partial(sklearn.metrics.roc_auc_score, multi_class="ovr")),
    "accuracy": (accuracy, of_classes(sklearn.metrics.accuracy_score)),
    "balanced_accuracy": (metrics.balanced_accuracy, of_classes(sklearn.metrics.balanced_accuracy_score)),
    "kappa": (metrics.cohen_kappa, of_classes(sklearn.metrics.cohen_kappa_score)),
    "quadratic_kappa": (
        partial(metrics.cohen_kappa, quadratic=True),
        of_classes(partial(sklearn.metrics.cohen_kappa_score, labels=[0, 1, 2], weights="quadratic")),
    ),
    "brier": (brier_score, partial(sklearn.metrics.brier_score_loss, labels=[0, 1, 2], scale_by_half=False)),
    "ece": (
        expected_calibration_error,
        lambda labels, scores: calibration_error(scores.argmax(axis=1) == labels, scores.max(axis=1)),
    ),
}


def close_to_the_loop(ours: Any, theirs: Any, labels: Array, scores: Array, clusters: Array, seed: int) -> None:
    draws = resampling.Draws.of(clusters, 40, seed)
    values = resampling.resampled(ours, labels, scores, draws)
    expected = naive_bootstrap(theirs, labels, scores, clusters, num=40, seed=seed)
    defined = ~np.isnan(expected)  # where a class is missing sklearn has other conventions, see below
    assert values[defined] == pytest.approx(expected[defined], abs=1e-12)


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("name", BINARY)
@given(seed=st.integers(0, 2**32 - 1), num_clusters=st.integers(2, 12), per_cluster=st.integers(1, 4))
def test_every_metric_of_a_finding_equals_sklearn_on_every_spelled_out_resample(
    name: str, seed: int, num_clusters: int, per_cluster: int
) -> None:
    labels, scores, clusters = simulate(seed, num_clusters, per_cluster)
    probabilities = np.round(1 / (1 + np.exp(-scores)), 2)
    close_to_the_loop(*BINARY[name], labels, probabilities, clusters, seed)


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("name", MULTICLASS)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_metric_of_classes_equals_sklearn_on_every_spelled_out_resample(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(8), 6)
    labels = np.tile([0, 1, 2, 0, 1, 2], 8)  # every resample has all classes
    scores = rng.dirichlet(np.ones(3), clusters.size)
    close_to_the_loop(*MULTICLASS[name], labels, scores, clusters, seed)


@pytest.mark.parametrize("name", [*BINARY, *MULTICLASS])
@pytest.mark.parametrize("seed", range(5))
def test_all_resamples_at_once_are_as_the_metric_says_where_a_class_is_missing_too(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(5), 2)
    if name in BINARY:
        metric, labels, scores = BINARY[name][0], rng.integers(0, 2, 10), np.round(rng.random(10), 1)
    else:
        metric, labels, scores = MULTICLASS[name][0], rng.integers(0, 3, 10), rng.dirichlet(np.ones(3), 10)
    draws = resampling.Draws.of(clusters, 100, seed)
    expected = [metric(labels[draws.cases(number)], scores[draws.cases(number)]) for number in range(100)]
    found = resampling.resampled(metric, labels, scores, draws)
    assert found == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", BINARY)
def test_a_class_that_never_occurs_leaves_all_resamples_as_the_metric_says(name: str, label: int) -> None:
    metric, labels, scores = BINARY[name][0], np.full(4, label), np.array([0.1, 0.2, 0.2, 0.9])
    draws = resampling.Draws.of(range(4), 20, seed=0)
    expected = [metric(labels, scores[draws.cases(number)]) for number in range(20)]
    found = resampling.resampled(metric, labels, scores, draws)
    assert found == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


def test_a_metric_of_ones_own_is_called_on_the_repeated_cases() -> None:
    labels, scores, clusters = simulate(10)
    found = clustered_bootstrap(lambda y, s: float(s[y == 1].mean()), labels, scores, clusters, seed=1)
    values = naive_bootstrap(lambda y, s: s[y == 1].mean(), labels, scores, clusters, num=1000, seed=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


@pytest.mark.parametrize("cells", [1, 500, 10**9])
@pytest.mark.parametrize("metric", [auroc, auprc])
def test_chunking_does_not_change_the_interval(metric: Any, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, clusters = simulate(1)
    expected = clustered_bootstrap(metric, labels, scores, clusters, num_resamples=50, seed=0)
    monkeypatch.setattr(resampling, "_CELLS_PER_CHUNK", cells)
    assert clustered_bootstrap(metric, labels, scores, clusters, num_resamples=50, seed=0) == expected


def test_several_metrics_share_their_resamples() -> None:
    labels, scores, clusters = simulate(9)
    several = clustered_bootstraps({"a": auroc, "b": auprc}, labels, scores, clusters, num_resamples=50, seed=3)
    for name, metric in (("a", auroc), ("b", auprc)):
        assert several[name] == clustered_bootstrap(metric, labels, scores, clusters, num_resamples=50, seed=3)


def closed_testing(p_values: Array) -> list[float]:
    """Holm by the closure principle: the largest Bonferroni p-value of all sets of hypotheses that hold this one."""
    numbers = range(len(p_values))
    sets = [chosen for size in numbers for chosen in itertools.combinations(numbers, size + 1)]
    of_set = {chosen: min(1.0, len(chosen) * min(p_values[number] for number in chosen)) for chosen in sets}
    return [max(value for chosen, value in of_set.items() if number in chosen) for number in numbers]


@given(st.lists(st.sampled_from([0.0, 0.004, 0.01, 0.02, 0.02, 0.3, 0.7, 1.0]), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(np.array(closed_testing(np.array(p_values))), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_from_the_smallest_on_until_one_is_too_large(p_values: list[float], alpha: float) -> None:
    rejected = set()
    for step, number in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[number] * (len(p_values) - step) > alpha:
            break
        rejected.add(int(number))
    assert set(np.flatnonzero(holm(p_values) <= alpha).tolist()) == rejected


def test_a_test_that_could_not_be_made_does_not_count() -> None:
    assert holm([0.02, math.nan, 0.04]) == pytest.approx(np.array([0.04, math.nan, 0.04]), nan_ok=True)
    assert holm([math.nan]) == pytest.approx(np.array([math.nan]), nan_ok=True)


@pytest.mark.parametrize("p_values", [[-0.1], [1.1], [[0.5]]])
def test_holm_refuses_what_is_no_list_of_p_values(p_values: Any) -> None:
    with pytest.raises(ValueError, match="p_values"):
        holm(p_values)


def test_any_metric_is_bootstrapped_and_the_bounds_are_percentiles() -> None:
    labels, predictions, clusters = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), np.array(list("aabbc"))
    interval = clustered_bootstrap(accuracy, labels, predictions, clusters, num_resamples=200, confidence=0.8, seed=4)
    drawn = np.random.default_rng(4).integers(3, size=(200, 3))
    # Clusters a, b, c hold 2, 2, 1 cases, of which 1, 2, 0 are correct.
    values = np.array([1, 2, 0])[drawn].sum(axis=1) / np.array([2, 2, 1])[drawn].sum(axis=1)
    low, high = np.quantile(values, [0.1, 0.9])
    assert interval == Interval(0.6, pytest.approx(low), pytest.approx(high), 3, 0)


def test_same_seed_same_interval_whatever_the_order_of_cases() -> None:
    labels, scores, clusters = simulate(2)
    order = np.random.default_rng(0).permutation(labels.size)
    first = clustered_bootstrap(auroc, labels, scores, clusters, seed=7)
    assert clustered_bootstrap(auroc, labels[order], scores[order], clusters[order], seed=7) == first
    assert clustered_bootstrap(auroc, labels, scores, clusters, seed=8) != first


def test_interval_depends_on_the_order_of_scores_only() -> None:
    labels, scores, clusters = simulate(3)
    expected = clustered_bootstrap(auroc, labels, scores, clusters, seed=0)
    assert clustered_bootstrap(auroc, labels, np.exp(scores), clusters, seed=0) == expected


def test_flipped_labels_mirror_the_interval() -> None:
    labels, scores, clusters = simulate(4)
    interval = clustered_bootstrap(auroc, labels, scores, clusters, seed=0)
    mirrored = clustered_bootstrap(auroc, 1 - labels, scores, clusters, seed=0)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - interval.high, 1 - interval.low), abs=1e-12)


def test_clusters_may_be_strings_and_are_counted() -> None:
    labels, scores, clusters = simulate(5)
    names = np.array([f"patient-{cluster:03d}" for cluster in clusters], dtype=object)
    expected = clustered_bootstrap(auroc, labels, scores, clusters, seed=0)
    assert clustered_bootstrap(auroc, labels, scores, names, seed=0) == expected
    assert expected.num_clusters == 40


def test_respecting_patients_widens_the_interval_of_correlated_images() -> None:
    labels, scores, clusters = simulate(6)
    by_patient = clustered_bootstrap(auroc, labels, scores, clusters, seed=0)
    by_image = clustered_bootstrap(auroc, labels, scores, np.arange(labels.size), seed=0)
    assert by_patient.high - by_patient.low > 1.5 * (by_image.high - by_image.low)


def test_intervals_by_patient_cover_the_truth_and_intervals_by_image_do_not() -> None:
    truth = auroc(*simulate(999, num_clusters=20_000)[:2])
    hits = {"patient": 0, "image": 0}
    for seed in range(100):
        labels, scores, clusters = simulate(seed)
        for unit, ids in (("patient", clusters), ("image", np.arange(labels.size))):
            interval = clustered_bootstrap(auroc, labels, scores, ids, num_resamples=300, seed=seed)
            hits[unit] += interval.low <= truth <= interval.high
    assert hits["patient"] >= 87  # nominal 95; the percentile interval is a little short with 40 patients
    assert hits["image"] <= 80


def test_resamples_without_a_class_are_dropped_and_counted() -> None:
    interval = clustered_bootstrap(auroc, [1, 0, 0], [0.9, 0.1, 0.2], ["a", "b", "c"], num_resamples=1000, seed=0)
    # Without the positive: (2/3)^3; with it alone: (1/3)^3.
    assert interval.num_undefined == pytest.approx(1000 * 9 / 27, abs=60)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def test_one_cluster_or_one_class_has_no_interval() -> None:
    single = clustered_bootstrap(auroc, [0, 1], [0.1, 0.2], ["a", "a"], seed=0)
    assert single.value == 1 and math.isnan(single.low) and math.isnan(single.high)
    undefined = clustered_bootstrap(auroc, [1, 1], [0.1, 0.2], ["a", "b"], num_resamples=10, seed=0)
    assert math.isnan(undefined.value) and math.isnan(undefined.low) and undefined.num_undefined == 10


def test_paired_difference_is_the_difference_on_the_same_resamples() -> None:
    labels, scores, clusters = simulate(7)
    other = scores + np.random.default_rng(1).normal(size=scores.size)
    paired = paired_clustered_bootstrap(auroc, labels, scores, other, clusters, num_resamples=100, seed=3)
    differences = naive_bootstrap(auroc, labels, scores, clusters, num=100, seed=3) - naive_bootstrap(
        auroc, labels, other, clusters, num=100, seed=3
    )
    assert paired.value == auroc(labels, scores) - auroc(labels, other)
    assert (paired.low, paired.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-12)


def test_a_model_does_not_differ_from_itself() -> None:
    labels, scores, clusters = simulate(8)
    paired = paired_clustered_bootstrap(auroc, labels, scores, scores * 2, clusters, seed=0)
    assert (paired.value, paired.low, paired.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": ["a"]}, "same length"),
        ({"labels": [], "scores": [], "clusters": []}, "at least 1"),
        ({"num_resamples": 0}, "num_resamples"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"labels": [0, 1], "scores": [0.1, 0.2], "clusters": ["a", "b"], "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        clustered_bootstrap(auroc, **arguments)
