"""Precision-recall and FROC curves of detectors at an IoU of .5. L distinct scores, highest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mammoclip.evaluation.checks import FloatArray
from mammoclip.localization.detection_metrics import Detections, average_precision, match
from mammoclip.localization.froc import RATES, froc_curve, sensitivity_at_false_positives
from mammoclip.paper.curves import title_of
from mammoclip.paper.figures import draw_note
from mammoclip.paper.localization.tested_images import ImagesTested
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number

IOU = 0.5
_FEWEST, _MOST = RATES[0] / 4, RATES[-1]  # false positives per image that are drawn
_RATE_NAMES = ("1/4", "1/2", "1", "2")
_LEGEND_ROW_IN = 0.18


@dataclass(frozen=True)
class Detected:
    """What one detector found, as a curve: its name and style, and whether it is of a control run."""

    name: str
    tested: ImagesTested
    detections: Detections
    style: dict[str, Any]
    is_control: bool


def interpolated_precision(detections: Detections, tested: ImagesTested) -> tuple[FloatArray, FloatArray]:
    """Return recall from 0 and the best precision at this or any higher recall, each (L + 1,).

    The precision at a point holds from the recall of the point before: the area under these steps is the average
    precision. A repeated detection of a true box is false.
    """
    truths = tested.truths
    hit = match(detections, truths, IOU) >= 0
    levels, level = np.unique(-detections.scores, return_inverse=True)
    hits, called = (np.cumsum(np.bincount(level[rows], minlength=len(levels))) for rows in (hit, np.ones_like(hit)))
    precision = np.maximum.accumulate((hits / np.maximum(called, 1))[::-1])[::-1]
    recall = hits / max(len(truths.images), 1)
    return np.append(0.0, recall), np.append(precision[:1], precision) if len(levels) else np.zeros(1)


def froc_steps(detections: Detections, tested: ImagesTested) -> tuple[FloatArray, FloatArray]:
    """Return distinct false positives per image, from 0 to those that are drawn, and the sensitivity from there on."""
    false_positives, sensitivity, _ = froc_curve(detections, tested.truths, IOU)
    last = np.append(np.diff(false_positives) > 0, True)  # of one rate the highest sensitivity
    shown = last & (false_positives <= _MOST)
    return np.append(false_positives[shown], _MOST), np.append(sensitivity[shown], sensitivity[shown][-1:])


def draw_detection_curves(curves: Sequence[Detected], finding: str, dataset: str) -> Figure:
    """Return precision-recall (left) and FROC (right) of every detector, those of control runs behind in grey.

    The legends state the average precision and the sensitivity at one false positive per image, and the number of
    images where it is not that of the title.
    """
    title = title_of(finding, dataset)
    if not any(curve.tested.rows["label"].any() for curve in curves):
        return draw_note(f"{title}: no curve, because no test image has a box.")
    ordered = [*(each for each in curves if not each.is_control), *(each for each in curves if each.is_control)]
    with figure_style():
        figure = Figure(figsize=(8.8, 4.9 + _LEGEND_ROW_IN * len(curves)), layout="constrained")
        precision, froc = figure.subplots(1, 2)
        for number, curve in enumerate(ordered):
            num_images = len(curve.tested.rows)
            more = f" ({num_images:,} images)" if num_images != len(ordered[0].tested.rows) else ""
            _draw(precision, froc, curve, more, zorder=3 - number / len(ordered))
        precision.set(xlabel="recall", ylabel="precision", title="Precision-recall", xlim=(-0.01, 1.01))
        froc.set_xscale("log", base=2)
        froc.set(
            xlabel="false positives per image (logarithmic)",
            ylabel="sensitivity",
            title="FROC",
            xlim=(_FEWEST, _MOST * 1.04),
        )
        froc.set_xticks(RATES, _RATE_NAMES)
        froc.xaxis.set_minor_locator(NullLocator())
        for rate in RATES:
            froc.axvline(rate, color="black", lw=0.6, ls=(0, (1, 3)), zorder=0)
        for axes, name in ((precision, "average precision"), (froc, "sensitivity at 1 false positive per image")):
            axes.set(ylim=(-0.01, 1.01))
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), title=name, handlelength=4.0)
        figure.suptitle(f"{title}: {_count(ordered[0].tested)}\na box finds a lesion at an IoU of {IOU:g}")
        return figure


def _draw(precision: Axes, froc: Axes, curve: Detected, more: str, zorder: float) -> None:
    truths = curve.tested.truths
    area = format_number(average_precision(curve.detections, truths, IOU))
    steps = interpolated_precision(curve.detections, curve.tested)
    precision.plot(*steps, drawstyle="steps-pre", label=f"{curve.name}: {area}{more}", zorder=zorder, **curve.style)
    marks = sensitivity_at_false_positives(curve.detections, truths, IOU)
    at_one = format_number(float(marks[RATES.index(1.0)]))
    false_positives, sensitivity = froc_steps(curve.detections, curve.tested)
    label = f"{curve.name}: {at_one}{more}"
    froc.plot(
        np.maximum(false_positives, _FEWEST / 2), sensitivity,
        drawstyle="steps-post", label=label, zorder=zorder, **curve.style,
    )  # fmt: skip
    if not curve.is_control:
        froc.plot(RATES, marks, color=curve.style["color"], ls="", marker="o", ms=4, zorder=zorder)


def _count(tested: ImagesTested) -> str:
    lesions, num_patients = len(tested.boxes), tested.rows["patient_id"].n_unique()
    return f"{len(tested.rows):,} test images of {num_patients:,} patients, {lesions:,} lesions"
