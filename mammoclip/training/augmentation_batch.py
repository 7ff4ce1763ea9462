"""The augmentation of ``mammoclip.data.warp`` for a batch of images on one device, CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from mammoclip.data.warp import Size, WarpParameters, sampling_nodes


def augment_batch(images: Tensor, parameters: Sequence[WarpParameters]) -> Tensor:
    """Return the images (B, H, W), uint8, each transformed by its own parameters; as ``apply_warp`` image by image.

    Positions are computed in single precision, to about 0.001 px, so a grey value may be rounded differently there.
    Only the nodes of the sampling grids travel to the device of the images.
    """
    _, height, width = images.shape
    grid = torch.stack([_sampling_grid(warp, (height, width), images.device) for warp in parameters])
    # grid_sample counts from -1 at the outer edge of the first pixel to 1 at that of the last.
    normalised = (2 * grid + 1) / torch.tensor([width, height], device=images.device) - 1
    sampled = grid_sample(images[:, None].float(), normalised, align_corners=False)
    return sampled[:, 0].round().to(torch.uint8)


def _sampling_grid(warp: WarpParameters, size: Size, device: torch.device) -> Tensor:
    """Return the point (x, y) of the image, in pixels, where each pixel of the result is sampled: (H, W, 2)."""
    nodes, pitch = sampling_nodes(warp, size)
    height, width = size
    planes = torch.from_numpy(nodes).to(device).permute(2, 0, 1)[None]
    grid = interpolate(planes, scale_factor=pitch, mode="bilinear", align_corners=False)[0]
    return grid[:, pitch : pitch + height, pitch : pitch + width].permute(1, 2, 0)
