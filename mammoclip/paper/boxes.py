"""The boxes of a data set: how many an image has, of what, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from mammoclip.paper.counts import Counts, count_values
from mammoclip.paper.wording import finding_name

_MANY = 3
_MANY_IN_WORDS = f"{_MANY} or more"


@dataclass(frozen=True)
class BoxFacts:
    """Boxes of a data set; ``areas`` are the smallest, median and largest share of the cropped image, None: unknown."""

    num_boxes: int
    per_image: Counts
    per_finding: Counts
    areas: tuple[float, float, float] | None


def describe_boxes(findings: pl.DataFrame, images: pl.DataFrame) -> BoxFacts:
    """Count the boxes of the table ``findings`` over all of ``images``, and measure those in pixels of a PNG."""
    num = findings.group_by("image_id").agg(num=pl.len())
    each = images.join(num, on="image_id", how="left").with_columns(pl.col("num").fill_null(0))
    in_words = pl.when(pl.col("num") < _MANY).then(pl.col("num").cast(pl.String)).otherwise(pl.lit(_MANY_IN_WORDS))
    boxes = findings.join(images, on="image_id")
    names = pl.Series([finding_name(name) for name in boxes["finding"]], dtype=pl.String)
    scale = [*(str(number) for number in range(_MANY)), _MANY_IN_WORDS]
    return BoxFacts(
        num_boxes=len(boxes),
        per_image=count_values(
            "images", "number of boxes", each.select(in_words).to_series(), each["split"], scale=scale
        ),
        per_finding=count_values("boxes", "finding", names, boxes["split"]),
        areas=_measure_areas(boxes),
    )


def _measure_areas(boxes: pl.DataFrame) -> tuple[float, float, float] | None:
    placed = boxes.drop_nulls(["height_px", "width_px"])
    if placed.is_empty():
        return None
    area = (pl.col("x_max") - pl.col("x_min")) * (pl.col("y_max") - pl.col("y_min"))
    share = area / (pl.col("height_px") * pl.col("width_px"))
    low, median, high = placed.select(low=share.min(), median=share.median(), high=share.max()).row(0)
    return low, median, high
