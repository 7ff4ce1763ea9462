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

from mammoclip.data.png import decode_png
from mammoclip.data.warp import Image
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

    def read(self, image_id: str) -> Image:
        """Return the image, height x width, uint8 or uint16 as the shard has it.

        Raises:
            ArtifactError: if the shard cannot be read, or does not hold the image where the manifest says.
        """
        if image_id not in self._entries:
            raise ArtifactError(f"image {image_id!r} is not in the images table of {self._folder}")
        shard, offset, length, png_sha256 = self._entries[image_id]
        path = self._folder / shard
        try:
            png = _read_bytes(self._descriptor(shard), length, offset)
        except FileNotFoundError:
            raise ArtifactError(f"{path} does not exist; rerun the shard stage") from None
        except OSError as error:
            raise ArtifactError(
                f"{path}: image {image_id!r} cannot be read ({error.strerror}); check the disk, then run it again"
            ) from None
        if len(png) < length:
            raise ArtifactError(
                f"{path}: the PNG of image {image_id!r} is not at byte {offset}: of its {length} bytes {len(png)} are "
                "there, so the file is cut short or another one; rerun the shard and tabulate stages"
            )
        if hashlib.sha256(png).hexdigest() != png_sha256:
            raise ArtifactError(
                f"{path}: the PNG of image {image_id!r} is not at byte {offset}; rerun the shard and tabulate stages"
            )
        image = decode_png(png)
        if image is None:
            raise ArtifactError(f"{path}: image {image_id!r} is not a PNG of one channel; rerun the shard stage")
        if self._size_px is not None and image.shape != self._size_px:
            image = cv2.resize(image, self._size_px[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(image)

    def _descriptor(self, shard: str) -> int:
        if shard not in self._files:
            descriptor = os.open(self._folder / shard, os.O_RDONLY)
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

    def __call__(self, key: str) -> Image:
        """Return the image, height x width, uint8 or uint16; errors are those of ``ShardReader.read``."""
        dataset, _, image_id = key.partition("/")
        return self._readers[dataset].read(image_id)


def eight_bits(image: Image) -> npt.NDArray[np.uint8]:
    """Return the image as a screen shows it: of 16 bits the upper 8, 8 bits as they are."""
    return np.asarray(image >> 8 if image.dtype == np.uint16 else image, np.uint8)


def _read_bytes(descriptor: int, length: int, offset: int) -> bytes:
    """Return the bytes; fewer only where the file ends: a network file system may give them in pieces."""
    content = b""
    while len(content) < length:
        piece = os.pread(descriptor, length - len(content), offset + len(content))
        if not piece:
            break
        content += piece
    return content
