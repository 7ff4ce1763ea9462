from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.evaluation import statistics
from mammoclip.evaluation.metrics import accuracy, auroc, macro_auroc
from mammoclip.evaluation.statistics import Interval, clustered_bootstrap, paired_clustered_bootstrap

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


@pytest.mark.parametrize("cells", [1, 500, 10**9])
def test_chunking_does_not_change_the_interval(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, clusters = simulate(1)
    expected = clustered_bootstrap(auroc, labels, scores, clusters, num_resamples=50, seed=0)
    monkeypatch.setattr(statistics, "_CELLS_PER_CHUNK", cells)
    assert clustered_bootstrap(auroc, labels, scores, clusters, num_resamples=50, seed=0) == expected


def test_fast_macro_auroc_equals_the_general_path() -> None:
    rng = np.random.default_rng(5)
    labels, scores, clusters = rng.integers(0, 3, 60), rng.normal(size=(60, 3)), np.arange(60) // 3
    fast = clustered_bootstrap(macro_auroc, labels, scores, clusters, num_resamples=50, seed=2)
    general = clustered_bootstrap(functools.partial(macro_auroc), labels, scores, clusters, num_resamples=50, seed=2)
    assert (fast.value, fast.low, fast.high) == pytest.approx((general.value, general.low, general.high), abs=1e-12)


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
