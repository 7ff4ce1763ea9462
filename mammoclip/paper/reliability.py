"""Reliability diagrams: how often the model is right where it says how sure it is.

N test images, K classes, bins as of the calibration error.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.stats  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.evaluation.calibration import (
    NUM_BINS,
    TemperatureScaling,
    calibration_gaps,
    expected_calibration_error,
    to_logits,
)
from mammoclip.evaluation.checks import FloatArray, IntArray, check_probabilities
from mammoclip.evaluation.examples import to_array
from mammoclip.paper.curves import select_evaluation, title_of
from mammoclip.paper.figures import BLUE, VERMILION, draw_note
from mammoclip.paper.histograms import find_choice, set_count_axis
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number, format_percent


@dataclass(frozen=True)
class Bins:
    """The bins with at least one image, each array (bins,): number, images, mean confidence, frequency, interval."""

    numbers: IntArray
    counts: IntArray
    confidence: FloatArray
    frequency: FloatArray
    low: FloatArray
    high: FloatArray


def reliability_bins(labels: IntArray, probabilities: FloatArray, patients: IntArray, confidence: float) -> Bins:
    """Return the bins of the calibration error, each with the frequency of being right and its interval.

    Of (N,) probabilities the confidence is that of the positive class and right is positive; of (N, K) it is that of
    the likeliest class. The interval is Wilson's, with the patients of the bin as its cases: as if images of one
    patient were all alike. With one image per patient it is Wilson's own; else it is on the safe side. Unlike a
    bootstrap's, it has a width where all images of a bin are right.

    Args:
        labels: (N,).
        probabilities: (N,) or (N, K).
        patients: (N,), a number for each patient.
        confidence: coverage of the intervals.
    """
    y, p = check_probabilities(labels, probabilities)
    bin_of_case, gaps = calibration_gaps(y, p, NUM_BINS)
    stated = p if p.ndim == 1 else p.max(axis=1)
    numbers, place, counts = np.unique(bin_of_case, return_inverse=True, return_counts=True)
    frequency = np.bincount(place, np.round(stated - gaps)) / counts
    num_patients = np.array([len(set(patients[place == number])) for number in range(len(numbers))])
    low, high = _wilson(frequency, num_patients, confidence)
    return Bins(numbers, counts, np.bincount(place, stated) / counts, frequency, low, high)


def draw_reliability(
    predictions: pl.DataFrame,
    choices: pl.DataFrame,
    task: str,
    dataset: str,
    protocol: str,
    confidence: float,
    run: str | None = None,
) -> Figure:
    """Return the reliability diagram of the test images before and after temperature scaling, with counts below.

    Of a trained protocol the largest fraction is shown, of its seeds the lowest.

    Args:
        predictions: table of this name, of one run and data set.
        choices: table of this name, of the same run.
        task: of two classes, where the confidence is the score of the positive one, or more, of the likeliest one.
        dataset: its name.
        protocol: zero-shot, linear-probe or fine-tune.
        confidence: coverage of the intervals.
        run: its name, for the title; None: the title names none.
    """
    title = title_of(task, dataset, run, protocol)
    rows = select_evaluation(predictions, task, protocol).filter(split="test")
    if rows.is_empty():
        return draw_note(f"{title}: no reliability diagram, because there are no test images with a label and a score.")
    probabilities = to_array(rows["scores"])
    temperature, reason = find_choice(choices, dataset, rows, "temperature")
    with figure_style():
        figure = Figure(figsize=(7.6, 5.4), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, height_ratios=(4, 1))
        _draw_panel(panels[0, 0], panels[1, 0], rows, probabilities, confidence, "before scaling")
        if temperature is None:
            for axes in panels[:, 1]:
                axes.set_axis_off()
            why = textwrap.fill(f"Not scaled: {reason}", 38)
            panels[0, 1].text(0.5, 0.5, why, ha="center", va="center", transform=panels[0, 1].transAxes)
        else:
            scaled = TemperatureScaling(temperature).probabilities(to_logits(probabilities))
            name = f"at temperature {format_number(temperature)}"
            _draw_panel(panels[0, 1], panels[1, 1], rows, scaled, confidence, name)
        two = probabilities.shape[1] == 2
        panels[0, 0].set_ylabel("share of positive images" if two else "share of images with the class")
        panels[1, 0].set_ylabel("images")
        for axes in panels[1]:
            axes.set_xlabel("score of the positive class" if two else "score of the likeliest class")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle(title)
        return figure


def _draw_panel(
    diagram: Axes, strip: Axes, rows: pl.DataFrame, probabilities: FloatArray, confidence: float, name: str
) -> None:
    labels = rows["label"].to_numpy().astype(np.int64)
    patients = rows["patient_id"].rank("dense").to_numpy().astype(np.int64)
    stated = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    bins = reliability_bins(labels, stated, patients, confidence)
    diagram.plot([0, 1], [0, 1], color="black", lw=0.8, ls=(0, (1, 3)), label="perfect calibration")
    diagram.errorbar(
        bins.confidence,
        bins.frequency,
        yerr=np.abs([bins.low, bins.high] - bins.frequency),
        color=BLUE,
        marker="o",
        ms=4,
        lw=1.2,
        ls="none",
        capsize=2,
        label=f"bins with {format_percent(confidence)} intervals",
    )
    ece = expected_calibration_error(labels, stated)
    diagram.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=f"{name}: ECE {format_number(ece, 3)}")
    edges = np.linspace(0, 1, NUM_BINS + 1)
    strip.bar(edges[bins.numbers], bins.counts, width=1 / NUM_BINS, align="edge", color=VERMILION, edgecolor="white")
    set_count_axis(strip, int(bins.counts.min()), int(bins.counts.max()))


def _wilson(shares: FloatArray, sizes: IntArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's score interval (1927) of shares among as many cases as ``sizes`` says."""
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    centre = (shares + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    half = z / (1 + z**2 / sizes) * np.sqrt(shares * (1 - shares) / sizes + z**2 / (4 * sizes**2))
    return np.minimum(centre - half, shares), np.maximum(centre + half, shares)
