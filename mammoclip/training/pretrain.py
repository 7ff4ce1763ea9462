"""The pretraining loop: real objective, DeepSpeed engine, exact resume, best epoch by validation loss."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mammoclip.artifacts import STEPS, VALIDATION, atomic_path
from mammoclip.config import PretrainSection
from mammoclip.data.pairs import PairSampler
from mammoclip.errors import Interrupted, ModelError
from mammoclip.models import MammoClip, tokenise
from mammoclip.models.weights import load_into
from mammoclip.training.batches import Batch, batch_sizes, iterate_batches, num_batches
from mammoclip.training.distributed import gather_with_gradient, largest_over_processes, mean_over_processes
from mammoclip.training.engine import build_engine, load_optimizer_state, whole_weights
from mammoclip.training.interruption import StopRequest, stop_requests
from mammoclip.training.resume import read_checkpoint, save_checkpoint
from mammoclip.training.schedule import learning_rate_factor
from mammoclip.training.step import Stepper
from mammoclip.training.tracking import Tracker, without_monitors
from mammoclip.training.watch import Watch

log = logging.getLogger(__name__)

_TERMS = ("loss", "image_text", "image_image", "text_text")
_BEST = "best.safetensors"
_STOP = 2  # a due checkpoint is 1


class Scorer(Protocol):
    """Measures what a loss does not tell on the validation breasts, such as ``evaluation.validation.BreastScorer``."""

    @property
    def prompts(self) -> Sequence[str]:
        """Sentences whose embeddings it needs."""

    def __call__(
        self,
        breasts: npt.NDArray[np.int64],
        images: npt.NDArray[np.floating[Any]],
        texts: npt.NDArray[np.floating[Any]],
        text_ids: npt.NDArray[np.int64],
        prompts: npt.NDArray[np.floating[Any]],
    ) -> dict[str, float]:
        """Return metrics by name.

        Args:
            breasts: N, indices of the validation sampler.
            images: N x 2 x D, L2-normalised.
            texts: N x 2 x D, L2-normalised.
            text_ids: N x 2; equal texts have equal ids.
            prompts: P x D, embeddings of `prompts`.
        """


@dataclass(frozen=True)
class Job:
    """Everything a training run needs beside the model."""

    section: PretrainSection
    seed: int
    training: PairSampler
    validation: PairSampler
    score: Scorer  # of the validation breasts
    tokenizer: Any
    deepspeed: dict[str, Any]  # DeepSpeed configuration without batch size and precision
    work: Path  # survives an interruption: resume checkpoint and best weights
    curves: Path  # folder for TensorBoard
    rank: int
    world_size: int


def train(model: MammoClip, job: Job) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train ``model`` in place up to its best epoch and return the tables ``steps`` and ``validation``.

    An interrupted run continues from the last checkpoint in ``job.work`` and sees the same batches, augmentation and
    dropout as one that was not interrupted, because all of them depend on (seed, epoch, step) alone.

    Raises:
        ConfigError: if the batch sizes do not divide.
        Interrupted: if the run was asked to stop (SIGTERM, SIGUSR1); the same call goes on from its checkpoint.
        ModelError: if there is less than one batch, or the loss is not finite.
    """
    section = job.section
    own, micro = batch_sizes(section.global_batch_size, section.micro_batch_size, job.world_size)
    per_epoch = num_batches(job.training, section.global_batch_size)
    if per_epoch == 0:
        raise ModelError(
            f"{len(job.training)} training breasts do not fill one batch of "
            f"pretrain.global_batch_size={section.global_batch_size}; lower it"
        )
    if len(job.validation) < job.world_size:
        raise ModelError(
            f"{len(job.validation)} validation breasts are fewer than {job.world_size} processes; "
            "raise tabulate.validation_fraction"
        )
    checkpoint = read_checkpoint(job.work, job.rank)
    trained = copy.deepcopy(model)  # ZeRO may take its weights apart
    if checkpoint:
        load_into(trained, checkpoint["weights"], f"the checkpoint in {job.work}")
    engine = build_engine(trained, section, without_monitors(job.deepspeed), micro, own // micro)
    state: dict[str, Any] = {"step": 0, "rows": [], "validation": [], "best": float("inf")}
    if checkpoint:
        load_optimizer_state(engine, checkpoint["optimizer"])
        state = checkpoint["state"]
        log.info("pretrain: resuming after step %d", state["step"])
    stepper = Stepper(engine, section.loss, micro, job.seed, job.rank)
    total = section.num_epochs * per_epoch
    watch = Watch(total, 2 * section.global_batch_size)
    tracker = Tracker(job.deepspeed, job.curves)
    with stop_requests() as stop:
        while state["step"] < total:
            _train_epoch(stepper, job, state, per_epoch, watch, tracker, stop)
            loss = _validate(stepper, job, own, state, tracker)
            if loss < state["best"]:
                state["best"] = loss
                weights = whole_weights(engine)
                if job.rank == 0:
                    with atomic_path(job.work / _BEST) as temporary:
                        save_file(weights, temporary)
            save_checkpoint(engine, state, job.work, job.rank)
    if job.world_size > 1:
        torch.distributed.barrier()  # process 0 may still be writing
    model.load_state_dict(load_file(job.work / _BEST))
    steps = pl.DataFrame(state["rows"], schema=STEPS.schema, orient="row")
    return steps, pl.DataFrame(state["validation"], schema=VALIDATION.schema, orient="row")


def _train_epoch(
    stepper: Stepper,
    job: Job,
    state: dict[str, Any],
    per_epoch: int,
    watch: Watch,
    tracker: Tracker,
    stop: StopRequest,
) -> None:
    """Make the steps that are left of an epoch.

    Raises:
        Interrupted: the run was asked to stop; a checkpoint of the last step is written.
    """
    section, engine = job.section, stepper.engine
    total = section.num_epochs * per_epoch
    warmup = round(section.warmup_epochs * per_epoch)
    epoch, first_batch = divmod(state["step"], per_epoch)
    own = section.global_batch_size // job.world_size
    saved = time.monotonic()
    engine.train()
    for batch in watch.waiting(_batches(job, job.training, own, epoch, first_batch)):
        factor = learning_rate_factor(state["step"], total, warmup)
        for group in engine.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        terms = stepper.train(batch, state["step"])
        state["step"] += 1
        rate = section.learning_rate * factor
        means = _record(state["rows"], "train", epoch, state["step"], [terms], rate)
        watch.step(epoch, state["step"], means, state["rows"][-1][-1], rate)
        tracker.write_row(state["rows"][-1])
        # The clock of process 0 alone decides; a request to stop may reach any process.
        due = job.rank == 0 and time.monotonic() - saved > section.checkpoint_minutes * 60
        wanted = largest_over_processes(_STOP if stop.received else int(due))
        # After the last step of an epoch a resume would skip its validation; a checkpoint follows that anyway.
        if wanted and state["step"] % per_epoch:
            save_checkpoint(engine, state, job.work, job.rank)
            saved = time.monotonic()
        if wanted == _STOP:
            raise Interrupted(f"pretraining was asked to stop after step {state['step']} of {total}; run it again")


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


def _validate(stepper: Stepper, job: Job, own: int, state: dict[str, Any], tracker: Tracker) -> float:
    """Record loss and scores of the validation breasts after an epoch, and return the mean loss."""
    stepper.engine.eval()
    if job.world_size > 1:
        for buffer in stepper.engine.module.buffers():  # batch-norm statistics: validate the model that process 0 saves
            torch.distributed.broadcast(buffer, 0)
    per_process = len(job.validation) // job.world_size
    # As many batches as training would take, of equal size, so that next to no breast is left out of the last one.
    size = per_process // math.ceil(per_process / own)
    terms, embeddings, text_ids = [], [], []
    for batch in _batches(job, job.validation, size):
        told, embedded, ids = stepper.validate(batch)
        terms.append(told)
        embeddings.append(gather_with_gradient(embedded).cpu())  # in the order of the breasts
        text_ids.append(gather_with_gradient(ids).cpu())
    epoch = state["rows"][-1][1]
    loss = _record(state["rows"], "validation", epoch, state["step"], terms, None)["loss"]
    log.info("pretrain: epoch %d, validation loss %.3f", epoch + 1, loss)
    prompts = stepper.embed_texts(*tokenise(job.tokenizer, job.score.prompts), batch)
    breasts = job.validation.order(0, size * job.world_size).ravel()
    views = torch.cat(embeddings).numpy()
    metrics = job.score(breasts, views[:, :2], views[:, 2:], torch.cat(text_ids).numpy(), prompts.cpu().numpy())
    state["validation"] += [(epoch, state["step"], name, value) for name, value in metrics.items()]
    told_metrics = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
    log.info("pretrain: epoch %d, %s", epoch + 1, told_metrics)
    tracker.write_row(state["rows"][-1])
    tracker.write_validation(state["step"], metrics)
    return loss


def _record(
    rows: list[Any],
    split: str,
    epoch: int,
    step: int,
    terms: list[dict[str, Tensor]],
    learning_rate: float | None,
) -> dict[str, float]:
    """Append a row of the ``steps`` table, and return its terms: means over batches and processes."""
    values = torch.stack([torch.stack([term[name] for name in _TERMS]) for term in terms])
    means = mean_over_processes(values.double().mean(dim=0)).tolist()
    if means[0] != means[0] or means[0] == float("inf"):
        raise ModelError(f"the {split} loss is not finite at step {step}; lower pretrain.learning_rate")
    rows.append((split, epoch, step, *means, learning_rate, float(terms[-1]["temperature"])))
    return dict(zip(_TERMS, means, strict=True))
