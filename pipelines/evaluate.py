"""Stage ``evaluate``: zero-shot and linear probe of one run, on labelled and on showcase data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from mammoclip.artifacts import (
    ATTRIBUTES,
    FEATURES,
    IMAGES,
    METRICS,
    PREDICTIONS,
    PROMPTS,
    Table,
    read_table,
    write_table,
)
from mammoclip.config import EvaluateSection
from mammoclip.evaluation.classify import mean_direction
from mammoclip.evaluation.evaluate import (
    compute_metrics,
    predict_probe,
    predict_zero_shot,
    predict_zero_shot_random,
    select_examples,
)
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write predictions, and metrics where there are labels."""
    section: EvaluateSection = arguments.config
    results, dataset = arguments.results, arguments.dataset
    labelled = dataset in section.datasets
    features = read_table(FEATURES, arguments.out / "features.parquet")
    prompts = read_table(PROMPTS, arguments.prompts)
    images = _read(results, dataset, IMAGES)
    attributes = _read(results, dataset, ATTRIBUTES) if labelled else None
    predictions: list[pl.DataFrame] = []
    chance: list[pl.DataFrame] = []
    for task in section.tasks:
        train, validation, test = (
            select_examples(features, images, attributes, task, split) for split in ("train", "validation", "test")
        )
        of_task = prompts.filter(pl.col("task") == task).sort("class_index")
        classes = [
            mean_direction(np.array(sentences["embedding"].to_list(), np.float64))
            for _, sentences in of_task.group_by("class_index", maintain_order=True)
        ]
        predictions.append(predict_zero_shot(test, task, np.array(classes)))
        if labelled:
            predictions.extend(predict_probe(train, validation, test, task, section, seed=arguments.seed))
            chance.extend(predict_zero_shot_random(test, task, seed=arguments.seed))
    table = pl.concat(predictions)
    write_table(table, PREDICTIONS, arguments.out / "predictions.parquet")
    metrics = METRICS.empty()
    if labelled:
        metrics = compute_metrics(pl.concat([table, *chance]), arguments.run, dataset, section, arguments.seed)
    write_table(metrics, METRICS, arguments.out / "metrics.parquet")


def _read(results: Path, dataset: str, table: Table) -> pl.DataFrame:
    return read_table(table, results / "tabulate" / dataset / f"{table.name}.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
