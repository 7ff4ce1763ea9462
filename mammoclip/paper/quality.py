"""The quality page of a data set: what its images are, how much of each is breast, and the most unusual crops.

It is made from the tables of the stages ``index`` and ``shard`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammoclip.data.shard import check_conservation
from mammoclip.datasets.base import Source
from mammoclip.paper.conservation import NOT_A_FILE, RejectCount, count_rejects
from mammoclip.paper.counts import NOT_STATED, Counts, count_values, name_headers
from mammoclip.paper.figures import BLUE, VERMILION
from mammoclip.paper.page import load_page
from mammoclip.paper.rendering import data_uri, figure_style, render_figure
from mammoclip.paper.unusual import (
    FLAGS,
    MIN_PER_VIEW,
    Floats,
    UnusualCrop,
    crop_ratios,
    format_measure,
    most_unusual,
)

_TIMES = "\N{MULTIPLICATION SIGN}"
_COUNTED: Mapping[str, str] = {
    "view": "view",
    "laterality": "laterality",
    "manufacturer": "manufacturer",
    "transfer_syntax": "transfer syntax",
    "bits_stored": "bit depth",
    "size": f"rows {_TIMES} columns",
    "presentation_intent": "presentation intent",
}
_NUM_BINS = 50


@dataclass(frozen=True)
class Quality:
    """What the page says of one data set.

    ``num_found = num_written + num_rejected_index + num_rejected_shard``; ``num_missing`` files were never found.
    ``counts`` and ``flags`` (name, yes, no, not stated) are of the images written, and so are ``ratios``: the area of
    each crop over that of its image.
    """

    dataset: str
    num_found: int
    num_rejected_index: int
    num_rejected_shard: int
    num_written: int
    num_missing: int
    rejects: Sequence[RejectCount]
    counts: Sequence[Counts]
    flags: Sequence[tuple[str, int, int, int]]
    ratios: Floats
    unusual: Sequence[UnusualCrop]


def describe_quality(
    dataset: str,
    index: pl.DataFrame,
    index_rejects: pl.DataFrame,
    manifest: pl.DataFrame,
    shard_rejects: pl.DataFrame,
) -> Quality:
    """Compute the page of a data set from its tables ``index`` and ``manifest``, and ``rejects`` of both stages.

    Raises:
        ArtifactError: images were lost or counted twice, or a crop is empty.
    """
    check_conservation(index, manifest, shard_rejects)
    rejected_index = index_rejects.filter(pl.col("reason") != NOT_A_FILE)
    images = manifest.join(index, on="image_id").sort("image_id")
    named = name_headers(images).with_columns(
        pl.col("presentation_intent").replace("", None).fill_null(NOT_STATED),
        size=pl.format(f"{{}} {_TIMES} {{}}", "rows", "columns"),
    )
    return Quality(
        dataset=dataset,
        num_found=len(index) + len(rejected_index),
        num_rejected_index=len(rejected_index),
        num_rejected_shard=len(shard_rejects),
        num_written=len(images),
        num_missing=len(index_rejects) - len(rejected_index),
        rejects=[*count_rejects(index_rejects), *count_rejects(shard_rejects)],
        counts=[count_values("images", name, named[column]) for column, name in _COUNTED.items()],
        flags=[_count_flag(name, images[flag]) for flag, name in FLAGS.items()],
        ratios=crop_ratios(images),
        unusual=most_unusual(images),
    )


def draw_crop_ratios(ratios: Floats, unusual: Sequence[UnusualCrop]) -> Figure:
    """Return a histogram of one or more crop ratios; marks below it show the crops with an unusual one."""
    marked = [crop.ratio for crop in unusual if crop.measure == "crop ratio"]
    with figure_style():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.hist(ratios, bins=np.linspace(0.0, 1.0, _NUM_BINS + 1).tolist(), color=BLUE, label="images")
        axes.axvline(float(np.median(ratios)), color="black", lw=1.0, ls="--", label="median")
        # Below the axis, where a bar of one image among thousands, which nobody sees, cannot hide them.
        axes.plot(
            marked, [-0.045] * len(marked), ls="", marker="^", ms=5, color=VERMILION,
            label="most unusual of them", transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
        axes.tick_params(axis="x", pad=9)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlim=(0.0, 1.0), xlabel="crop ratio: area of the crop / area of the image", ylabel="images")
        figure.legend(loc="outside upper center", ncols=3)
        return figure


def render_quality(quality: Quality, pictures: Mapping[str, str], source: Source | None = None) -> str:
    """Return the page as one HTML file that needs nothing else.

    Args:
        quality: what the page says.
        pictures: data URI of each unusual crop, by ``image_id``.
        source: what the images are and whom to credit, if that is known.
    """
    histogram, low, median, high = "", "", "", ""
    if quality.num_written:
        histogram = data_uri(render_figure(draw_crop_ratios(quality.ratios, quality.unusual), "png"), "image/png")
        low, median, high = (format_measure(value) for value in np.quantile(quality.ratios, [0.0, 0.5, 1.0]))
    return load_page("quality.html").render(
        quality=quality,
        pictures=pictures,
        source=source,
        histogram=histogram,
        low=low,
        median=median,
        high=high,
        min_per_view=MIN_PER_VIEW,
    )


def _count_flag(name: str, values: pl.Series) -> tuple[str, int, int, int]:
    yes, missing = int(values.sum()), values.null_count()
    return name, yes, len(values) - yes - missing, missing
