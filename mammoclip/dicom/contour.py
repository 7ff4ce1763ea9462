"""The contour crop: where the breast is, whatever else is in the picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mammoclip.errors import RejectedInput

Image = npt.NDArray[Any]
Box = tuple[int, int, int, int]

_HEIGHT = 512
"""Rows of the small copy on which the breast is looked for; all lengths below are in its pixels."""
_THIN = 9
"""Nothing thinner is taken for breast."""
_DENSE = 0.4
"""Tissue brighter than this part of the breast's median is its core; glow of a film along the chest wall is darker."""
_TAIL = 0.08
"""Rows of the core narrower than this part of the widest are a fold of the belly or a strip of glow."""
_REACH = 22
"""How far skin, nipple and the ends of the breast may lie outside the core."""
_BAND = _HEIGHT // 20
"""Widest film border or band of noise along an edge."""


def shrink(image: Image) -> Image:
    """Return every n-th row and column, so that about 1,000 rows are left: grey is looked up for those only."""
    step = max(1, image.shape[0] // (2 * _HEIGHT))
    return np.ascontiguousarray(image[::step, ::step])


def contour_box(shrunk_u8: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Box:
    """Return the half-open box (top, bottom, left, right) of the breast in an image of ``shape``.

    The breast is the largest component above Otsu's threshold on the logarithm, which keeps the faint skin line.
    Labels and plates are not connected to it; film borders and bands of noise along the edges are blackened before;
    thin things fall to an opening. What is far from the bright core (glow along the chest wall, a fold of the belly) is
    left out.

    Args:
        shrunk_u8: 8-bit grey of the image as ``shrink`` returns it.
        shape: rows and columns of the image itself.

    Raises:
        RejectedInput: no_breast, if nothing stands out of the background.
    """
    height, width = shape
    factor = max(1.0, height / _HEIGHT)
    small_size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = _without_bands(cv2.resize(shrunk_u8, small_size, interpolation=cv2.INTER_AREA))
    smooth = cv2.GaussianBlur(small, (0, 0), 1.5).astype(np.float32)
    tissue = _largest_component(_open(_above_otsu(np.log1p(smooth))))
    dense = (smooth > _DENSE * np.median(smooth[tissue > 0])).astype(np.uint8)
    core = _without_tails(_largest_component(_open(dense & tissue)))
    near = cv2.dilate(core, _disc(2 * _REACH + 1))
    left, top, box_width, box_height = cv2.boundingRect(_largest_component(tissue & near))
    y, x = height / small_size[1], width / small_size[0]
    return (
        int(top * y),
        min(height, int(np.ceil((top + box_height) * y))),
        int(left * x),
        min(width, int(np.ceil((left + box_width) * x))),
    )


def _without_bands(image: Image) -> Image:
    """Blacken narrow bands along an edge: rows that are nowhere black, and columns that are nearly all white.

    A breast may fill a column from end to end, but hardly an outermost row.
    """
    peak = float(image.max())
    result = image.copy()
    for lines, covered in (
        (result, (image > 0.1 * peak).mean(axis=1) > 0.9),
        (result.T, (image > 0.85 * peak).mean(axis=0) > 0.7),
    ):
        for band, run in ((lines, covered), (lines[::-1], covered[::-1])):
            width = int(np.argmin(np.append(run, False)))
            if 0 < width <= _BAND:
                band[: width + 2] = 0  # and its blurred rim
    return result


def _above_otsu(values: Image) -> Image:
    spread = float(np.ptp(values))
    if spread == 0:
        raise RejectedInput("no_breast", "nothing stands out of the background")
    scaled = ((values - values.min()) * (255 / spread)).astype(np.uint8)
    return np.asarray(cv2.threshold(scaled, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1])


def _open(mask: Image) -> Image:
    # A pad of background, so that opening eats a border at the image edge like any other thin thing.
    padded = cv2.copyMakeBorder(mask, _THIN, _THIN, _THIN, _THIN, cv2.BORDER_CONSTANT)
    return np.asarray(cv2.morphologyEx(padded, cv2.MORPH_OPEN, _disc(_THIN))[_THIN:-_THIN, _THIN:-_THIN])


def _disc(diameter: int) -> Image:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)))


def _largest_component(mask: Image) -> Image:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        raise RejectedInput("no_breast", "nothing stands out of the background")
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)


def _without_tails(core: Image) -> Image:
    """Keep the rows about the widest one down to the first on either side that is narrow."""
    widths = core.sum(axis=1)
    widest = int(widths.argmax())
    narrow = np.flatnonzero(widths < _TAIL * widths[widest])
    first = narrow[narrow < widest].max(initial=-1) + 1
    last = narrow[narrow > widest].min(initial=len(widths))
    result = np.zeros_like(core)
    result[first:last] = core[first:last]
    return result
