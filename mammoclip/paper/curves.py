"""ROC and precision-recall curves with their bands, and what the pictures of predictions have in common.

N test images, B resamples, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoclip.evaluation import metrics
from mammoclip.evaluation.checks import FloatArray, IntArray
from mammoclip.evaluation.resampling import Draws
from mammoclip.paper.figures import PROTOCOL_STYLES, draw_note
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number, format_percent, task_name

GRID: FloatArray = np.linspace(0, 1, 101)
"""False positive rates and recalls at which the bands are computed, G of them."""


@dataclass(frozen=True)
class Band:
    """Pointwise lower and upper bound at every point of the grid, each (G,)."""

    low: FloatArray
    high: FloatArray


def title_of(task: str, dataset: str, *more: str | None) -> str:
    """Return how a picture is called; what is None is left out.

    >>> title_of("skin_retraction", "vindr", "mammo-clip", "zero-shot")
    'Skin retraction (vindr), mammo-clip, zero-shot'
    """
    return ", ".join([f"{task_name(task)} ({dataset})", *(part for part in more if part is not None)])


def select_evaluation(predictions: pl.DataFrame, task: str, protocol: str) -> pl.DataFrame:
    """Return the labelled rows of one evaluation: the largest fraction, of its seeds the lowest, repeat 0."""
    rows = predictions.filter(
        pl.col("label").is_not_null(), pl.col("task") == task, pl.col("protocol") == protocol, pl.col("repeat") == 0
    )
    rows = rows.filter(pl.col("fraction") == pl.col("fraction").max())
    return rows.filter(pl.col("seed") == pl.col("seed").min())


def _why_not_two_classes(rows: pl.DataFrame) -> str | None:
    """Return why labelled test rows have no positive and negative images, or None if they have both."""
    if rows.is_empty():
        return "there are no test images with a label and a score"
    num_classes = len(rows["scores"][0])
    if num_classes != 2:
        return f"the task has {num_classes} classes, where two are needed"
    absent = [name for label, name in enumerate(("negative", "positive")) if label not in rows["label"]]
    return f"no test image is {absent[0]}" if absent else None


def rows_of_test(predictions: pl.DataFrame, task: str) -> tuple[dict[str, pl.DataFrame], str | None]:
    """Return the test rows of each protocol that was evaluated, and why they cannot be drawn, or None if they can."""
    evaluations = {name: select_evaluation(predictions, task, name).filter(split="test") for name in PROTOCOL_STYLES}
    evaluations = {name: rows for name, rows in evaluations.items() if len(rows)}
    reasons = [_why_not_two_classes(rows) for rows in evaluations.values()] or [
        _why_not_two_classes(predictions.clear())
    ]
    return evaluations, next((reason for reason in reasons if reason), None)


def draw_curves(
    predictions: pl.DataFrame,
    task: str,
    dataset: str,
    num_resamples: int,
    confidence: float,
    seed: int,
    run: str | None = None,
) -> Figure:
    """Return the ROC (left) and precision-recall curve (right) of every protocol on the test images.

    Of the trained protocols the largest fraction is shown, of its seeds the lowest. Bands are pointwise quantiles over
    resampled patients: of the sensitivity at a false positive rate, and of the precision at a recall.

    Args:
        predictions: table of this name, of one run and data set.
        task: a task of two classes.
        dataset: its name, for the title.
        num_resamples: of the patients.
        confidence: coverage of the bands at each point.
        seed: of the resamples.
        run: its name, for the title; None: the title names none.
    """
    evaluations, reason = rows_of_test(predictions, task)
    if reason:
        return draw_note(f"{title_of(task, dataset, run)}: no ROC curve, because {reason}.")
    first = next(iter(evaluations.values()))
    labels, num_patients = first["label"].to_numpy(), first["patient_id"].n_unique()
    with figure_style():
        figure = Figure(figsize=(8.8, 6.0), layout="constrained")
        roc, precision = figure.subplots(1, 2)
        roc.plot([0, 1], [0, 1], color="black", lw=0.8, ls=(0, (1, 3)), label="chance: 0.50")
        chance = f"chance, the prevalence: {format_number(labels.mean())}"
        precision.plot([0, 1], [labels.mean()] * 2, color="black", lw=0.8, ls=(0, (1, 3)), label=chance)
        for protocol, rows in evaluations.items():
            draws = Draws.of(rows["patient_id"].to_numpy(), num_resamples, seed)
            _draw_protocol(roc, precision, protocol, rows, draws, confidence)
        roc.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="sensitivity", title="ROC")
        precision.set(xlabel="recall (sensitivity)", ylabel="precision", title="Precision-recall")
        for axes, name in ((roc, "AUROC"), (precision, "AUPRC")):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
            handles, names = axes.get_legend_handles_labels()
            axes.legend(
                [*handles[1:], handles[0]],
                [*names[1:], names[0]],
                loc="upper center",
                bbox_to_anchor=(0.5, -0.12),
                title=name,
                handlelength=4.0,
            )
        tested = f"{len(labels):,} test images, {labels.sum():,} positive, of {num_patients:,} patients"
        bands = f"bands: {format_percent(confidence)}, patients resampled"
        figure.suptitle(
            f"{title_of(task, dataset, run)}: {tested}\n{bands if num_patients > 1 else 'no bands of one patient'}"
        )
        return figure


def _draw_protocol(
    roc: Axes, precision: Axes, protocol: str, rows: pl.DataFrame, draws: Draws, confidence: float
) -> None:
    colour, line = PROTOCOL_STYLES[protocol]
    labels, scores = rows["label"].to_numpy(), rows["scores"].list.get(1).to_numpy()
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    name = f"{protocol}: {format_number(metrics.auroc(labels, scores))}"
    roc.plot(fpr, tpr, color=colour, ls=line, lw=1.8, label=name)
    name = f"{protocol}: {format_number(metrics.auprc(labels, scores))}"
    precision.plot(*precision_steps(labels, scores), color=colour, ls=line, lw=1.8, drawstyle="steps-pre", label=name)
    if draws.num_clusters > 1:
        for axes, band in zip((roc, precision), curve_bands(labels, scores, draws, confidence), strict=True):
            face, edge = (colour, 0.15), (colour, 0.5)
            axes.fill_between(GRID, band.low, band.high, facecolor=face, edgecolor=edge, lw=0.5)


def precision_steps(labels: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the distinct recalls from 0 to 1 and the precision at the highest score that reaches each.

    The precision at a point holds from the recall of the point before: the area under these steps is the AUPRC.

    >>> recall, precision = precision_steps(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]))
    >>> recall.tolist(), precision.round(2).tolist()
    ([0.0, 0.5, 1.0], [1.0, 1.0, 0.67])
    """
    hits, alarms = _Ranking.of(labels, scores).called(np.ones(len(labels)))
    first = np.flatnonzero(np.diff(hits, prepend=0.0))
    precision = hits[first] / (hits[first] + alarms[first])
    return _from_zero(hits[first] / hits[-1]), np.concatenate([precision[:1], precision])


def curve_bands(labels: IntArray, scores: FloatArray, draws: Draws, confidence: float) -> tuple[Band, Band]:
    """Return the bands of the sensitivity and of the precision over `GRID`, of labels (N,) and scores (N,).

    A resample without one of the classes is left out; bands without any resample are NaN.
    """
    ranking = _Ranking.of(labels, scores)
    sensitivity, precision = ([np.full(len(GRID), np.nan)] * draws.num_resamples for _ in range(2))
    for resample in range(draws.num_resamples):
        hits, alarms = ranking.called(draws.multiplicities[draws.cluster_of_case, resample])
        if not hits[-1] or not alarms[-1]:
            continue
        recall = hits / hits[-1]
        # At a false positive rate that several thresholds share the highest sensitivity counts, as interp has it.
        sensitivity[resample] = np.interp(GRID, _from_zero(alarms / alarms[-1]), _from_zero(recall))
        reached = np.searchsorted(recall, np.maximum(GRID, 1 / hits[-1]) - 1e-9)
        precision[resample] = hits[reached] / (hits[reached] + alarms[reached])
    return _band(sensitivity, confidence), _band(precision, confidence)


def _band(values: Sequence[FloatArray], confidence: float) -> Band:
    defined = [value for value in values if not np.isnan(value).any()] or list(values)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail], axis=0)
    return Band(low, high)


def _from_zero(rates: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], rates])


@dataclass(frozen=True)
class _Ranking:
    """The order of N cases by score, highest first, which of them are positive, and the last case of each score."""

    order: IntArray
    positive: IntArray
    last: IntArray

    @classmethod
    def of(cls, labels: IntArray, scores: FloatArray) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        return cls(order, labels[order], np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)))

    def called(self, weights: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """Sum the weights (N,) of positives and of negatives that score at least each distinct score."""
        ranked = weights[self.order].astype(np.float64)
        hits = np.cumsum(ranked * self.positive)[self.last]
        return hits, np.cumsum(ranked)[self.last] - hits
