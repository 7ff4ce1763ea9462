"""Training augmentation of 8-bit images: flips, affine and elastic, in one resampling.

Each transform is applied with the same probability (section 3.1 of the paper: 0.5); geometry is composed first and the
image is resampled once, so that detail as fine as calcifications is blurred at most once.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


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
    """Return a randomly transformed copy, uint8, same shape; what comes from outside the image is 0.

    The horizontal flip is not here: it concerns the words of the text too, so the sampler of pairs does it.
    """
    if strength.vertical_flip and rng.random() < strength.probability:
        image = np.ascontiguousarray(image[::-1])
    affine = _draw_affine(image.shape[:2], strength, rng) if rng.random() < strength.probability else None
    elastic = strength.elastic_alpha_px > 0 and rng.random() < strength.probability
    if not elastic:
        if affine is None:
            return image
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(image, affine, image.shape[1::-1], flags=flags), np.uint8)
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x += _smooth_noise((height, width), strength, rng)
    y += _smooth_noise((height, width), strength, rng)
    if affine is not None:
        matrix = affine.astype(np.float32)
        x, y = (matrix[row, 0] * x + matrix[row, 1] * y + matrix[row, 2] for row in (0, 1))
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR), np.uint8)


def _draw_affine(
    shape: tuple[int, ...], strength: AugmentationStrength, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the 2 x 3 matrix from output to input pixels: rotation, shear and scale about the centre, then a shift."""
    height, width = shape
    angle, shear = np.deg2rad(
        [
            rng.uniform(-strength.rotation_deg, strength.rotation_deg),
            rng.uniform(-strength.shear_deg, strength.shear_deg),
        ]
    )
    scale = rng.uniform(*strength.scale_range)
    shift = rng.uniform(-1.0, 1.0, 2) * strength.translation_fraction * np.array([width, height])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1.0, np.tan(shear)], [0.0, 1.0]]) / scale
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre - linear @ (centre + shift)])


def _smooth_noise(
    shape: tuple[int, int], strength: AugmentationStrength, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    noise = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), strength.elastic_sigma_px)
    return np.asarray(smooth * strength.elastic_alpha_px, np.float32)
