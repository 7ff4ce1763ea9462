"""Random access to the PNGs of a data set's shards by byte offset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.errors import ArtifactError


class ShardReader:
    """Reads images of the ``images`` table with ``pread``: no tar is scanned, and readers share no file position.

    Args:
        images: rows of the ``images`` table.
        folder: folder of the shards.
        size_px: (height, width) to which images are resized by area interpolation; None: as stored.
    """

    def __init__(self, images: pl.DataFrame, folder: Path, size_px: tuple[int, int] | None = None) -> None:
        """Remember where the images lie; a shard is opened when its first image is read."""
        columns = images.select("image_id", "shard", "offset", "length", "png_sha256")
        self._entries = {image_id: place for image_id, *place in columns.rows()}
        self._folder = folder
        self._size_px = size_px
        self._files: dict[str, int] = {}

    def read(self, image_id: str) -> npt.NDArray[np.uint8]:
        """Return the image, uint8, height x width.

        Raises:
            ArtifactError: if the shard does not hold the image where the manifest says.
        """
        if image_id not in self._entries:
            raise ArtifactError(f"image {image_id!r} is not in the images table of {self._folder}")
        shard, offset, length, png_sha256 = self._entries[image_id]
        png = os.pread(self._descriptor(shard), length, offset)
        if hashlib.sha256(png).hexdigest() != png_sha256:
            raise ArtifactError(
                f"{self._folder / shard}: the PNG of image {image_id!r} is not at byte {offset}; "
                "rerun the shard and tabulate stages"
            )
        image = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
        if self._size_px is not None and image.shape != self._size_px:
            return np.asarray(cv2.resize(image, self._size_px[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        return image

    def _descriptor(self, shard: str) -> int:
        if shard not in self._files:
            path = self._folder / shard
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise ArtifactError(f"{path} does not exist; rerun the shard stage") from None
            if self._files.setdefault(shard, descriptor) != descriptor:  # another thread was faster
                os.close(descriptor)
        return self._files[shard]

    def close(self) -> None:
        """Close the shards."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


class ImageSource:
    """Reads images of several data sets, each named ``<dataset>/<image_id>``."""

    def __init__(self, readers: Mapping[str, ShardReader]) -> None:
        """Use one reader per data set, by name."""
        self._readers = readers

    def __call__(self, key: str) -> npt.NDArray[np.uint8]:
        """Return the image, uint8, height x width."""
        dataset, _, image_id = key.partition("/")
        return self._readers[dataset].read(image_id)
