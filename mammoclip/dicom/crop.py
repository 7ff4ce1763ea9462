"""The released breast crop, by runs of columns and rows that vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]

_BACKGROUND = 40
"""Grey values up to this are background in the released crop."""


class ColumnExtremes(NamedTuple):
    """The smallest and the largest value of an image, and those of each column inside the middle rows.

    They decide range and columns: an image is read once for both.
    """

    low: int
    high: int
    middle_low: Image
    middle_high: Image


def column_extremes(pixels: Image) -> ColumnExtremes:
    """Return the extremes of ``pixels``, which have at least one row and one column."""
    start, stop = _middle(len(pixels))
    middle = pixels[start : max(stop, start + 1)]  # of no row no column varies, nor of one
    middle_low, middle_high = middle.min(axis=0), middle.max(axis=0)
    rest = [part for part in (pixels[:start], pixels[stop:]) if part.size]
    low = min(int(line.min()) for line in (middle_low, *(part.min(axis=0) for part in rest)))
    high = max(int(line.max()) for line in (middle_high, *(part.max(axis=0) for part in rest)))
    return ColumnExtremes(low, high, middle_low, middle_high)


def compat_indices(
    pixels: Image, grey_of: Callable[[Image], Image], extremes: ColumnExtremes
) -> tuple[Indices, Indices]:
    """Return the row and column indices that the released crop keeps.

    Grey values up to 40 are set to 0. A column is *on* when its values inside the middle rows (2 x int(0.4 H) about
    H // 2) are not all equal; the longest run of on-columns is kept, then the same for rows on the kept columns.

    Args:
        pixels: image without its border.
        grey_of: 8-bit grey of its values, which rises or falls with them: the smallest and the largest value of a
            column then tell whether its greys differ, and no grey image is needed.
        extremes: ``column_extremes(pixels)``.
    """
    columns = _longest_runs(_differ(grey_of(extremes.middle_low), grey_of(extremes.middle_high)))
    kept = pixels[:, columns[0] : columns[-1] + 1]
    if kept.shape[1] != len(columns):  # runs of equal count were glued together
        kept = pixels[:, columns]
    start, stop = _middle(kept.shape[1])
    band = kept[:, start : max(stop, start + 1)]  # of no column none varies, nor of one
    rows = _longest_runs(_differ(grey_of(band.min(axis=1)), grey_of(band.max(axis=1))))
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


def _middle(size: int) -> tuple[int, int]:
    middle, half = size // 2, int(0.4 * size)
    return middle - half, middle + half


def _differ(darkest: Image, brightest: Image) -> npt.NDArray[np.bool_]:
    """Tell where two greys differ, if all background is the same."""
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
