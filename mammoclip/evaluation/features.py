"""Frozen features of every image of a data set, computed once by a checkpoint and used by every evaluation.

They are written in chunks, each whole or not there, so that a stage that was killed goes on, and several processes
share the work without a word between them. Shapes: B images of a batch, H and W pixels, C pooled features, D embedding.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from mammoclip.artifacts import FEATURES, atomic_path
from mammoclip.data.prefetch import ReadImage
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.chunks import DIGEST_BYTES, ChunkStore, Images, fill_chunks
from mammoclip.models import LoadedModel, normalise

Precision = Literal["bf16", "fp16", "fp32"]
Floats = npt.NDArray[np.float32]

CHUNK_SIZE = 512
"""Images of a chunk: what is computed again at most, per process, after a kill."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides the features of an image; ``image_size_px`` is (height, width).

    With ``flip`` the pooled features are the mean of those of the image and of its mirror image, and the embedding is
    the normalised projection of that mean. ``precision`` is that of the image encoder; the pooled features leave it as
    fp32, and the projection and its normalisation are fp32 in any case.
    """

    model_sha256: str
    image_size_px: tuple[int, int]
    precision: Precision
    flip: bool

    @classmethod
    def of(
        cls, model: LoadedModel, model_sha256: str, precision: Precision | Literal["auto"] = "auto", flip: bool = False
    ) -> FeatureRecipe:
        """Return the recipe for a model where it lies, as ``resolve_precision`` has it."""
        return cls(model_sha256, model.image_size_px, resolve_precision(precision, model.logit_scale.device), flip)


class FeatureStore(ChunkStore[Floats, Floats]):
    """The features of a data set on disk, chunk by chunk, in a folder of their own.

    The folder is named by a hash of the recipe and the images' contents, so chunks of another checkpoint are not taken
    for these. A chunk carries the SHA-256 of its bytes: one that is damaged counts as missing.
    """

    _KIND = "chunks"
    _SUFFIX = ".chunk"

    def __init__(self, work: Path, images: pl.DataFrame, recipe: FeatureRecipe, chunk_size: int = CHUNK_SIZE) -> None:
        """Keep chunks below ``work``, a folder for one data set and run; ``images``: image_id and png_sha256."""
        super().__init__(work, images, chunk_size, [FEATURES.version, astuple(recipe)])
        self.recipe = recipe

    def read(self, number: int) -> pl.DataFrame | None:
        """Return a chunk as rows of the ``features`` table; None if it is missing, damaged or of other images."""
        try:
            content = self._path(number).read_bytes()
        except FileNotFoundError:
            return None
        digest, parquet = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(parquet).digest() != digest:
            return None
        chunk = pl.read_parquet(io.BytesIO(parquet))
        return chunk if chunk["image_id"].to_list() == self.chunks[number] else None

    def is_whole(self, number: int) -> bool:
        """Return whether a chunk is there, of its images and undamaged."""
        return self.read(number) is not None

    def write(self, number: int, pooled: Floats, embeddings: Floats) -> None:
        """Write the features (images of the chunk, C) and embeddings (images of the chunk, D) of a chunk, atomically.

        Raises:
            ArtifactError: if the disk is full.
        """
        chunk = pl.DataFrame(
            [
                pl.Series("image_id", self.chunks[number], pl.String),
                pl.repeat(self.recipe.model_sha256, len(pooled), eager=True).alias("model_sha256"),
                pl.Series("pooled", pooled).arr.to_list(),
                pl.Series("embedding", embeddings).arr.to_list(),
            ]
        )
        parquet = io.BytesIO()
        chunk.write_parquet(parquet, compression="zstd")
        with atomic_path(self._path(number)) as temporary:
            temporary.write_bytes(hashlib.sha256(parquet.getvalue()).digest() + parquet.getvalue())

    def table(self) -> pl.DataFrame:
        """Return the ``features`` table of all chunks.

        Raises:
            ArtifactError: if a chunk is missing or damaged.
        """
        chunks = [FEATURES.empty()]
        for number in range(len(self.chunks)):
            chunk = self.read(number)
            if chunk is None:
                raise self._damaged(number)
            chunks.append(chunk)
        return pl.concat(chunks)


@torch.inference_mode()
def extract_features(
    model: LoadedModel,
    store: FeatureStore,
    read_image: ReadImage,
    *,
    batch_size: int,
    what: str,
    threads: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Fill ``store`` with the chunks that it lacks; of ``world_size`` processes this one takes every such chunk.

    The model is in evaluation mode, so features do not depend on the other images of a batch, to rounding.

    Args:
        model: on the device where it is to run.
        store: its recipe says how.
        read_image: gives uint8 or uint16 grey values, height x width, of the model's image size; called by ``threads``
            threads, which read ahead while the model works.
        batch_size: images per forward pass; no batch is larger than a chunk.
        what: opens the lines of the log.
        threads: see ``read_image``.
        rank: number of this process, from 0.
        world_size: processes that fill the store.

    Raises:
        ArtifactError: an image is of another shape, or its features are NaN or infinite.
    """

    def compute(images: Images, ids: Sequence[str]) -> tuple[Floats, Floats]:
        pooled, embeddings = _features(model, images, store.recipe)
        _check_finite(ids, pooled, embeddings)
        return pooled, embeddings

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


def resolve_precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Return what ``auto`` is on a device: bf16 on a GPU that has it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def weights_sha256(model: Path) -> str:
    """Return the SHA-256 of the weights in a model folder, which names the checkpoint in tables."""
    with (model / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


def _features(model: LoadedModel, images: Images, recipe: FeatureRecipe) -> tuple[Floats, Floats]:
    """Return the pooled features (B, C) and embeddings (B, D) of grey images (B, H, W)."""
    device = model.logit_scale.device
    pixels = normalise(torch.from_numpy(images).to(device))

    def pool(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"):
            return model.model.image_features(batch).float()

    pooled = pool(pixels)
    if recipe.flip:
        pooled = (pooled + pool(pixels.flip(3))) / 2
    return pooled.cpu().numpy(), model.model.project_image(pooled).cpu().numpy()


def _check_finite(ids: Sequence[str], pooled: Floats, embeddings: Floats) -> None:
    bad = ~(np.isfinite(pooled).all(axis=1) & np.isfinite(embeddings).all(axis=1))
    if bad.any():
        raise ArtifactError(
            f"the features of image {ids[int(bad.argmax())]!r} are NaN or infinite: the model diverged in training, or "
            "fp16 cannot hold its values; take another checkpoint, or evaluate.precision bf16 or fp32"
        )
