"""One mammogram to one PNG: grey scale, breast crop and geometry, as a recipe has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.dicom.contour import contour_box, shrink
from mammoclip.dicom.crop import Indices, bounds, column_extremes, compat_indices, take
from mammoclip.dicom.geometry import CropBox, Placement, pad, stretch
from mammoclip.dicom.grayscale import BORDER_PX, compat_grey_scale, drop_border, strict_grey_scale
from mammoclip.dicom.pixels import Mammogram, read_mammogram
from mammoclip.errors import MammoClipError, RejectedInput

Image = npt.NDArray[Any]

# Run-length strategy on vertical differences: 2 times faster to write than the defaults and to read than other filters
# (``mammoclip.data.png``) at nearly the same size, and the same bytes on every processor, because no hash of matches is
# involved.
_PNG_PARAMETERS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
_MODES = ("compat", "strict")


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a PNG.

    Args:
        grayscale: compat (as released) or strict (as the standard says).
        crop: compat (as released) or strict (contour).
        geometry: stretch to height_px x width_px, or pad: one scale for both axes, on a background of 0.
        height_px: rows of the PNG.
        width_px: columns of the PNG.
        bits: 8, or 16 with the strict grey scale.
        decoder: cpu, or gpu for JPEG 2000 through nvImageCodec; the pixels are the same.
    """

    grayscale: str
    crop: str
    geometry: str
    height_px: int
    width_px: int
    bits: int = 8
    decoder: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what is none of the above.

        Raises:
            ValueError: names the value and what was expected.
        """
        for name, valid in (
            ("grayscale", _MODES),
            ("crop", _MODES),
            ("geometry", ("stretch", "pad")),
            ("bits", (8, 16) if self.grayscale == "strict" else (8,)),
            ("decoder", ("cpu", "gpu")),
        ):
            if getattr(self, name) not in valid:
                expected = " or ".join(map(repr, valid))
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}.")


@dataclass(frozen=True)
class Converted:
    """A PNG file's bytes, and where its pixels come from."""

    png: bytes
    placement: Placement


def to_png_array(mammogram: Mammogram, mode: str) -> tuple[Image, CropBox]:
    """Return the 8-bit crop of the breast in its own resolution, and the crop box in stored pixels.

    Args:
        mammogram: decoded image.
        mode: compat (released grey-scale recipe and crop) or strict (the standard's grey scale, contour crop).

    Raises:
        RejectedInput: constant_image, no_breast or, in strict mode, undecodable (a LUT or window that makes no sense).
        ValueError: if the mode is neither.
    """
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}; expected 'compat' or 'strict'.")
    return _crop(mammogram, mode, mode, bits=8)


def find_breast(image_u8: npt.NDArray[np.uint8], mode: str) -> tuple[int, int, int, int]:
    """Return the crop box (top, bottom, left, right), half-open, in pixels of the image given.

    In compat mode it spans the first to the last index that the released code keeps; where that code keeps two runs of
    equal length, the pixels between them are inside the box but not in the crop (see ``crop.compat_indices``).

    Raises:
        RejectedInput: no_breast, in strict mode, if nothing stands out of the background.
        ValueError: if the mode is neither.
    """
    if mode not in _MODES:
        raise ValueError(f"mode is {mode!r}; expected 'compat' or 'strict'.")
    if mode == "compat":
        return bounds(*_compat_indices_of_grey(image_u8))
    return contour_box(shrink(image_u8), image_u8.shape)


def convert(mammogram: Mammogram, recipe: Recipe) -> tuple[Image, Placement]:
    """Return the image of the PNG, uint8 or uint16 of height_px x width_px, and where its pixels come from.

    Raises:
        RejectedInput: as ``to_png_array``.
    """
    image, crop = _crop(mammogram, recipe.grayscale, recipe.crop, recipe.bits)
    fit = stretch if recipe.geometry == "stretch" else pad
    return fit(image, crop, (recipe.height_px, recipe.width_px))


def convert_file(path: Path, recipe: Recipe) -> Converted:
    """Read a DICOM file and return its PNG.

    Raises:
        RejectedInput: as ``read_mammogram`` and ``to_png_array``.
    """
    image, placement = convert(read_mammogram(path, recipe.decoder), recipe)
    return Converted(encode_png(image), placement)


def convert_or_reject(recipe: Recipe, path: Path) -> Converted | RejectedInput:
    """Return what ``convert_file`` returns or raises: workers hand both back."""
    try:
        return convert_file(path, recipe)
    except RejectedInput as error:
        return error


def encode_png(image: Image) -> bytes:
    """Return an image of one channel, uint8 or uint16, as a PNG file."""
    encoded, buffer = cv2.imencode(".png", image, _PNG_PARAMETERS)
    if not encoded:
        raise MammoClipError(f"OpenCV could not encode an image of shape {image.shape} as PNG")
    return bytes(buffer.tobytes())


def _crop(mammogram: Mammogram, grayscale: str, crop: str, bits: int) -> tuple[Image, CropBox]:
    """Return the grey values of the breast alone; only those are looked up."""
    pixels = drop_border(mammogram.pixels)
    extremes = column_extremes(pixels)
    if grayscale == "compat":
        grey = compat_grey_scale(mammogram, extremes.low, extremes.high)
    else:
        grey = strict_grey_scale(mammogram, extremes.low, extremes.high, bits)

    def to_u8(values: Image) -> Image:
        return grey(values) if bits == 8 else (grey(values) >> 8).astype(np.uint8)

    if crop == "compat":
        if grayscale == "compat":
            rows, columns = compat_indices(pixels, to_u8, extremes)
        else:  # this grey need not rise or fall with the stored value
            rows, columns = _compat_indices_of_grey(to_u8(pixels))
        cropped, box = take(pixels, rows, columns), bounds(rows, columns)
    else:
        box = contour_box(to_u8(shrink(pixels)), pixels.shape)
        cropped = pixels[box[0] : box[1], box[2] : box[3]]
    return grey(cropped), CropBox(*(side + BORDER_PX for side in box))


def _compat_indices_of_grey(image_u8: Image) -> tuple[Indices, Indices]:
    return compat_indices(image_u8, lambda values: values, column_extremes(image_u8))
