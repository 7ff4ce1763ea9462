"""Training of Mammo-FActOR on the last maps of a frozen image encoder, which runs once per image.

The maps lie on disk in float16, so that an epoch reads them and computes MLPs alone. An image takes 2 C h w bytes: of
EfficientNet-B5 at 1,520 x 912 pixels (2,048 maps of 48 x 29) 5.7 MB, the 20,000 images of VinDr-Mammo 114 GB. Pooled by
2 (24 x 15 cells) it is 1.5 MB and 29 GB, by 4 (12 x 8) 0.4 MB and 8 GB, for boxes that much coarser. Shapes: N images,
B in a batch, C channels, h and w cells of a map, K attributes, D embedding.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from mammoclip.artifacts import atomic_path
from mammoclip.data.prefetch import ReadImage, prefetch
from mammoclip.data.progress import report_progress
from mammoclip.errors import ArtifactError, Interrupted
from mammoclip.evaluation.chunks import DIGEST_BYTES, ChunkStore, Images, fill_chunks
from mammoclip.evaluation.examples import Labels
from mammoclip.evaluation.features import DTYPES, FeatureRecipe
from mammoclip.localization.factor import MammoFactor, factor_loss, pool_maps
from mammoclip.models import LoadedModel, normalise
from mammoclip.models.relevance import last_maps
from mammoclip.text import Mode
from mammoclip.training.epochs import Epoch, finite_mean, train_epochs
from mammoclip.training.interruption import StopRequest

log = logging.getLogger(__name__)

Maps = npt.NDArray[np.float16]

CHUNK_SIZE = 64  # images of a chunk: what is computed again at most, per process, after a kill
_VERSION = 1


class MapStore(ChunkStore[Maps]):
    """The last maps of a data set's images on disk, memory-mapped, chunk by chunk, in a folder of their own.

    As in ``FeatureStore`` the folder is named by a hash of the recipe and the images' contents. A chunk is a ``.npy``
    file, float16, images x C x h x w, with the SHA-256 of its numbers behind them; that is checked when the store is
    filled and not at every read.
    """

    _KIND = "maps"
    _SUFFIX = ".npy"

    def __init__(
        self, work: Path, images: pl.DataFrame, recipe: FeatureRecipe, pool: int = 1, chunk_size: int = CHUNK_SIZE
    ) -> None:
        """Keep chunks below ``work``, a folder for one data set and run; ``images``: image_id and png_sha256.

        ``pool`` is how many cells, across and down, are averaged to one: h becomes ceil(h / pool), w likewise. The
        recipe's ``flip`` does not apply: maps are those of the image as it is.
        """
        super().__init__(work, images, chunk_size, [_VERSION, astuple(recipe), pool, chunk_size])
        self.recipe = recipe
        self.pool = pool
        self._places = {image_id: divmod(place, chunk_size) for place, image_id in enumerate(images["image_id"])}
        self._open: dict[int, Maps] = {}

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """C, h and w; raises as ``read`` does."""
        _, channels, height, width = self._chunk(0).shape
        return channels, height, width

    def read(self, image_id: str) -> Maps:
        """Return a copy of an image's maps, C x h x w, to any thread; ``ArtifactError`` if the store lacks them."""
        if image_id not in self._places:
            raise ArtifactError(f"image {image_id!r} is none of those whose maps are kept in {self._work}")
        number, row = self._places[image_id]
        return np.array(self._chunk(number)[row])

    def is_whole(self, number: int) -> bool:
        """Return whether a chunk is there, of its images and undamaged; all of it is read."""
        chunk = self._load(number)
        if chunk is None or chunk.shape[:1] != (len(self.chunks[number]),):
            return False
        with self._path(number).open("rb") as file:
            file.seek(-DIGEST_BYTES, 2)
            return hashlib.sha256(chunk.data).digest() == file.read()

    def write(self, number: int, maps: Maps) -> None:
        """Write a chunk's maps (images of the chunk, C, h, w), atomically; ``ArtifactError`` if the disk is full."""
        maps = np.ascontiguousarray(maps)  # encoders compute in channels-last order
        with atomic_path(self._path(number)) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array(file, maps, allow_pickle=False)
            file.write(hashlib.sha256(maps.data).digest())

    def remove(self) -> None:
        """Remove the chunks, those of older recipes too, and the folder if nothing else is in it."""
        self._open.clear()
        super().remove()

    def _chunk(self, number: int) -> Maps:
        if number not in self._open:
            chunk = self._load(number)
            if chunk is None:
                raise self._damaged(number)
            self._open[number] = chunk
        return self._open[number]

    def _load(self, number: int) -> Maps | None:
        try:
            return np.asarray(np.load(self._path(number), mmap_mode="r", allow_pickle=False), np.float16)
        except (OSError, ValueError, EOFError):
            return None


@torch.inference_mode()
def extract_maps(
    model: LoadedModel,
    store: MapStore,
    read_image: ReadImage,
    *,
    batch_size: int,
    what: str,
    threads: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Fill ``store`` with the chunks that it lacks; arguments and errors are those of ``extract_features``."""
    device, dtype = model.logit_scale.device, DTYPES[store.recipe.precision]

    def compute(images: Images, ids: Sequence[str]) -> tuple[Maps]:
        pixels = normalise(torch.from_numpy(images).to(device))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            maps = last_maps(model.model.image_encoder, pixels)
        pooled = pool_maps(maps.float(), store.pool).half().cpu().numpy()
        if (bad := ~np.isfinite(pooled).all(axis=(1, 2, 3))).any():
            name = ids[int(bad.argmax())]
            raise ArtifactError(f"the maps of image {name!r} are NaN or too large for float16: the model diverged")
        return (pooled,)

    fill_chunks(
        store,
        compute,
        read_image,
        store.recipe.image_size_px,
        batch_size=batch_size,
        what=what,
        threads=threads,
        rank=rank,
        world_size=world_size,
    )


@dataclass(frozen=True)
class AttributedImages:
    """Images of one split: ids, and their attributes, N x K: 1 present, 0 absent, -1 unknown."""

    image_ids: Sequence[str]
    labels: Labels


@dataclass(frozen=True)
class FactorJob:
    """Everything that a training needs; ``text_embeddings`` (K x D) are those of ``attributes`` (K names)."""

    store: MapStore
    attributes: Sequence[str]
    text_embeddings: Tensor
    train: AttributedImages
    validation: AttributedImages
    mode: Mode
    seed: int
    work: Path  # survives an interruption: checkpoints of this job alone
    num_epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    hidden: int = 512
    temperature: float = 0.007
    device: torch.device | str = "cpu"
    threads: int = 1  # that read maps


@dataclass(frozen=True)
class TrainedFactor:
    """The module of the selected epoch (from 0), in evaluation mode, and all epochs.

    The score of an epoch is minus the validation loss, NaN where no validation image has an attribute.
    """

    factor: MammoFactor
    selected: int
    epochs: list[Epoch]


def train_factor(job: FactorJob) -> TrainedFactor:
    """Train the mappings of all attributes by AdamW, on ``job.device``; the global random state is left as it was.

    Strict takes the epoch of the lowest loss over the validation images, all of them as one batch; compat the last one.
    An interrupted job goes on after the last epoch in ``job.work``, to the same result.

    Raises:
        ArtifactError: an attribute has no training image with or without it, strict lacks validation images, or maps
            are missing.
        Interrupted: the job was asked to stop (SIGTERM, SIGUSR1); the same call goes on.
        ModelError: the loss is not finite.
    """
    _check_parts(job)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        factor = MammoFactor(job.store.map_shape[1:], job.text_embeddings.cpu(), job.hidden, job.temperature)
    factor.to(job.device)
    optimizer = torch.optim.AdamW(factor.parameters(), lr=job.learning_rate, weight_decay=job.weight_decay)
    progress = train_epochs(
        factor,
        optimizer,
        lambda epoch, stop: _train_epoch(job, factor, optimizer, epoch, stop),
        lambda: -_validation_loss(job, factor),
        num_epochs=job.num_epochs,
        patience=None,
        work=job.work,
        rank=0,
        what="Mammo-FActOR",
    )
    if job.mode == "compat":
        return TrainedFactor(factor.eval(), job.num_epochs - 1, progress.epochs)
    factor.load_state_dict(progress.best)
    return TrainedFactor(factor.eval(), progress.selected, progress.epochs)


def _train_epoch(
    job: FactorJob, factor: MammoFactor, optimizer: torch.optim.Optimizer, epoch: int, stop: StopRequest
) -> float:
    """Make the steps of an epoch and return their mean loss; a batch in which no image has an attribute makes none."""
    ids, labels = job.train.image_ids, torch.from_numpy(job.train.labels)
    order = np.random.default_rng([job.seed, epoch]).permutation(len(ids))
    batches = np.array_split(order, math.ceil(len(order) / job.batch_size))
    batches = [batch for batch in batches if bool((labels[batch] == 1).any())]
    reading = prefetch(job.store.read, [[ids[position] for position in batch] for batch in batches], job.threads)
    losses = []
    progress = report_progress(reading, len(batches), f"Mammo-FActOR: epoch {epoch + 1}, batches")
    for batch, maps in zip(batches, progress, strict=True):
        scores, _ = factor(torch.from_numpy(maps).to(job.device))
        loss = factor_loss(scores, labels[batch].to(job.device), job.mode)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
        if stop.received:
            raise Interrupted(f"Mammo-FActOR was asked to stop in epoch {epoch + 1}; run it again to go on")
    return finite_mean(losses, epoch, "localize.factor")


@torch.no_grad()
def factor_scores(
    factor: MammoFactor, store: MapStore, image_ids: Sequence[str], batch_size: int, threads: int = 1
) -> Tensor:
    """Return the scores of images, float32 (N, K) on the CPU; times the temperature they are cosine similarities."""
    starts = range(0, len(image_ids), batch_size)
    reading = prefetch(store.read, [image_ids[start : start + batch_size] for start in starts], threads)
    scores = [factor(torch.from_numpy(maps).to(factor.text_embeddings.device))[0].cpu() for maps in reading]
    return torch.cat([torch.zeros(0, len(factor.text_embeddings)), *scores])


def _validation_loss(job: FactorJob, factor: MammoFactor) -> float:
    if not (job.validation.labels == 1).any():
        return math.nan
    scores = factor_scores(factor, job.store, job.validation.image_ids, job.batch_size, job.threads)
    return float(factor_loss(scores.double(), torch.from_numpy(job.validation.labels), job.mode))


def _check_parts(job: FactorJob) -> None:
    for value, is_there in ((1, "with"), (0, "without")):  # what has no contrast cannot be learned
        if (absent := ~(job.train.labels == value).any(axis=0)).any():
            name = job.attributes[int(absent.argmax())]
            raise ArtifactError(f"no training image is known to be {is_there} {name!r}; leave the attribute out")
    labels = job.validation.labels
    if job.mode == "strict" and not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        raise ArtifactError("no attribute has validation images with and without it, on which the epoch is chosen")
