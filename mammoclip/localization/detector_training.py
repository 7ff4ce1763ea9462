"""Training of a detector on the image encoder, frozen or trained with it, with augmentation that moves boxes too.

Strict chooses the epoch on the validation images and stops early; images without a box are negatives. Compat follows
the released protocol: only images with a box, all epochs, the best on the *test* images. Shapes: B images in a batch, N
boxes of one. Boxes are ``x_min, y_min, x_max, y_max`` in pixels of the image as read, measured at the edges of pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mammoclip.config import Augmentation, DetectionSection
from mammoclip.data.augmentation import AugmentationStrength, draw_warp
from mammoclip.data.prefetch import of_size
from mammoclip.data.warp import Image, WarpParameters, apply_warp, warp_boxes
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.localization.boxes import BoxedImages, ImageDetections
from mammoclip.models import TimmEncoder
from mammoclip.training.distributed import gather_with_gradient, mean_over_processes
from mammoclip.training.epochs import Epoch, ImageJob, Positions, ShuffledImages, Steps, make_steps, train_epochs
from mammoclip.training.interruption import StopRequest

log = logging.getLogger(__name__)

_SMALLEST_BOX_PX = 1.0  # of a side; less can be left of a box that augmentation moves out of the image


@dataclass(frozen=True, kw_only=True)
class DetectionJob(ImageJob[BoxedImages]):
    """Everything that training needs beside the detector; images have the ``size_px`` of the section.

    ``score`` rates the detections of ``choosing``, such as their average precision; None: minus the loss is the score.
    """

    section: DetectionSection
    score: Callable[[Sequence[ImageDetections]], float] | None = None


@dataclass(frozen=True)
class Detected:
    """Detections by the best epoch, image by image (compat: with boxes alone), that epoch (from 0), and all epochs."""

    validation: list[ImageDetections]
    test: list[ImageDetections]
    selected: int
    epochs: list[Epoch]


def train_detector(detector: Any, job: DetectionJob) -> Detected:
    """Train what ``build_detector`` gives, on the device where it lies; it is left with the weights of the best epoch.

    An interrupted job goes on after the last epoch in ``job.work``, to the same result. Every process of a job calls
    this with its own rank; each has a part of every batch, and all return the same.

    Raises:
        ArtifactError: a part has no image with a box, or an image has another size.
        ConfigError: the batch cannot be divided or filled, or an image has more boxes than may be detected.
        Interrupted: the job was asked to stop (SIGTERM, SIGUSR1); the same call goes on.
        ModelError: the loss is not finite.
    """
    if job.mode == "compat":  # [quirk] detection is trained and tested on images that contain the finding
        job = replace(job, train=job.train.with_boxes, validation=job.validation.with_boxes, test=job.test.with_boxes)
    _check_parts(detector, job)
    section, device = job.section, next(detector.parameters()).device
    optimizer = torch.optim.AdamW(
        [parameter for parameter in detector.parameters() if parameter.requires_grad],
        section.learning_rate,
        weight_decay=section.weight_decay,
        fused=device.type == "cuda",
    )
    # Of some encoders of timm the last norm or pooling is in no map, and gets no gradient.
    unused = isinstance(detector.backbone.encoder, TimmEncoder)
    wrapped = DistributedDataParallel(detector, find_unused_parameters=unused) if job.world_size > 1 else detector
    trainer = _Trainer(job, detector, wrapped, optimizer, device)
    progress = train_epochs(
        detector,
        optimizer,
        trainer.train,
        lambda: float(job.score(trainer.predict(job.choosing)) if job.score else -trainer.loss(job.choosing)),
        num_epochs=section.num_epochs,
        patience=section.patience if job.mode == "strict" else None,
        work=job.work,
        rank=job.rank,
        what="detection",
    )
    detector.load_state_dict(progress.best)
    return Detected(trainer.predict(job.validation), trainer.predict(job.test), progress.selected, progress.epochs)


@torch.no_grad()
def predict(detector: Any, images: Tensor) -> list[ImageDetections]:
    """Return what ``detector`` finds in normalised images (B, 1, H, W); it is left in evaluation mode."""
    detector.eval()
    found = ((each["boxes"].double(), each["scores"].double(), each["labels"]) for each in detector(images))
    return [ImageDetections(*(values.cpu().numpy() for values in tensors)) for tensors in found]


def draw_boxed_warp(rng: np.random.Generator, options: Augmentation, size_px: tuple[int, int]) -> WarpParameters:
    """Draw what is done to an image and its boxes: ``draw_warp`` and, with the same probability, a horizontal flip."""
    strength = AugmentationStrength(**options.model_dump(exclude={"horizontal_flip"}))
    mirrored = bool(rng.random() < options.probability) and options.horizontal_flip
    return replace(draw_warp(rng, strength, size_px), flip_horizontal=mirrored)


@dataclass(frozen=True)
class _Trainer:
    """Trains epochs and predicts, as one process of the job; ``wrapped`` is ``detector``, for several processes."""

    job: DetectionJob
    detector: Any
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device

    def train(self, epoch: int, stop: StopRequest) -> float:
        """Make the steps of an epoch, over the whole batches in it, and return their mean loss."""
        job, part = self.job, self.job.train
        section, shuffled = job.section, ShuffledImages(job, epoch)
        read_image = of_size(job.read_image, section.size_px)

        def warp(position: int) -> WarpParameters:
            return draw_boxed_warp(shuffled.rng(position), section.augmentation, section.size_px)

        def read(position: int) -> Image:
            return apply_warp(read_image(part.image_ids[shuffled.rows[position]]), warp(position))

        def loss(positions: Positions, images: Tensor) -> Tensor:
            targets = [self._target(part, shuffled.rows[position], warp(position)) for position in positions]
            total: Tensor = sum(self.wrapped(images, targets).values())
            return total

        self.wrapped.train()
        steps = Steps(
            self.detector,
            self.optimizer,
            self.device,
            section.batch_size,
            "localize.detection",
            read,
            loss,
            section.gradient_clip,
        )
        return make_steps(job, steps, "detection", epoch, stop)

    @torch.no_grad()
    def loss(self, part: BoxedImages) -> float:
        """Return the mean loss over the images of a part, with batch norms and dropout as in evaluation."""
        self.detector.eval()
        self.detector.training = True  # torchvision's switch between losses and detections, of the outer module alone
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows, images in self._own_batches(part):
            targets = [self._target(part, row, WarpParameters()) for row in rows]
            total += len(rows) * sum(self.detector(images, targets).values())
        return float(mean_over_processes(total)) * self.job.world_size / len(part.image_ids)

    def predict(self, part: BoxedImages) -> list[ImageDetections]:
        """Return the detections in every image of a part; the processes share the work."""
        each = self.job.num_own(part)
        packed = torch.full((each, self.detector.detections_per_img, 6), -1.0, dtype=torch.float64)
        for rows, images in self._own_batches(part):
            for row, found in zip(rows, predict(self.detector, images), strict=True):
                table = np.column_stack([found.boxes, found.scores, found.labels])
                packed[row - self.job.rank * each, : len(table)] = torch.from_numpy(table)
        tables = gather_with_gradient(packed.to(self.device))[: len(part.image_ids)].cpu().numpy()
        kept = (table[table[:, 4] >= 0] for table in tables)
        return [ImageDetections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64)) for table in kept]

    def _own_batches(self, part: BoxedImages) -> Iterator[tuple[range, Tensor]]:
        section = self.job.section
        return self.job.own_batches(part, section.batch_size, section.size_px, self.device)

    def _target(self, part: BoxedImages, row: int, warp: WarpParameters) -> dict[str, Tensor]:
        """Return the boxes of an image, as far as the warp leaves them in it, and their classes."""
        boxes, _ = warp_boxes(part.boxes[row], warp, self.job.section.size_px)
        kept = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_BOX_PX).all(axis=1)
        return {
            "boxes": torch.from_numpy(boxes[kept]).float().to(self.device),
            "labels": torch.from_numpy(part.labels[row][kept]).to(self.device),
        }


def _check_parts(detector: Any, job: DetectionJob) -> None:
    size, most = job.section.batch_size, detector.detections_per_img
    parts = {"training": job.train, "test": job.test}
    if job.mode == "strict":
        parts["validation"] = job.validation
    for name, part in parts.items():
        if not any(len(boxes) for boxes in part.boxes):
            raise ArtifactError(
                f"detection needs {name} images with boxes, and there are none; check the splits of the data set, "
                "raise the fraction, or take other findings"
            )
        for image_id, boxes in zip(part.image_ids, part.boxes, strict=True):
            if len(boxes) > most:
                raise ConfigError(
                    f"image {image_id!r} has {len(boxes)} boxes; raise localize.detection.max_detections, which is "
                    f"{most}"
                )
    classes = range(detector.head.classification_head.num_classes)
    if absent := sorted({*classes}.difference(*map(np.ndarray.tolist, job.train.labels))):
        log.warning("detection: no training image has a box of finding %s", ", ".join(map(str, absent)))
    if size % job.world_size or size > len(job.train.image_ids):
        raise ConfigError(
            f"localize.detection.batch_size={size} has to be a multiple of the {job.world_size} processes and no more "
            f"than the {len(job.train.image_ids)} training images; change it, or raise the fraction"
        )
