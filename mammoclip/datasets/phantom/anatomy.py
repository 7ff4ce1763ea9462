"""Healthy tissue of a synthetic mammogram: outline, pectoral muscle, parenchyma, strands, harmless distractors.

Everything is drawn in the orientation of a left breast: chest wall at column 0, nipple to the right. The caller
mirrors right breasts. Intensities are float32 in arbitrary units, fat near 0.27 and parenchyma up to about 0.6.

Breast coordinates (used by the findings too): ``depth`` runs from 0 at the chest wall to 1 at the nipple, along the
posterior nipple line; ``offset`` runs from 0 on that line to +1 (above it) or -1 (below it) at the outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
View = Literal["CC", "MLO"]
Density = Literal["A", "B", "C", "D"]

# Fraction of the breast that is parenchyma (BI-RADS atlas, 5th edition: A almost fat, D extremely dense), and its
# brightness above fat.
_COVERAGE: dict[Density, float] = {"A": 0.05, "B": 0.25, "C": 0.55, "D": 0.88}
_BRIGHTNESS: dict[Density, float] = {"A": 0.13, "B": 0.18, "C": 0.21, "D": 0.26}
_FAT = 0.27
_CUBIC_GAIN = 0.85  # spread of white noise after cubic enlargement
_SMOOTH_STEP = 2  # smooth structures are computed on a grid coarser by this factor


@dataclass(frozen=True)
class BreastSize:
    """Size of one breast, shared by its views, as fractions: ``depth`` of the columns, ``half_height`` of the rows."""

    depth: float
    half_height: float


@dataclass(frozen=True)
class BreastShape:
    """Projection of one breast in one view, in pixels.

    The outline is ``(depth)^exponent + offset^2 = 1``. ``upper_px`` and ``lower_px`` are the half heights on the two
    sides of the nipple line, ``chest_row_px`` is the row where that line meets the chest wall, and ``tilt_rad`` turns
    it downwards. The pectoral muscle is a triangle in the upper chest-wall corner, ``pectoral_columns_px`` along the
    top edge and ``pectoral_rows_px`` down the chest wall (both 0 in CC).
    """

    depth_px: float
    upper_px: float
    lower_px: float
    chest_row_px: float
    tilt_rad: float
    exponent: float
    pectoral_columns_px: float
    pectoral_rows_px: float

    def to_pixel(self, depth: float, offset: float) -> tuple[float, float]:
        """Return ``(column, row)`` in pixels of a point given in breast coordinates."""
        along = depth * self.depth_px
        across = offset * (self.upper_px if offset >= 0 else self.lower_px)
        sine, cosine = math.sin(self.tilt_rad), math.cos(self.tilt_rad)
        return along * cosine + across * sine, self.chest_row_px + along * sine - across * cosine

    @property
    def nipple_px(self) -> tuple[float, float]:
        """``(column, row)`` of the nipple in pixels."""
        return self.to_pixel(1.0, 0.0)

    def outline(self, column_px: Float, row_px: Float) -> Float:
        """Return the outline function: 0 deep inside, 1 on the outline, above 1 outside. Broadcasts like numpy."""
        sine, cosine = math.sin(self.tilt_rad), math.cos(self.tilt_rad)
        row = row_px - np.float32(self.chest_row_px)
        along = np.maximum(column_px * cosine + row * sine, 0) / self.depth_px
        across = column_px * sine - row * cosine
        offset = np.where(across >= 0, across / self.upper_px, across / self.lower_px)
        return np.asarray(along**self.exponent + offset * offset, dtype=np.float32)

    def distance_to_pectoral_px(self, column_px: float, row_px: float) -> float:
        """Return the signed distance to the pectoral edge in pixels: positive in front of it, infinite in CC."""
        if not self.pectoral_rows_px:
            return math.inf
        value = column_px / self.pectoral_columns_px + row_px / self.pectoral_rows_px - 1
        return value / math.hypot(1 / self.pectoral_columns_px, 1 / self.pectoral_rows_px)


def draw_sizes(rng: np.random.Generator) -> tuple[BreastSize, BreastSize]:
    """Draw the sizes of a patient's right and left breast: widely varied between patients, similar within one."""
    depth, half_height = rng.uniform(0.52, 0.80), rng.uniform(0.25, 0.38)
    right, left = (BreastSize(depth * rng.uniform(0.95, 1.05), half_height * rng.uniform(0.95, 1.05)) for _ in range(2))
    return right, left


def draw_shape(rng: np.random.Generator, size: BreastSize, view: View, rows_px: int, columns_px: int) -> BreastShape:
    """Draw how a breast of this size projects in one view of an image of ``rows_px`` x ``columns_px``."""
    depth_px = size.depth * columns_px
    half_px = size.half_height * rows_px
    exponent = rng.uniform(1.8, 2.6)
    if view == "CC":
        upper, lower = half_px * rng.uniform(0.95, 1.05, 2)
        chest_row = rows_px * rng.uniform(0.46, 0.54)
        return BreastShape(depth_px, upper, lower, chest_row, math.radians(rng.uniform(-3, 3)), exponent, 0.0, 0.0)
    upper, lower = half_px * rng.uniform(1.25, 1.45), half_px * rng.uniform(0.95, 1.05)
    chest_row = min(upper * rng.uniform(0.9, 1.0), rows_px * 0.55)
    pectoral_columns = columns_px * rng.uniform(0.26, 0.42)
    pectoral_rows = rows_px * rng.uniform(0.32, 0.52)
    tilt = math.radians(rng.uniform(5, 11))
    return BreastShape(depth_px, upper, lower, chest_row, tilt, exponent, pectoral_columns, pectoral_rows)


def noise_field(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> Float:
    """Return smooth multi-scale noise (height x width, about zero mean and unit variance).

    Each entry of ``cells`` is one octave: white noise on that many cells along the height, enlarged by cubic
    interpolation; the n-th octave weighs ``0.7**n``.
    """
    field = np.zeros((height, width), np.float32)
    power = 0.0
    for octave, along_height in enumerate(cells):
        along_width = max(2, round(along_height * width / height))
        coarse = rng.standard_normal((along_height, along_width), dtype=np.float32)
        weight = 0.7**octave
        field += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        power += weight * weight
    return np.asarray(field / np.float32(math.sqrt(power) * _CUBIC_GAIN), dtype=np.float32)


def render_tissue(
    rng: np.random.Generator, shape: BreastShape, density: Density, rows_px: int, columns_px: int
) -> tuple[Float, Float]:
    """Render healthy tissue.

    Returns the intensity (``rows_px`` x ``columns_px``, 0 in air) and the breast mask in [0, 1] (soft at the skin; the
    pectoral muscle belongs to it).
    """
    height, width = -(-rows_px // _SMOOTH_STEP), -(-columns_px // _SMOOTH_STEP)
    column = np.arange(width, dtype=np.float32)[None, :] * _SMOOTH_STEP
    row = np.arange(height, dtype=np.float32)[:, None] * _SMOOTH_STEP
    outline = shape.outline(column, row) + 0.035 * noise_field(rng, height, width, (4, 7))
    pectoral = _pectoral(rng, shape, column, row)
    inside = np.clip((1.0 - outline) * 12, 0, 1)
    thickness = np.clip((1.0 - outline) * 3.0, 0, 1) ** np.float32(rng.uniform(0.35, 0.6))

    tissue = _FAT * (1 + 0.07 * noise_field(rng, height, width, (10, 24, 60)))
    tissue += _BRIGHTNESS[density] * _parenchyma(rng, density, outline, column / shape.depth_px)
    tissue += _blurry_blobs(rng, shape, height, width, rows_px)
    skin = np.exp(-(((outline - 0.965) / 0.022) ** 2)) * np.float32(rng.uniform(0.02, 0.12))
    muscle = np.float32(rng.uniform(0.32, 0.52)) * (1 + 0.05 * noise_field(rng, height, width, (12, 40)))
    tissue = tissue * thickness * (1 - 0.75 * pectoral) + skin + muscle * pectoral
    mask = np.maximum(inside, pectoral).astype(np.float32)
    tissue = np.asarray(tissue * mask, dtype=np.float32)

    size = (columns_px, rows_px)
    full = cv2.resize(tissue, size, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
    # Ligaments, thin and faint; vessels, nearly as bright as masses, but long.
    ligaments = _curves(rng, shape, np.zeros_like(full, np.uint8), int(rng.integers(6, 22)), (0.0008, 0.0035))
    vessels = _curves(rng, shape, np.zeros_like(full, np.uint8), int(rng.integers(0, 4)), (0.003, 0.007))
    full += (ligaments * rng.uniform(0.05, 0.12) + vessels * rng.uniform(0.12, 0.28)).astype(np.float32) * mask
    _draw_nipple(rng, shape, full, mask)
    return full, mask


def _parenchyma(rng: np.random.Generator, density: Density, outline: Float, depth: Float) -> Float:
    """Return parenchyma in [0, about 1.5]: noise above a threshold set by the coverage, inside a central cone."""
    height, width = outline.shape
    noise = noise_field(rng, height, width, (5, 10, 20, 40, 80))
    # Glandular tissue sits in the middle; subcutaneous and retromammary fat stay dark, less so in dense breasts.
    coverage = min(0.97, _COVERAGE[density] * rng.uniform(0.85, 1.12))
    cone = np.clip((0.92 - outline) * (1.5 + 3.0 * coverage), 0, 1)
    cone *= np.clip(0.35 + 0.9 * coverage + depth * 1.2, 0, 1)
    breast = noise[(outline < 0.85)]
    threshold = float(np.quantile(breast[:: max(1, breast.size // 4000)], 1 - coverage)) if breast.size else 0.0
    covered = 1 / (1 + np.exp(-(noise - threshold) / np.float32(0.34)))
    return np.asarray(covered * cone * (1 + 0.16 * noise), dtype=np.float32)


def _pectoral(rng: np.random.Generator, shape: BreastShape, column: Float, row: Float) -> Float:
    """Return the muscle's mask in [0, 1], with a slightly curved, soft edge."""
    if not shape.pectoral_rows_px:
        return np.zeros((row.shape[0], column.shape[1]), np.float32)
    down = row / shape.pectoral_rows_px
    edge = 1 - down + rng.uniform(-0.12, 0.12) * np.sin(np.clip(down, 0, 1) * np.pi)
    return np.asarray(np.clip((edge - column / shape.pectoral_columns_px) * 25, 0, 1), dtype=np.float32)


def _blurry_blobs(rng: np.random.Generator, shape: BreastShape, height: int, width: int, rows_px: int) -> Float:
    """Return a few wide, edgeless blobs: they take as much light as masses do, but have no margin."""
    canvas = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(0, 5))):
        column, row = shape.to_pixel(rng.uniform(0.1, 0.85), rng.uniform(-0.7, 0.7))
        sigma = rng.uniform(0.05, 0.09) * rows_px / _SMOOTH_STEP
        x = (np.arange(width, dtype=np.float32) - column / _SMOOTH_STEP) / sigma
        y = (np.arange(height, dtype=np.float32) - row / _SMOOTH_STEP) / sigma
        canvas += rng.uniform(0.03, 0.22) * np.exp(-0.5 * y * y)[:, None] * np.exp(-0.5 * x * x)[None, :]
    return canvas


def _curves(
    rng: np.random.Generator,
    shape: BreastShape,
    canvas: npt.NDArray[np.uint8],
    count: int,
    thickness: tuple[float, float],
) -> Float:
    """Draw bent lines that converge on the nipple; return them in [0, 1]. ``thickness`` is in shares of rows."""
    rows_px = canvas.shape[0]
    for _ in range(count):
        start, end = rng.uniform(0.0, 0.6), rng.uniform(0.5, 0.97)
        first, last = rng.uniform(-0.8, 0.8), rng.uniform(-0.45, 0.45)
        bend = rng.uniform(-0.25, 0.25)
        points = [
            shape.to_pixel(start + (end - start) * t, first + (last - first) * t + bend * math.sin(math.pi * t))
            for t in np.linspace(0, 1, 9).tolist()
        ]
        width_px = max(1, round(rows_px * rng.uniform(*thickness)))
        fixed = np.round(np.array(points) * 16).astype(np.int32)
        cv2.polylines(canvas, [fixed], False, int(rng.integers(60, 255)), width_px, cv2.LINE_AA, 4)
    blurred = cv2.GaussianBlur(canvas, (0, 0), max(0.6, rows_px * 0.0012))
    return np.asarray(blurred.astype(np.float32) / 255, dtype=np.float32)


def _draw_nipple(rng: np.random.Generator, shape: BreastShape, image: Float, mask: Float) -> None:
    """Add a small bump on the skin at the end of the nipple line."""
    row = min(max(shape.nipple_px[1], 0), image.shape[0] - 1)
    inside = np.flatnonzero(mask[int(row)] > 0.5)
    skin_column = float(inside[-1]) if inside.size else 0.0
    radius = rng.uniform(0.010, 0.017) * image.shape[0]
    canvas = np.zeros(image.shape, np.uint8)
    axes = (round(radius * 1.3 * 16), round(radius * 0.8 * 16))
    cv2.ellipse(canvas, (round(skin_column * 16), round(row * 16)), axes, 0, 0, 360, 255, -1, cv2.LINE_AA, 4)
    top, bottom = max(0, int(row - 3 * radius)), int(row + 3 * radius) + 1
    left, right = max(0, int(skin_column - 4 * radius)), int(skin_column + 4 * radius) + 1
    bump = cv2.GaussianBlur(canvas[top:bottom, left:right], (0, 0), max(0.5, radius * 0.35)).astype(np.float32) / 255
    image[top:bottom, left:right] = np.maximum(image[top:bottom, left:right], bump * rng.uniform(0.25, 0.38))
