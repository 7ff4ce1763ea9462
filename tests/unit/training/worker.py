"""One process of ``test_distributed.py``: ``worker.py OUT CONFIG...`` writes what it computed to OUT/<rank>.pt."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mammoclip.training import contrastive_loss
from mammoclip.training.distributed import (
    decide_together,
    gather_with_gradient,
    mean_over_processes,
    start_processes,
    stop_processes,
)
from mammoclip.training.gradient_cache import loss_and_embedding_gradients

NUM_EXAMPLES = 6
LEARNING_RATE = 0.01
CASES = list(product(("multi_view", "convirt", "siglip"), (False, True)))  # objective, with masks


class TwoTowers(nn.Module):
    """As small as two towers get; like ``MammoClip`` it returns embeddings of both views and the logit scale."""

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 4))
        self.text = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 4))
        self.logit_scale = nn.Parameter(torch.full((1,), 2.0))
        self.logit_bias = nn.Parameter(torch.full((1,), -1.0)) if biased else None

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.normalize(self.image(images), dim=-1), F.normalize(self.text(texts), dim=-1), self.logit_scale


def make_model(objective: str = "multi_view") -> TwoTowers:
    torch.manual_seed(0)
    return TwoTowers(biased=objective == "siglip").eval()


def make_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The global batch of N = NUM_EXAMPLES.

    Images (2 x N x 7) and texts (2 x N x 5) of both views, identities of the texts (2 x N) and of the patients (N).
    """
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, NUM_EXAMPLES, 7, generator=generator)
    texts = torch.randn(2, NUM_EXAMPLES, 5, generator=generator)
    text_ids = torch.tensor([[0, 1, 2, 0, 4, 5], [9, 1, 7, 8, 9, 5]])
    return images, texts, text_ids, torch.tensor([0, 1, 1, 3, 0, 5])


def rows_of(rank: int, world_size: int) -> slice:
    """This process's part of the global batch."""
    share = NUM_EXAMPLES // world_size
    return slice(rank * share, (rank + 1) * share)


def encode(model: Any, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of images (2R x 4) and texts (2R x 4), first views first, and the logit scale."""
    images, texts, *_ = make_batch()
    embeddings: tuple[Tensor, Tensor, Tensor] = model(images[:, rows].flatten(0, 1), texts[:, rows].flatten(0, 1))
    return embeddings


def options_of(model: Any, objective: str, masked: bool, own: slice) -> dict[str, Any]:
    """The keyword arguments of the objective in this process."""
    _, _, text_ids, patient_ids = make_batch()
    masks = {"text_ids": (text_ids[0][own], text_ids[1][own]), "patient_ids": patient_ids[own]} if masked else {}
    return {
        "objective": objective,
        "logit_bias": model.logit_bias,
        "gather": gather_with_gradient,
        "first_row": own.start,
        **masks,
    }


def loss_terms(
    model: Any, rank: int, world_size: int, objective: str = "multi_view", masked: bool = True
) -> dict[str, Tensor]:
    """The objective of this process's rows of the global batch, as the training loop computes it."""
    own = rows_of(rank, world_size)
    images, texts, scale = encode(model, own)
    return contrastive_loss(*images.chunk(2), *texts.chunk(2), scale, **options_of(model, objective, masked, own))


def backward_by_micro_batches(
    model: TwoTowers, rank: int, world_size: int, objective: str, masked: bool
) -> dict[str, Tensor]:
    """The same terms, and its gradients left in ``model``, with two examples at a time in memory."""
    own = rows_of(rank, world_size)
    micro_batches = [slice(start, min(start + 2, own.stop)) for start in range(own.start, own.stop, 2)]
    with torch.no_grad():
        parts = [torch.cat(encode(model, rows)[:2]).unflatten(0, (4, -1)) for rows in micro_batches]
    terms, gradients = loss_and_embedding_gradients(
        *torch.cat(parts, dim=1), model.logit_scale, **options_of(model, objective, masked, own)
    )
    model.logit_scale.grad = gradients.logit_scale
    if model.logit_bias is not None:
        model.logit_bias.grad = gradients.logit_bias
    for rows in micro_batches:
        images, texts, _ = encode(model, rows)
        local = slice(rows.start - own.start, rows.stop - own.start)
        of_images = torch.cat([gradients.image_1[local], gradients.image_2[local]])
        of_texts = torch.cat([gradients.text_1[local], gradients.text_2[local]])
        torch.autograd.backward([images, texts], [of_images, of_texts])
    return terms


def check_case(objective: str, masked: bool, rank: int, world_size: int) -> dict[str, dict[str, Tensor]]:
    """Terms and averaged gradients, at once and by micro-batches."""
    model, cached = (make_model(objective) for _ in range(2))
    terms = loss_terms(model, rank, world_size, objective, masked)
    terms["loss"].backward()
    return {
        "terms": {name: term.detach() for name, term in terms.items()},
        "gradients": averaged_gradients(model, world_size),
        "cached_terms": backward_by_micro_batches(cached, rank, world_size, objective, masked),
        "cached_gradients": averaged_gradients(cached, world_size),
    }


def averaged_gradients(model: TwoTowers, world_size: int) -> dict[str, Tensor]:
    """What data-parallel training does: sum over processes, divided by their number."""
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def gather_weights(rank: int, world_size: int) -> Tensor:
    return torch.arange(2.0 * world_size * 3).reshape(2 * world_size, 3) + 100 * rank


def check_gather(rank: int, world_size: int) -> dict[str, Tensor]:
    """Each process weighs all gathered rows (2 a process) in its own way.

    ``earlier`` is added to them, so autograd hands one gradient tensor to both; it was made first, so it gets it last.
    """
    local = (torch.arange(6.0).reshape(2, 3) + 10 * rank).requires_grad_()
    beside = torch.zeros(2 * world_size, 3, requires_grad=True)
    earlier = beside * 1
    gathered = gather_with_gradient(local)
    ((gathered + earlier) * gather_weights(rank, world_size)).sum().backward()
    return {
        "gathered": gathered.detach(),
        "gradient": local.grad,
        "gradient_beside": beside.grad,
        "integers": gather_with_gradient(torch.tensor([rank, 7])),
        "strided": gather_with_gradient(torch.arange(6.0).reshape(3, 2).T + rank),
    }


def train_one_step(config: dict[str, Any], rank: int, world_size: int) -> dict[str, Any]:
    """The real engine under ``config``: full gradients after averaging, and the weights after AdamW's step."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    config = {**config, "train_micro_batch_size_per_gpu": NUM_EXAMPLES // world_size}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    terms = loss_terms(engine, rank, world_size)
    engine.backward(terms["loss"])
    gradients = {name: safe_get_full_grad(parameter).clone() for name, parameter in model.named_parameters()}
    engine.step()
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return {"loss": terms["loss"].detach(), "gradients": gradients, "weights": weights}


def main(out: Path, configs: list[Path]) -> None:
    torch.set_num_threads(1)
    rank, world_size = start_processes()
    found: dict[str, Any] = {"rank": rank, "world_size": world_size, "gather": check_gather(rank, world_size)}
    found["decided"] = decide_together(5 + 10 * rank)
    found["mean"] = mean_over_processes(torch.tensor([4.0, 2.0 * rank], requires_grad=True))
    found["cases"] = {case: check_case(*case, rank, world_size) for case in CASES}
    found["engines"] = {p.name: train_one_step(json.loads(p.read_text()), rank, world_size) for p in configs}
    torch.save(found, out / f"{rank}.pt")
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
