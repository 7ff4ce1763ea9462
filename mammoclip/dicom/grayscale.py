"""Stored pixels to 8-bit grey: the released recipe (compat) and the standard's (strict)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels import apply_modality_lut, apply_voi_lut

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

    Reads the Modality LUT Sequence or Rescale Slope (0028,1053) and Intercept (0028,1052), then the VOI LUT Sequence
    (0028,3010) or Window Center (0028,1050) and Width (0028,1051) with VOI LUT Function (0028,1056); what is absent
    changes nothing (DICOM PS3.3 C.11.1, C.11.2). The result is scaled to the range of the image.

    Raises:
        RejectedInput: constant_image.
    """
    dataset = mammogram.dataset
    values = apply_voi_lut(apply_modality_lut(drop_border(mammogram.pixels), dataset), dataset).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if high == low:
        raise RejectedInput("constant_image", "all pixels are equal")
    values -= low
    values *= 255 / (high - low)
    grey = np.rint(values).astype(np.uint8)
    return 255 - grey if mammogram.photometric == "MONOCHROME1" else grey
