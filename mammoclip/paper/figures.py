"""The ROC and training figures, and the colours that all figures share."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.config import EvaluateSection
from mammoclip.evaluation import metrics
from mammoclip.paper.inputs import Inputs, RunResults, principal
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import TESTED_PROTOCOLS, format_number, format_percent, task_name

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe and Ito: safe for the colour-blind
CONTROL_GREYS = ("#555555", "#8c8c8c")
CONTROL_DASHES: tuple[Any, ...] = ((0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 3)))
_RUN_STYLES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (VERMILION, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
)
PROTOCOL_STYLES: Mapping[str, tuple[str, Any]] = {
    "zero-shot": (BLUE, "-"),
    "linear-probe": (VERMILION, (0, (6, 2))),
    "fine-tune": (GREEN, "-."),
}
"""Colour and line of each protocol, in the order in which they are drawn."""


def draw_note(text: str) -> Figure:
    """Return a small figure with a sentence, in place of a picture that cannot be drawn."""
    lines = textwrap.fill(text.replace(" %", "\N{NO-BREAK SPACE}%"), 60)
    with figure_style():
        figure = Figure(figsize=(4.6, 0.8 + 0.2 * lines.count("\n")))
        figure.text(0.5, 0.5, lines, ha="center", va="center")
        return figure


def draw_roc(inputs: Inputs, evaluate: EvaluateSection) -> Figure:
    """Return one panel per labelled data set (row) and binary task (column): main run in colour, others in grey.

    Of trained protocols the largest share of the training patients is shown, of its seeds the lowest.
    """
    binary = {name: inputs.binary_tasks(name, evaluate.tasks) for name in evaluate.datasets}
    tasks = [task for task in evaluate.tasks if any(task in of_dataset for of_dataset in binary.values())]
    with figure_style():
        if not tasks:
            return draw_note("No binary task was evaluated.")
        figure = Figure(layout="constrained")
        grid = figure.subplots(len(evaluate.datasets), len(tasks), squeeze=False)
        for dataset, panels in zip(evaluate.datasets, grid, strict=True):
            for task, axes in zip(tasks, panels, strict=True):
                if task in binary[dataset]:
                    _draw_roc_panel(axes, inputs, dataset, task)
                else:
                    axes.set_axis_off()
        # A square, and below it a line of the legend per curve.
        num_curves = max(len(axes.lines) for axes in figure.axes)
        figure.set_size_inches(4.4 * len(tasks), (4.9 + 0.18 * num_curves) * len(evaluate.datasets))
        return figure


def draw_training(inputs: Inputs) -> Figure:
    """Return training (light) and validation loss of every trained run against steps, and the temperature below."""
    trained = [run for run in inputs.runs if len(run.steps)]
    with figure_style():
        if not trained:
            return draw_note("No run was trained.")
        figure = Figure(figsize=(8.8, 5.4), layout="constrained")
        loss, temperature = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for run, (colour, line) in zip(trained, _cycle(_RUN_STYLES, len(trained)), strict=True):
            steps = run.steps.sort("step")
            training, validation = (steps.filter(split=split) for split in ("train", "validation"))
            loss.plot(
                training["step"], training["loss"], color=colour, alpha=0.3, lw=0.8, label=f"{run.name}, training"
            )
            loss.plot(
                validation["step"], validation["loss"], color=colour, ls=line, marker="o", ms=3.5, lw=1.6,
                label=f"{run.name}, validation",
            )  # fmt: skip
            temperature.plot(training["step"], training["temperature"], color=colour, ls=line, lw=1.4)
        loss.set_ylabel("loss")
        figure.legend(loc="outside upper center", ncols=len(trained))
        loss.margins(x=0.02)
        temperature.set_ylabel("temperature")
        temperature.set_xlabel("optimiser steps")
        return figure


def _draw_roc_panel(axes: Axes, inputs: Inputs, dataset: str, task: str) -> None:
    axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls=(0, (1, 3)), label="chance: 0.50")
    others = [(run, protocol) for run in inputs.runs[1:] for protocol in TESTED_PROTOCOLS]
    for number, (run, protocol) in enumerate(others):
        grey = CONTROL_GREYS[number // len(TESTED_PROTOCOLS) % len(CONTROL_GREYS)]
        dashes = CONTROL_DASHES[number % len(CONTROL_DASHES)]
        _draw_curve(axes, run, dataset, task, protocol, color=grey, lw=0.9, ls=dashes)
    num_others = len(axes.lines)
    for protocol, (colour, line) in PROTOCOL_STYLES.items():
        _draw_curve(axes, inputs.main, dataset, task, protocol, color=colour, lw=2.0, ls=line)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="N")  # the legend takes what is left below
    place = f"{dataset}, compat" if inputs.is_compat else dataset
    axes.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="sensitivity", title=f"{task_name(task)} ({place})")
    handles, labels = axes.get_legend_handles_labels()
    order = [*range(num_others, len(handles)), *range(1, num_others), 0]
    axes.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        title="AUROC",
    )


def _draw_curve(axes: Axes, run: RunResults, dataset: str, task: str, protocol: str, **style: Any) -> None:
    """Draw one curve with its AUROC; nothing if the run has no such evaluation."""
    cases = principal(run.predictions[dataset].filter(split="test", task=task, protocol=protocol), "task")
    if cases.is_empty():
        return
    fraction, scores = cases["fraction"][0], cases["scores"].list.get(1)
    share = f" of {format_percent(fraction)}" if 0 < fraction < 1 else ""
    auroc = metrics.auroc(cases["label"], scores)
    label = f"{run.name}, {protocol}{share}: {format_number(auroc)}"
    if np.isnan(auroc):
        axes.plot([], [], label=label, **style)
        return
    fpr, tpr, _ = metrics.roc_curve(cases["label"], scores)
    axes.plot(fpr, tpr, label=label, **style)


def _cycle(styles: tuple[tuple[str, Any], ...], number: int) -> list[tuple[str, Any]]:
    return [styles[index % len(styles)] for index in range(number)]
