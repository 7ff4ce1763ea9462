"""Stage ``evaluate``: embeddings of the zero-shot prompts by one run."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mammoclip.artifacts import PROMPTS, write_table
from mammoclip.config import EvaluateSection, TaskSection
from mammoclip.errors import ConfigError
from mammoclip.evaluation.features import weights_sha256
from mammoclip.models import load
from mammoclip.text import prompt_ensemble
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write one row per task, class and sentence."""
    section: EvaluateSection = arguments.config
    model = load(arguments.model)
    model_sha256 = weights_sha256(arguments.model)
    logit_scale = float(model.logit_scale.exp())
    rows = [
        (task, class_index, prompt, model_sha256, logit_scale, embedding)
        for task in section.tasks
        for class_index, prompts in enumerate(task_prompts(section, task, arguments.seed))
        for prompt, embedding in zip(prompts, model.encode_text(prompts).tolist(), strict=True)
    ]
    write_table(pl.DataFrame(rows, schema=PROMPTS.schema, orient="row"), PROMPTS, arguments.out)


def task_prompts(section: EvaluateSection, name: str, seed: int) -> list[list[str]]:
    """Return the sentences of each class of a task, in class order: its own, or those of the grammar.

    A task of which the grammar does not speak has none, if neither matrix nor showcase asks for zero-shot.

    Raises:
        ConfigError: there are none although zero-shot needs them, or a class is of a value that none speaks of.
    """
    task = section.tasks[name]
    if task.prompts is not None:
        return task.prompts
    try:
        return _prompts_of_values(name, task, section.prompts_per_class, seed)
    except ConfigError:
        if section.showcase or any(name in row.tasks and "zero-shot" in row.protocols for row in section.matrix):
            raise
        return []


def _prompts_of_values(name: str, task: TaskSection, size: int, seed: int) -> list[list[str]]:
    try:
        classes = [list(prompts) for prompts in prompt_ensemble(task.attribute or name, size, seed)]
    except ConfigError as error:
        raise ConfigError(f"evaluate.tasks.{name}: {error} Or give its prompts.") from None
    if task.values is None:
        return classes
    if unknown := sorted(set(task.values) - set(range(len(classes)))):
        raise ConfigError(
            f"evaluate.tasks.{name}: no prompt speaks of the value {unknown[0]}, those known are 0 to "
            f"{len(classes) - 1}; correct its values, or give its prompts"
        )
    return [classes[value] for value in task.values]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
