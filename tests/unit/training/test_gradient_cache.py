"""Gradients of embeddings; ``test_distributed.py`` replays them through encoders, in one and in two processes."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mammoclip.training import contrastive_loss
from mammoclip.training.gradient_cache import Gradients, loss_and_embedding_gradients

OBJECTIVES = ("multi_view", "convirt", "siglip")


def make_inputs(objective: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = {
        name: F.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64), dim=1)
        for name in ("image_1", "image_2", "text_1", "text_2")
    }
    inputs["logit_scale"] = torch.tensor([1.0], dtype=torch.float64)
    if objective == "siglip":
        inputs["logit_bias"] = torch.tensor(-2.0, dtype=torch.float64)
    return inputs


def options(objective: str) -> dict[str, Any]:
    return {"objective": objective, "image_text_weight": 2.0, "patient_ids": torch.tensor([0, 1, 1, 3, 4])}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_those_of_the_loss(objective: str) -> None:
    inputs = make_inputs(objective)
    terms, gradients = loss_and_embedding_gradients(**inputs, **options(objective))
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    expected = contrastive_loss(**leaves, **options(objective))
    expected["loss"].backward()
    assert terms == {name: term.detach() for name, term in expected.items()}
    for name, leaf in leaves.items():
        grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        assert torch.equal(getattr(gradients, name), grad)
    assert (gradients.logit_bias is None) == (objective != "siglip")


def test_a_small_step_against_the_gradients_lowers_the_loss_by_their_squared_norm() -> None:
    inputs = make_inputs("siglip")
    terms, gradients = loss_and_embedding_gradients(**inputs, objective="siglip")
    step = 1e-6
    moved = {name: value - step * getattr(gradients, name) for name, value in inputs.items()}
    squared_norm = sum(getattr(gradients, field.name).square().sum().item() for field in fields(Gradients))
    lowered = terms["loss"] - contrastive_loss(**moved, objective="siglip")["loss"]
    assert math.isclose(lowered.item() / step, squared_norm, rel_tol=1e-3)


def test_views_that_plain_clip_does_not_see_have_a_gradient_of_zero() -> None:
    _, gradients = loss_and_embedding_gradients(**make_inputs("convirt"), objective="convirt")
    assert gradients.image_2.abs().max() == gradients.text_2.abs().max() == 0.0
    assert gradients.image_1.abs().max() > 1e-3


def test_the_graph_behind_the_inputs_is_left_alone() -> None:
    leaves = {name: value.requires_grad_() for name, value in make_inputs("siglip").items()}
    terms, gradients = loss_and_embedding_gradients(**{n: v * 1 for n, v in leaves.items()}, objective="siglip")
    assert all(leaf.grad is None for leaf in leaves.values())
    assert not any(term.requires_grad for term in terms.values())
    assert not any(getattr(gradients, field.name).requires_grad for field in fields(Gradients))
