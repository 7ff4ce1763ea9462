"""Findings of a synthetic mammogram: where they lie, what they look like, and the exact box around what was drawn.

A lesion is placed once per breast, in breast coordinates (see :mod:`.anatomy`), so that its two projections agree: the
same depth in CC and MLO, inner or outer from CC, upper or lower from MLO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.datasets.phantom.anatomy import BreastShape, Float

Kind = Literal["Mass", "Suspicious Calcification"]
Box = tuple[int, int, int, int]

MASS_PROBABILITY = 0.35
CALCIFICATION_PROBABILITY = 0.35
_TRIES = 400
_DEPTHS = ((0.2, 0.33), (0.34, 0.66), (0.67, 0.8))
# Depth, outer, upper of a lesion that finds no free place in a crowded small breast: well inside any outline.
_FALLBACK = (0.45, 0.3, 0.3)

_MASS_LOOKS: tuple[tuple[str, str], ...] = (
    ("round", "circumscribed"),
    ("oval", "circumscribed"),
    ("oval", "obscured"),
    ("lobulated", "microlobulated"),
    ("irregular", "indistinct"),
    ("irregular", "spiculated"),
    ("irregular", "spiculated"),
)
_CALCIFICATION_LOOKS = ("amorphous", "coarse heterogeneous", "fine pleomorphic", "fine linear branching")
_EDGE_SOFTNESS = {
    "circumscribed": 0.16,
    "obscured": 0.40,
    "microlobulated": 0.20,
    "indistinct": 0.45,
    "spiculated": 0.30,
}


@dataclass(frozen=True)
class Lesion:
    """One finding of one breast.

    ``depth`` in [0, 1] runs from chest wall to nipple; ``outer`` and ``upper`` are signed offsets from the nipple line
    in CC and MLO (positive: outer, upper); ``diameter`` is a fraction of the nominal rows. ``shape`` is the mass
    shape or the morphology of the calcifications, ``margin`` is empty for calcifications. ``birads`` is 3, 4 or 5.
    """

    kind: Kind
    shape: str
    margin: str
    depth: float
    outer: float
    upper: float
    diameter: float
    birads: int

    @property
    def position(self) -> tuple[str, str]:
        """Quadrant in words: ``("upper" | "lower", "outer" | "inner")``."""
        return ("upper" if self.upper > 0 else "lower", "outer" if self.outer > 0 else "inner")

    @property
    def depth_word(self) -> str:
        """Depth in words, by thirds: posterior, middle or anterior."""
        return ("posterior", "middle", "anterior")[min(2, int(self.depth * 3))]


def draw_lesions(rng: np.random.Generator, cc: BreastShape, mlo: BreastShape, rows_px: int) -> tuple[Lesion, ...]:
    """Draw what one breast holds: independently a mass and a cluster of calcifications, or neither."""
    lesions: list[Lesion] = []
    has_mass = rng.random() < MASS_PROBABILITY
    has_calcification = rng.random() < CALCIFICATION_PROBABILITY
    if has_mass:
        shape, margin = _MASS_LOOKS[int(rng.integers(len(_MASS_LOOKS)))]
        birads = int(rng.choice([4, 5])) if margin == "spiculated" else int(rng.choice([3, 4], p=[0.4, 0.6]))
        draft = Lesion("Mass", shape, margin, *_FALLBACK, rng.uniform(0.07, 0.12), birads)
        lesions.append(_place(rng, draft, lesions, (cc, mlo), rows_px))
    if has_calcification:
        shape = _CALCIFICATION_LOOKS[int(rng.integers(len(_CALCIFICATION_LOOKS)))]
        birads = int(rng.choice([3, 4, 5], p=[0.15, 0.65, 0.2]))
        draft = Lesion("Suspicious Calcification", shape, "", *_FALLBACK, rng.uniform(0.08, 0.12), birads)
        lesions.append(_place(rng, draft, lesions, (cc, mlo), rows_px))
    return tuple(lesions)


def _place(
    rng: np.random.Generator,
    draft: Lesion,
    others: list[Lesion],
    shapes: tuple[BreastShape, BreastShape],
    rows_px: int,
) -> Lesion:
    """Draw places until one lies inside the breast in CC and MLO, clear of the muscle and of the other lesions."""
    cc, mlo = shapes
    radius = 0.5 * draft.diameter * rows_px
    # Each third of the depth is wished for equally often; a third without room is given up after half of the tries.
    wished = _DEPTHS[int(rng.integers(len(_DEPTHS)))]
    for attempt in range(_TRIES):
        outer, upper = (rng.choice([-1, 1], 2) * rng.uniform(0.15, 0.75, 2)).tolist()
        depth = rng.uniform(*(wished if attempt < _TRIES // 2 else (0.2, 0.8)))
        lesion = replace(draft, depth=depth, outer=outer, upper=upper)
        # The words follow the nipple line; with the tilt of MLO the plain row must say the same.
        above = mlo.nipple_px[1] - mlo.to_pixel(lesion.depth, upper)[1]
        if (
            above * upper > 0
            and _fits(cc, lesion.depth, outer, radius)
            and _fits(mlo, lesion.depth, upper, radius)
            and all(_apart(cc, mlo, lesion, other, rows_px) for other in others)
        ):
            return lesion
    return draft


def _fits(shape: BreastShape, depth: float, offset: float, radius_px: float) -> bool:
    """Say whether a disc lies inside the outline (with a rim for the skin) and in front of the muscle."""
    column, row = shape.to_pixel(depth, offset)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False, dtype=np.float32)
    reach = radius_px * 1.25
    rim = (column + reach * np.cos(angles), row + reach * np.sin(angles))
    outline = shape.outline(rim[0].astype(np.float32), rim[1].astype(np.float32))
    inside = bool(outline.max() < 0.90) and column > reach * 0.9 and row > reach
    return inside and shape.distance_to_pectoral_px(column, row) > reach


def _apart(cc: BreastShape, mlo: BreastShape, first: Lesion, second: Lesion, rows_px: int) -> bool:
    """Say whether two lesions keep clear of each other in both views."""
    least = 0.6 * (first.diameter + second.diameter) * rows_px
    in_cc = math.dist(cc.to_pixel(first.depth, first.outer), cc.to_pixel(second.depth, second.outer))
    in_mlo = math.dist(mlo.to_pixel(first.depth, first.upper), mlo.to_pixel(second.depth, second.upper))
    return min(in_cc, in_mlo) > least


def add_lesion(
    rng: np.random.Generator, image: Float, lesion: Lesion, centre_px: tuple[float, float], rows_px: int
) -> Box:
    """Add one lesion to ``image`` in place, centred at ``(column, row)``.

    Returns the tight box ``(xmin, ymin, xmax, ymax)``, half-open, around the pixels that changed, clipped to the image.
    ``rows_px`` are the nominal rows that sizes refer to.
    """
    diameter_px = lesion.diameter * rows_px * rng.uniform(0.95, 1.05)
    side = 2 * math.ceil(0.8 * diameter_px + 3) + 1
    if lesion.kind == "Mass":
        layer = _mass(rng, lesion.shape, lesion.margin, diameter_px, side) * np.float32(rng.uniform(0.27, 0.40))
    else:
        layer = _cluster(rng, lesion.shape, diameter_px, side, rows_px) * np.float32(rng.uniform(0.50, 0.70))
    return _paste(image, layer, centre_px)


def add_scattered_specks(rng: np.random.Generator, image: Float, shape: BreastShape, mask: Float, rows_px: int) -> None:
    """Add up to 30 single bright dots: as many, as bright and as large as those of a cluster, but far apart."""
    placed: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(0, 31))):
        column, row = shape.to_pixel(rng.uniform(0.02, 0.93), rng.uniform(-0.85, 0.85))
        diameter = max(1.6, rng.uniform(0.005, 0.009) * rows_px)
        level = rng.uniform(0.45, 0.7)
        inside = 0 <= round(row) < mask.shape[0] and 0 <= round(column) < mask.shape[1]
        if not inside or mask[round(row), round(column)] < 0.9:
            continue
        if any(math.dist((column, row), other) < 0.07 * rows_px for other in placed):
            continue
        placed.append((column, row))
        side = 2 * math.ceil(diameter + 2) + 1
        canvas = np.zeros((side, side), np.uint8)
        _dot(canvas, side / 2, side / 2, diameter)
        _paste(image, (canvas * (level / 255)).astype(np.float32), (column, row))


def _mass(rng: np.random.Generator, shape: str, margin: str, diameter_px: float, side: int) -> Float:
    """Return a mass in [0, 1] on a square of ``side`` pixels: a lobulated dome with a soft edge, and its spicules."""
    radius = 0.5 * diameter_px * (0.78 if margin == "spiculated" else 1.0)
    axis = np.arange(side, dtype=np.float32) - side // 2
    x, y = axis[None, :], axis[:, None]
    angle = np.arctan2(y, x)
    stretch = 1 + rng.uniform(0.10, 0.2) * np.cos(2 * (angle - rng.uniform(0, np.pi))) if shape == "oval" else 1.0
    waves = {"round": 0.02, "oval": 0.02, "lobulated": 0.10, "irregular": 0.09}[shape]
    orders = (3, 4) if shape == "lobulated" else (3, 5, 7)
    edge = (
        radius
        * stretch
        * (1 + sum(waves * rng.uniform(0.5, 1) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in orders))
    )
    softness = _EDGE_SOFTNESS[margin]
    distance = np.hypot(x, y)
    profile = np.clip((edge - distance) / (softness * radius), 0, 1)
    dome = 1 - 0.2 * np.clip(distance / radius, 0, 1) ** 2
    layer = np.asarray(dome * profile * profile * (3 - 2 * profile), dtype=np.float32)
    if margin == "spiculated":
        canvas = np.zeros((side, side), np.uint8)
        centre = side // 2 * 16 + 8
        for spoke in range(count := int(rng.integers(12, 20))):
            direction = 2 * math.pi * (spoke + rng.uniform(-0.6, 0.6)) / count
            reach = radius * rng.uniform(1.05, 1.5) * 16
            tip = (round(centre + reach * math.cos(direction)), round(centre + reach * math.sin(direction)))
            cv2.line(
                canvas,
                (centre, centre),
                tip,
                255,
                max(1, round(diameter_px * rng.uniform(0.015, 0.035))),
                cv2.LINE_AA,
                4,
            )
        spicules = cv2.GaussianBlur(canvas, (0, 0), max(0.6, diameter_px * 0.012)).astype(np.float32) / 255
        layer = np.maximum(layer, 0.6 * spicules)
    return np.where(layer > 0.05, layer, np.float32(0))


def _cluster(rng: np.random.Generator, shape: str, diameter_px: float, side: int, rows_px: int) -> Float:
    """Return 12 to 30 specks in [0, 1] on a square of ``side`` pixels, spread over a disc of ``diameter_px``."""
    canvas = np.zeros((side, side), np.uint8)
    placed: list[tuple[float, float]] = []
    wanted = int(rng.integers(12, 31))
    for _ in range(_TRIES):
        if len(placed) == wanted:
            break
        speck = max(1.6, rng.uniform(0.005, 0.008) * rows_px) * (1.2 if shape == "coarse heterogeneous" else 1.0)
        distance, direction = 0.5 * (diameter_px - speck) * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        centre = (side / 2 + distance * math.cos(direction), side / 2 + distance * math.sin(direction))
        if any(math.dist(centre, other) < 1.5 * speck for other in placed):
            continue
        placed.append(centre)
        if shape == "fine linear branching":
            turn = rng.uniform(0, math.pi)
            dx, dy = speck * math.cos(turn), speck * math.sin(turn)
            ends = [(round((centre[0] + k * dx) * 16), round((centre[1] + k * dy) * 16)) for k in (-0.8, 0.8)]
            cv2.line(canvas, ends[0], ends[1], 255, max(1, round(speck * 0.45)), cv2.LINE_AA, 4)
        else:
            _dot(canvas, centre[0], centre[1], speck)
    layer = canvas.astype(np.float32) / 255
    if shape == "amorphous":
        layer = cv2.GaussianBlur(layer, (0, 0), max(0.4, 0.0008 * rows_px))
        layer /= max(float(layer.max()), 1e-6)
    return np.where(layer > 0.05, layer, np.float32(0))


def _dot(canvas: npt.NDArray[np.uint8], column: float, row: float, diameter_px: float) -> None:
    """Draw a filled anti-aliased disc with sub-pixel position."""
    cv2.circle(canvas, (round(column * 16), round(row * 16)), round(diameter_px * 8), 255, -1, cv2.LINE_AA, 4)


def _paste(image: Float, layer: Float, centre_px: tuple[float, float]) -> Box:
    """Add a square layer centred at a pixel; return the half-open box of its non-zero part, clipped to the image."""
    half = layer.shape[0] // 2
    left, top = round(centre_px[0]) - half, round(centre_px[1]) - half
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(image.shape[1], left + layer.shape[1]), min(image.shape[0], top + layer.shape[0])
    visible = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    image[y0:y1, x0:x1] += visible
    columns, rows = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
    return (x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1)
