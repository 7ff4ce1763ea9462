"""A mammogram with its heat map laid over it. Shapes: H and W pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_OPACITY = 0.55
_OUTLINED = 0.5  # share of the largest heat, that of ``boxes_from_heat``
_LINE_WIDTH = 1 / 400  # of the shorter side
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def overlay(grey: npt.NDArray[np.uint8 | np.uint16], heat: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return a grey image in the colours of its heat, uint8 H x W x 3 in the order blue, green, red, as OpenCV has it.

    The hotter, the brighter and the less transparent, and what is cold is left grey. A line surrounds what is at least
    half as hot as the hottest place. An image of 16 bits is stretched to 8.

    Args:
        grey: H x W.
        heat: H x W in [0, 1].

    Raises:
        ValueError: image and heat map are not of one shape.
    """
    if grey.shape != heat.shape:
        raise ValueError(f"image {grey.shape} and heat map {heat.shape} are not of one shape")
    if grey.dtype != np.uint8:
        grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    colours = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)
    opacity = (_OPACITY * heat)[:, :, None]
    blended: npt.NDArray[np.uint8] = np.rint(grey[:, :, None] * (1 - opacity) + colours * opacity).astype(np.uint8)
    hot = ((heat >= _OUTLINED * heat.max(initial=0.0)) & (heat > 0)).astype(np.uint8)
    lines, _ = cv2.findContours(hot, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(_LINE_WIDTH * min(grey.shape)))
    for colour, thickness in ((_BLACK, 3 * width), (_WHITE, width)):
        cv2.drawContours(blended, lines, -1, colour, thickness)
    return blended
