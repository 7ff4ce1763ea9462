from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.errors import MammoClipError
from mammoclip.evaluation import retrieval
from mammoclip.evaluation.retrieval import chance_recall, first_hit_ranks, median_rank, recall_at, retrieval_metrics

Array = np.ndarray[Any, Any]


def ids(*values: int) -> Array:
    return np.array(values, np.int64)


def unit_rows(seed: int, num: int, dim: int) -> Array:
    rows = np.random.default_rng(seed).normal(size=(num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Images, texts and ids of few small integers, so that ties and equal texts are common and products are exact."""
    num = draw(st.integers(1, 12))
    whole = st.integers(-2, 2)
    images, texts = (draw(hnp.arrays(np.int64, (num, 3), elements=whole)).astype(np.float64) for _ in range(2))
    return images, texts, draw(hnp.arrays(np.int64, num, elements=st.integers(0, 4)))


def rank_by_sorting(query: Array, candidates: Array, hits: list[bool]) -> int:
    """The place of the first hit in a list sorted from the most to the least similar, what ties with it before it."""
    similarity = [sum(a * b for a, b in zip(query, candidate, strict=True)) for candidate in candidates]
    order = sorted(range(len(candidates)), key=lambda j: (-similarity[j], hits[j]))
    return 1 + [hits[j] for j in order].index(True)


def test_a_case_that_can_be_checked_by_hand() -> None:
    # Cosines with the texts at 0, 90 and 180 degrees; the images lie at 0, 60 and 90 degrees.
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    images = np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, 1.0]])
    found = retrieval_metrics(images, texts, ids(1, 2, 3))
    # Image 3 is at 90 degrees of its text and of text 1, with which it ties, behind text 2: rank 3.
    assert found["image_to_text_recall_at_1"] == 2 / 3
    assert found["image_to_text_median_rank"] == 1
    # Text 2 is nearest to image 3, then image 2. Text 3 is at 90 degrees of image 3, and of all others farther away.
    assert found["text_to_image_recall_at_1"] == 2 / 3
    assert found["text_to_image_recall_at_5"] == 1
    assert found["chance_recall_at_1"] == pytest.approx(1 / 3)
    assert found["chance_recall_at_5"] == 1


def test_every_text_that_says_the_same_is_a_hit() -> None:
    images = texts = np.eye(2)
    assert first_hit_ranks(images, texts[::-1], ids(5, 6), ids(5, 6)).tolist() == [2, 2]
    assert first_hit_ranks(images, texts[::-1], ids(5, 5), ids(5, 5)).tolist() == [1, 1]


@given(cases())
def test_ranks_are_those_of_a_sorted_list(case: tuple[Array, Array, Array]) -> None:
    images, texts, text_ids = case
    for queries, candidates in ((images, texts), (texts, images)):
        expected = [
            rank_by_sorting(query, candidates, [bool(own == other) for other in text_ids])
            for query, own in zip(queries, text_ids, strict=True)
        ]
        assert first_hit_ranks(queries, candidates, text_ids, text_ids).tolist() == expected


@given(cases(), st.integers(1, 40))
def test_ranks_do_not_depend_on_the_size_of_a_block(case: tuple[Array, Array, Array], cells: int) -> None:
    images, texts, text_ids = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_CELLS_PER_BLOCK", cells)
        in_blocks = first_hit_ranks(images, texts, text_ids, text_ids)
    assert in_blocks.tolist() == first_hit_ranks(images, texts, text_ids, text_ids).tolist()


@given(cases())
def test_the_metrics_are_shares_and_the_median_of_the_ranks(case: tuple[Array, Array, Array]) -> None:
    images, texts, text_ids = case
    found = retrieval_metrics(images, texts, text_ids)
    for name, queries, candidates in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        ranks = sorted(first_hit_ranks(queries, candidates, text_ids, text_ids).tolist())
        for k in (1, 5, 10):
            assert found[f"{name}_recall_at_{k}"] == sum(rank <= k for rank in ranks) / len(ranks)
        middle = len(ranks) // 2
        assert found[f"{name}_median_rank"] == (ranks[middle] + ranks[-1 - middle]) / 2


@given(hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 3)), st.integers(1, 7))
def test_chance_is_the_mean_over_all_rankings(text_ids: Array, k: int) -> None:
    shares = [any(other == own for other in order[:k]) for own in text_ids for order in permutations(text_ids.tolist())]
    assert chance_recall(text_ids, text_ids, k) == pytest.approx(sum(shares) / len(shares))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20))
def test_chance_is_hypergeometric(hits: int, others: int, k: int) -> None:
    num = hits + others
    expected = 1 - Fraction(math.comb(others, k), math.comb(num, k)) if k <= num else Fraction(1)
    assert chance_recall(ids(1), ids(*[1] * hits, *[2] * others), k) == pytest.approx(float(expected))


def test_a_model_that_embeds_everything_alike_finds_nothing() -> None:
    alike = np.repeat(unit_rows(0, 1, 64), 50, axis=0).astype(np.float32)
    found = retrieval_metrics(alike, alike, np.arange(50))
    assert [found[f"image_to_text_recall_at_{k}"] for k in (1, 5, 10)] == [0, 0, 0]
    assert found["text_to_image_median_rank"] == 50


def test_a_model_that_connects_images_with_their_texts_finds_all_and_with_others_no_more_than_chance() -> None:
    num, repeats = 400, 10
    text_ids = np.random.default_rng(1).integers(0, 100, num)
    texts = unit_rows(2, 100, 32)[text_ids]
    found = retrieval_metrics(texts, texts, text_ids)
    assert found["image_to_text_recall_at_1"] == found["text_to_image_recall_at_1"] == 1
    recalls = []
    for seed in range(repeats):
        images = texts[np.random.default_rng([3, seed]).permutation(num)]
        recalls.append(retrieval_metrics(images, texts, text_ids)["image_to_text_recall_at_1"])
    # Images of one text are found or missed together, so 100 of them count: a standard error of 0.003 over the repeats.
    assert np.mean(recalls) == pytest.approx(found["chance_recall_at_1"], abs=0.012)


def test_random_embeddings_have_the_recall_of_chance() -> None:
    num = 3000
    text_ids = np.random.default_rng(4).integers(0, 300, num)
    found = retrieval_metrics(unit_rows(5, num, 16), unit_rows(6, num, 16), text_ids)
    for k in (1, 5, 10):
        chance = found[f"chance_recall_at_{k}"]
        assert found[f"image_to_text_recall_at_{k}"] == pytest.approx(chance, abs=5 * math.sqrt(chance / num))


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    num, cells = 2000, 100_000
    embeddings = unit_rows(7, num, 8).astype(np.float32)
    monkeypatch.setattr(retrieval, "_CELLS_PER_BLOCK", cells)
    tracemalloc.start()
    ranks = first_hit_ranks(embeddings, embeddings, np.arange(num), np.arange(num))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recall_at(ranks, 1) == 1
    assert peak < 20 * cells < num * num


def test_without_a_query_there_is_no_value() -> None:
    nothing = np.zeros((0, 4))
    assert math.isnan(recall_at(ids(), 1)) and math.isnan(median_rank(ids()))
    assert all(math.isnan(value) for value in retrieval_metrics(nothing, nothing, ids()).values())


def test_what_does_not_fit_together_is_refused() -> None:
    two = unit_rows(8, 2, 3)
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        first_hit_ranks(two, two, ids(1, 2, 3), ids(1, 2))
    with pytest.raises(ValueError, match="queries have 3 dimensions, candidates 2"):
        first_hit_ranks(two, two[:, :2], ids(1, 2), ids(1, 2))
    with pytest.raises(ValueError, match="1 of 2 queries have no hit"):
        first_hit_ranks(two, two, ids(1, 9), ids(1, 2))


def test_embeddings_that_are_not_finite_are_refused() -> None:
    broken = unit_rows(9, 3, 4)
    broken[1, 2] = np.nan
    with pytest.raises(MammoClipError, match="1 of 3 embeddings are NaN or infinite"):
        retrieval_metrics(broken, unit_rows(9, 3, 4), ids(1, 2, 3))
