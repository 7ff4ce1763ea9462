"""Boxes of a heat map: what is hot enough, component by component. Shapes: H and W pixels, N boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Threshold = Literal["maximum", "quantile"]
Score = Literal["max", "mean"]


@dataclass(frozen=True)
class HeatBoxes:
    """Boxes (N x 4: x_min, y_min, x_max, y_max in pixels, the last two exclusive) and their scores (N), best first."""

    boxes: Floats
    scores: Floats


def boxes_from_heat(
    heat: npt.NDArray[np.floating],
    threshold: float = 0.5,
    *,
    relative_to: Threshold = "maximum",
    min_area_px: int = 1,
    score: Score = "max",
    image_score: float = 1.0,
) -> HeatBoxes:
    """Return the bounding boxes of the parts of a heat map that are at least as hot as a threshold.

    Parts hang together over edges and corners. What is not above 0 is never part of one, so a heat map of zeros has no
    box. Boxes come by falling score; of equal ones the upper first, then the left, the smaller.

    A heat map compares places of one image: stretched to [0, 1], the best box of every image, of healthy ones too,
    would have the same score. Metrics over several images (AP, FROC) therefore need ``image_score``.

    Args:
        heat: H x W, finite, as ``heat_map`` returns it.
        threshold: of ``maximum``: this share of the largest value; ``quantile``: the value above which a share of
            1 - threshold of all pixels lies.
        relative_to: see ``threshold``.
        min_area_px: parts of fewer pixels have no box.
        score: the largest or the mean heat of the part's own pixels.
        image_score: factor of all scores, 0 or more: how sure it is that the image has the attribute at all.

    Raises:
        ValueError: the heat map is not H x W or not finite, or the threshold does not lie in [0, 1].

    >>> heat = np.zeros((4, 6))
    >>> heat[1:3, 2:5] = 0.8
    >>> boxes_from_heat(heat).boxes.tolist()
    [[2.0, 1.0, 5.0, 3.0]]
    """
    if heat.ndim != 2 or not np.isfinite(heat).all() or not 0 <= threshold <= 1:
        raise ValueError(
            f"expected finite heat, H x W, and a threshold in [0, 1]; found shape {heat.shape}, threshold {threshold}"
        )
    limit = threshold * heat.max(initial=0.0) if relative_to == "maximum" else np.quantile(heat, threshold)
    hot = (heat >= limit) & (heat > 0)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(hot.astype(np.uint8), connectivity=8)
    found = []
    for part in range(1, count):  # 0 is what is not hot
        left, top, width, height, area = (int(value) for value in statistics[part])
        if area < min_area_px:
            continue
        window = np.s_[top : top + height, left : left + width]
        inside = heat[window][parts[window] == part].astype(np.float64)
        value = float(inside.max() if score == "max" else inside.mean()) * image_score
        found.append((-value, top, left, top + height, left + width))
    rows = np.array(sorted(found), np.float64).reshape(-1, 5)
    return HeatBoxes(boxes=rows[:, [2, 1, 4, 3]], scores=-rows[:, 0])
