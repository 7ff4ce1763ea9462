from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.evaluation.classify import LinearProbe, mean_direction, permute_by_patient, zero_shot_scores
from mammoclip.evaluation.metrics import auroc

Array = np.ndarray[Any, Any]

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
seeds = st.integers(0, 2**32 - 1)


def unit_rows(rng: np.random.Generator, num: int, dim: int) -> Array:
    rows = rng.normal(size=(num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def simulate(seed: int, num: int, shift: float, num_classes: int = 2, dim: int = 6) -> tuple[Array, Array]:
    """Features whose first column moves by ``shift`` per class; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num - num_classes)])
    features = rng.normal(size=(num, dim))
    features[:, 0] += shift * labels
    return features, labels


def test_zero_shot_is_the_softmax_of_the_cosines_without_temperature() -> None:
    images = np.array([[1.0, 0.0], [0.6, 0.8]])
    prompts = np.array([[1.0, 0.0], [0.0, 1.0]])
    # e / (e + 1) for cosines 1 and 0; e^0.6 / (e^0.6 + e^0.8) for 0.6 and 0.8.
    expected = [[0.7310586, 0.2689414], [0.4501660, 0.5498340]]
    assert zero_shot_scores(images, prompts).tolist() == [pytest.approx(row, abs=1e-7) for row in expected]


@settings(deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 5), st.integers(1, 8))
def test_zero_shot_equals_the_formula_spelled_out(seed: int, num: int, prompts: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = unit_rows(rng, num, dim), unit_rows(rng, prompts, dim)
    scores = zero_shot_scores(images, texts)
    assert scores.shape == (num, prompts)
    for image, row in zip(images.tolist(), scores.tolist(), strict=True):
        powers = [math.exp(sum(a * b for a, b in zip(image, text, strict=True))) for text in texts.tolist()]
        assert row == pytest.approx([power / sum(powers) for power in powers])


def test_with_two_prompts_images_are_ranked_by_the_difference_of_the_cosines() -> None:
    rng = np.random.default_rng(0)
    images, prompts = unit_rows(rng, 50, 8), unit_rows(rng, 2, 8)
    difference = images @ prompts[1] - images @ prompts[0]
    assert np.array_equal(np.argsort(zero_shot_scores(images, prompts)[:, 1]), np.argsort(difference))


def test_a_probe_separates_what_is_separable() -> None:
    probe = LinearProbe(STRENGTHS).fit(*simulate(0, 100, 6.0), *simulate(1, 50, 6.0))
    test, labels = simulate(2, 200, 6.0)
    assert auroc(labels, probe.scores(test, 2)[:, 1]) > 0.99


def test_a_probe_finds_nothing_where_there_is_nothing() -> None:
    values = []
    for seed in range(10):
        probe = LinearProbe(STRENGTHS).fit(*simulate(3 * seed, 80, 0.0), *simulate(3 * seed + 1, 40, 0.0))
        test, labels = simulate(3 * seed + 2, 200, 0.0)
        values.append(auroc(labels, probe.scores(test, 2)[:, 1]))
    # The standard error of one value is about 0.04, of the mean of 10 about 0.013.
    assert np.mean(values) == pytest.approx(0.5, abs=0.04)


def balanced_log_loss(scores: Array, labels: Array) -> float:
    """Mean over the classes present of their mean log loss."""
    per_class = [-np.log(scores[labels == label, label]).mean() for label in np.unique(labels)]
    return float(np.mean(per_class))


@settings(max_examples=5, deadline=None)
@given(seeds, st.integers(2, 4), st.permutations(STRENGTHS), st.floats(0, 1.5))
def test_the_strength_with_the_lowest_balanced_log_loss_on_validation_is_chosen(
    seed: int, num_classes: int, strengths: list[float], shift: float
) -> None:
    train, (features, labels), (test, _) = (simulate(seed + i, 60, shift, num_classes) for i in range(3))
    rare = np.flatnonzero(labels == 1)[:1]  # one image of class 1 has to stand for the whole class
    kept = np.concatenate([rare, np.flatnonzero(labels != 1)])
    validation = features[kept], labels[kept]
    alone = [LinearProbe([strength]).fit(*train, *validation) for strength in strengths]
    losses = [balanced_log_loss(probe.scores(validation[0], num_classes), validation[1]) for probe in alone]
    best = alone[int(np.argmin(losses))]
    chosen = LinearProbe(strengths).fit(*train, *validation)
    # Each fit starts from the one before and ends within the solver's tolerance, so two strengths may nearly tie.
    assert losses[strengths.index(chosen.strength)] == pytest.approx(min(losses), abs=0.005)
    if chosen.strength == best.strength:
        np.testing.assert_allclose(chosen.scores(test, num_classes), best.scores(test, num_classes), atol=0.01)


def test_validation_does_decide() -> None:
    train, validation, (test, _) = simulate(0, 30, 1.0), simulate(1, 30, 1.0), simulate(2, 30, 1.0)
    upside_down = validation[0], 1 - validation[1]
    agreeing = LinearProbe(STRENGTHS).fit(*train, *validation)
    contradicted = LinearProbe(STRENGTHS).fit(*train, *upside_down)
    # A validation set that contradicts the training set asks for the most cautious probe.
    cautious = LinearProbe([min(STRENGTHS)]).fit(*train, *validation)
    np.testing.assert_array_equal(contradicted.scores(test, 2), cautious.scores(test, 2))
    assert not np.array_equal(agreeing.scores(test, 2), cautious.scores(test, 2))


@pytest.mark.parametrize("seed", range(5))
def test_the_prevalence_in_validation_does_not_decide(seed: int) -> None:
    train, (features, labels), (test, _) = (simulate(3 * seed + i, 40, 0.5) for i in range(3))
    repeats = np.where(labels == 1, 50, 1)
    once = LinearProbe(STRENGTHS).fit(*train, features, labels)
    repeated = LinearProbe(STRENGTHS).fit(*train, features.repeat(repeats, axis=0), labels.repeat(repeats))
    np.testing.assert_array_equal(repeated.scores(test, 2), once.scores(test, 2))


def test_rare_classes_weigh_as_much_as_common_ones() -> None:
    rng = np.random.default_rng(0)
    train, labels = rng.normal(size=(400, 3)), np.arange(400) % 10 == 0
    probe = LinearProbe(STRENGTHS).fit(train, labels.astype(np.int64), train, labels.astype(np.int64))
    # One image in ten is positive; without weights the scores would lie around 0.1.
    assert probe.scores(rng.normal(size=(400, 3)), 2)[:, 1].mean() == pytest.approx(0.5, abs=0.05)


def test_the_unit_of_a_feature_does_not_matter() -> None:
    train, validation, (test, _) = simulate(0, 60, 1.0), simulate(1, 40, 1.0), simulate(2, 30, 1.0)
    scale, shift = 10.0 ** np.arange(-3, 3), np.linspace(-50, 50, 6)
    plain = LinearProbe(STRENGTHS).fit(*train, *validation).scores(test, 2)
    scaled = LinearProbe(STRENGTHS).fit(
        train[0] * scale + shift, train[1], validation[0] * scale + shift, validation[1]
    )
    np.testing.assert_allclose(scaled.scores(test * scale + shift, 2), plain, atol=1e-4)


def test_a_dead_feature_does_no_harm() -> None:
    train, validation, (test, _) = simulate(0, 60, 1.0), simulate(1, 40, 1.0), simulate(2, 30, 1.0)

    def with_dead(features: Array) -> Array:
        return np.hstack([features, np.full((len(features), 1), 3.0)])

    plain = LinearProbe(STRENGTHS).fit(*train, *validation).scores(test, 2)
    dead = LinearProbe(STRENGTHS).fit(with_dead(train[0]), train[1], with_dead(validation[0]), validation[1])
    np.testing.assert_allclose(dead.scores(with_dead(test), 2), plain, atol=1e-4)


def test_a_class_that_training_lacks_scores_0() -> None:
    features, labels = simulate(0, 60, 3.0)
    labels = np.where(labels == 1, 3, 1)  # classes 1 and 3 of four
    scores = LinearProbe(STRENGTHS).fit(features, labels, features, labels).scores(features, 4)
    assert scores.shape == (60, 4)
    assert not scores[:, [0, 2]].any()
    assert scores.sum(axis=1) == pytest.approx(np.ones(60))
    assert (scores.argmax(axis=1) == labels).mean() > 0.9


def test_validation_images_of_a_class_that_training_lacks_are_left_out() -> None:
    train, (features, labels), (test, _) = simulate(0, 60, 1.0), simulate(1, 40, 1.0), simulate(2, 30, 1.0)
    strange = np.where(np.arange(40) % 3 == 2, 2, labels)
    known = strange < 2
    with_strange = LinearProbe(STRENGTHS).fit(*train, features, strange).scores(test, 3)
    without = LinearProbe(STRENGTHS).fit(*train, features[known], labels[known]).scores(test, 3)
    np.testing.assert_array_equal(with_strange, without)


def test_a_probe_that_was_not_fitted_has_no_scores() -> None:
    with pytest.raises(ValueError, match="fit the probe"):
        LinearProbe(STRENGTHS).scores(np.zeros((1, 2)), 2)


def blocks(labels: Array, patients: list[str]) -> dict[str, tuple[int, ...]]:
    """Each patient's labels in the order of the rows."""
    return {name: tuple(labels[[p == name for p in patients]].tolist()) for name in sorted(set(patients))}


rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), min_size=1, max_size=40)


@given(rows, st.integers(0, 100))
def test_permuting_moves_whole_patients_onto_others_with_as_many_images(rows: list[tuple[str, int]], seed: int) -> None:
    patients, labels = [patient for patient, _ in rows], np.array([label for _, label in rows])
    before = labels.copy()
    permuted = permute_by_patient(labels, patients, seed)
    assert np.array_equal(labels, before)
    assert Counter(permuted.tolist()) == Counter(labels.tolist())
    assert Counter(blocks(permuted, patients).values()) == Counter(blocks(labels, patients).values())
    assert np.array_equal(permute_by_patient(labels, patients, seed), permuted)


def test_permuting_cuts_labels_from_images() -> None:
    patients = [f"p{number:03d}" for number in range(200) for _ in range(4)]
    labels = np.arange(200).repeat(4) % 2
    agreement = [(permute_by_patient(labels, patients, seed) == labels).mean() for seed in range(20)]
    # Mean 1/2; the standard error of one is 0.035, of the mean of 20 about 0.008.
    assert np.mean(agreement) == pytest.approx(0.5, abs=0.03)
    assert len(set(agreement)) > 1


@given(seeds, st.integers(1, 8))
def test_the_mean_of_prompts_is_a_unit_vector_and_of_one_prompt_the_prompt(seed: int, num: int) -> None:
    prompts = unit_rows(np.random.default_rng(seed), num, 5)
    mean = mean_direction(prompts)
    assert np.linalg.norm(mean) == pytest.approx(1.0)
    # The direction whose cosines to all prompts have the largest sum.
    best = unit_rows(np.random.default_rng(seed + 1), 200, 5)
    assert (prompts @ mean).sum() >= (prompts @ best.T).sum(axis=0).max() - 1e-9
    np.testing.assert_allclose(mean_direction(prompts[:1]), prompts[0])
