"""The pretraining loop: real objective, DeepSpeed engine, exact resume, best epoch by validation loss."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mammoclip.artifacts import STEPS, atomic_path
from mammoclip.config import PretrainSection
from mammoclip.data.pairs import PairSampler
from mammoclip.errors import ModelError
from mammoclip.models import MammoClip, normalise
from mammoclip.training.batches import Batch, iterate_batches, num_batches
from mammoclip.training.distributed import decide_together, gather_with_gradient, mean_over_processes
from mammoclip.training.objective import contrastive_loss
from mammoclip.training.resume import load_checkpoint, save_checkpoint
from mammoclip.training.schedule import learning_rate_factor

log = logging.getLogger(__name__)

_TERMS = ("loss", "image_text", "image_image", "text_text")
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Job:
    """Everything a training run needs beside the model."""

    section: PretrainSection
    seed: int
    training: PairSampler
    validation: PairSampler
    tokenizer: Any
    deepspeed: dict[str, Any]  # DeepSpeed configuration without batch size and precision
    work: Path  # survives an interruption: resume checkpoint and best weights
    rank: int
    world_size: int


def train(model: MammoClip, job: Job) -> pl.DataFrame:
    """Train ``model`` in place up to its best epoch and return the ``steps`` table.

    An interrupted run continues from the last checkpoint in ``job.work`` and sees the same batches, augmentation and
    dropout as one that was not interrupted, because all of them depend on (seed, epoch, step) alone.

    Raises:
        ModelError: if there is less than one batch, or the loss is not finite.
    """
    section = job.section
    per_epoch = num_batches(len(job.training), section.batch_size, job.world_size)
    if per_epoch == 0:
        raise ModelError(
            f"{len(job.training)} training breasts do not fill one batch of pretrain.batch_size={section.batch_size} "
            f"x {job.world_size} processes; lower pretrain.batch_size"
        )
    if len(job.validation) < job.world_size:
        raise ModelError(
            f"{len(job.validation)} validation breasts are fewer than {job.world_size} processes; "
            "raise tabulate.validation_fraction"
        )
    engine = _engine(model, job)
    state = load_checkpoint(engine, job.work, job.rank) or {"step": 0, "rows": [], "best": float("inf")}
    if state["step"]:
        log.info("pretrain: resuming after step %d", state["step"])
    warmup = round(section.warmup_epochs * per_epoch)
    total = section.num_epochs * per_epoch
    saved = time.monotonic()
    while state["step"] < total:
        epoch, first_batch = divmod(state["step"], per_epoch)
        engine.train()
        for batch in _batches(job, job.training, section.batch_size, epoch, first_batch):
            factor = learning_rate_factor(state["step"], total, warmup)
            for group in engine.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            torch.manual_seed((job.seed * 1_000_003 + state["step"]) * job.world_size + job.rank)
            terms = _terms(engine, batch, job)
            engine.backward(terms["loss"])
            engine.step()
            state["step"] += 1
            rate = section.learning_rate * factor
            _record(state["rows"], "train", epoch, state["step"], [terms], model=model, learning_rate=rate)
            if state["step"] % 10 == 0 or state["step"] == total:
                loss = float(terms["loss"].detach())
                log.info("pretrain: epoch %d, step %d/%d, loss %.3f", epoch + 1, state["step"], total, loss)
            due = decide_together(time.monotonic() - saved > section.checkpoint_minutes * 60)
            # After the last step of an epoch a resume would skip its validation; a checkpoint follows that anyway.
            if due and state["step"] % per_epoch:
                save_checkpoint(engine, state, job.work, job.rank)
                saved = time.monotonic()
        loss = _validate(engine, model, job, epoch, state)
        if loss < state["best"]:
            state["best"] = loss
            if job.rank == 0:
                with atomic_path(job.work / _BEST) as temporary:
                    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
        save_checkpoint(engine, state, job.work, job.rank)
        saved = time.monotonic()
    model.load_state_dict(load_file(job.work / _BEST))
    return pl.DataFrame(state["rows"], schema=STEPS.schema, orient="row")


def _engine(model: MammoClip, job: Job) -> Any:
    import deepspeed  # noqa: PLC0415  (seconds to import, and only training needs it)

    section = job.section
    projections = [*model.image_projection.parameters(), *model.text_projection.parameters(), model.logit_scale]
    known = {id(parameter) for parameter in projections}
    encoders = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": encoders, "peak": section.learning_rate},
        {"params": projections, "peak": section.projection_learning_rate or section.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=section.learning_rate, weight_decay=section.weight_decay)
    config = {
        **job.deepspeed,
        "train_micro_batch_size_per_gpu": section.batch_size,
        "bf16": {"enabled": torch.cuda.is_available()},
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def _batches(job: Job, sampler: PairSampler, batch_size: int, epoch: int = 0, first_batch: int = 0) -> Iterator[Batch]:
    return iterate_batches(
        sampler,
        job.tokenizer,
        epoch=epoch,
        first_batch=first_batch,
        batch_size=batch_size,
        rank=job.rank,
        world_size=job.world_size,
        threads=job.section.threads,
    )


def _terms(engine: Any, batch: Batch, job: Job) -> dict[str, Tensor]:
    weights = job.section.loss
    batch = batch.to(engine.device)
    images, texts, logit_scale = engine(normalise(batch.images), batch.input_ids, batch.attention_mask)
    image_1, image_2 = images.float().chunk(2)
    text_1, text_2 = texts.float().chunk(2)
    ids_1, ids_2 = batch.text_ids.chunk(2)
    return contrastive_loss(
        image_1,
        image_2,
        text_1,
        text_2,
        logit_scale.float(),
        image_text_weight=weights.image_text,
        image_image_weight=weights.image_image,
        text_text_weight=weights.text_text,
        text_ids=(ids_1, ids_2) if weights.mask_equal_texts else None,
        gather=gather_with_gradient,
        first_row=job.rank * len(image_1),
    )


@torch.no_grad()
def _validate(engine: Any, model: MammoClip, job: Job, epoch: int, state: dict[str, Any]) -> float:
    engine.eval()
    if job.world_size > 1:
        for buffer in model.buffers():  # batch-norm statistics: validate the model that process 0 saves
            torch.distributed.broadcast(buffer, 0)
    per_process = len(job.validation) // job.world_size
    # As many batches as training would take, of equal size, so that next to no breast is left out of the last one.
    batch_size = per_process // math.ceil(per_process / job.section.batch_size)
    terms = [_terms(engine, batch, job) for batch in _batches(job, job.validation, batch_size)]
    _record(state["rows"], "validation", epoch, state["step"], terms, model=model, learning_rate=None)
    loss = float(state["rows"][-1][3])
    log.info("pretrain: epoch %d, validation loss %.3f", epoch + 1, loss)
    return loss


def _record(
    rows: list[Any],
    split: str,
    epoch: int,
    step: int,
    terms: list[dict[str, Tensor]],
    *,
    model: MammoClip,
    learning_rate: float | None,
) -> None:
    """Append a row of the ``steps`` table: means over batches and processes."""
    values = torch.stack([torch.stack([term[name].detach() for name in _TERMS]) for term in terms])
    means = mean_over_processes(values.double().mean(dim=0)).tolist()
    if means[0] != means[0] or means[0] == float("inf"):
        raise ModelError(f"the {split} loss is not finite at step {step}; lower pretrain.learning_rate")
    temperature = float(torch.exp(-model.logit_scale.detach()))
    rows.append((split, epoch, step, *means, learning_rate, temperature))
