"""Training epoch by epoch on the images of a data set: its steps, the choice of an epoch, and its checkpoints.

A checkpoint is a file ``step-<epochs done>.pt``, written in one rename, with weights, optimiser and progress. No random
state is in it: order, augmentation and dropout follow from the seed, so what goes on from it ends as if it had never
stopped. B images in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mammoclip.config import Mode
from mammoclip.data.prefetch import ReadImage, of_size, prefetch
from mammoclip.data.progress import report_progress
from mammoclip.data.warp import Image
from mammoclip.errors import Interrupted, ModelError
from mammoclip.models import normalise
from mammoclip.models.weights import load_into
from mammoclip.training.distributed import largest_over_processes, mean_over_processes
from mammoclip.training.interruption import StopRequest, stop_requests
from mammoclip.training.resume import read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)

_ORDER, _AUGMENTATION, _DROPOUT = 1, 2, 3  # streams of random numbers of one seed

Positions = npt.NDArray[np.int64]


class ImagesOfSplit(Protocol):
    """Images of a split, with whatever is known about them."""

    @property
    def image_ids(self) -> Sequence[str]:
        """Their ids, in compat maybe several times."""


Part = TypeVar("Part", bound=ImagesOfSplit)


@dataclass(frozen=True, kw_only=True)
class ImageJob(Generic[Part]):
    """What every training on images needs; ``read_image`` gives uint8 or uint16 of the model's height x width."""

    train: Part
    validation: Part
    test: Part
    read_image: ReadImage
    mode: Mode
    seed: int
    work: Path  # survives an interruption: checkpoints of this job alone
    threads: int = 1  # that read and augment images
    rank: int = 0
    world_size: int = 1

    @property
    def choosing(self) -> Part:
        """The images on which the epoch is chosen. [quirk] Compat: those that are tested."""
        return self.test if self.mode == "compat" else self.validation

    def num_own(self, part: Part) -> int:
        """Return the images of a part that each process takes; the last may have fewer."""
        return -(-len(part.image_ids) // self.world_size)

    def own_batches(
        self, part: Part, batch_size: int, size_px: tuple[int, int], device: torch.device
    ) -> Iterator[tuple[range, Tensor]]:
        """Yield the rows of this process, batch by batch, and their normalised images (B, 1, H, W)."""
        each, read = self.num_own(part), of_size(self.read_image, size_px)
        own = range(len(part.image_ids))[self.rank * each : (self.rank + 1) * each]
        batches = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
        images = prefetch(lambda row: read(part.image_ids[row]), batches, self.threads)
        for rows, batch in zip(batches, images, strict=True):
            yield rows, normalise(torch.from_numpy(batch).to(device))


class ShuffledImages:
    """The training images in the order of an epoch: a position has a row of the part, and random numbers of its own."""

    def __init__(self, job: ImageJob[Any], epoch: int) -> None:
        """Draw the order from the seed of the job and the number of the epoch, from 0."""
        self._seed, self._epoch = job.seed, epoch
        self.rows: Positions = np.random.default_rng([job.seed, _ORDER, epoch]).permutation(len(job.train.image_ids))

    def rng(self, position: int) -> np.random.Generator:
        """Return the generator of the augmentation at a position, the same at every call."""
        return np.random.default_rng([self._seed, _AUGMENTATION, self._epoch, position])


@dataclass(frozen=True)
class Steps:
    """What a training does with a batch, as one process of several.

    ``read`` gives the augmented image at a position of the epoch's order; ``loss`` that of normalised images (B, 1, H,
    W) at positions (B). ``model`` is trained, by ``optimizer``; for several processes ``loss`` calls it wrapped.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    batch_size: int  # of all processes together
    section: str  # of the configuration, for errors
    read: Callable[[int], Image]
    loss: Callable[[Positions, Tensor], Tensor]
    gradient_clip: float | None = None


def make_steps(job: ImageJob[Any], steps: Steps, what: str, epoch: int, stop: StopRequest) -> float:
    """Make the steps of an epoch, over the whole batches in it, and return their mean loss.

    Raises:
        Interrupted: the job was asked to stop.
        ModelError: the mean loss is not finite.
    """
    whole = len(job.train.image_ids) // steps.batch_size * steps.batch_size
    own = np.split(np.arange(whole).reshape(-1, steps.batch_size), job.world_size, axis=1)[job.rank]
    losses = []
    batches = zip(own, prefetch(steps.read, own, job.threads), strict=True)
    for step, (positions, images) in enumerate(
        report_progress(batches, len(own), f"{what}: epoch {epoch + 1}, batches")
    ):
        seed = np.random.SeedSequence([job.seed, _DROPOUT, epoch, step, job.rank]).generate_state(1)
        torch.manual_seed(int(seed[0]))  # dropout depends on nothing else
        loss = steps.loss(positions, normalise(torch.from_numpy(images).to(steps.device)))
        steps.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if steps.gradient_clip is not None:
            nn.utils.clip_grad_norm_(steps.model.parameters(), steps.gradient_clip)
        steps.optimizer.step()
        losses.append(loss.detach())
        if largest_over_processes(int(stop.received)):
            raise Interrupted(f"{what} was asked to stop in epoch {epoch + 1}; run it again to go on")
    if job.world_size > 1:
        for buffer in steps.model.buffers():  # statistics of batch norms are those of process 0, as in a step
            torch.distributed.broadcast(buffer, 0)
    return finite_mean(losses, epoch, steps.section)


def finite_mean(losses: Sequence[Tensor], epoch: int, section: str) -> float:
    """Return the mean of an epoch's losses, over all processes; ``ModelError`` if it is not finite."""
    mean = float(mean_over_processes(torch.stack([*losses]).double().mean()))
    if not np.isfinite(mean):
        raise ModelError(f"the loss is not finite in epoch {epoch + 1}; lower {section}.learning_rate")
    return mean


@dataclass(frozen=True)
class Epoch:
    """Mean training loss of an epoch, and its score on the images that choose: the higher the better."""

    loss: float
    score: float


@dataclass
class Progress:
    """The epochs done, and the weights of the best of them (a state dict on the CPU)."""

    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def selected(self) -> int:
        """The epoch, from 0, with the highest score; of equal ones the first."""
        return max(range(len(self.epochs)), key=lambda epoch: self.epochs[epoch].score)

    def is_over(self, num_epochs: int, patience: int | None) -> bool:
        """Return whether all epochs are done, or ``patience`` of them without a better score."""
        done = len(self.epochs)
        waited = done - 1 - self.selected if done else 0
        return done == num_epochs or (patience is not None and waited >= patience)


def train_epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Callable[[int, StopRequest], float],
    score: Callable[[], float],
    *,
    num_epochs: int,
    patience: int | None,
    work: Path,
    rank: int,
    what: str,
) -> Progress:
    """Train epoch by epoch from the newest checkpoint under ``work``, or the start; every process has to call it.

    Args:
        model: is left as the last epoch leaves it.
        optimizer: of the model.
        train: makes the steps of an epoch (from 0) and returns their mean loss.
        score: rates the model after an epoch.
        num_epochs: at most.
        patience: epochs without a better score that end the training; None: all are made.
        work: folder of the checkpoints; the newest two are kept.
        rank: of this process; the first one writes.
        what: opens the lines of the log.

    Raises:
        Interrupted: if ``train`` raises it, asked to stop (SIGTERM, SIGUSR1).
    """
    progress = _restore(work, model, optimizer, rank)
    with stop_requests() as stop:
        while not progress.is_over(num_epochs, patience):
            number = len(progress.epochs)
            epoch = Epoch(train(number, stop), score())
            log.info("%s: epoch %d, training loss %.3f, score %.3f", what, number + 1, epoch.loss, epoch.score)
            progress.epochs.append(epoch)
            if progress.selected == number:
                progress.best = _weights(model)
            if rank == 0:
                _save(work, model, optimizer, progress)
    return progress


def _save(work: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    checkpoint = {
        "weights": _weights(model),
        "optimizer": optimizer.state_dict(),
        "state": {"epochs": [asdict(epoch) for epoch in progress.epochs], "best": progress.best},
    }
    write_checkpoint(checkpoint, len(progress.epochs), work)


def _restore(work: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> Progress:
    """Fill ``model`` and ``optimizer`` from the newest whole checkpoint; without one, leave them."""
    checkpoint = read_checkpoint(work, rank)
    if checkpoint is None:
        return Progress()
    load_into(model, checkpoint["weights"], f"the checkpoint in {work}")
    optimizer.load_state_dict(checkpoint["optimizer"])
    state = checkpoint["state"]
    progress = Progress([Epoch(**epoch) for epoch in state["epochs"]], state["best"])
    log.info("resuming after epoch %d", len(progress.epochs))
    return progress


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
