"""The released breast crop, by runs of columns and rows that vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

_BACKGROUND = 40
"""Grey values up to this are background in the released crop."""


def compat_indices(pixels: Image, grey_of: Callable[[Image], Image]) -> tuple[Indices, Indices]:
    """Return the row and column indices that the released crop keeps.

    Grey values up to 40 are set to 0. A column is *on* when its values inside the middle rows (2 x int(0.4 H) about
    H // 2) are not all equal; the longest run of on-columns is kept, then the same for rows on the kept columns.

    Args:
        pixels: image without its border.
        grey_of: 8-bit grey of its values, which rises or falls with them: the smallest and the largest value of a
            column then tell whether its greys differ, and no grey image is needed.
    """
    columns = _longest_runs(_varies(_middle(pixels), 0, grey_of))
    kept = pixels[:, columns[0] : columns[-1] + 1]
    if kept.shape[1] != len(columns):  # runs of equal count were glued together
        kept = pixels[:, columns]
    rows = _longest_runs(_varies(_middle(kept.T).T, 1, grey_of))
    return rows, columns


def bounds(rows: Indices, columns: Indices) -> tuple[int, int, int, int]:
    """Return the half-open box (top, bottom, left, right) from the first to the last index."""
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def take(pixels: Image, rows: Indices, columns: Indices) -> Image:
    """Return the rows and columns of an image, as a view where they are without gaps."""
    top, bottom, left, right = bounds(rows, columns)
    if (bottom - top, right - left) == (len(rows), len(columns)):
        return pixels[top:bottom, left:right]
    return pixels[np.ix_(rows, columns)]


def _middle(image: Image) -> Image:
    middle, half = image.shape[0] // 2, int(0.4 * image.shape[0])
    return image[middle - half : middle + half]


def _varies(band: Image, axis: int, grey_of: Callable[[Image], Image]) -> npt.NDArray[np.bool_]:
    if band.shape[axis] == 0:
        return np.zeros(band.shape[1 - axis], np.bool_)
    darkest, brightest = grey_of(band.min(axis)), grey_of(band.max(axis))
    # Equal, or both background.
    return np.asarray((darkest != brightest) & (np.maximum(darkest, brightest) > _BACKGROUND), np.bool_)


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
