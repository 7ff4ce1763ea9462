"""Stored pixels to 8-bit grey: the released recipe (compat) and the standard's (strict)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.multival import MultiValue

from mammoclip.dicom.header import rejecting
from mammoclip.dicom.pixels import Mammogram
from mammoclip.errors import RejectedInput

BORDER_PX = 5
"""Pixels dropped on each side before anything else: detector edges are often saturated."""


def drop_border(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``pixels`` without the border of ``BORDER_PX``.

    Raises:
        RejectedInput: constant_image, if nothing but border is there.
    """
    if min(pixels.shape) <= 2 * BORDER_PX:
        raise RejectedInput("constant_image", f"the image is {pixels.shape}, all of it border")
    return pixels[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]


def to_uint8_compat(pixels: npt.NDArray[Any], photometric: str) -> npt.NDArray[np.uint8]:
    """Return uint8(255 * (x - min) / max(x - min)) in float64, truncated, of stored pixels without their border.

    MONOCHROME1 becomes max(x) - x before. Source: the released preprocessing; no LUT or window is applied.

    Raises:
        RejectedInput: constant_image (the released code divides by zero).
    """
    values = drop_border(pixels).astype(np.float64)
    if photometric == "MONOCHROME1":
        values = values.max() - values
    values -= values.min()
    peak = values.max()
    if peak == 0:
        raise RejectedInput("constant_image", "all pixels are equal")
    values /= peak
    values *= 255
    return values.astype(np.uint8)


def to_uint8_strict(mammogram: Mammogram) -> npt.NDArray[np.uint8]:
    """Return 0..255 rounded, after the Modality LUT, VOI LUT or window (incl. SIGMOID), and MONOCHROME1 inversion last.

    Reads the Modality LUT Sequence (0028,3000) or Rescale Slope (0028,1053) and Intercept (0028,1052), then the VOI LUT
    Sequence (0028,3010) or the first Window Center (0028,1050) and Width (0028,1051) with VOI LUT Function (0028,1056);
    what is absent or empty changes nothing (DICOM PS3.3 C.11.1, C.11.2). The result is scaled to the image's range.

    Raises:
        RejectedInput: constant_image, or undecodable if a LUT or window is not as the standard has it.
    """
    stored = drop_border(mammogram.pixels)
    with rejecting("undecodable", "the Modality LUT, VOI LUT or window cannot be applied"):
        values = _apply_voi(_apply_modality(stored, mammogram.dataset), mammogram.dataset).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high == low:
        raise RejectedInput("constant_image", "all pixels are equal")
    values -= low
    values *= 255 / (high - low)
    grey = np.rint(values).astype(np.uint8)
    return 255 - grey if mammogram.photometric == "MONOCHROME1" else grey


def _apply_modality(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    if luts := dataset.get("ModalityLUTSequence"):
        return _look_up(pixels, luts[0])
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return pixels
    return pixels * slope + intercept


def _apply_voi(values: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Apply the VOI LUT, else the window with its output range as 0 to 1, else nothing."""
    if luts := dataset.get("VOILUTSequence"):
        return _look_up(values, luts[0])
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None:
        return values
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise ValueError("the window is too narrow")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the window exp is infinite and the result 0, as it should be
            return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise ValueError("the VOI LUT function is unknown")
    if width == 0:
        return np.asarray(values > center)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _look_up(values: npt.NDArray[Any], lut: Dataset) -> npt.NDArray[Any]:
    """Look values up; those before the first entry get the first, those after the last entry the last."""
    num_entries, first, _ = lut.LUTDescriptor
    data = lut.LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    return np.asarray(table[np.clip(values.astype(np.int64) - first, 0, (num_entries or 1 << 16) - 1)])


def _first(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a numeric attribute; None where it is absent or empty."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if value in (None, ""):
        return None
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value)
