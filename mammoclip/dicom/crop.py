"""Breast crop: the released run-length crop (compat) and a contour crop (strict)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.dicom.geometry import CropBox
from mammoclip.dicom.grayscale import BORDER_PX, to_uint8_compat, to_uint8_strict
from mammoclip.dicom.pixels import Mammogram
from mammoclip.errors import RejectedInput

Image = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]

_BACKGROUND = 40
"""Values up to this are background in the released crop."""
_CONTOUR_HEIGHT = 512
"""Rows of the small copy on which the contour crop works."""


def to_png_array(
    mammogram: Mammogram, mode: str, size_px: tuple[int, int] | None = None
) -> tuple[npt.NDArray[np.uint8], CropBox]:
    """Return the 8-bit crop of the breast, and the crop box in stored pixels.

    Args:
        mammogram: decoded image.
        mode: compat (released grey-scale recipe and crop) or strict (the standard's grey scale, contour crop).
        size_px: (height, width) to which the crop is stretched by area interpolation; None: not resized.

    Raises:
        RejectedInput: constant_image, no_breast or, in strict mode, undecodable (a LUT or window that makes no sense).
        ValueError: if the mode is neither.
    """
    if mode == "compat":
        grey = to_uint8_compat(mammogram.pixels, mammogram.photometric)
        rows, columns = compat_indices(grey)
        cropped = grey[np.ix_(rows, columns)]
        top, bottom, left, right = _bounds(rows, columns)
    elif mode == "strict":
        grey = to_uint8_strict(mammogram)
        top, bottom, left, right = _contour_box(grey)
        cropped = grey[top:bottom, left:right]
    else:
        raise ValueError(f"mode is {mode!r}; expected 'compat' or 'strict'.")
    if size_px is not None:
        cropped = np.asarray(cv2.resize(cropped, size_px[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return cropped, CropBox(top + BORDER_PX, bottom + BORDER_PX, left + BORDER_PX, right + BORDER_PX)


def find_breast(image_u8: Image, mode: str) -> tuple[int, int, int, int]:
    """Return the crop box (top, bottom, left, right), half-open, in pixels of the image given.

    In compat mode it spans the first to the last index that the released code keeps; where that code keeps two runs of
    equal length, the pixels between them are inside the box but not in the crop (see ``compat_indices``).

    Raises:
        RejectedInput: no_breast, in strict mode, if nothing stands out of the background.
        ValueError: if the mode is neither.
    """
    if mode not in ("compat", "strict"):
        raise ValueError(f"mode is {mode!r}; expected 'compat' or 'strict'.")
    return _bounds(*compat_indices(image_u8)) if mode == "compat" else _contour_box(image_u8)


def compat_indices(image_u8: Image) -> tuple[Indices, Indices]:
    """Return the row and column indices that the released crop keeps.

    Values up to 40 are set to 0. A column is *on* when its values inside the middle rows (2 x int(0.4 H) about H // 2)
    are not all equal; the longest run of on-columns is kept, then the same for rows on the kept columns.
    """
    work = np.where(image_u8 <= _BACKGROUND, np.uint8(0), image_u8)
    columns = _longest_runs(_varies(_middle_rows(work)))
    rows = _longest_runs(_varies(_middle_rows(work[:, columns].T)))
    return rows, columns


def _middle_rows(image: Image) -> Image:
    middle, half = image.shape[0] // 2, int(0.4 * image.shape[0])
    return image[middle - half : middle + half]


def _varies(band: Image) -> npt.NDArray[np.bool_]:
    return np.asarray((band != band[:1]).any(axis=0), np.bool_)


def _longest_runs(on: npt.NDArray[np.bool_]) -> Indices:
    """Return every position whose run-length count equals the largest, with the released code's counting.

    count = right - left - 1, where left is the last off position at or before (0 if none) and right the next off
    position at or after (N - 1 if none): runs that touch an end count one less, and runs of equal count are all kept.
    """
    size = len(on)
    positions = np.arange(size)
    left = np.maximum.accumulate(np.where(on, 0, positions))
    right = np.minimum.accumulate(np.where(on, size - 1, positions)[::-1])[::-1]
    count = right - left - 1
    return np.flatnonzero(count == count.max())


def _bounds(rows: Indices, columns: Indices) -> tuple[int, int, int, int]:
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _contour_box(image_u8: Image) -> tuple[int, int, int, int]:
    """Return the bounds of the largest breast-like component, with a margin of one pixel of the small copy.

    Labels and plates fall away because they are not connected to the breast, a thin film border because opening
    removes it. Otsu's threshold on the logarithm keeps the faint skin line.
    """
    height, width = image_u8.shape
    factor = max(1.0, height / _CONTOUR_HEIGHT)
    small_size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(image_u8, small_size, interpolation=cv2.INTER_AREA)
    logarithm = np.log1p(cv2.GaussianBlur(small, (0, 0), 2).astype(np.float32))
    spread = float(logarithm.max() - logarithm.min())
    if spread == 0:
        raise RejectedInput("no_breast", "nothing stands out of the background")
    scaled = ((logarithm - logarithm.min()) * (255 / spread)).astype(np.uint8)
    _, mask = cv2.threshold(scaled, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    # A pad of background, so that opening eats a border at the image edge like any other thin thing.
    opened = cv2.morphologyEx(cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_CONSTANT), cv2.MORPH_OPEN, kernel)
    count, _, stats, _ = cv2.connectedComponentsWithStats(opened[8:-8, 8:-8], connectivity=4)
    if count < 2:
        raise RejectedInput("no_breast", "nothing stands out of the background")
    left, top, box_width, box_height, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    y, x = height / small_size[1], width / small_size[0]
    return (
        max(0, int((top - 1) * y)),
        min(height, int(np.ceil((top + box_height + 1) * y))),
        max(0, int((left - 1) * x)),
        min(width, int(np.ceil((left + box_width + 1) * x))),
    )
