"""Stage ``evaluate``: embeddings of the zero-shot prompts by one run."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mammoclip.artifacts import PROMPTS, write_table
from mammoclip.config import EvaluateSection
from mammoclip.models import load
from mammoclip.text import zero_shot_prompts
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write one row per task and class."""
    section: EvaluateSection = arguments.config
    model = load(arguments.model)
    rows = [
        (task, class_index, prompt, model.encode_text(prompt)[0].tolist())
        for task in section.tasks
        for class_index, prompt in enumerate(zero_shot_prompts(task))
    ]
    write_table(pl.DataFrame(rows, schema=PROMPTS.schema, orient="row"), PROMPTS, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
