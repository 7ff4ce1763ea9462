"""The augmentation of ``mammoclip.data.warp`` for a batch of images on one device, CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from mammoclip.data.warp import SamplingNodes


def augment_batch(images: Tensor, warps: Sequence[SamplingNodes]) -> Tensor:
    """Return the images (B, H, W), of any integer type, each transformed by its own warp; as ``apply_warp`` does.

    Positions are computed in single precision, to about 0.001 px, so a grey value may be rounded differently there.
    Only the nodes of the sampling grids travel to the device of the images; one image at a time has its whole grid.
    """
    return torch.stack([_sample(image, nodes) for image, nodes in zip(images, warps, strict=True)])


def _sample(image: Tensor, nodes: SamplingNodes) -> Tensor:
    height, width = image.shape
    grid = _sampling_grid(nodes, image)
    # grid_sample counts from -1 at the outer edge of the first pixel to 1 at that of the last.
    normalised = (2 * grid + 1) / torch.tensor([width, height], device=image.device) - 1
    sampled = grid_sample(image[None, None].float(), normalised[None], align_corners=False)
    return sampled[0, 0].round().to(image.dtype)


def _sampling_grid(nodes: SamplingNodes, image: Tensor) -> Tensor:
    """Return the point (x, y) of the image, in pixels, where each pixel of the result is sampled: (H, W, 2)."""
    height, width = image.shape
    pitch = nodes.pitch_px
    planes = torch.from_numpy(nodes.points).to(image.device).permute(2, 0, 1)[None]
    grid = interpolate(planes, scale_factor=pitch, mode="bilinear", align_corners=False)[0]
    return grid[:, pitch : pitch + height, pitch : pitch + width].permute(1, 2, 0)
