from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mammoclip.training import contrastive_loss

TERMS = ("loss", "i2t", "t2i", "image_text", "image_image", "text_text")
VIEWS = ("i1", "i2", "t1", "t2")

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def draw_embeddings(seed: int, num: int, dim: int = 5) -> list[Tensor]:
    """Image 1, image 2, text 1, text 2: unit vectors, num x dim, float64."""
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(num, dim, generator=generator, dtype=torch.float64), dim=1) for _ in range(4)]


def spelled_out(
    embeddings: list[Tensor],
    logit_scale: float,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    texts: tuple[list[int], list[int]] | None = None,
) -> dict[str, float]:
    """The objective in plain Python numbers and loops; ``texts``: with equal texts left out of the negatives."""
    rows = dict(zip(VIEWS, (embedding.tolist() for embedding in embeddings), strict=True))
    text_of = dict(zip(("t1", "t2"), texts or ([], []), strict=True))
    scale, num = math.exp(logit_scale), len(embeddings[0])

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    def is_negative(anchor: str, others: str, row: int, other: int) -> bool:
        """An image has the text of its own example in the view that it is compared with."""
        views = [view for view in (anchor, others) if view in text_of]
        if texts is None or not views:
            return True
        return text_of[views[0]][row] != text_of[views[-1]][other]

    def cross_entropy(anchor: str, others: str) -> float:
        total = 0.0
        for row in range(num):
            logits = [scale * dot(rows[anchor][row], rows[others][other]) for other in range(num)]
            kept = [logits[o] for o in range(num) if o == row or is_negative(anchor, others, row, o)]
            highest = max(kept)
            log_sum_exp = highest + math.log(sum(math.exp(logit - highest) for logit in kept))
            total += log_sum_exp - logits[row]
        return total / num

    i2t = sum(cross_entropy(i, t) for i in ("i1", "i2") for t in ("t1", "t2")) / 4
    t2i = sum(cross_entropy(t, i) for i in ("i1", "i2") for t in ("t1", "t2")) / 4
    i2i = (cross_entropy("i1", "i2") + cross_entropy("i2", "i1")) / 2
    t2t = (cross_entropy("t2", "t1") + cross_entropy("t1", "t2")) / 2
    image_text = (i2t + t2i) / 2
    loss = weights[0] * image_text + weights[1] * i2i + weights[2] * t2t
    return {"loss": loss, "i2t": i2t, "t2i": t2i, "image_text": image_text, "image_image": i2i, "text_text": t2t}


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 7), st.floats(-2, 5))
def test_every_term_equals_the_formula_spelled_out(seed: int, num: int, logit_scale: float) -> None:
    embeddings = draw_embeddings(seed, num)
    terms = contrastive_loss(*embeddings, torch.tensor(logit_scale, dtype=torch.float64))
    assert set(terms) == set(TERMS)
    expected = spelled_out(embeddings, logit_scale)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-9)


def test_float32_agrees_to_a_millionth() -> None:
    embeddings = draw_embeddings(3, 8, dim=64)
    terms = contrastive_loss(*(e.float() for e in embeddings), torch.tensor([math.log(1 / 0.07)]))
    expected = spelled_out(embeddings, math.log(1 / 0.07))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seeds, st.tuples(*[st.floats(0, 3)] * 3))
def test_weights_scale_their_terms(seed: int, weights: tuple[float, float, float]) -> None:
    embeddings = draw_embeddings(seed, 4)
    terms = contrastive_loss(
        *embeddings,
        torch.tensor(1.5, dtype=torch.float64),
        image_text_weight=weights[0],
        image_image_weight=weights[1],
        text_text_weight=weights[2],
    )
    assert terms["loss"].item() == pytest.approx(spelled_out(embeddings, 1.5, weights)["loss"], abs=1e-9)


@pytest.mark.parametrize("texts", [None, ([0, 1, 0], [2, 1, 0])])
def test_gradients_are_those_of_finite_differences(texts: tuple[list[int], list[int]] | None) -> None:
    inputs = [e.requires_grad_() for e in draw_embeddings(0, 3, dim=4)]
    scale = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    ids = None if texts is None else (torch.tensor(texts[0]), torch.tensor(texts[1]))
    assert torch.autograd.gradcheck(lambda *args: contrastive_loss(*args, text_ids=ids)["loss"], (*inputs, scale))


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 6), st.booleans())
def test_exchanging_the_views_of_images_or_of_texts_changes_nothing(seed: int, num: int, mask: bool) -> None:
    i1, i2, t1, t2 = draw_embeddings(seed, num)
    scale = torch.tensor(2.0, dtype=torch.float64)
    ids = torch.randint(0, 3, (2, num), generator=torch.Generator().manual_seed(seed)).unbind()
    expected = contrastive_loss(i1, i2, t1, t2, scale, text_ids=ids if mask else None)
    images_exchanged = contrastive_loss(i2, i1, t1, t2, scale, text_ids=ids if mask else None)
    texts_exchanged = contrastive_loss(i1, i2, t2, t1, scale, text_ids=ids[::-1] if mask else None)
    for name in TERMS:
        assert images_exchanged[name].item() == pytest.approx(expected[name].item(), abs=1e-12)
        assert texts_exchanged[name].item() == pytest.approx(expected[name].item(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 6))
def test_the_order_of_the_examples_does_not_matter(seed: int, num: int) -> None:
    embeddings = draw_embeddings(seed, num)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor(2.0, dtype=torch.float64)
    shuffled = contrastive_loss(*(e[order] for e in embeddings), scale)
    assert shuffled["loss"].item() == pytest.approx(contrastive_loss(*embeddings, scale)["loss"].item(), abs=1e-12)


def test_one_example_has_no_negative_and_no_loss() -> None:
    terms = contrastive_loss(*draw_embeddings(1, 1), torch.tensor(3.0, dtype=torch.float64))
    assert [term.item() for term in terms.values()] == [0.0] * len(TERMS)


def test_embeddings_without_information_cost_the_logarithm_of_the_batch() -> None:
    same = torch.ones(7, 1, dtype=torch.float64)
    terms = contrastive_loss(same, same, same, same, torch.tensor(4.0, dtype=torch.float64))
    assert terms["image_text"].item() == pytest.approx(math.log(7))
    assert terms["loss"].item() == pytest.approx(2.5 * math.log(7))


@settings(max_examples=50, deadline=None)
@given(seeds, st.data(), st.integers(1, 6))
def test_equal_texts_are_not_negatives_of_each_other(seed: int, data: st.DataObject, num: int) -> None:
    texts = tuple(data.draw(st.lists(st.integers(0, 3), min_size=num, max_size=num)) for _ in range(2))
    embeddings = draw_embeddings(seed, num)
    ids = torch.tensor(texts[0]), torch.tensor(texts[1])
    terms = contrastive_loss(*embeddings, torch.tensor(1.5, dtype=torch.float64), text_ids=ids)
    expected = spelled_out(embeddings, 1.5, texts=(texts[0], texts[1]))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-9)


def test_the_embedding_behind_a_masked_entry_does_not_matter() -> None:
    embeddings, ids = draw_embeddings(5, 3), torch.tensor([7, 7, 8])
    scale = torch.tensor(2.0, dtype=torch.float64)

    def terms_of_row_0(everyone: list[Tensor]) -> dict[str, Tensor]:
        gathered = {
            e[:1].data_ptr(): all_rows for e, all_rows in zip((*embeddings, ids), (*everyone, ids), strict=True)
        }
        own = [e[:1] for e in embeddings]
        return contrastive_loss(
            *own, scale, text_ids=(ids[:1], ids[:1]), gather=lambda local: gathered[local.data_ptr()]
        )

    before = terms_of_row_0(embeddings)
    moved_1, moved_2 = ([e.clone() for e in embeddings] for _ in range(2))
    for elsewhere, row in ((moved_1, 1), (moved_2, 2)):
        for embedding in elsewhere:
            embedding[row] *= -1
    for term in ("image_text", "text_text"):
        assert terms_of_row_0(moved_1)[term].item() == before[term].item()  # the same text: masked
        assert terms_of_row_0(moved_2)[term].item() != before[term].item()  # another text: a negative
    assert terms_of_row_0(moved_1)["image_image"].item() != before["image_image"].item()  # no text: never masked


def test_a_row_is_never_masked_against_itself() -> None:
    embeddings = draw_embeddings(6, 4)
    everything_equal = torch.zeros(4, dtype=torch.int64)
    terms = contrastive_loss(*embeddings, torch.tensor(2.0), text_ids=(everything_equal, everything_equal))
    assert all(torch.isfinite(term) for term in terms.values())
    assert terms["image_text"].item() == terms["text_text"].item() == 0.0


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 6))
def test_a_mask_of_different_texts_masks_nothing(seed: int, num: int) -> None:
    embeddings, scale = draw_embeddings(seed, num), torch.tensor(2.0, dtype=torch.float64)
    ids = torch.arange(num), torch.arange(num) + num
    masked = contrastive_loss(*embeddings, scale, text_ids=ids)
    assert torch.equal(masked["loss"], contrastive_loss(*embeddings, scale)["loss"])


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_the_mean_over_processes_is_the_loss_of_the_global_batch(
    seed: int, per_process: int, processes: int, mask: bool
) -> None:
    embeddings = draw_embeddings(seed, per_process * processes)
    scale = torch.tensor(2.0, dtype=torch.float64)
    ids = torch.randint(0, 3, (2, per_process * processes), generator=torch.Generator().manual_seed(seed)).unbind()
    expected = contrastive_loss(*embeddings, scale, text_ids=ids if mask else None)
    totals = dict.fromkeys(TERMS, 0.0)
    for rank in range(processes):
        own = slice(rank * per_process, (rank + 1) * per_process)
        everyone = {e[own].data_ptr(): e for e in (*embeddings, *ids)}
        terms = contrastive_loss(
            *(e[own] for e in embeddings),
            scale,
            text_ids=(ids[0][own], ids[1][own]) if mask else None,
            gather=lambda local, everyone=everyone: everyone[local.data_ptr()],
            first_row=own.start,
        )
        for name in TERMS:
            totals[name] += terms[name].item() / processes
    assert totals == pytest.approx({name: term.item() for name, term in expected.items()}, abs=1e-9)
