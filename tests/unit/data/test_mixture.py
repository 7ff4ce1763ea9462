from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.data.mixture import ALIKE, Mixture, check_weights, draw_epoch
from mammoclip.errors import ConfigError

SEED = 7
cohorts = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)
weights = st.dictionaries(st.sampled_from("abc"), st.floats(0.05, 3.5), max_size=3)
batch_sizes = st.integers(1, 7)


def examples_an_epoch(datasets: list[str], weights: dict[str, float]) -> dict[str, int]:
    """How often the breasts of each data set are seen, all together."""
    return {name: max(1, round(weights.get(name, 1) * count)) for name, count in Counter(datasets).items()}


@settings(deadline=None)
@given(cohorts, st.integers(0, 5), batch_sizes)
def test_with_equal_weights_an_epoch_is_one_shuffle_of_the_breasts(
    datasets: list[str], epoch: int, batch_size: int
) -> None:
    """To the letter that of the runs that were made before there were weights, whatever the data sets are called."""
    whole = len(datasets) // batch_size
    shuffled = np.random.default_rng([SEED, 2, epoch]).permutation(len(datasets))
    expected = shuffled[: whole * batch_size].reshape(whole, batch_size)
    for mixture in (ALIKE, Mixture(dict.fromkeys(datasets, 1.0))):
        np.testing.assert_array_equal(draw_epoch(datasets, mixture, SEED, epoch, batch_size), expected)


def test_the_order_of_a_run_never_changes() -> None:
    """Written down: a resumed run would otherwise go on with other batches than it began with."""
    assert draw_epoch(["a"] * 10, ALIKE, 7, 0, 5).tolist() == [[1, 5, 3, 4, 6], [9, 0, 8, 2, 7]]
    assert draw_epoch(["a"] * 10, ALIKE, 7, 5, 5).tolist() == [[1, 3, 0, 4, 7], [9, 6, 8, 5, 2]]


@settings(deadline=None)
@given(cohorts, weights, st.integers(1, 6))
def test_no_breast_is_seen_more_than_once_less_often_than_its_fellows(
    datasets: list[str], weights: dict[str, float], num_epochs: int
) -> None:
    """In one epoch as in all so far, a breast has its share of the data set's examples, rounded down or up."""
    share = {name: size / datasets.count(name) for name, size in examples_an_epoch(datasets, weights).items()}
    so_far: Counter[int] = Counter()
    for epoch in range(num_epochs):
        rows = (draw_epoch(datasets, Mixture(weights), SEED, epoch, 1) % len(datasets)).ravel().tolist()
        so_far.update(rows)
        for counts, epochs in ((Counter(rows), 1), (so_far, epoch + 1)):
            for row, name in enumerate(datasets):
                times = round(epochs * share[name], 6)
                assert math.floor(times) <= counts[row] <= math.ceil(times)


@settings(deadline=None)
@given(cohorts, weights, st.integers(0, 4))
def test_indices_of_an_epoch_are_distinct_and_count_the_repetitions_of_a_breast(
    datasets: list[str], weights: dict[str, float], epoch: int
) -> None:
    indices = draw_epoch(datasets, Mixture(weights), SEED, epoch, 1).ravel()
    assert len(set(indices.tolist())) == len(indices)
    times = Counter((indices % len(datasets)).tolist())
    repetitions = {(index % len(datasets), index // len(datasets)) for index in indices.tolist()}
    assert repetitions == {(row, repetition) for row, count in times.items() for repetition in range(count)}


@settings(deadline=None)
@given(cohorts, weights, batch_sizes, st.booleans())
def test_every_epoch_has_equally_many_whole_batches(
    datasets: list[str], weights: dict[str, float], batch_size: int, homogeneous: bool
) -> None:
    sizes = examples_an_epoch(datasets, weights)
    mixture = Mixture(weights, homogeneous)
    if homogeneous and min(sizes.values()) < batch_size:
        with pytest.raises(ConfigError, match=r"pretrain\.batches: homogeneous needs"):
            draw_epoch(datasets, mixture, SEED, 0, batch_size)
        return
    whole = sum(size // batch_size for size in sizes.values()) if homogeneous else sum(sizes.values()) // batch_size
    for epoch in range(4):
        assert draw_epoch(datasets, mixture, SEED, epoch, batch_size).shape == (whole, batch_size)


@settings(deadline=None)
@given(cohorts, st.integers(0, 3), st.integers(1, 3))
def test_a_homogeneous_batch_is_of_one_data_set_and_each_has_its_share_of_batches(
    datasets: list[str], epoch: int, batch_size: int
) -> None:
    datasets = datasets + ["a", "b", "c"] * 3
    weights = {"a": 2.0, "b": 1.5}
    batches = draw_epoch(datasets, Mixture(weights, homogeneous=True), SEED, epoch, batch_size)
    names = [{datasets[index % len(datasets)] for index in batch} for batch in batches]
    assert {len(found) for found in names} == {1}
    sizes = examples_an_epoch(datasets, weights)
    assert Counter(min(found) for found in names) == {name: size // batch_size for name, size in sizes.items()}


def test_homogeneous_batches_come_in_an_order_of_chance_and_are_made_anew_every_epoch() -> None:
    datasets = ["a"] * 40 + ["b"] * 40
    epochs = [draw_epoch(datasets, Mixture(homogeneous=True), SEED, epoch, 4) for epoch in range(6)]
    orders = {"".join(datasets[batch[0]] for batch in batches) for batches in epochs}
    assert len(orders) == 6
    assert not any("a" * 10 in order for order in orders)
    contents = [{frozenset(batch) for batch in batches.tolist()} for batches in epochs]
    assert not set.intersection(*contents)


def test_mixed_batches_have_both_data_sets() -> None:
    batches = draw_epoch(["a"] * 40 + ["b"] * 40, Mixture({"a": 2.0}), SEED, 0, 12)
    shares = [(batch % 80 < 40).mean() for batch in batches]
    assert min(shares) > 0 and max(shares) < 1 and np.mean(shares) == pytest.approx(2 / 3, abs=0.1)


def test_at_half_weight_two_epochs_see_every_breast_once_and_halves_are_drawn_anew() -> None:
    halves = [set(draw_epoch(["a"] * 20, Mixture({"a": 0.5}), SEED, epoch, 10).ravel().tolist()) for epoch in range(6)]
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert first | second == set(range(20))
    assert len({frozenset(half) for half in halves}) == 6


def test_a_data_set_of_little_weight_is_seen_nevertheless() -> None:
    datasets = ["a"] * 10 + ["b"] * 3
    seen = [draw_epoch(datasets, Mixture({"b": 0.01}), SEED, epoch, 1).ravel() for epoch in range(3)]
    assert [len(rows) for rows in seen] == [11] * 3
    assert {row for rows in seen for row in rows.tolist()} == set(range(13))


def test_another_seed_gives_other_halves_and_other_batches() -> None:
    one, other = (draw_epoch(["a"] * 40, Mixture({"a": 0.5}), seed, 0, 10) for seed in (1, 2))
    assert set(one.ravel().tolist()) != set(other.ravel().tolist())


def test_halves_of_two_data_sets_are_drawn_independently() -> None:
    rows = draw_epoch(["a"] * 40 + ["b"] * 40, Mixture({"a": 0.5, "b": 0.5}), SEED, 0, 1).ravel()
    assert {row for row in rows.tolist() if row < 40} != {row - 40 for row in rows.tolist() if row >= 40}


def test_a_weight_of_a_data_set_without_breasts_is_an_error_that_names_those_there_are() -> None:
    check_weights(["vindr", "embed"], Mixture({"embed": 2.0}))
    message = r"dataset_weights names 'rsna', of which no breast is trained on; there are: embed, vindr"
    with pytest.raises(ConfigError, match=message):
        check_weights(["vindr", "embed"], Mixture({"embed": 2.0, "rsna": 0.5}))


def test_a_data_set_that_fills_no_batch_of_its_own_is_named() -> None:
    message = r"homogeneous needs 4 examples of every data set \(global_batch_size\), and an epoch has 3 of 'b'"
    with pytest.raises(ConfigError, match=message):
        draw_epoch(["a"] * 10 + ["b"] * 3, Mixture(homogeneous=True), SEED, 0, 4)
