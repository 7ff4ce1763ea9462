"""One process of ``test_distributed.py``: ``worker.py OUT CONFIG...`` writes what it computed to OUT/<rank>.pt."""

from __future__ import annotations

import json
import sys
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

NUM_EXAMPLES = 6
LEARNING_RATE = 0.01


class TwoTowers(nn.Module):
    """As small as two towers get; like ``MammoClip`` it returns embeddings of both views and the logit scale."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(7, 4)
        self.text = nn.Linear(5, 4)
        self.logit_scale = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.normalize(self.image(images), dim=-1), F.normalize(self.text(texts), dim=-1), self.logit_scale


def make_model() -> TwoTowers:
    torch.manual_seed(0)
    return TwoTowers()


def make_batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and texts of both views and the texts' identities (2 x NUM_EXAMPLES): the global batch."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, NUM_EXAMPLES, 7, generator=generator)
    texts = torch.randn(2, NUM_EXAMPLES, 5, generator=generator)
    return (*images, *texts, torch.tensor([[0, 1, 2, 0, 4, 5], [9, 1, 7, 8, 9, 5]]))


def loss_terms(model: Any, rank: int, world_size: int) -> dict[str, Tensor]:
    """The objective of this process's rows of the global batch, as the training loop computes it."""
    share = NUM_EXAMPLES // world_size
    own = slice(rank * share, (rank + 1) * share)
    image_1, image_2, text_1, text_2, ids = make_batch()
    images, texts, scale = model(torch.cat([image_1[own], image_2[own]]), torch.cat([text_1[own], text_2[own]]))
    return contrastive_loss(
        *images.chunk(2),
        *texts.chunk(2),
        scale,
        text_ids=(ids[0][own], ids[1][own]),
        gather=gather_with_gradient,
        first_row=own.start,
    )


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
    model = make_model()
    terms = loss_terms(model, rank, world_size)
    terms["loss"].backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)  # what data-parallel training does: sum over processes ...
        parameter.grad /= world_size  # ... divided by their number
    found["decided"] = decide_together(5 + 10 * rank)
    found["mean"] = mean_over_processes(torch.tensor([4.0, 2.0 * rank], requires_grad=True))
    found["terms"] = {name: term.detach() for name, term in terms.items()}
    found["gradients"] = {name: parameter.grad for name, parameter in model.named_parameters()}
    found["engines"] = {p.name: train_one_step(json.loads(p.read_text()), rank, world_size) for p in configs}
    torch.save(found, out / f"{rank}.pt")
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
