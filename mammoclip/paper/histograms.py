"""Histograms of the positive class's score, and what the validation images chose."""

from __future__ import annotations

import textwrap

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.evaluation.checks import FloatArray
from mammoclip.paper.curves import rows_of_test, title_of
from mammoclip.paper.figures import BLUE, VERMILION, draw_note
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number

NUM_BINS = 30
_UNBALANCED = 10  # on one linear axis the smaller class would lie flat
_TITLE_WIDTH = 42  # characters over one panel
_LABELS = (("negative", BLUE, "////"), ("positive", VERMILION, ""))


def find_choice(choices: pl.DataFrame, dataset: str, rows: pl.DataFrame, choice: str) -> tuple[float | None, str]:
    """Return what was chosen for the evaluation of ``rows``, or None and why.

    Args:
        choices: table of this name, of one run.
        dataset: its name.
        rows: predictions of one evaluation, one at least.
        choice: temperature or threshold.

    Raises:
        ValueError: the choices are those of several runs.
    """
    evaluation = ["task", "protocol", "fraction", "seed"]
    found = choices.filter(pl.col("dataset") == dataset, pl.col("choice") == choice)
    found = found.join(rows.select(evaluation).unique(), on=evaluation, how="semi")
    if found.is_empty():
        return None, f"the table of choices has no {choice}"
    if len(found) > 1:
        raise ValueError(f"choices has {len(found)} rows for one evaluation; expected those of one run.")
    value, reason = found.select("value", "reason").row(0)
    return value, (reason or "no reason is given").rstrip(".")


def set_count_axis(axes: Axes, smaller: int, larger: int) -> None:
    """Give counts a logarithmic axis when the larger one would flatten the smaller one."""
    if smaller * _UNBALANCED < larger:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)


def draw_histograms(
    predictions: pl.DataFrame, choices: pl.DataFrame, task: str, dataset: str, run: str | None = None
) -> Figure:
    """Return one panel per protocol: the scores of positive and negative test images, and the validation threshold.

    Of the trained protocols the largest fraction is shown, of its seeds the lowest.

    Args:
        predictions: table of this name, of one run and data set.
        choices: table of this name, of the same run.
        task: a task of two classes.
        dataset: its name.
        run: its name, for the title; None: the title names none.
    """
    evaluations, reason = rows_of_test(predictions, task)
    title = title_of(task, dataset, run)
    if reason:
        return draw_note(f"{title}: no histograms, because {reason}.")
    with figure_style():
        figure = Figure(figsize=(0.6 + 3.4 * len(evaluations), 3.8), layout="constrained")
        panels = figure.subplots(1, len(evaluations), squeeze=False)[0]
        for axes, (protocol, rows) in zip(panels, evaluations.items(), strict=True):
            threshold, reason = find_choice(choices, dataset, rows, "threshold")
            _draw_scores(axes, rows)
            name = f"{protocol}\n" + textwrap.fill(f"no threshold: {reason}", 38)
            if threshold is not None:
                axes.axvline(threshold, color="black", lw=1.2, ls=(0, (4, 2)), label="validation threshold")
                name = f"{protocol}\nthreshold {format_number(threshold, 3)}"
            axes.set_title(name)
        panels[0].set_ylabel("test images")
        handles = {
            name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
        figure.suptitle(textwrap.fill(title, _TITLE_WIDTH * len(evaluations)))
        return figure


def _draw_scores(axes: Axes, rows: pl.DataFrame) -> None:
    labels = rows["label"].to_numpy()
    scores: FloatArray = rows["scores"].list.get(1).to_numpy()
    edges = np.histogram_bin_edges(scores, NUM_BINS)
    highest = []
    for label, (name, colour, hatch) in enumerate(_LABELS):
        counts = np.histogram(scores[labels == label], edges)[0]
        highest.append(int(counts.max()))
        axes.stairs(
            counts, edges, fill=True, facecolor=(colour, 0.3), edgecolor=colour, lw=1.2, hatch=hatch, label=name
        )
    set_count_axis(axes, min(highest), max(highest))
    axes.set_xlabel("score of the positive class")
