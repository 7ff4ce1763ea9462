"""Stage ``evaluate``: embeddings of the zero-shot prompts by one run."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mammoclip.artifacts import PROMPTS, write_table
from mammoclip.models import load
from mammoclip.text import prompt_ensemble
from pipelines.command import run_stage


def run(arguments: argparse.Namespace) -> None:
    """Write one row per task, class and sentence."""
    model = load(arguments.model)
    rows = [
        (task, class_index, prompt, embedding)
        for task in arguments.tasks
        for class_index, prompts in enumerate(prompt_ensemble(task, arguments.prompts_per_class, arguments.seed))
        for prompt, embedding in zip(prompts, model.encode_text(prompts).tolist(), strict=True)
    ]
    write_table(pl.DataFrame(rows, schema=PROMPTS.schema, orient="row"), PROMPTS, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--prompts-per-class", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
