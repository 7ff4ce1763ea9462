"""What an encoder makes of every image of a data set, on disk chunk by chunk, each whole or not there.

So a stage that was killed goes on after its last chunk, and several processes share the work without a word between
them. Shapes: B images of a batch, H and W pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVarTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.data.prefetch import ReadImage, of_size, prefetch
from mammoclip.data.progress import report_progress
from mammoclip.errors import ArtifactError

log = logging.getLogger(__name__)

Images = npt.NDArray[np.integer]

Arrays = TypeVarTuple("Arrays")

DIGEST_BYTES = hashlib.sha256().digest_size


class ChunkStore(ABC, Generic[*Arrays]):
    """Chunks of a data set in a folder of their own, named by a hash of what decides them and the images' contents.

    A chunk is made of ``Arrays``, which have a row for each of its images. ``chunks`` are the ids of each one's images.
    """

    _KIND: ClassVar[str]  # opens the names of folders
    _SUFFIX: ClassVar[str]  # of files

    def __init__(self, work: Path, images: pl.DataFrame, chunk_size: int, key: Sequence[Any]) -> None:
        """Keep chunks below ``work``, a folder for one data set and run.

        Args:
            work: made when a chunk is written.
            images: image_id and png_sha256.
            chunk_size: images of a chunk; the last one may have fewer.
            key: what decides the numbers beside the images, ready for JSON.
        """
        contents = images.select("image_id", "png_sha256").rows()
        digest = hashlib.sha256(json.dumps([*key, contents]).encode()).hexdigest()
        self._work = work
        self._folder = work / f"{self._KIND}-{digest[:16]}"
        ids = images["image_id"].to_list()
        self.chunks: list[list[str]] = [ids[start : start + chunk_size] for start in range(0, len(ids), chunk_size)]

    @abstractmethod
    def is_whole(self, number: int) -> bool:
        """Return whether a chunk is there, of its images and undamaged; all of it is read."""

    @abstractmethod
    def write(self, number: int, *arrays: *Arrays) -> None:
        """Write a chunk, atomically; ``ArtifactError`` if the disk is full."""

    def remove(self) -> None:
        """Remove the chunks, those of older recipes too, and the folder if nothing else is in it."""
        for folder in self._work.glob(f"{self._KIND}-*"):
            shutil.rmtree(folder)
        with suppress(OSError):
            self._work.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05}{self._SUFFIX}"

    def _damaged(self, number: int) -> ArtifactError:
        return ArtifactError(f"{self._path(number)} is missing or damaged; run the same command again")


def fill_chunks(
    store: ChunkStore[*Arrays],
    compute: Callable[[Images, Sequence[str]], tuple[*Arrays]],
    read_image: ReadImage,
    size_px: tuple[int, int],
    *,
    batch_size: int,
    what: str,
    threads: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Fill ``store`` with the chunks that it lacks; of ``world_size`` processes this one takes every such chunk.

    Args:
        store: where they go.
        compute: makes the arrays of grey images (B, H, W), whose ids it is given, with B rows each.
        read_image: gives uint8 or uint16 grey values of ``size_px``; called by ``threads`` threads, which read ahead
            while ``compute`` works.
        size_px: (height, width).
        batch_size: images at once; no batch is larger than a chunk.
        what: opens the lines of the log.
        threads: see ``read_image``.
        rank: number of this process, from 0.
        world_size: processes that fill the store.

    Raises:
        ArtifactError: an image is of another shape, or ``compute`` refuses it.
    """
    own = range(rank, len(store.chunks), world_size)
    missing = [number for number in own if not store.is_whole(number)]
    if len(missing) < len(own):
        log.info("%s: %d of %d chunks are there already", what, len(own) - len(missing), len(own))
    batches = [
        (number, store.chunks[number][start : start + batch_size])
        for number in missing
        for start in range(0, len(store.chunks[number]), batch_size)
    ]
    done: list[tuple[Any, ...]] = []
    ahead = 2 + threads // batch_size  # so that no thread is idle while a batch waits for its turn
    reading = prefetch(of_size(read_image, size_px), [ids for _, ids in batches], threads, ahead)
    with closing(reading):
        progress = report_progress(reading, len(batches), f"{what}: batches")
        for images, (number, ids) in zip(progress, batches, strict=True):
            done.append(compute(images, ids))
            if sum(len(first) for first, *_ in done) == len(store.chunks[number]):
                arrays: Any = (np.concatenate(parts) for parts in zip(*done, strict=True))
                store.write(number, *arrays)
                done = []
