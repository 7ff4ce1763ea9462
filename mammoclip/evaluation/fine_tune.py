"""Training of a linear head on the image encoder, with augmentation: alone (compat's linear probe) or with it.

Strict chooses the epoch on the validation images and stops early; test images are looked at once, afterwards. Compat
follows the released protocol: all epochs, the best on the *test* images. N images, B in a batch, K classes.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.special  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mammoclip.config import FineTuneSection, Mode
from mammoclip.data.augmentation import AugmentationStrength, augment
from mammoclip.data.progress import report_progress
from mammoclip.data.warp import Image
from mammoclip.errors import ArtifactError, ConfigError, Interrupted, ModelError
from mammoclip.evaluation.examples import Floats, Labels
from mammoclip.evaluation.fine_tune_state import (
    Classifier,
    Epoch,
    Progress,
    class_weights,
    parameter_groups,
    restore_progress,
    save_progress,
    selection_score,
)
from mammoclip.models import LoadedModel, normalise
from mammoclip.training.distributed import gather_with_gradient, largest_over_processes, mean_over_processes
from mammoclip.training.interruption import StopRequest, stop_requests

log = logging.getLogger(__name__)

_ORDER, _AUGMENTATION, _DROPOUT = 1, 2, 3  # streams of random numbers of one seed


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split: ids, in compat maybe several times, and their classes (N)."""

    image_ids: Sequence[str]
    labels: Labels


@dataclass(frozen=True)
class FineTuneJob:
    """Everything that a fine-tuning needs beside the model; ``read_image`` gives uint8 or uint16, height x width."""

    section: FineTuneSection
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    num_classes: int
    read_image: Callable[[str], Image]
    trains_encoder: bool
    mode: Mode
    seed: int
    work: Path  # survives an interruption: checkpoints of this job alone
    threads: int = 1  # that read and augment images
    rank: int = 0
    world_size: int = 1

    @property
    def choosing(self) -> LabelledImages:
        """The images on which the epoch is chosen. [quirk] Compat: those that are tested."""
        return self.test if self.mode == "compat" else self.validation


@dataclass(frozen=True)
class Tuned:
    """Probabilities (N x K) by the best epoch, that epoch (from 0), and all epochs."""

    validation: Floats
    test: Floats
    selected: int
    epochs: list[Epoch]


def fine_tune(model: LoadedModel, job: FineTuneJob) -> Tuned:
    """Train a head on the image encoder of ``model``, which is left as it is, on the device where it lies.

    An interrupted job goes on after the last epoch in ``job.work``, to the same result. Every process of a job calls
    this with its own rank; each has a part of every batch, and all return the same.

    Raises:
        ArtifactError: a part lacks images or a class, or an image has another size than the model's.
        ConfigError: the batch does not divide into processes, or is larger than the training part.
        Interrupted: the job was asked to stop (SIGTERM, SIGUSR1); the same call goes on.
        ModelError: the loss is not finite.
    """
    _check_parts(job)
    section = job.section
    device = model.logit_scale.device
    bf16 = section.precision == "bf16" or (
        section.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        classifier = Classifier(
            copy.deepcopy(model.model.image_encoder),
            job.num_classes,
            trains_encoder=job.trains_encoder,
            mode=job.mode,
            bf16=bf16,
        ).to(device)
    groups = parameter_groups(classifier, section)
    optimizer = torch.optim.AdamW(groups, weight_decay=section.weight_decay, fused=device.type == "cuda")
    progress = restore_progress(job.work, classifier, optimizer, job.rank)
    trained = DistributedDataParallel(classifier) if job.world_size > 1 else classifier
    tuner = _Tuner(job, model.image_size_px, classifier, trained, optimizer, device)
    with stop_requests() as stop:
        while not _is_over(job, progress):
            number = len(progress.epochs)
            loss = tuner.train(number, stop)
            score = selection_score(job.choosing.labels, tuner.predict(job.choosing))
            log.info("fine-tune: epoch %d, training loss %.3f, score %.3f", number + 1, loss, score)
            progress.add(Epoch(loss, score), classifier)
            if job.rank == 0:
                save_progress(job.work, classifier, optimizer, progress)
    classifier.load_state_dict(progress.best)
    return Tuned(tuner.predict(job.validation), tuner.predict(job.test), progress.selected, progress.epochs)


@dataclass(frozen=True)
class _Tuner:
    """Trains epochs and predicts, as one process of the job; ``trained`` is ``classifier``, wrapped if need be."""

    job: FineTuneJob
    size_px: tuple[int, int]
    classifier: Classifier
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device

    def train(self, epoch: int, stop: StopRequest) -> float:
        """Make the steps of an epoch, over the whole batches in it, and return their mean loss."""
        job, size = self.job, self.job.section.batch_size
        order = np.random.default_rng([job.seed, _ORDER, epoch]).permutation(len(job.train.image_ids))
        positions = np.arange(len(order) // size * size).reshape(-1, size)
        weights = torch.from_numpy(class_weights(job.train.labels, job.num_classes, job.mode)).float()

        def read(position: int) -> Image:
            rng = np.random.default_rng([job.seed, _AUGMENTATION, epoch, position])
            return self._augment(self._read(job.train.image_ids[order[position]]), rng)

        self.trained.train()
        losses = []
        each = size // job.world_size
        own = positions[:, job.rank * each : (job.rank + 1) * each]
        steps = zip(own, prefetch(read, own, job.threads), strict=True)
        for step, (part, images) in enumerate(
            report_progress(steps, len(own), f"fine-tune: epoch {epoch + 1}, batches")
        ):
            seed = np.random.SeedSequence([job.seed, _DROPOUT, epoch, step, job.rank]).generate_state(1)
            torch.manual_seed(int(seed[0]))  # dropout depends on nothing else
            logits = self.trained(normalise(images.to(self.device)))
            labels = torch.from_numpy(job.train.labels[order[part]])
            loss = _loss(logits, labels.to(self.device), weights.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.detach())
            if largest_over_processes(int(stop.received)):
                raise Interrupted(f"fine-tuning was asked to stop in epoch {epoch + 1}; run it again to go on")
        if job.world_size > 1:
            for buffer in self.classifier.buffers():  # statistics of batch norms are those of process 0, as in a step
                torch.distributed.broadcast(buffer, 0)
        mean = float(mean_over_processes(torch.stack(losses).double().mean()))
        if not np.isfinite(mean):
            raise ModelError(
                f"the loss of fine-tuning is not finite in epoch {epoch + 1}; lower evaluate.fine_tune.learning_rate"
            )
        return mean

    @torch.no_grad()
    def predict(self, part: LabelledImages) -> Floats:
        """Return the probabilities of a part, N x K, in evaluation mode; the processes share the work."""
        ids, size = part.image_ids, self.job.section.batch_size
        if not ids:
            return np.zeros((0, self.job.num_classes))
        each = -(-len(ids) // self.job.world_size)  # the last process may have fewer
        own = ids[self.job.rank * each : (self.job.rank + 1) * each]
        starts = range(0, len(own), size)
        images = prefetch(self._read, [own[start : start + size] for start in starts], self.job.threads)
        logits = torch.zeros(each, self.classifier.head.out_features, device=self.device)
        self.classifier.eval()
        for start, batch in zip(starts, images, strict=True):
            logits[start : start + len(batch)] = self.classifier(normalise(batch.to(self.device)))
        return _probabilities(gather_with_gradient(logits)[: len(ids)].cpu().numpy().astype(np.float64))

    def _read(self, image_id: str) -> Image:
        image = self.job.read_image(image_id)
        if image.shape != self.size_px:
            raise ArtifactError(
                f"image {image_id!r} is {image.shape[0]} x {image.shape[1]} pixels (height x width), the model takes "
                f"{self.size_px[0]} x {self.size_px[1]}; read it at that size"
            )
        return image

    def _augment(self, image: Image, rng: np.random.Generator) -> Image:
        options = self.job.section.augmentation
        strength = AugmentationStrength(**options.model_dump(exclude={"horizontal_flip"}))
        if rng.random() < options.probability and options.horizontal_flip:
            image = np.asarray(cv2.flip(image, 1), image.dtype)
        return augment(image, strength, rng)


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over the batch of each image's loss times its class's weight.

    Not divided by the sum of the weights, as torch would for several classes: parts of a batch then average to the
    whole of it.
    """
    if logits.shape[1] == 1:
        each = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float(), reduction="none")
    else:
        each = F.cross_entropy(logits, labels, reduction="none")
    return (weights[labels] * each).mean()


def _probabilities(logits: Floats) -> Floats:
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    return np.asarray(scipy.special.softmax(logits, axis=1), np.float64)


def _is_over(job: FineTuneJob, progress: Progress) -> bool:
    """Return whether all epochs are done, or in strict mode ``patience`` of them without a better score."""
    done = len(progress.epochs)
    if done == job.section.num_epochs:
        return True
    return job.mode == "strict" and done > 0 and done - 1 - progress.selected >= job.section.patience


def _check_parts(job: FineTuneJob) -> None:
    section, train = job.section, job.train
    if not job.choosing.image_ids or not job.test.image_ids:
        missing = "test" if not job.test.image_ids else "validation"
        raise ArtifactError(
            f"fine-tuning needs {missing} images with labels, and there are none; check the splits of the data set, or "
            "remove the protocol from evaluate.matrix"
        )
    counts = np.bincount(train.labels, minlength=job.num_classes)
    if absent := np.flatnonzero(counts == 0).tolist():
        raise ArtifactError(
            f"no training image has class {' or '.join(map(str, absent))} of {job.num_classes}, so it cannot be "
            "learned; raise the fraction in evaluate.matrix, or correct evaluate.tasks"
        )
    if section.batch_size % job.world_size:
        raise ConfigError(
            f"evaluate.fine_tune.batch_size: {section.batch_size} images cannot be divided among {job.world_size} "
            f"processes; choose a multiple of {job.world_size}"
        )
    if len(train.image_ids) < section.batch_size:
        raise ConfigError(
            f"{len(train.image_ids)} training images do not fill one batch of evaluate.fine_tune.batch_size="
            f"{section.batch_size}; lower it, or raise the fraction in evaluate.matrix"
        )


def prefetch(read: Callable[[Any], Image], batches: Iterable[Iterable[Any]], threads: int) -> Iterator[Tensor]:
    """Yield the images of each batch, uint8 (int32 of 16-bit ones), B x H x W, read by threads two batches ahead."""
    following = iter(batches)
    pool = ThreadPoolExecutor(max(1, threads))

    def submit(number: int) -> list[list[Future[Image]]]:
        return [[pool.submit(read, key) for key in batch] for batch in islice(following, number)]

    try:
        waiting = deque(submit(2))
        while waiting:
            images = np.stack([future.result() for future in waiting.popleft()])
            waiting.extend(submit(1))
            yield torch.from_numpy(images.astype(np.int32) if images.dtype == np.uint16 else images)
    finally:  # after an error nobody waits for images that were not begun
        pool.shutdown(cancel_futures=True)
