"""Stage ``evaluate``: linear probe of one task on frozen features, and its control."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammoclip.artifacts import FEATURES, PREDICTIONS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.evaluation.examples import num_classes, take_fraction, with_features
from mammoclip.evaluation.inputs import DatasetTables
from mammoclip.evaluation.predict import predict_probe
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write the predictions of the validation and test images."""
    section: EvaluateSection = arguments.config
    name, fraction, seed = arguments.task, arguments.fraction, arguments.seed
    task = section.tasks[name]
    features = read_table(FEATURES, arguments.features)
    rows = DatasetTables.read(arguments.results, arguments.dataset).labelled(task, name, section.mode)
    split = {part: rows.filter(split=part) for part in ("train", "validation", "test")}
    split["train"] = take_fraction(split["train"], fraction, seed)
    predictions = predict_probe(
        {part: with_features(features, chosen) for part, chosen in split.items()},
        name,
        num_classes(task, name),
        section.probe_strengths,
        fraction=fraction,
        seed=seed,
        num_permutations=section.num_permutations,
    )
    write_table(predictions, PREDICTIONS, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--fraction", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
