"""Every picture of the main run's evaluation, by the name of its file, with the sentence that says what is seen."""

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
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.reliability import draw_reliability
from mammoclip.paper.wording import TESTED_PROTOCOLS, task_name

_NUM_RESAMPLES = 500  # of a curve's band, which is read by eye
_PER_KIND = 6


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without suffix, a title and a caption."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_pictures(inputs: Inputs, evaluate: EvaluateSection, seed: int) -> Iterator[Picture]:
    """Yield the pictures of every data set and task that the main run was tested on, task by task."""
    main = inputs.main
    metrics = pl.concat([run.metrics for run in inputs.runs])
    for dataset in evaluate.datasets:
        predictions = main.predictions.get(dataset)
        if predictions is None or predictions.is_empty():
            continue
        reader = ShardReader(inputs.datasets[dataset].images, inputs.datasets[dataset].shards)
        try:
            for task in evaluate.tasks:
                tested = [name for name in TESTED_PROTOCOLS if len(predictions.filter(task=task, protocol=name))]
                if tested:
                    of_task = metrics.filter(dataset=dataset, task=task)
                    yield from _of_task(inputs, evaluate, dataset, task, tested, of_task, reader, seed)
        finally:
            reader.close()


def _of_task(
    inputs: Inputs,
    evaluate: EvaluateSection,
    dataset: str,
    task: str,
    protocols: list[str],
    metrics: pl.DataFrame,
    reader: ShardReader,
    seed: int,
) -> Iterator[Picture]:
    predictions, choices = inputs.main.predictions[dataset], inputs.main.choices
    confidence = evaluate.confidence
    where = f"{task_name(task)}, {dataset}"
    if len(predictions.filter(task=task)["scores"][0]) == 2:
        yield Picture(
            f"curves.{dataset}.{task}",
            f"ROC and precision-recall: {where}",
            "Bands are pointwise intervals of a bootstrap over patients; dotted lines are chance.",
            draw_curves(predictions, task, dataset, _NUM_RESAMPLES, confidence, seed),
        )
        yield Picture(
            f"histograms.{dataset}.{task}",
            f"Scores: {where}",
            "Scores of the positive class by true label; the line is the threshold that validation images chose.",
            draw_histograms(predictions, choices, task, dataset),
        )
    yield Picture(
        f"efficiency.{dataset}.{task}",
        f"Data efficiency: {where}",
        "AUROC against the share of the training patients, with intervals; horizontal lines are zero-shot.",
        draw_efficiency(metrics, task, dataset, confidence),
    )
    for protocol in protocols:
        yield Picture(
            f"reliability.{dataset}.{task}.{protocol}",
            f"Reliability of {protocol}: {where}",
            "Frequency against confidence, before and after temperature scaling on validation images; on the diagonal "
            "probabilities are frequencies. Bars count the images.",
            draw_reliability(predictions, choices, task, dataset, protocol, confidence),
        )
    if len(predictions.filter(task=task)["scores"][0]) == 2:
        finding = evaluate.tasks[task].attribute or task
        findings = inputs.datasets[dataset].findings
        yield Picture(
            f"gallery.{dataset}.{task}",
            f"The surest hits and errors of {protocols[-1]}: {where}",
            "Test images farthest from the threshold, one per patient, with the boxes of the finding.",
            draw_gallery(
                predictions,
                choices,
                findings,
                lambda image_id: eight_bits(reader.read(image_id)),
                task,
                dataset,
                protocols[-1],
                _PER_KIND,
                finding,
            ),
        )
