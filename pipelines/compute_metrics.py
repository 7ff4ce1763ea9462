"""Stage ``evaluate``: metrics of one run on one data set, and what the validation images chose."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from mammoclip.artifacts import CHOICES, FEATURES, METRICS, PREDICTIONS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.evaluation.choices import Choices
from mammoclip.evaluation.examples import num_classes, with_features
from mammoclip.evaluation.groups import subgroups_of
from mammoclip.evaluation.inputs import DatasetTables
from mammoclip.evaluation.predict import random_zero_shot
from mammoclip.evaluation.summary import Row, cases_of, choices_of, control_rows, majority_rows, of_images, summarise
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.evaluate")


def run(arguments: argparse.Namespace) -> None:
    """Write both tables."""
    section: EvaluateSection = arguments.config
    tables = DatasetTables.read(arguments.results, arguments.dataset)
    of_run = {"run": arguments.run, "dataset": arguments.dataset}
    metrics: list[Row] = []
    choices: list[Row] = []
    for path in arguments.predictions:
        predictions = read_table(PREDICTIONS, path)
        choices.extend(_chosen(predictions, choices_of(predictions)))
        task = predictions["task"][0]
        attribute = section.tasks[task].attribute or task
        groups = subgroups_of(tables.images, tables.index, tables.attributes, tables.findings, attribute)
        metrics.extend(summarise(predictions, tables.images, groups, section, arguments.seed))
        if predictions["protocol"][0] == "zero-shot":
            metrics.extend(_chance(predictions, read_table(FEATURES, arguments.features), section, arguments.seed))
    for table, rows, out in ((CHOICES, choices, "choices.parquet"), (METRICS, metrics, "metrics.parquet")):
        frame = pl.DataFrame([of_run | row for row in rows], schema=table.schema)
        write_table(frame, table, arguments.out / out)
    for row in metrics:
        if row["metric"] in ("auroc", "macro_auroc") and row["level"] == "image" and row["subgroup"] == "all":
            value = "n/a" if row["value"] is None else f"{row['value']:.3f}"
            told = f"{arguments.run}/{arguments.dataset}: {row['task']} {row['protocol']} {row['fraction']:g}"
            log.info("evaluate %s %s %s", told, row["metric"], value)


def _chance(predictions: pl.DataFrame, features: pl.DataFrame, section: EvaluateSection, seed: int) -> Iterator[Row]:
    """Yield what zero-shot is compared with: random prompts and, of several classes, always the most frequent one."""
    test = predictions.filter(split="test")
    name, cases = test["task"][0], cases_of(test)
    told = {"task": name, "fraction": 0.0, "seed": 0, **of_images(section)}
    scores = random_zero_shot(with_features(features, test), num_classes(section.tasks[name], name), seed)
    yield from control_rows(told | {"protocol": "zero-shot-random"}, cases, scores, section)
    if cases.probabilities.shape[1] > 2:
        yield from majority_rows(told | {"protocol": "majority"}, cases, section, seed)


def _chosen(predictions: pl.DataFrame, choices: Choices) -> Iterator[Row]:
    evaluation = predictions.select("task", "protocol", "fraction", "seed").row(0, named=True)
    nothing = "nothing is selected" if predictions["selected"][0] is None else None
    for choice, value, reason in (
        ("selected", predictions["selected"][0], nothing),
        ("temperature", choices.temperature, choices.why_no_temperature),
        ("threshold", choices.threshold, choices.why_no_threshold),
    ):
        yield {**evaluation, "choice": choice, "value": value, "reason": reason}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
