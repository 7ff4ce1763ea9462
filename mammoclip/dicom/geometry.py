"""Crop boxes, and lesion boxes between stored pixels and pixels of the crop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]


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


def boxes_to_crop(boxes: Boxes, crop: CropBox, size_px: tuple[int, int]) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Move boxes (N x 4: x_min, y_min, x_max, y_max in stored pixels) into a crop resized to (height, width).

    Boxes are clipped against the crop, each coordinate against its own axis; ``kept`` is False for those that lie
    wholly outside, which a caller drops and counts.

    >>> moved, kept = boxes_to_crop(np.array([[10.0, 20.0, 30.0, 40.0]]), CropBox(20, 60, 10, 50), (80, 80))
    >>> moved.tolist(), kept.tolist()
    ([[0.0, 0.0, 40.0, 40.0]], [True])
    """
    origin = np.array([crop.left, crop.top, crop.left, crop.top], np.float64)
    limit = np.array([crop.width, crop.height, crop.width, crop.height], np.float64)
    clipped = np.clip(boxes - origin, 0.0, limit)
    kept = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return clipped * _scale(crop, size_px), kept


def boxes_to_image(boxes: Boxes, crop: CropBox, size_px: tuple[int, int]) -> Boxes:
    """Move boxes from a crop resized to (height, width) back to stored pixels: the inverse of ``boxes_to_crop``."""
    return boxes / _scale(crop, size_px) + np.array([crop.left, crop.top, crop.left, crop.top], np.float64)


def boxes_to_crop_compat(
    boxes: Boxes, image_shape: tuple[int, int], crop: CropBox, size_px: tuple[int, int], border_px: int = 5
) -> Boxes:
    """Move boxes as the released code does.

    The border is subtracted, then coordinates are clamped to the image without its border: x_max against the *height*
    and y_max against the *width*, which is the released code's slip.
    """
    height, width = (side - 2 * border_px for side in image_shape)
    moved = boxes - border_px
    moved[:, :2] = np.maximum(moved[:, :2], 0.0)
    moved[:, 2:] = np.minimum(moved[:, 2:], [height, width])
    origin = np.array([crop.left, crop.top, crop.left, crop.top], np.float64) - border_px
    return (moved - origin) * _scale(crop, size_px)


def _scale(crop: CropBox, size_px: tuple[int, int]) -> npt.NDArray[np.float64]:
    x, y = size_px[1] / crop.width, size_px[0] / crop.height
    return np.array([x, y, x, y], np.float64)
