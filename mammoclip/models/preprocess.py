"""Grey values to what the image encoder expects. Shapes: B batch, H and W pixels."""

from __future__ import annotations

import cv2
import torch
from torch import Tensor

IMAGE_MEAN = 0.3089279
IMAGE_STD = 0.25053555408335154


def normalise(images: Tensor) -> Tensor:
    """Integer grey images (B, H, W) to float32 (B, 1, H, W): ``((x - min) / max - mean) / std``, image by image.

    The maximum is that of ``x - min``, so values lie in [0, 1] before mean and deviation (of the paper's data) are
    applied. A constant image becomes constant: ``(0 - mean) / std``. Of 8 bits on a CPU, the 256 possible values are
    computed, and pixels look theirs up: the same numbers in a fifth of the time.
    """
    if images.dtype == torch.uint8 and images.device.type == "cpu":
        tables = _normalise(torch.arange(256, dtype=torch.float32)[None, None], *_extremes(images))
        normalised = torch.empty(images.shape)
        for image, table, out in zip(images.numpy(), tables.numpy(), normalised.numpy(), strict=True):
            cv2.LUT(image, table, out)
        return normalised.unsqueeze(1)
    values = images.to(torch.float32)
    return _normalise(values, *_extremes(values)).unsqueeze(1)


def _extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    return images.amin(dim=(1, 2), keepdim=True).float(), images.amax(dim=(1, 2), keepdim=True).float()


def _normalise(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # All of a constant image's values are 0 after the shift; dividing them by 1 keeps them so.
    scaled = (values - low) / torch.where(high > low, high - low, 1.0)
    return (scaled - IMAGE_MEAN) / IMAGE_STD
