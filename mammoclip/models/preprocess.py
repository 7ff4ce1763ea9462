"""Grey values to what the image encoder expects. Shapes: B batch, H and W pixels."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGE_MEAN = 0.3089279
IMAGE_STD = 0.25053555408335154


def normalise(images_u8: Tensor) -> Tensor:
    """Integer grey images (B, H, W) to float32 (B, 1, H, W): ``((x - min) / max - mean) / std``, image by image.

    The maximum is that of ``x - min``, so values lie in [0, 1] before mean and deviation (of the paper's data) are
    applied. A constant image becomes constant: ``(0 - mean) / std``.
    """
    images = images_u8.to(torch.float32)
    shifted = images - images.amin(dim=(1, 2), keepdim=True)
    highest = shifted.amax(dim=(1, 2), keepdim=True)
    # All of a constant image's values are 0 after the shift; dividing them by 1 keeps them so.
    scaled = shifted / torch.where(highest > 0, highest, 1.0)
    return ((scaled - IMAGE_MEAN) / IMAGE_STD).unsqueeze(1)
