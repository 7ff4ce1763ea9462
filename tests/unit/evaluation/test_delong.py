from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.delong import delong_test, delong_variance
from mammoclip.evaluation.metrics import auroc

Array = np.ndarray[Any, Any]


def simulate(seed: int, num_clusters: int = 60, effect_b: float = 1.0) -> tuple[Array, Array, Array, Array]:
    """Labels, coarse scores of two models, patients: images of a patient share most of their scores, models some."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(num_clusters), 4)
    labels = rng.integers(0, 2, num_clusters)[clusters]
    labels[::4] = rng.integers(0, 2, num_clusters)  # some patients have images of both classes
    shared, of_a, of_b = rng.normal(size=(3, num_clusters))
    noise = rng.normal(size=(2, clusters.size)) / 3
    a = labels + (shared + of_a)[clusters] + noise[0]
    b = effect_b * labels + (shared + of_b)[clusters] + noise[1]
    return labels, np.round(a, 1), np.round(b, 1), clusters


def kernel(positives: Array, negatives: Array) -> Array:
    """Every positive against every negative: won, lost or tied."""
    difference = positives[:, None] - negatives[None, :]
    return (difference > 0) + (difference == 0) / 2


def delong_covariance(labels: Array, models: list[Array]) -> Array:
    """DeLong et al. 1988, equations 4 to 6, pair by pair."""
    wins = [kernel(model[labels == 1], model[labels == 0]) for model in models]
    of_positives = np.cov([won.mean(axis=1) for won in wins])
    of_negatives = np.cov([won.mean(axis=0) for won in wins])
    return np.atleast_2d(of_positives / (labels == 1).sum() + of_negatives / (labels == 0).sum())


def obuchowski_covariance(labels: Array, models: list[Array], clusters: Array) -> Array:
    """Obuchowski 1997: covariance of two models with sums per patient, written as in the paper."""
    patients = np.unique(clusters)
    m = np.array([((clusters == i) & (labels == 1)).sum() for i in patients])
    n = np.array([((clusters == i) & (labels == 0)).sum() for i in patients])
    num_positive, num_negative = m.sum(), n.sum()
    x, y = [], []
    for model in models:
        won = kernel(model[labels == 1], model[labels == 0])
        area = won.mean()
        v10, v01 = won.mean(axis=1), won.mean(axis=0)
        x.append(np.array([v10[clusters[labels == 1] == i].sum() for i in patients]) - m * area)
        y.append(np.array([v01[clusters[labels == 0] == i].sum() for i in patients]) - n * area)
    i10, i01, i_all = (m > 0).sum(), (n > 0).sum(), len(patients)
    covariance = np.empty((len(models), len(models)))
    for r in range(len(models)):
        for s in range(len(models)):
            s10 = i10 / ((i10 - 1) * num_positive) * (x[r] * x[s]).sum()
            s01 = i01 / ((i01 - 1) * num_negative) * (y[r] * y[s]).sum()
            s11, s11_turned = (i_all / (i_all - 1) * (x[p] * y[q]).sum() for p, q in ((r, s), (s, r)))
            covariance[r, s] = (
                s10 / num_positive + s01 / num_negative + (s11 + s11_turned) / (num_positive * num_negative)
            )
    return covariance


@given(st.integers(0, 2**32 - 1), st.integers(4, 20))
def test_with_every_case_a_patient_the_variance_is_delongs(seed: int, num_clusters: int) -> None:
    labels, a, b, clusters = simulate(seed, num_clusters)
    labels[:4] = 0, 0, 1, 1
    cases = np.arange(labels.size)
    expected = delong_covariance(labels, [a, b])
    assert delong_variance(labels, a, cases) == pytest.approx(expected[0, 0], abs=1e-12)
    found = delong_test(labels, a, b, cases)
    assert found.standard_error**2 == pytest.approx(np.array([1, -1]) @ expected @ [1, -1], abs=1e-12)
    assert found.difference == pytest.approx(auroc(labels, a) - auroc(labels, b), abs=1e-12)
    assert delong_variance(labels, a, clusters) != pytest.approx(expected[0, 0])


@given(st.integers(0, 2**32 - 1), st.integers(8, 20))
def test_of_patients_the_variance_is_obuchowskis(seed: int, num_clusters: int) -> None:
    labels, a, b, clusters = simulate(seed, num_clusters)
    labels[:8] = 0, 0, 1, 1, 0, 0, 1, 1
    expected = obuchowski_covariance(labels, [a, b], clusters)
    names = np.array([f"patient {number}" for number in clusters])
    assert delong_variance(labels, a, names) == pytest.approx(max(expected[0, 0], 0), abs=1e-12)
    found = delong_test(labels, a, b, names)
    variance = max(np.array([1, -1]) @ expected @ [1, -1], 0)
    assert found.standard_error**2 == pytest.approx(variance, abs=1e-12)
    if variance > 1e-9:
        z = found.difference / math.sqrt(variance)
        assert found.p_value == pytest.approx(2 * scipy.stats.norm.cdf(-abs(z)), abs=1e-9)


def test_the_standard_error_is_the_spread_over_repeated_studies() -> None:
    """And DeLong's own, which takes images for independent, is far too small."""
    studies = [simulate(seed) for seed in range(300)]
    areas = [auroc(labels, a) for labels, a, _, _ in studies]
    by_patient = np.sqrt(np.mean([delong_variance(labels, a, clusters) for labels, a, _, clusters in studies]))
    by_image = np.sqrt(np.mean([delong_variance(labels, a, range(labels.size)) for labels, a, _, _ in studies]))
    assert by_patient == pytest.approx(np.std(areas), rel=0.12)
    assert by_image < 0.75 * np.std(areas)


def test_models_that_are_equally_good_are_told_apart_in_five_of_a_hundred_studies() -> None:
    studies = [simulate(seed, num_clusters=200) for seed in range(500)]
    by_patient = np.mean([delong_test(y, a, b, clusters).p_value < 0.05 for y, a, b, clusters in studies])
    by_image = np.mean([delong_test(y, a, b, range(y.size)).p_value < 0.05 for y, a, b, _ in studies])
    assert 0.02 < by_patient < 0.08
    assert by_image > 0.14


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_the_p_value_is_that_of_exchanging_the_models_of_patients(seed: int) -> None:
    """A permutation test: under no difference, either model's scores of a patient could be the other's.

    Scores are replaced by ranks first, as the exchange asks for one scale; that changes no AUROC.
    """
    labels, a, b, clusters = simulate(seed, num_clusters=80, effect_b=0.7)
    a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    rng = np.random.default_rng(seed)
    observed = abs(auroc(labels, a) - auroc(labels, b))
    reached = 0
    for _ in range(500):
        exchanged = rng.integers(0, 2, 80, dtype=bool)[clusters]
        first, second = np.where(exchanged, b, a), np.where(exchanged, a, b)
        reached += abs(auroc(labels, first) - auroc(labels, second)) >= observed
    assert delong_test(labels, a, b, clusters).p_value == pytest.approx(reached / 500, abs=0.1)


def test_a_model_does_not_differ_from_one_that_ranks_alike() -> None:
    labels, a, _, clusters = simulate(1)
    found = delong_test(labels, a, np.exp(a), clusters)
    assert (found.difference, found.standard_error, found.p_value) == (0, 0, 1)


@given(st.integers(0, 2**32 - 1))
def test_exchanging_the_models_turns_the_sign_only(seed: int) -> None:
    labels, a, b, clusters = simulate(seed)
    one, other = delong_test(labels, a, b, clusters), delong_test(labels, b, a, clusters)
    assert other.difference == pytest.approx(-one.difference, abs=1e-12)
    assert (other.standard_error, other.p_value) == pytest.approx((one.standard_error, one.p_value), abs=1e-9)


def test_perfect_models_that_are_opposites_have_no_p_value() -> None:
    found = delong_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1], range(4))
    assert (found.difference, found.standard_error) == (1, 0)
    assert math.isnan(found.p_value)


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [([0, 0, 0], [1, 2, 3]), ([1, 1, 1], [1, 2, 3]), ([0, 0, 1], [1, 2, 3]), ([0, 0, 1], [1, 1, 1]), ([], [])],
)
def test_fewer_than_two_patients_of_a_class_have_no_variance(labels: list[int], clusters: list[int]) -> None:
    scores = [0.1, 0.2, 0.3][: len(labels)]
    assert math.isnan(delong_variance(labels, scores, clusters))
    found = delong_test(labels, scores, scores, clusters)
    assert math.isnan(found.standard_error) and math.isnan(found.p_value)
    assert math.isnan(found.difference) == (len(set(labels)) < 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(MammoClipError, match="1 of 2 scores"):
        delong_test([0, 1], [0.1, 0.2], [0.1, math.nan], [1, 2])
    with pytest.raises(ValueError, match="clusters must have shape"):
        delong_variance([0, 1], [0.1, 0.2], [1])
