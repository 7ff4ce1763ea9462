"""Boxes of findings, from stored pixels to pixels of the PNG."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mammoclip.datasets.base import BOX
from mammoclip.dicom import CropBox, Placement
from mammoclip.text import Mode

_CROP = ("crop_top", "crop_bottom", "crop_left", "crop_right")
_PLACE = ("scale_x", "scale_y", "pad_left", "pad_top")


def check_boxes(findings: pl.DataFrame, mode: Mode) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut findings with boxes into those with a possible box, and the rejects (path, reason, detail).

    A box must have an area and share it with the image, where rows and columns of the image are known; what reaches
    beyond the image is cut off later. ``compat`` keeps every box. The finding as a label is not touched by this.

    Args:
        findings: columns of ``datasets.base.FINDINGS``, all boxes given, and ``rows``, ``columns`` of their images.
        mode: see above.
    """
    empty = (pl.col("x_max") <= pl.col("x_min")) | (pl.col("y_max") <= pl.col("y_min"))
    outside = (
        (pl.col("x_max") <= 0)
        | (pl.col("y_max") <= 0)
        | (pl.col("x_min") >= pl.col("columns")).fill_null(False)
        | (pl.col("y_min") >= pl.col("rows")).fill_null(False)
    )
    wrong = (
        pl.when(empty)
        .then(pl.lit("the box is empty or inverted"))
        .when(outside)
        .then(pl.lit("the box lies outside the image"))
    )
    checked = findings.with_columns(wrong=wrong if mode == "strict" else pl.lit(None, pl.String))
    rejects = checked.drop_nulls("wrong").select(path="source", reason=pl.lit("bad_box"), detail="wrong")
    return checked.filter(pl.col("wrong").is_null()).drop("wrong"), rejects.unique(maintain_order=True)


def place_boxes(findings: pl.DataFrame, mode: Mode) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Move boxes into the PNGs of their images: the findings, and the rejects (path, reason, detail).

    ``strict`` cuts boxes at the crop and rejects what lies outside; ``compat`` moves every box as the released code
    does. A box of an image without a crop stays in stored pixels, cut at the image in ``strict``.

    Args:
        findings: columns of ``datasets.base.FINDINGS``, and of their images rows, columns and the placement, which is
            null before any image is converted.
        mode: see above.
    """
    placed = findings.filter(pl.col("scale_x").is_not_null())
    stored = findings.filter(pl.col("scale_x").is_null())
    if mode == "strict":
        limits = {"x_min": "columns", "x_max": "columns", "y_min": "rows", "y_max": "rows"}
        cut = [pl.min_horizontal(pl.col(name).clip(0), limit).alias(name) for name, limit in limits.items()]
        stored = stored.with_columns(cut)
    boxes = placed.select(BOX).to_numpy()
    placement = Placement(CropBox(*_arrays(placed, _CROP)), *_arrays(placed, _PLACE))
    if mode == "compat":
        moved = placement.boxes_to_png_compat(boxes, (placed["rows"].to_numpy(), placed["columns"].to_numpy()))
        kept = np.ones(len(moved), bool)
    else:
        moved, kept = placement.boxes_to_png(boxes)
    placed = placed.with_columns(pl.Series(name, moved[:, column]) for column, name in enumerate(BOX))
    outside = placed.filter(~pl.Series(kept))
    rejects = outside.select(
        path="source",
        reason=pl.lit("box_outside_crop"),
        detail=pl.lit("the box lies outside the crop of the breast; the label stays"),
    )
    return pl.concat([placed.filter(pl.Series(kept)), stored]), rejects.unique(maintain_order=True)


def _arrays(frame: pl.DataFrame, names: tuple[str, ...]) -> list[Any]:
    return [frame[name].to_numpy() for name in names]
