"""How a synthetic mammogram was acquired and stored: vendor, syntax, tone, noise, burnt-in label, frame.

Traits are drawn from a random stream of their own, so nothing here depends on density or findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.datasets.phantom.anatomy import Float, View

Laterality = Literal["L", "R"]
Syntax = Literal["explicit", "implicit", "rle", "jpeg_lossless", "jpeg_2000"]

# Share of patients per transfer syntax; JPEG 2000 is rare because it is slow to write.
SYNTAX_SHARES: dict[Syntax, float] = {
    "explicit": 0.33,
    "implicit": 0.15,
    "rle": 0.20,
    "jpeg_lossless": 0.25,
    "jpeg_2000": 0.07,
}
# Invented makers: (Manufacturer, ManufacturerModelName).
VENDORS: tuple[tuple[str, str], ...] = (
    ("Auralis Imaging", "Selune 3D"),
    ("Nordhav Medical", "Fjordscan M2"),
    ("Kestrel Radiology", "Peregrine FFDM"),
    ("Lumenor", "Clarity 40"),
)
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_TRIPLEX)
_LABEL_FORMATS = ("{side} {view}", "{side}{view}", "{side}-{view}", "{view} {side}", "{side} {view} AB")


@dataclass(frozen=True)
class Label:
    """Burnt-in view label: its text, OpenCV font, height in fractions of the rows, corner, and style."""

    text: str
    font: int
    height: float
    at_top: bool
    style: Literal["bright", "grey", "plate"]


@dataclass(frozen=True)
class PatientTraits:
    """What an exam's images share. ``tone`` is (brightness, contrast, gamma); ``shoulder`` compresses highlights."""

    manufacturer: str
    model: str
    syntax: Syntax
    monochrome1: bool
    bits_stored: int
    sigmoid: bool
    view_code: bool
    frame: bool
    pixel_spacing_mm: float
    birth_year: int
    tone: tuple[float, float, float]
    shoulder: float


@dataclass(frozen=True)
class ImageTraits:
    """What differs between images. ``tone`` is (brightness, contrast, gamma); ``noise`` is its standard deviation."""

    laterality: Laterality
    view: View
    rows_px: int
    columns_px: int
    label: Label
    tone: tuple[float, float, float]
    noise: float
    tilt_light: tuple[float, float]


def draw_patient_traits(rng: np.random.Generator, rows_px: int) -> PatientTraits:
    """Draw the acquisition traits that the images of one exam share."""
    manufacturer, model = VENDORS[int(rng.integers(len(VENDORS)))]
    return PatientTraits(
        manufacturer=manufacturer,
        model=model,
        syntax=rng.choice(np.array(list(SYNTAX_SHARES), dtype=object), p=list(SYNTAX_SHARES.values())),
        monochrome1=bool(rng.random() < 0.25),
        bits_stored=int(rng.choice([10, 12, 14], p=[0.15, 0.7, 0.15])),
        sigmoid=bool(rng.random() < 0.15),
        view_code=bool(rng.random() < 0.6),
        frame=bool(rng.random() < 0.04),
        pixel_spacing_mm=round(240.0 / rows_px * rng.uniform(0.95, 1.05), 4),
        birth_year=int(rng.integers(1935, 1985)),
        tone=(rng.uniform(0.0, 0.05), rng.uniform(0.80, 1.2), rng.uniform(0.75, 1.3)),
        shoulder=rng.uniform(0.0, 0.7),
    )


def draw_image_traits(
    rng: np.random.Generator, laterality: Laterality, view: View, rows_px: int, columns_px: int
) -> ImageTraits:
    """Draw the traits of one image; its size differs from the nominal one by up to 3 %."""
    label_format = _LABEL_FORMATS[int(rng.integers(len(_LABEL_FORMATS)))]
    style: Literal["bright", "grey", "plate"] = rng.choice(np.array(["bright", "grey", "plate"], dtype=object))
    return ImageTraits(
        laterality=laterality,
        view=view,
        rows_px=round(rows_px * rng.uniform(0.97, 1.03)),
        columns_px=round(columns_px * rng.uniform(0.97, 1.03)),
        label=Label(
            text=label_format.format(side=laterality, view=view),
            font=_FONTS[int(rng.integers(len(_FONTS)))],
            height=rng.uniform(0.018, 0.032),
            at_top=bool(rng.random() < 0.7),
            style=style,
        ),
        tone=(rng.uniform(-0.01, 0.02), rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1)),
        noise=rng.uniform(0.006, 0.028),
        tilt_light=(rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)),
    )


def expose(rng: np.random.Generator, tissue: Float, mask: Float, patient: PatientTraits, image: ImageTraits) -> Float:
    """Turn tissue intensity into a noisy grey image in [0, 1]: light, gamma, contrast, brightness, shoulder, noise."""
    rows, columns = tissue.shape
    light = np.linspace(1 - image.tilt_light[0], 1 + image.tilt_light[0], rows, dtype=np.float32)[:, None]
    light = light + np.linspace(-image.tilt_light[1], image.tilt_light[1], columns, dtype=np.float32)[None, :]
    brightness, contrast, gamma = (
        patient.tone[0] + image.tone[0],
        patient.tone[1] * image.tone[1],
        patient.tone[2] * image.tone[2],
    )
    grey = np.power(np.maximum(tissue * light, 0), np.float32(gamma)) * np.float32(contrast)
    grey += np.float32(brightness) * mask
    grey *= np.float32(1 + patient.shoulder) / (1 + np.float32(patient.shoulder) * grey)
    noise = rng.standard_normal(tissue.shape, dtype=np.float32) * np.float32(image.noise)
    grey += noise * (0.15 + 0.85 * mask)
    return np.asarray(np.clip(grey, 0, 1), dtype=np.float32)


def burn_in(grey: Float, patient: PatientTraits, image: ImageTraits) -> None:
    """Write the view label into the corner opposite the chest wall, and the white frame if any; in place.

    ``grey`` is the final orientation: the chest wall is at the left edge for L and at the right edge for R.
    """
    rows, columns = grey.shape
    label = image.label
    thickness = max(1, round(rows / 500))
    scale = cv2.getFontScaleFromHeight(label.font, max(6, round(label.height * rows)), thickness)
    (width, height), baseline = cv2.getTextSize(label.text, label.font, scale, thickness)
    pad = max(2, height // 3)
    patch: npt.NDArray[np.uint8] = np.zeros((height + baseline + 2 * pad, width + 2 * pad), np.uint8)
    cv2.putText(patch, label.text, (pad, pad + height), label.font, scale, 255, thickness, cv2.LINE_AA)
    text = patch.astype(np.float32) / 255
    drawn = {"bright": text, "grey": 0.6 * text, "plate": 0.95 - 0.9 * text}[label.style]
    patch_rows, patch_columns = min(rows, drawn.shape[0]), min(columns, drawn.shape[1])
    gap = round(0.02 * rows)
    top = min(gap, rows - patch_rows) if label.at_top else max(0, rows - patch_rows - gap)
    left = max(0, columns - patch_columns - gap) if image.laterality == "L" else min(gap, columns - patch_columns)
    target = grey[top : top + patch_rows, left : left + patch_columns]
    np.maximum(target, drawn[:patch_rows, :patch_columns], out=target)
    if patient.frame:
        border = max(2, round(0.008 * rows))
        cv2.rectangle(grey, (0, 0), (columns - 1, rows - 1), 0.97, 2 * border)
