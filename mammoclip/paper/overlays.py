"""What is drawn on a mammogram: boxes with their scores, and heat maps. Shapes: H and W pixels of a crop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels of the crop."""
TRUE_COLOUR, FOUND_COLOUR = "#F0E442", "#56B4E9"  # yellow and sky blue of Okabe and Ito: on grey they are none
DASHES = (0, (3, 1.5))
HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0.0, (0.84, 0.37, 0.0, 0.0)), (0.5, (0.84, 0.37, 0.0, 0.45)), (1.0, (1.0, 0.45, 0.1, 0.9))]
)
"""From nothing over vermilion to bright vermilion: true and found boxes are seen on it."""
_LABEL_PT = 6.0
_LINE_HEIGHT, _CHARACTER_WIDTH = 1.35, 0.66  # of a label, in its font size


def show_crop(axes: Axes, crop: npt.NDArray[np.uint8], width_px: int) -> None:
    """Show a crop (H, W) at most ``width_px`` wide, in coordinates of its own pixels, without axes."""
    height, width = crop.shape
    size = (width_px, max(1, round(width_px * height / width)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA) if width > width_px else crop
    axes.imshow(small, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_heat(axes: Axes, cells: npt.NDArray[np.floating], shape: tuple[int, int], width_px: int) -> None:
    """Lay a heat map of cells that share a crop of ``shape`` (H, W) evenly over it, as a share of its maximum.

    What is negative counts as nothing, as do all cells of a map without any positive one.
    """
    height, width = shape
    positive = np.clip(cells, 0, None).astype(np.float64)
    share = positive / positive.max() if positive.max() > 0 else positive
    size = (width_px, max(1, round(width_px * height / width)))
    smooth = cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)
    axes.imshow(smooth, cmap=HEAT, vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")


def draw_box(axes: Axes, box: Box, colour: str, *, linewidth: float = 1.2, dashed: bool = False) -> None:
    """Outline a box: a bright line on a black one is seen on dark and on bright tissue."""
    x_min, y_min, x_max, y_max = box
    axes.add_patch(
        Rectangle(
            (x_min, y_min),
            x_max - x_min,
            y_max - y_min,
            fill=False,
            edgecolor=colour,
            linewidth=linewidth,
            linestyle=DASHES if dashed else "-",
            path_effects=[withStroke(linewidth=2.3 * linewidth, foreground="black")],
        )
    )


def label_boxes(
    axes: Axes, boxes: Sequence[Box], texts: Sequence[str], colour: str, shape: tuple[int, int], width_in: float
) -> None:
    """Write a text beside each box, inside the picture and away from the texts before it.

    Args:
        axes: of a crop of ``shape`` (H, W).
        boxes: of that crop.
        texts: one for each box.
        colour: of the texts.
        shape: of the crop.
        width_in: of the axes, in inches.
    """
    height, width = shape
    unit = width / (72 * width_in)  # pixels of the crop in a point
    taken: list[Box] = []
    for box, text in zip(boxes, texts, strict=True):
        size = (_LABEL_PT * _CHARACTER_WIDTH * len(text) * unit, _LABEL_PT * _LINE_HEIGHT * unit)
        place = next((each for each in _places(box, size, (width, height)) if not _overlaps(each, taken)), None)
        if place is None:
            continue
        taken.append(place)
        axes.text(
            (place[0] + place[2]) / 2,
            (place[1] + place[3]) / 2,
            text,
            ha="center",
            va="center",
            color=colour,
            fontsize=_LABEL_PT,
            bbox={"facecolor": "black", "edgecolor": "none", "pad": 0.4},
        )


def _places(box: Box, size: tuple[float, float], limits: tuple[float, float]) -> Iterable[Box]:
    """Yield where a text of ``size`` may stand: over and under the box, further up and down, at last inside."""
    wide, high = size
    lefts = (min(max(left, 0.0), limits[0] - wide) for left in (box[0], box[2] - wide))
    for left in lefts:
        for top in (box[1] - high, box[3]):
            if 0 <= top <= limits[1] - high:
                yield left, top, left + wide, top + high
    left = min(max(box[0], 0.0), limits[0] - wide)
    steps = range(int(limits[1] / high) + 1)
    outside = (top for step in steps for top in (box[1] - (step + 1) * high, box[3] + step * high))
    for top in (*outside, *(box[1] + step * high for step in steps)):
        if 0 <= top <= limits[1] - high:
            yield left, top, left + wide, top + high


def _overlaps(place: Box, others: Iterable[Box]) -> bool:
    x_min, y_min, x_max, y_max = place
    return any(x_min < other[2] and other[0] < x_max and y_min < other[3] and other[1] < y_max for other in others)
