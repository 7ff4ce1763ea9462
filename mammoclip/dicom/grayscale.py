"""Stored values to grey: the released recipe (compat) and the standard's (strict), both as look-up tables.

Grey is a function of the stored value. It is computed in float64 for each value that occurs, not for each pixel, and
the pixels that are needed are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.multival import MultiValue

from mammoclip.dicom.header import rejecting
from mammoclip.dicom.pixels import Mammogram
from mammoclip.errors import RejectedInput

Pixels = npt.NDArray[Any]
Formula = Callable[[Pixels], Pixels]

BORDER_PX = 5
"""Pixels dropped on each side before anything else: detector edges are often saturated."""


class GreyScale:
    """Grey values (uint8 or uint16) of stored values, by a formula on int64 arrays."""

    def __init__(self, formula: Formula, low: int, high: int, dtype: np.dtype[Any]) -> None:
        """Tabulate ``formula`` for stored values from ``low`` to ``high`` of ``dtype``; all others become 0."""
        self._formula = formula
        self._table: Pixels | None = None
        if dtype.itemsize <= 2:
            grey = formula(np.arange(low, high + 1))
            self._table = np.zeros(1 << (8 * dtype.itemsize), grey.dtype)
            self._table[np.arange(low, high + 1) % len(self._table)] = grey  # a signed value is found by its bits

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return the grey values of ``pixels``, same shape."""
        if self._table is None:
            return self._formula(pixels.astype(np.int64))
        return np.asarray(cv2.LUT(pixels.view(f"u{pixels.dtype.itemsize}"), self._table)).reshape(pixels.shape)


def drop_border(pixels: Pixels) -> Pixels:
    """Return ``pixels`` without the border of ``BORDER_PX``.

    Raises:
        RejectedInput: constant_image, if nothing but border is there.
    """
    if min(pixels.shape) <= 2 * BORDER_PX:
        raise RejectedInput("constant_image", f"the image is {pixels.shape}, all of it border")
    return pixels[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]


def compat_grey_scale(mammogram: Mammogram, low: int, high: int) -> GreyScale:
    """Return the released recipe: uint8(255 * (x - min) / max(x - min)) in float64, truncated.

    MONOCHROME1 becomes max(x) - x before. No LUT or window is applied.

    Args:
        mammogram: decoded image.
        low: its smallest stored value, without the border.
        high: its largest.

    Raises:
        RejectedInput: constant_image (the released code divides by zero).
    """
    if low == high:
        raise RejectedInput("constant_image", "all pixels are equal")
    inverted = mammogram.photometric == "MONOCHROME1"

    def formula(stored: Pixels) -> Pixels:
        values = (high - stored if inverted else stored - low).astype(np.float64)
        return np.asarray(255 * (values / (high - low)), np.float64).astype(np.uint8)

    return GreyScale(formula, low, high, mammogram.pixels.dtype)


def strict_grey_scale(mammogram: Mammogram, low: int, high: int, bits: int) -> GreyScale:
    """Return the standard's recipe: Modality LUT, VOI LUT or window, and MONOCHROME1 inversion last; rounded.

    Reads the Modality LUT Sequence (0028,3000) or Rescale Slope (0028,1053) and Intercept (0028,1052), then the VOI LUT
    Sequence (0028,3010) or the first Window Center (0028,1050) and Width (0028,1051) with VOI LUT Function (0028,1056);
    what is absent or empty changes nothing (DICOM PS3.3 C.11.1, C.11.2). The range of the window, of the VOI LUT's
    entries, or without either that of the image, becomes 0 to 2**bits - 1. Pixel Padding Value (0028,0120), up to Pixel
    Padding Range Limit (0028,0121), is no image: it has no part in the range and becomes 0 (PS3.3 C.7.5.1.1.2).

    Args:
        mammogram: decoded image.
        low: its smallest stored value, without the border.
        high: its largest.
        bits: 8 or 16.

    Raises:
        RejectedInput: constant_image, or undecodable if a LUT or window is not as the standard has it.
    """
    pixels, dataset = drop_border(mammogram.pixels), mammogram.dataset
    top, dtype = (1 << bits) - 1, np.uint8 if bits == 8 else np.uint16
    with rejecting("undecodable", "the Modality LUT, VOI LUT or window cannot be applied"):
        padding = _padding(dataset)
        low, high = _without_padding(pixels, low, high, padding)
        apply_modality = _modality(dataset)
        apply_voi = _voi(dataset) or _scale_to_range(apply_modality(_values_between(low, high)))

        def formula(stored: Pixels) -> Pixels:
            fraction = apply_voi(apply_modality(stored))
            grey = np.rint(top * (fraction if mammogram.photometric != "MONOCHROME1" else 1 - fraction)).astype(dtype)
            if padding is not None:
                grey[(padding[0] <= stored) & (stored <= padding[1])] = 0
            return np.asarray(grey)

        if np.ptp(formula(_values_between(low, high))) == 0:
            raise RejectedInput("constant_image", "all pixels are equal")
        return GreyScale(formula, low, high, pixels.dtype)


def _values_between(low: int, high: int) -> Pixels:
    """Return the values from ``low`` to ``high``; evenly spaced ones where they are more than 16 bits hold."""
    return np.arange(low, high + 1, max(1, (high - low) // 0xFFFF)) if high - low > 0xFFFF else np.arange(low, high + 1)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    value = _first(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _first(dataset, "PixelPaddingRangeLimit")
    first, last = sorted((int(value), int(value if limit is None else limit)))
    return first, last


def _without_padding(pixels: Pixels, low: int, high: int, padding: tuple[int, int] | None) -> tuple[int, int]:
    """Return the smallest and the largest stored value that is no padding."""
    if padding is None or (low > padding[1] or high < padding[0]) or (low < padding[0] and padding[1] < high):
        return low, high
    image = pixels[(pixels < padding[0]) | (pixels > padding[1])]
    if not image.size:
        raise RejectedInput("constant_image", "all pixels are padding")
    return int(image.min()), int(image.max())


def _modality(dataset: Dataset) -> Formula:
    if luts := dataset.get("ModalityLUTSequence"):
        return _look_up(luts[0])[0]
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return lambda stored: stored
    return partial(_rescale, slope, intercept)


def _rescale(slope: float, intercept: float, stored: Pixels) -> Pixels:
    with np.errstate(over="ignore"):
        values = stored * slope + intercept
    if not np.isfinite(values).all():
        raise ValueError("the rescaled values are not finite")
    return np.asarray(values)


def _voi(dataset: Dataset) -> Formula | None:
    """Return the VOI LUT, else the window, with its output range as 0 to 1; None if there is neither."""
    if luts := dataset.get("VOILUTSequence"):
        look_up, table = _look_up(luts[0])
        scale = _scale_to_range(table)
        return lambda values: scale(look_up(values))
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise ValueError("the window is too narrow")
    if function == "SIGMOID":
        return partial(_sigmoid, center, width)
    if function == "LINEAR":
        return partial(_linear, center - 0.5, width - 1)
    if function == "LINEAR_EXACT":
        return partial(_linear, center, width)
    raise ValueError("the VOI LUT function is unknown")


def _sigmoid(center: float, width: float, values: Pixels) -> Pixels:
    with np.errstate(over="ignore"):  # far below the window exp is infinite and the result 0, as it should be
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))


def _linear(center: float, width: float, values: Pixels) -> Pixels:
    if width == 0:
        return np.asarray(values > center, np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _scale_to_range(values: Pixels) -> Formula:
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise RejectedInput("constant_image", "all pixels are equal")
    return lambda other: (other - low) / (high - low)


def _look_up(lut: Dataset) -> tuple[Formula, Pixels]:
    """Return the look-up, and the table: before its first entry comes the first, after the last the last."""
    num_entries, first, _ = lut.LUTDescriptor
    data = lut.LUTData
    order = ">" if lut.original_encoding[1] is False else "<"  # of bytes (OW); pydicom converts numbers (US) itself
    table = (np.frombuffer(data, f"{order}u2") if isinstance(data, bytes) else np.asarray(data))[
        : num_entries or 1 << 16
    ]
    if len(table) < (num_entries or 1 << 16):
        raise ValueError("the LUT is shorter than its descriptor says")
    return lambda values: table[(np.clip(values, first, first + len(table) - 1) - first).astype(np.int64)], table


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
