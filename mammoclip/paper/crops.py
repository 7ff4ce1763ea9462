"""Crops with their finding boxes: a seeded sample, one picture per crop, and the contact sheet."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from mammoclip.data.reader import ShardReader, eight_bits
from mammoclip.paper.inputs import DatasetTables
from mammoclip.paper.rendering import data_uri, figure_style
from mammoclip.paper.wording import finding_name

SIDES: Mapping[str, str] = {"L": "left", "R": "right"}
_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00")  # Okabe and Ito
_CROP_WIDTH_IN = 1.5
_SHEET_COLUMNS = 6
_CROP_DPI = 200  # of pictures in the report: 300 pixels wide
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Crop:
    """One image to show, uint8 height x width, with its boxes (finding, x_min, y_min, x_max, y_max) in its pixels."""

    image_id: str
    laterality: str
    view: str
    split: str
    image: npt.NDArray[np.uint8]
    boxes: Sequence[tuple[str, float, float, float, float]]

    @property
    def title(self) -> str:
        """Side and view, as a radiologist abbreviates them."""
        return f"{self.laterality} {self.view}"

    @property
    def description(self) -> str:
        """The picture in words, for those who do not see it."""
        side = SIDES.get(self.laterality, self.laterality)
        boxes = ", ".join(finding_name(box[0]) for box in self.boxes)
        return f"Mammogram crop, {side} breast, {self.view} view" + (f"; boxes: {boxes}" if boxes else "")


def sample_images(images: pl.DataFrame, num_images: int, seed: int) -> pl.DataFrame:
    """Return a random sample of rows, without replacement, in the order of ``image_id``; all when there are fewer."""
    ordered = images.sort("image_id")
    chosen = np.random.default_rng([seed, 5]).permutation(len(ordered))[:num_images]
    return ordered[np.sort(chosen)]


def read_crops(tables: DatasetTables, images: pl.DataFrame) -> list[Crop]:
    """Read the crops of ``images`` with their boxes.

    Raises:
        ArtifactError: a shard does not hold the image.
    """
    boxes: dict[str, list[tuple[str, float, float, float, float]]] = {}
    columns = ["image_id", "finding", "x_min", "y_min", "x_max", "y_max"]
    for image_id, *box in tables.findings.select(columns).sort(columns).rows():
        boxes.setdefault(image_id, []).append((box[0], box[1], box[2], box[3], box[4]))
    reader = ShardReader(images, tables.shards)
    try:
        return [
            Crop(image_id, laterality, view, split, eight_bits(reader.read(image_id)), boxes.get(image_id, []))
            for image_id, laterality, view, split in images.select("image_id", "laterality", "view", "split").rows()
        ]
    finally:
        reader.close()


def assign_colours(findings: Sequence[str]) -> dict[str, str]:
    """Give every finding a colour; with many findings colours repeat, and the labels tell them apart."""
    return {finding: _COLOURS[number % len(_COLOURS)] for number, finding in enumerate(sorted(set(findings)))}


def draw_contact_sheet(crops: Sequence[Crop], colours: Mapping[str, str]) -> Figure:
    """Return all crops in rows of six, each with its boxes, side, view and split."""
    columns = max(1, min(_SHEET_COLUMNS, len(crops)))
    rows = max(1, math.ceil(len(crops) / columns))
    aspect = max((crop.image.shape[0] / crop.image.shape[1] for crop in crops), default=1.0)
    with figure_style():
        size = (columns * (_CROP_WIDTH_IN + 0.1), rows * (_CROP_WIDTH_IN * aspect + 0.25))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in panels:
            axes.set_axis_off()
        for axes, crop in zip(panels, crops, strict=False):
            _draw_crop(axes, crop, colours, width_px=round(_CROP_WIDTH_IN * _CROP_DPI))
            axes.set_title(f"{crop.title}, {crop.split}", fontsize=7, pad=2)
        return figure


def crop_data_uri(crop: Crop, colours: Mapping[str, str]) -> str:
    """Return the crop with its boxes as a JPEG in a data URI, 300 pixels wide."""
    height_px, width_px = crop.image.shape
    with figure_style():
        figure = Figure(figsize=(_CROP_WIDTH_IN, _CROP_WIDTH_IN * height_px / width_px))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        _draw_crop(axes, crop, colours, width_px=round(_CROP_WIDTH_IN * _CROP_DPI))
        buffer = io.BytesIO()
        options = {"quality": _JPEG_QUALITY, "optimize": True}
        figure.savefig(buffer, format="jpeg", dpi=_CROP_DPI, pil_kwargs=options)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _draw_crop(axes: Axes, crop: Crop, colours: Mapping[str, str], width_px: int) -> None:
    height, width = crop.image.shape
    size = (width_px, max(1, round(width_px * height / width)))
    small = cv2.resize(crop.image, size, interpolation=cv2.INTER_AREA) if width > width_px else crop.image
    axes.imshow(small, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="antialiased")
    for finding, x_min, y_min, x_max, y_max in crop.boxes:
        # A bright line on a black one: seen on dark and on bright tissue.
        axes.add_patch(
            Rectangle(
                (x_min, y_min),
                x_max - x_min,
                y_max - y_min,
                fill=False,
                edgecolor=colours[finding],
                linewidth=1.2,
                path_effects=[withStroke(linewidth=2.8, foreground="black")],
            )
        )
        # The label lies inside the picture: above the box unless that is at the top, and growing towards the middle.
        leftmost, above = x_min + x_max < width, y_min > 0.1 * height
        axes.text(
            max(x_min, 0.01 * width) if leftmost else min(x_max, 0.99 * width),
            y_min - 0.012 * height if above else y_max + 0.012 * height,
            finding_name(finding).replace(" ", "\n", 1),
            ha="left" if leftmost else "right",
            va="bottom" if above else "top",
            color=colours[finding],
            fontsize=6.0,
            linespacing=1.1,
            path_effects=[withStroke(linewidth=1.2, foreground="black")],
        )
