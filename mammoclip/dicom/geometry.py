"""Crop boxes, how a crop is fitted into its PNG, and boxes between stored pixels and pixels of the PNG."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.dicom.grayscale import BORDER_PX

Boxes = npt.NDArray[np.float64]
Image = npt.NDArray[Any]


class CropBox(NamedTuple):
    """Half-open box in stored pixels of the original image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows of the crop."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the crop."""
        return self.right - self.left


class Placement(NamedTuple):
    """Where a crop lies in its PNG: x_png = (x - crop.left) * scale_x + pad_left, and y alike.

    ``scale_x`` and ``scale_y`` are PNG pixels per stored pixel; ``pad_left`` and ``pad_top`` are PNG pixels. To move
    the boxes of N images at once, every field may be an array of N.
    """

    crop: CropBox
    scale_x: float
    scale_y: float
    pad_left: int
    pad_top: int

    @property
    def _scale(self) -> Boxes:
        return np.stack([self.scale_x, self.scale_y] * 2, axis=-1)

    @property
    def _origin(self) -> Boxes:
        return np.stack([self.crop.left, self.crop.top] * 2, axis=-1)

    @property
    def _pad(self) -> Boxes:
        return np.stack([self.pad_left, self.pad_top] * 2, axis=-1)

    def boxes_to_png(self, boxes: Boxes) -> tuple[Boxes, npt.NDArray[np.bool_]]:
        """Move boxes (N x 4: x_min, y_min, x_max, y_max in stored pixels) to pixels of the PNG.

        Boxes are clipped against the crop, each coordinate against its own axis; ``kept`` is False for those that lie
        wholly outside, which a caller drops and counts.

        >>> placement = Placement(CropBox(20, 60, 10, 50), 2.0, 2.0, 0, 5)
        >>> moved, kept = placement.boxes_to_png(np.array([[10.0, 20.0, 30.0, 40.0]]))
        >>> moved.tolist(), kept.tolist()
        ([[0.0, 5.0, 40.0, 45.0]], [True])
        """
        limit = np.stack([self.crop.width, self.crop.height] * 2, axis=-1)
        clipped = np.clip(boxes - self._origin, 0.0, limit)
        kept = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        return clipped * self._scale + self._pad, kept

    def boxes_to_stored(self, boxes: Boxes) -> Boxes:
        """Move boxes from pixels of the PNG back to stored pixels: the inverse of ``boxes_to_png``."""
        return (boxes - self._pad) / self._scale + self._origin

    def boxes_to_png_compat(self, boxes: Boxes, image_shape: tuple[Any, Any]) -> Boxes:
        """Move boxes as the released code does, from an image of (rows, columns) stored pixels.

        The border is subtracted, then coordinates are clamped to the image without its border: x_max against the
        *height* and y_max against the *width*, which is the released code's slip.
        """
        height, width = (side - 2 * BORDER_PX for side in image_shape)
        moved = boxes - BORDER_PX
        moved[:, :2] = np.maximum(moved[:, :2], 0.0)
        moved[:, 2:] = np.minimum(moved[:, 2:], np.stack([height, width], axis=-1))
        return (moved - (self._origin - BORDER_PX)) * self._scale + self._pad


def stretch(image: Image, crop: CropBox, size_px: tuple[int, int]) -> tuple[Image, Placement]:
    """Resize the image of ``crop`` to (height, width) by area interpolation; the aspect ratio is not kept.

    The scale is that of the image given, which has fewer columns than ``crop`` where the released crop glues two runs
    together (see ``crop.compat_indices``).
    """
    (rows, columns), (height, width) = image.shape, size_px
    resized = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return resized, Placement(crop, width / columns, height / rows, 0, 0)


def pad(image: Image, crop: CropBox, size_px: tuple[int, int]) -> tuple[Image, Placement]:
    """Resize the image of ``crop`` by one factor so that it fits (height, width), centred on a background of 0."""
    (rows, columns), (height, width) = image.shape, size_px
    factor = min(height / rows, width / columns)
    inner = (max(1, round(rows * factor)), max(1, round(columns * factor)))
    resized, placement = stretch(image, crop, inner)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    padded = np.zeros(size_px, image.dtype)
    padded[top : top + inner[0], left : left + inner[1]] = resized
    return padded, placement._replace(pad_left=left, pad_top=top)
