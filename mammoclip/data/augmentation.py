"""Training augmentation of grey images: which flips, affine and elastic transforms an image gets.

Each transform is applied with the same probability (section 3.1 of the paper: 0.5), its parameters uniform in their
ranges. All that is drawn for an image is applied in one resampling, see ``mammoclip.data.warp``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mammoclip.data.warp import Elastic, Image, Size, WarpParameters, affine_matrix, apply_warp


@dataclass(frozen=True)
class AugmentationStrength:
    """Ranges of the transforms; see ``config.Augmentation`` for units."""

    probability: float
    vertical_flip: bool
    rotation_deg: float
    translation_fraction: float
    scale_range: tuple[float, float]
    shear_deg: float
    elastic_alpha_px: float
    elastic_sigma_px: float


def augment(image: Image, strength: AugmentationStrength, rng: np.random.Generator) -> Image:
    """Return the image randomly transformed, same shape and type; what comes from outside is 0, the input is kept."""
    height, width = image.shape
    return apply_warp(image, draw_warp(rng, strength, (height, width)))


def draw_warp(rng: np.random.Generator, strength: AugmentationStrength, size: Size) -> WarpParameters:
    """Draw what is done to an image of this size (height, width).

    The horizontal flip is not here: it concerns the words of the text too, so the sampler of pairs does it. Every call
    takes the same number of values from ``rng``: whether one transform is applied does not change another.
    """
    height, width = size
    flip, move, bend = (rng.random(3) < strength.probability).tolist()
    angle, shear, x, y = rng.uniform(-1.0, 1.0, 4).tolist()
    scale = rng.uniform(*strength.scale_range)
    seed = int(rng.integers(2**63))
    shift = x * strength.translation_fraction * width, y * strength.translation_fraction * height
    return WarpParameters(
        flip_vertical=flip and strength.vertical_flip,
        affine=affine_matrix(angle * strength.rotation_deg, shift, scale, shear * strength.shear_deg, size)
        if move
        else None,
        elastic=Elastic(seed, strength.elastic_alpha_px, strength.elastic_sigma_px)
        if bend and strength.elastic_alpha_px > 0
        else None,
    )
