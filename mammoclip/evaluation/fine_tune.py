"""Training of a linear head on the image encoder, with augmentation: alone (compat's linear probe) or with it.

Strict chooses the epoch on the validation images and stops early; test images are looked at once, afterwards. Compat
follows the released protocol: all epochs, the best on the *test* images. N images, B in a batch, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.special  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mammoclip.config import FineTuneSection
from mammoclip.data.augmentation import AugmentationStrength, augment
from mammoclip.data.prefetch import of_size
from mammoclip.data.warp import Image
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.evaluation.classifier import Classifier, class_weights, parameter_groups, selection_score
from mammoclip.evaluation.examples import Floats, Labels
from mammoclip.evaluation.features import resolve_precision
from mammoclip.models import LoadedModel
from mammoclip.training.distributed import gather_with_gradient
from mammoclip.training.epochs import Epoch, ImageJob, Positions, ShuffledImages, Steps, make_steps, train_epochs
from mammoclip.training.interruption import StopRequest


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split: ids, in compat maybe several times, and their classes (N)."""

    image_ids: Sequence[str]
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class FineTuneJob(ImageJob[LabelledImages]):
    """Everything that a fine-tuning needs beside the model, whose size the images have."""

    section: FineTuneSection
    num_classes: int
    trains_encoder: bool


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        classifier = Classifier(
            copy.deepcopy(model.model.image_encoder),
            job.num_classes,
            trains_encoder=job.trains_encoder,
            mode=job.mode,
            bf16=resolve_precision(section.precision, device) == "bf16",
        ).to(device)
    groups = parameter_groups(classifier, section)
    optimizer = torch.optim.AdamW(groups, weight_decay=section.weight_decay, fused=device.type == "cuda")
    trained = DistributedDataParallel(classifier) if job.world_size > 1 else classifier
    tuner = _Tuner(job, model.image_size_px, classifier, trained, optimizer, device)
    progress = train_epochs(
        classifier,
        optimizer,
        tuner.train,
        lambda: selection_score(job.choosing.labels, tuner.predict(job.choosing)),
        num_epochs=section.num_epochs,
        patience=section.patience if job.mode == "strict" else None,
        work=job.work,
        rank=job.rank,
        what="fine-tune",
    )
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
        job = self.job
        shuffled = ShuffledImages(job, epoch)
        weights = torch.from_numpy(class_weights(job.train.labels, job.num_classes, job.mode)).float().to(self.device)
        read_image = of_size(job.read_image, self.size_px)

        def read(position: int) -> Image:
            image = read_image(job.train.image_ids[shuffled.rows[position]])
            return self._augment(image, shuffled.rng(position))

        def loss(positions: Positions, images: Tensor) -> Tensor:
            labels = torch.from_numpy(job.train.labels[shuffled.rows[positions]])
            return _loss(self.trained(images), labels.to(self.device), weights)

        self.trained.train()
        size = job.section.batch_size
        steps = Steps(self.classifier, self.optimizer, self.device, size, "evaluate.fine_tune", read, loss)
        return make_steps(job, steps, "fine-tune", epoch, stop)

    @torch.no_grad()
    def predict(self, part: LabelledImages) -> Floats:
        """Return the probabilities of a part, N x K, in evaluation mode; the processes share the work."""
        if not part.image_ids:
            return np.zeros((0, self.job.num_classes))
        each = self.job.num_own(part)
        logits = torch.zeros(each, self.classifier.head.out_features, device=self.device)
        self.classifier.eval()
        for rows, images in self.job.own_batches(part, self.job.section.batch_size, self.size_px, self.device):
            logits[rows.start - self.job.rank * each :][: len(rows)] = self.classifier(images)
        return _probabilities(gather_with_gradient(logits)[: len(part.image_ids)].cpu().numpy().astype(np.float64))

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
