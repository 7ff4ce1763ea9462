"""Stage ``evaluate``: zero-shot predictions of one task, on a labelled or a showcase data set."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mammoclip.artifacts import FEATURES, PREDICTIONS, PROMPTS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.evaluation.examples import check_checkpoint, with_features
from mammoclip.evaluation.inputs import DatasetTables
from mammoclip.evaluation.predict import predict_zero_shot, prompt_directions
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write the predictions of the validation and test images."""
    section: EvaluateSection = arguments.config
    task = arguments.task
    features, prompts = read_table(FEATURES, arguments.features), read_table(PROMPTS, arguments.prompts)
    check_checkpoint(features, prompts["model_sha256"][0], arguments.features)
    tables = DatasetTables.read(arguments.results, arguments.dataset)
    if arguments.showcase:
        rows = tables.images.with_columns(label=pl.lit(None, pl.Int32)).sort("image_id")
    else:
        rows = tables.labelled(section.tasks[task], task, section.mode)
    parts = {split: with_features(features, rows.filter(split=split)) for split in ("validation", "test")}
    scale = 1.0 if section.mode == "compat" else prompts["logit_scale"][0]
    write_table(predict_zero_shot(parts, task, prompt_directions(prompts, task), scale), PREDICTIONS, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--showcase", action="store_true", help="the data set has no labels")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
