"""Every picture of a run's evaluation, by the name of its file, with the sentence that says what is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from mammoclip.config import EvaluateSection
from mammoclip.data.reader import ShardReader, eight_bits
from mammoclip.paper.curves import draw_curves
from mammoclip.paper.efficiency import draw_efficiency
from mammoclip.paper.gallery import draw_gallery
from mammoclip.paper.histograms import draw_histograms
from mammoclip.paper.inputs import Inputs, RunResults
from mammoclip.paper.reliability import draw_reliability
from mammoclip.paper.wording import TESTED_PROTOCOLS, task_name

_NUM_RESAMPLES = 500  # of a curve's band, which is read by eye
_PER_KIND = 6


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without suffix, the run that it is of, a title and a caption.

    ``is_photograph`` where most of it is crops, not lines.
    """

    name: str
    run: str
    title: str
    caption: str
    figure: Figure
    is_photograph: bool = False


def draw_pictures(inputs: Inputs, evaluate: EvaluateSection, seed: int) -> Iterator[Picture]:
    """Yield the pictures of every data set and task that a run was tested on, task by task.

    First those of the main run, then those of every untrained control, whose names end in that of the run. Data
    efficiency is drawn once, of all runs.
    """
    for run in (inputs.main, *inputs.untrained):
        for dataset in evaluate.datasets:
            predictions = run.predictions.get(dataset)
            if predictions is None or predictions.is_empty():
                continue
            reader = ShardReader(inputs.datasets[dataset].images, inputs.datasets[dataset].shards)
            try:
                for task in evaluate.tasks:
                    tested = [name for name in TESTED_PROTOCOLS if len(predictions.filter(task=task, protocol=name))]
                    if tested:
                        yield from _of_task(inputs, evaluate, run, dataset, task, tested, reader, seed)
            finally:
                reader.close()


def _of_task(
    inputs: Inputs,
    evaluate: EvaluateSection,
    run: RunResults,
    dataset: str,
    task: str,
    protocols: list[str],
    reader: ShardReader,
    seed: int,
) -> Iterator[Picture]:
    predictions, choices = run.predictions[dataset], run.choices
    confidence = evaluate.confidence
    is_main = run is inputs.main
    where = f"{task_name(task)}, {dataset}"
    ending = f"{dataset}.{task}"
    of_run = "" if is_main else f".{run.name}"
    if len(predictions.filter(task=task)["scores"][0]) == 2:
        yield Picture(
            f"curves.{ending}{of_run}",
            run.name,
            f"ROC and precision-recall of {run.name}: {where}",
            f"The test images as {run.name} ranks them. Bands are pointwise intervals of a bootstrap over patients; "
            "dotted lines are chance.",
            draw_curves(predictions, task, dataset, _NUM_RESAMPLES, confidence, seed, run.name),
        )
        yield Picture(
            f"histograms.{ending}{of_run}",
            run.name,
            f"Scores of {run.name}: {where}",
            f"Scores that {run.name} gives the positive class, by true label; the line is the threshold that "
            "validation images chose.",
            draw_histograms(predictions, choices, task, dataset, run.name),
        )
    if is_main:
        metrics = pl.concat([each.metrics for each in inputs.runs]).filter(dataset=dataset, task=task)
        yield Picture(
            f"efficiency.{ending}",
            run.name,
            f"Data efficiency of all runs: {where}",
            "AUROC against the share of the training patients, with intervals; horizontal lines are zero-shot.",
            draw_efficiency(metrics, task, dataset, confidence),
        )
    for protocol in protocols:
        yield Picture(
            f"reliability.{ending}.{protocol}{of_run}",
            run.name,
            f"Reliability of {run.name}, {protocol}: {where}",
            f"How often {run.name} is right against how sure it is, before and after temperature scaling on "
            "validation images; on the diagonal probabilities are frequencies. Bars count the images.",
            draw_reliability(predictions, choices, task, dataset, protocol, confidence, run.name),
        )
    if len(predictions.filter(task=task)["scores"][0]) == 2:
        finding = evaluate.tasks[task].attribute or task
        yield Picture(
            f"gallery.{ending}{of_run}",
            run.name,
            f"The surest hits and errors of {run.name}, {protocols[-1]}: {where}",
            f"Test images that {run.name} scores farthest from the threshold, one per patient, with the boxes of the "
            "finding.",
            draw_gallery(
                predictions,
                choices,
                inputs.datasets[dataset].findings,
                lambda image_id: eight_bits(reader.read(image_id)),
                task,
                dataset,
                protocols[-1],
                _PER_KIND,
                finding,
                run.name,
            ),
            is_photograph=True,
        )
