"""A gallery of what the model is surest of: hits and errors, with their crops and boxes.

Pictures name neither patient nor image: in some data sets the name of an image holds that of the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.paper.curves import select_evaluation, title_of
from mammoclip.paper.figures import draw_note
from mammoclip.paper.histograms import find_choice
from mammoclip.paper.overlays import TRUE_COLOUR, draw_box, show_crop
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import finding_name, format_number

KINDS: Mapping[str, tuple[bool, bool]] = MappingProxyType(
    {
        "true positive": (True, True),
        "false negative": (True, False),
        "false positive": (False, True),
        "true negative": (False, False),
    }
)
"""Each kind in the order of the rows: whether the image is positive, and whether it is called positive."""
_RAREST_FIRST = ("false negative", "false positive", "true positive", "true negative")
_WIDTH_IN, _WIDTH_PX = 1.3, 260
_EMPTY_IN = 1.1  # height of a row without an image

ReadCrop = Callable[[str], npt.NDArray[np.uint8]]
"""``read_crop(image_id)`` returns the crop, height x width."""


def choose_confident(rows: pl.DataFrame, threshold: float, num_per_kind: int) -> pl.DataFrame:
    """Return kind, image_id, label and score of the images farthest from the threshold, at most so many of each kind.

    An image scoring the threshold or more is called positive. A patient is shown once in all: errors, which are rarer,
    choose before hits. Of equal scores the first image id is taken, and rows come by kind, the surest first.

    Args:
        rows: labelled predictions of two classes, of one evaluation and repeat.
        threshold: on the score of the positive class.
        num_per_kind: images of each kind.
    """
    scored = rows.select("image_id", "patient_id", "label", score=pl.col("scores").list.get(1))
    ranked = scored.with_columns(distance=(pl.col("score") - threshold).abs()).sort(
        "distance", "image_id", descending=[True, False]
    )
    shown: list[str] = []
    chosen: dict[str, pl.DataFrame] = {}
    for kind in _RAREST_FIRST:
        positive, called = KINDS[kind]
        of_kind = ranked.filter(
            (pl.col("label") == 1) == positive,
            (pl.col("score") >= threshold) == called,
            ~pl.col("patient_id").is_in(shown),
        )
        first = of_kind.unique("patient_id", keep="first", maintain_order=True).head(num_per_kind)
        shown += first["patient_id"].to_list()
        chosen[kind] = first.select(pl.lit(kind).alias("kind"), "image_id", "label", "score")
    return pl.concat([chosen[kind] for kind in KINDS])


def draw_gallery(
    predictions: pl.DataFrame,
    choices: pl.DataFrame,
    findings: pl.DataFrame,
    read_crop: ReadCrop,
    task: str,
    dataset: str,
    protocol: str,
    num_per_kind: int,
    finding: str | None = None,
    run: str | None = None,
) -> Figure:
    """Return a row of crops per kind of hit and error, the surest of the test images, with boxes and scores.

    Of a trained protocol the largest fraction is shown, of its seeds the lowest.

    Args:
        predictions: table of this name, of one run and data set.
        choices: table of this name, of the same run.
        findings: table of this name, of the data set.
        read_crop: called with the id of every image that is shown.
        task: of two classes.
        dataset: its name.
        protocol: zero-shot, linear-probe or fine-tune.
        num_per_kind: images of each kind at most, at least 1.
        finding: whose boxes are drawn; None: that of the task's name.
        run: its name, for the title; None: the title names none.
    """
    title = title_of(task, dataset, run, protocol)
    rows = select_evaluation(predictions, task, protocol).filter(split="test")
    if rows.is_empty():
        return draw_note(f"{title}: no gallery, because there are no test images with a label and a score.")
    threshold, reason = find_choice(choices, dataset, rows, "threshold")
    if threshold is None:
        return draw_note(f"{title}: no gallery, because there is no threshold: {reason}.")
    chosen = choose_confident(rows, threshold, num_per_kind)
    crops = {image_id: read_crop(image_id) for image_id in chosen["image_id"]}
    boxes = findings.filter(pl.col("finding") == (finding or task)).select(
        "image_id", "x_min", "y_min", "x_max", "y_max"
    )
    aspect = max(crop.shape[0] / crop.shape[1] for crop in crops.values())
    with figure_style():
        heights = [_WIDTH_IN * aspect + 0.45 if kind in chosen["kind"] else _EMPTY_IN for kind in KINDS]
        figure = Figure(figsize=(num_per_kind * (_WIDTH_IN + 0.1) + 0.4, sum(heights) + 0.5), layout="constrained")
        grid = figure.subplots(len(KINDS), num_per_kind, squeeze=False, height_ratios=heights)
        for kind, panels in zip(KINDS, grid, strict=True):
            of_kind = chosen.filter(kind=kind)
            for axes in panels:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            panels[0].set_ylabel(f"{kind}s", fontsize=9)
            if of_kind.is_empty():
                panels[0].text(0.5, 0.5, "none", ha="center", va="center", transform=panels[0].transAxes)
            for axes, (image_id, label, score) in zip(
                panels, of_kind.select("image_id", "label", "score").rows(), strict=False
            ):
                _draw_crop(axes, crops[image_id], boxes.filter(image_id=image_id).drop("image_id").sort(pl.all()))
                truth = finding_name(task) if label else f"no {finding_name(task)}"
                axes.set_title(f"score {format_number(score, 3)}\n{truth}", fontsize=7, pad=2)
        figure.suptitle(f"{title}\nthreshold {format_number(threshold, 3)}", fontsize=9)
        return figure


def _draw_crop(axes: Axes, crop: npt.NDArray[np.uint8], boxes: pl.DataFrame) -> None:
    show_crop(axes, crop, _WIDTH_PX)
    for box in boxes.rows():
        draw_box(axes, box, TRUE_COLOUR)
