from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mammoclip.training import contrastive_loss

TERMS = ("loss", "i2t", "t2i", "image_text", "image_image", "text_text")
OBJECTIVES = ("multi_view", "convirt", "siglip")
BIAS = -1.5

seeds = st.integers(0, 2**32 - 1)
objectives = st.sampled_from(OBJECTIVES)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def draw_embeddings(seed: int, num: int, dim: int = 5) -> list[Tensor]:
    """Image 1, image 2, text 1, text 2: unit vectors, num x dim, float64."""
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(num, dim, generator=generator, dtype=torch.float64), dim=1) for _ in range(4)]


def draw_ids(seed: int, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Identities of first texts, second texts and patients, with repetitions."""
    return torch.randint(0, 3, (3, num), generator=torch.Generator().manual_seed(seed)).unbind()


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def loss_terms(embeddings: list[Tensor], logit_scale: float, objective: str, **options: Any) -> dict[str, Tensor]:
    """The function under test, with a bias where the objective has one."""
    bias = scalar(BIAS) if objective == "siglip" else None
    return contrastive_loss(*embeddings, scalar(logit_scale), objective=objective, logit_bias=bias, **options)


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def spelled_out(
    embeddings: list[Tensor],
    logit_scale: float,
    objective: str = "multi_view",
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    texts: tuple[list[int], list[int]] | None = None,
    patients: list[int] | None = None,
) -> dict[str, float]:
    """The objectives in plain Python numbers and loops; ``texts``, ``patients``: equal ones are no negatives."""
    i1, i2, t1, t2 = (embedding.tolist() for embedding in embeddings)
    scale, num = math.exp(logit_scale), len(i1)
    unique = list(range(num))
    s1, s2 = texts or (unique, unique)
    patient_of = patients or unique

    def logit(a: list[float], b: list[float]) -> float:
        return scale * sum(x * y for x, y in zip(a, b, strict=True))

    def negatives(row: int, mine: list[int], theirs: list[int]) -> list[int]:
        others = [other for other in range(num) if other != row]
        return [o for o in others if mine[row] != theirs[o] and patient_of[row] != patient_of[o]]

    def cross_entropy(a: list[list[float]], b: list[list[float]], mine: list[int], theirs: list[int]) -> float:
        total = 0.0
        for row in range(num):
            candidates = [row, *negatives(row, mine, theirs)]
            logits = [logit(a[row], b[other]) for other in candidates]
            total += max(logits) + math.log(sum(math.exp(x - max(logits)) for x in logits)) - logits[0]
        return total / num

    def sigmoid(a: list[list[float]], b: list[list[float]], mine: list[int], theirs: list[int]) -> float:
        total = 0.0
        for row in range(num):
            total += math.log(1 + math.exp(-(logit(a[row], b[row]) + BIAS)))
            total += sum(math.log(1 + math.exp(logit(a[row], b[o]) + BIAS)) for o in negatives(row, mine, theirs))
        return total / num

    ce, i2i, t2t = cross_entropy, 0.0, 0.0
    if objective == "multi_view":
        i2t = (ce(i1, t1, s1, s1) + ce(i2, t1, s1, s1) + ce(i1, t2, s2, s2) + ce(i2, t2, s2, s2)) / 4
        t2i = (ce(t1, i1, s1, s1) + ce(t1, i2, s1, s1) + ce(t2, i1, s2, s2) + ce(t2, i2, s2, s2)) / 4
        i2i = (ce(i1, i2, unique, unique) + ce(i2, i1, unique, unique)) / 2
        t2t = (ce(t2, t1, s2, s1) + ce(t1, t2, s1, s2)) / 2
        image_text = (i2t + t2i) / 2
    elif objective == "convirt":
        i2t, t2i = ce(i1, t1, s1, s1), ce(t1, i1, s1, s1)
        image_text = 0.75 * i2t + 0.25 * t2i
    else:
        pairings = ((i1, t1, s1, s1), (i2, t1, s1, s1), (i1, t2, s2, s2), (i2, t2, s2, s2))
        i2t = t2i = image_text = sum(sigmoid(*pairing) for pairing in pairings) / 4
    loss = weights[0] * image_text + weights[1] * i2i + weights[2] * t2t
    return {"loss": loss, "i2t": i2t, "t2i": t2i, "image_text": image_text, "image_image": i2i, "text_text": t2t}


@settings(max_examples=150, deadline=None)
@given(seeds, objectives, st.integers(1, 7), st.floats(-2, 5), st.booleans(), st.booleans())
def test_every_term_equals_the_formula_spelled_out(
    seed: int, objective: str, num: int, logit_scale: float, mask_texts: bool, mask_patients: bool
) -> None:
    embeddings, (ids_1, ids_2, patients) = draw_embeddings(seed, num), draw_ids(seed, num)
    terms = loss_terms(
        embeddings,
        logit_scale,
        objective,
        text_ids=(ids_1, ids_2) if mask_texts else None,
        patient_ids=patients if mask_patients else None,
    )
    expected = spelled_out(
        embeddings,
        logit_scale,
        objective,
        texts=(ids_1.tolist(), ids_2.tolist()) if mask_texts else None,
        patients=patients.tolist() if mask_patients else None,
    )
    assert tuple(terms) == TERMS
    assert values(terms) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@each_objective
def test_float32_agrees_to_a_millionth(objective: str) -> None:
    embeddings = draw_embeddings(3, 8, dim=64)
    bias = torch.tensor([BIAS]) if objective == "siglip" else None
    terms = contrastive_loss(
        *(e.float() for e in embeddings), torch.tensor([math.log(1 / 0.07)]), objective=objective, logit_bias=bias
    )
    expected = spelled_out(embeddings, math.log(1 / 0.07), objective)
    assert {term.shape for term in terms.values()} == {torch.Size([])}
    assert values(terms) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_objective_is_multi_view_unless_told_otherwise() -> None:
    embeddings = draw_embeddings(4, 5)
    terms = contrastive_loss(*embeddings, scalar(1.0))
    assert values(terms) == values(loss_terms(embeddings, 1.0, "multi_view"))


@settings(max_examples=30, deadline=None)
@given(seeds, objectives, st.tuples(*[st.floats(0, 3)] * 3))
def test_weights_scale_their_terms(seed: int, objective: str, weights: tuple[float, float, float]) -> None:
    embeddings = draw_embeddings(seed, 4)
    terms = loss_terms(
        embeddings,
        1.5,
        objective,
        image_text_weight=weights[0],
        image_image_weight=weights[1],
        text_text_weight=weights[2],
    )
    assert values(terms) == pytest.approx(spelled_out(embeddings, 1.5, objective, weights=weights), abs=1e-9)


@each_objective
@pytest.mark.parametrize("mask", [False, True])
def test_gradients_are_those_of_finite_differences(objective: str, mask: bool) -> None:
    inputs = [e.requires_grad_() for e in draw_embeddings(0, 3, dim=4)]
    scalars = [scalar(0.7).requires_grad_(), *([scalar(BIAS).requires_grad_()] if objective == "siglip" else [])]
    masks: dict[str, Any] = {}
    if mask:
        masks = {"text_ids": (torch.tensor([0, 1, 0]), torch.tensor([2, 1, 0])), "patient_ids": torch.tensor([0, 1, 1])}

    def loss(i1: Tensor, i2: Tensor, t1: Tensor, t2: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        return contrastive_loss(i1, i2, t1, t2, scale, logit_bias=bias, objective=objective, **masks)["loss"]

    assert torch.autograd.gradcheck(loss, (*inputs, *scalars))


@pytest.mark.parametrize(("objective", "bias"), [("siglip", None), ("multi_view", 0.0), ("convirt", 0.0)])
def test_siglip_needs_a_bias_and_the_others_have_none(objective: str, bias: float | None) -> None:
    logit_bias = None if bias is None else scalar(bias)
    with pytest.raises(ValueError, match="siglip needs a logit_bias"):
        contrastive_loss(*draw_embeddings(0, 2), scalar(1.0), objective=objective, logit_bias=logit_bias)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(["multi_view", "siglip"]), st.integers(1, 6), st.booleans())
def test_exchanging_the_views_of_images_or_of_texts_changes_nothing(
    seed: int, objective: str, num: int, mask: bool
) -> None:
    i1, i2, t1, t2 = draw_embeddings(seed, num)
    ids_1, ids_2, _ = draw_ids(seed, num)
    ids, exchanged = ((ids_1, ids_2), (ids_2, ids_1)) if mask else (None, None)
    expected = values(loss_terms([i1, i2, t1, t2], 2.0, objective, text_ids=ids))
    images_exchanged = loss_terms([i2, i1, t1, t2], 2.0, objective, text_ids=ids)
    texts_exchanged = loss_terms([i1, i2, t2, t1], 2.0, objective, text_ids=exchanged)
    assert values(images_exchanged) == pytest.approx(expected, abs=1e-12)
    assert values(texts_exchanged) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, objectives, st.integers(2, 6))
def test_the_order_of_the_examples_does_not_matter(seed: int, objective: str, num: int) -> None:
    embeddings, (ids_1, ids_2, patients) = draw_embeddings(seed, num), draw_ids(seed, num)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    terms = loss_terms(embeddings, 2.0, objective, text_ids=(ids_1, ids_2), patient_ids=patients)
    shuffled = loss_terms(
        [e[order] for e in embeddings],
        2.0,
        objective,
        text_ids=(ids_1[order], ids_2[order]),
        patient_ids=patients[order],
    )
    assert values(shuffled) == pytest.approx(values(terms), abs=1e-12)


def test_plain_clip_sees_the_first_image_and_the_first_text_alone() -> None:
    i1, i2, t1, t2 = draw_embeddings(7, 5)
    expected = loss_terms([i1, i2, t1, t2], 2.0, "convirt")
    assert values(loss_terms([i1, -i2, t1, -t2], 2.0, "convirt")) == values(expected)


@each_objective
def test_aligned_embeddings_have_next_to_no_loss(objective: str) -> None:
    e = torch.eye(4, dtype=torch.float64)
    bias = scalar(-27.0) if objective == "siglip" else None
    terms = contrastive_loss(e, e, e, e, scalar(4.0), objective=objective, logit_bias=bias)
    assert 0 <= max(values(terms).values()) < 1e-9


@each_objective
def test_a_lower_temperature_helps_what_is_aligned_and_harms_what_is_not(objective: str) -> None:
    e = torch.eye(4, dtype=torch.float64)
    aligned, misaligned = [e, e, e, e], [e.roll(shift, 0) for shift in range(4)]

    def gradient(embeddings: list[Tensor]) -> float:
        scale = scalar(1.0).requires_grad_()
        bias = scalar(BIAS) if objective == "siglip" else None
        contrastive_loss(*embeddings, scale, objective=objective, logit_bias=bias)["loss"].backward()
        return scale.grad.item()

    assert gradient(aligned) < -0.1
    assert gradient(misaligned) > 0.1


@pytest.mark.parametrize("objective", ["multi_view", "convirt"])
def test_one_example_has_no_negative_and_no_loss(objective: str) -> None:
    assert set(values(loss_terms(draw_embeddings(1, 1), 3.0, objective)).values()) == {0.0}


def test_embeddings_without_information_cost_the_logarithm_of_the_batch() -> None:
    same = torch.ones(7, 1, dtype=torch.float64)
    assert loss_terms([same] * 4, 4.0, "multi_view")["image_text"].item() == pytest.approx(math.log(7))
    assert loss_terms([same] * 4, 4.0, "multi_view")["loss"].item() == pytest.approx(2.5 * math.log(7))
    assert loss_terms([same] * 4, 4.0, "convirt")["loss"].item() == pytest.approx(math.log(7))


# Masks


def terms_of_row_0(
    everyone: list[Tensor], objective: str, *, texts: Tensor | None = None, patients: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms of a process that holds the first example of the batch alone."""
    gathered = {e[:1].data_ptr(): e for e in (*everyone, texts, patients) if e is not None}
    return loss_terms(
        [e[:1] for e in everyone],
        2.0,
        objective,
        text_ids=None if texts is None else (texts[:1], texts[:1]),
        patient_ids=None if patients is None else patients[:1],
        gather=lambda local: gathered[local.data_ptr()],
    )


@each_objective
@pytest.mark.parametrize("kind", ["texts", "patients"])
def test_a_masked_example_adds_nothing(objective: str, kind: str) -> None:
    embeddings, ids = draw_embeddings(5, 3), torch.tensor([7, 7, 8])
    unmasked = values(terms_of_row_0(embeddings, objective))
    masked = values(terms_of_row_0(embeddings, objective, **{kind: ids}))
    alone = values(terms_of_row_0([e[[0, 2]] for e in embeddings], objective, **{kind: ids[[0, 2]]}))
    same = [term for term in TERMS if kind == "patients" or term not in ("image_image", "loss")]
    assert [masked[term] for term in same] == pytest.approx([alone[term] for term in same], abs=1e-12)
    assert unmasked["image_text"] > masked["image_text"]
    if kind == "texts":  # between two images there is no text
        assert masked["image_image"] == unmasked["image_image"]


@each_objective
def test_no_gradient_reaches_a_masked_example(objective: str) -> None:
    embeddings = [e.requires_grad_() for e in draw_embeddings(5, 3)]
    terms_of_row_0(embeddings, objective, patients=torch.tensor([7, 7, 8]))["loss"].backward()
    text_1 = embeddings[2].grad
    assert text_1[1].abs().max() == 0.0
    assert text_1[2].abs().max() > 1e-3


@each_objective
@pytest.mark.parametrize("kind", ["texts", "patients"])
def test_a_row_is_never_masked_against_itself(objective: str, kind: str) -> None:
    embeddings, same = draw_embeddings(6, 4), torch.zeros(4, dtype=torch.int64)
    masks: dict[str, Any] = {"text_ids": (same, same)} if kind == "texts" else {"patient_ids": same}
    terms = values(loss_terms(embeddings, 2.0, objective, **masks))
    if objective == "siglip":  # what is left are the positives
        own = [(image * text).sum(1) for image in embeddings[:2] for text in embeddings[2:]]
        positives = torch.stack([torch.log1p(torch.exp(-(math.exp(2.0) * cosine + BIAS))) for cosine in own])
        assert terms["image_text"] == pytest.approx(positives.mean().item())
    else:
        assert terms["image_text"] == terms["text_text"] == 0.0
    assert (terms["image_image"] > 0) == (objective == "multi_view" and kind == "texts")


@settings(max_examples=30, deadline=None)
@given(seeds, objectives, st.integers(1, 6))
def test_a_mask_of_different_texts_and_patients_masks_nothing(seed: int, objective: str, num: int) -> None:
    embeddings, each = draw_embeddings(seed, num), torch.arange(num)
    masked = loss_terms(embeddings, 2.0, objective, text_ids=(each, each + num), patient_ids=each)
    assert values(masked) == values(loss_terms(embeddings, 2.0, objective))


# Processes (real ones: test_distributed.py)


@settings(max_examples=60, deadline=None)
@given(seeds, objectives, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_the_mean_over_processes_is_the_loss_of_the_global_batch(
    seed: int, objective: str, per_process: int, processes: int, mask: bool
) -> None:
    num = per_process * processes
    embeddings, ids = draw_embeddings(seed, num), draw_ids(seed, num)

    def masks_of(rows: slice) -> dict[str, Any]:
        return {"text_ids": (ids[0][rows], ids[1][rows]), "patient_ids": ids[2][rows]} if mask else {}

    totals = dict.fromkeys(TERMS, 0.0)
    for rank in range(processes):
        own = slice(rank * per_process, (rank + 1) * per_process)
        everyone = {e[own].data_ptr(): e for e in (*embeddings, *ids)}
        terms = loss_terms(
            [e[own] for e in embeddings],
            2.0,
            objective,
            gather=lambda local, everyone=everyone: everyone[local.data_ptr()],
            first_row=own.start,
            **masks_of(own),
        )
        for name, value in values(terms).items():
            totals[name] += value / processes
    expected = loss_terms(embeddings, 2.0, objective, **masks_of(slice(None)))
    assert totals == pytest.approx(values(expected), abs=1e-9)
