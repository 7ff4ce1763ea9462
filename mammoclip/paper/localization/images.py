"""Test images with what was found in them: boxes of detectors, and heat maps of Mammo-FActOR beside Grad-CAM.

Pictures name neither patient nor image: in some data sets the name of an image holds that of the patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mammoclip.localization.froc import froc_curve
from mammoclip.paper.curves import title_of
from mammoclip.paper.gallery import ReadCrop
from mammoclip.paper.localization.curves import IOU, Detected
from mammoclip.paper.overlays import (
    DASHES,
    FOUND_COLOUR,
    HEAT,
    TRUE_COLOUR,
    Box,
    draw_box,
    label_boxes,
    show_crop,
    show_heat,
)
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number, task_name

MAX_BOXES = 3
"""Boxes found in an image that are drawn: the surest."""
SHOWN_FALSE_POSITIVES = 1.0
"""Boxes of a detector are drawn down to the score at which an image has so many false positives on average."""
_WIDTH_IN, _WIDTH_PX = 1.25, 250
_GAP_IN, _MARGIN_IN = 0.08, 0.1
_SUPTITLE_IN, _TITLE_IN, _LINE_IN, _LEGEND_IN = 0.45, 0.28, 0.16, 0.5
_CORNERS = ["x_min", "y_min", "x_max", "y_max"]


@dataclass(frozen=True)
class Shown:
    """An image of a row of heat maps: how it is called, its true and found boxes, and a map for each method.

    Maps have (cells (rows, columns), text below the method's name).
    """

    title: str
    image_id: str
    true_boxes: Sequence[Box]
    found_boxes: Sequence[Box]
    maps: Mapping[str, tuple[npt.NDArray[np.float32], str]]


def draw_found_boxes(
    detectors: Sequence[Detected], images: pl.DataFrame, read_crop: ReadCrop, finding: str, dataset: str
) -> Figure:
    """Return a row of test images for each detector: true boxes and the surest boxes found, with their scores.

    A detector of all findings may not have been tested on an image of which another finding is not known.

    Args:
        detectors: of the finding, one at least.
        images: image_id and label of those shown, rows of the first detector's tested images, one at least.
        read_crop: called with the id of every image that is shown.
        finding: its name.
        dataset: its name.
    """
    crops = {image_id: read_crop(image_id) for image_id in images["image_id"]}
    height_in = _height_in(crops)
    above_in = _TITLE_IN + _LINE_IN
    row_in = above_in + height_in
    with figure_style():
        page = _Page(len(crops) * (_WIDTH_IN + _GAP_IN) - _GAP_IN, len(detectors) * (row_in + _MARGIN_IN))
        for row, detector in enumerate(detectors):
            top_in = row * (row_in + _MARGIN_IN)
            threshold = _threshold(detector)
            page.write(f"{detector.name}: {_describe(threshold)}", 0, top_in + _TITLE_IN / 2)
            for column, (image_id, label) in enumerate(images.select("image_id", "label").rows()):
                axes = page.panel(column * (_WIDTH_IN + _GAP_IN), top_in + above_in, _WIDTH_IN, height_in)
                crop = crops[image_id]
                show_crop(axes, crop, _WIDTH_PX)
                if image_id not in detector.tested.rows["image_id"]:
                    axes.set_title("not tested", fontsize=8, pad=2)
                    continue
                axes.set_title("with lesion" if label else "without", fontsize=8, pad=2)
                for box in detector.tested.boxes_of(image_id):
                    draw_box(axes, box, TRUE_COLOUR)
                found, scores = _surest(detector, image_id, threshold)
                for box in found:
                    draw_box(axes, box, FOUND_COLOUR, dashed=True)
                texts = [format_number(score) for score in scores]
                label_boxes(axes, found, texts, FOUND_COLOUR, (crop.shape[0], crop.shape[1]), _WIDTH_IN)
        page.title(title_of(finding, dataset))
        page.legend(dashed=True)
        return page.figure


def draw_heat_maps(
    rows: Mapping[str, Sequence[Shown]], methods: Sequence[str], read_crop: ReadCrop, dataset: str
) -> Figure:
    """Return a row of images for each finding: each with its true boxes, then with the heat map of each method.

    Over the maps of the first method lie the boxes found by it, thinner.

    Args:
        rows: images by finding, one row at least, each with one image at least.
        methods: whose maps are shown.
        read_crop: called with the id of every image that is shown.
        dataset: its name.
    """
    crops = {each.image_id: read_crop(each.image_id) for shown in rows.values() for each in shown}
    height_in = _height_in(crops)
    panels = 1 + len(methods)
    group_in = panels * (_WIDTH_IN + _GAP_IN / 2) - _GAP_IN / 2
    above_in = 2 * _TITLE_IN + 3 * _LINE_IN
    row_in = above_in + height_in
    num_groups = max(len(shown) for shown in rows.values())
    with figure_style():
        page = _Page(num_groups * (group_in + 3 * _GAP_IN) - 3 * _GAP_IN, len(rows) * (row_in + _MARGIN_IN))
        for row, (finding, shown) in enumerate(rows.items()):
            top_in = row * (row_in + _MARGIN_IN)
            page.write(task_name(finding), 0, top_in + _TITLE_IN / 2, bold=True)
            for group, each in enumerate(shown):
                left_in = group * (group_in + 3 * _GAP_IN)
                page.write(each.title, left_in, top_in + 1.5 * _TITLE_IN)
                for number, method in enumerate(["", *methods]):
                    axes = page.panel(
                        left_in + number * (_WIDTH_IN + _GAP_IN / 2),
                        top_in + above_in,
                        _WIDTH_IN,
                        height_in,
                    )
                    _draw_map(axes, each, method, crops[each.image_id], with_found=number == 1)
        page.title(f"Heat maps of test images ({dataset})")
        page.legend(dashed=False, with_heat=True)
        return page.figure


class _Page:
    """A figure whose panels are placed in inches from its upper left corner, below the title."""

    def __init__(self, width_in: float, height_in: float) -> None:
        self.width_in = width_in + 2 * _MARGIN_IN
        self.height_in = height_in + _SUPTITLE_IN + _LEGEND_IN
        self.figure = Figure(figsize=(self.width_in, self.height_in))

    def panel(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        bottom_in = self.height_in - _SUPTITLE_IN - top_in - height_in
        place = (
            (_MARGIN_IN + left_in) / self.width_in,
            bottom_in / self.height_in,
            width_in / self.width_in,
            height_in / self.height_in,
        )
        return self.figure.add_axes(place, anchor="N")

    def write(self, text: str, left_in: float, middle_in: float, *, bold: bool = False) -> None:
        x, y = (_MARGIN_IN + left_in) / self.width_in, 1 - (_SUPTITLE_IN + middle_in) / self.height_in
        self.figure.text(x, y, text, fontsize=10, va="center", fontweight="bold" if bold else "normal")

    def title(self, text: str) -> None:
        self.figure.text(0.5, 1 - 0.22 / self.height_in, text, ha="center", va="center", fontsize=12)

    def legend(self, *, dashed: bool, with_heat: bool = False) -> None:
        handles = [_legend_line(TRUE_COLOUR, 1.6), _legend_line(FOUND_COLOUR, 1.6 if dashed else 1.0)]
        if dashed:
            handles[1].set_linestyle(DASHES)
        names = ["true box", "box found, with its score" if dashed else "box found"]
        if with_heat:
            handles.append(Line2D([], [], color=HEAT(1.0), linewidth=7))
            names.append("heat, up to the largest of the image")
        y = 0.5 * _LEGEND_IN / self.height_in
        self.figure.legend(
            handles, names, loc="center", bbox_to_anchor=(0.5, y), ncols=len(names), handlelength=2.6, fontsize=10
        )


def _legend_line(colour: str, width: float) -> Line2D:
    outline = [withStroke(linewidth=width + 1.6, foreground="black")]
    return Line2D([], [], color=colour, linewidth=width, path_effects=outline)


def _height_in(crops: Mapping[str, npt.NDArray[np.uint8]]) -> float:
    return _WIDTH_IN * max(float(crop.shape[0] / crop.shape[1]) for crop in crops.values())


def _threshold(detector: Detected) -> float:
    """Return the lowest score at which an image has so few false positives; infinity when none is high enough."""
    false_positives, _, thresholds = froc_curve(detector.detections, detector.tested.truths, IOU)
    return float(thresholds[false_positives <= SHOWN_FALSE_POSITIVES].min())


def _describe(threshold: float) -> str:
    if np.isinf(threshold):
        return "no box, because the surest boxes give more than 1 false positive per image"
    return f"boxes scoring {format_number(threshold)} or more (at most 1 false positive per image)"


def _surest(detector: Detected, image_id: str, threshold: float) -> tuple[list[Box], list[float]]:
    """Return the surest boxes found in an image, and their scores."""
    number = detector.tested.rows.filter(image_id=image_id)["number"][0]
    found = detector.detections
    rows = np.flatnonzero((found.images == number) & (found.scores >= threshold))
    order = rows[np.lexsort((*found.boxes[rows].T, -found.scores[rows]))][:MAX_BOXES]
    return [(*box,) for box in found.boxes[order].tolist()], found.scores[order].tolist()


def _draw_map(axes: Axes, shown: Shown, method: str, crop: npt.NDArray[np.uint8], *, with_found: bool) -> None:
    show_crop(axes, crop, _WIDTH_PX)
    text = "true box"
    if method in shown.maps:
        cells, numbers = shown.maps[method]
        show_heat(axes, cells, (crop.shape[0], crop.shape[1]), _WIDTH_PX)
        text = f"{method}\n{numbers}"
    elif method:
        text = f"{method}\nno map"
    axes.set_title(text, fontsize=8.5, pad=3)
    for box in shown.true_boxes:
        draw_box(axes, box, TRUE_COLOUR)
    for box in shown.found_boxes if with_found else ():
        draw_box(axes, box, FOUND_COLOUR, linewidth=0.7)
