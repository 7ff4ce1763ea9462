"""The section of the stage ``evaluate``, and the evaluations that its matrix asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator

from mammoclip.config.data import FINDING_NAMES, Mode
from mammoclip.config.pretrain import Augmentation
from mammoclip.config.section import Name, PositiveInt, Section, suggest
from mammoclip.errors import ConfigError

TASKS = (*FINDING_NAMES, "density", "birads", "malignancy", "implant")
"""Tasks that need no section of their own: labels of the tables for which the prompt grammar has sentences."""
_PAPER_TASKS = ("mass", "suspicious_calcification", "density")
Protocol = Literal["zero-shot", "linear-probe", "fine-tune"]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0)]


class TaskSection(Section):
    """One thing to be recognised; with no key, what the prompt grammar and the labels call by the task's name."""

    attribute: str | None = Field(default=None, description="label of the data sets; null: the name of the task")
    values: list[int] | None = Field(
        default=None,
        description="values of the label, one per class in order, other values are left out; null: 0, 1, ... (density "
        "0-3 for A-D)",
    )
    prompts: list[list[str]] | None = Field(
        default=None, description="sentences of each class for zero-shot; null: prompts_per_class of the grammar"
    )

    def model_post_init(self, __context: object) -> None:
        """Check that there is a class for every value, and that no two say the same."""
        if self.values is not None and (len(self.values) < 2 or len(set(self.values)) < len(self.values)):
            raise ConfigError(f"evaluate.tasks: values must be two different ones at least, got {self.values}")
        if self.prompts is None:
            return
        if self.values is not None and len(self.values) != len(self.prompts):
            raise ConfigError(f"evaluate.tasks: {len(self.values)} values, but prompts of {len(self.prompts)} classes")
        if len(self.prompts) < 2 or not all(sentences and all(map(str.strip, sentences)) for sentences in self.prompts):
            raise ConfigError(
                "evaluate.tasks: prompts need two classes at least, each with sentences that are not empty"
            )
        if len({tuple(sorted(sentences)) for sentences in self.prompts}) < len(self.prompts):
            raise ConfigError("evaluate.tasks: two classes have equal prompts, so no image could tell them apart")


class MatrixRow(Section):
    """Evaluations: every combination of what the lists name."""

    runs: list[Name] = Field(default=[], description="pretraining runs; none: all")
    datasets: list[Name] = Field(min_length=1, description="data sets with labels")
    tasks: list[Name] = Field(min_length=1, description="tasks, as evaluate.tasks names them")
    protocols: list[Protocol] = Field(
        min_length=1,
        description="zero-shot; linear-probe (compat: head trained with augmentation); fine-tune (encoder too)",
    )
    fractions: list[Share] = Field(default=[1.0], description="shares of the training patients; not for zero-shot")
    seeds: list[Seed] = Field(default=[0], description="seeds of patients and training; not for zero-shot")


class FineTuneSection(Section):
    """Training of a head, alone or with the image encoder (paper: AdamW, 5e-5, 30 epochs, batches of 8)."""

    num_epochs: PositiveInt = Field(default=30, description="passes over the training images at most (paper: 30)")
    patience: PositiveInt = Field(
        default=5, description="epochs without a better validation AUROC that end it; compat trains all epochs"
    )
    batch_size: PositiveInt = Field(default=8, description="images per step, over all processes (paper: 8)")
    learning_rate: float = Field(default=5e-5, gt=0, description="of AdamW, for the head and the last block")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay of AdamW")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor of the learning rate from one block to the one before; 1: none"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, else fp32"
    )
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class Evaluation:
    """One cell of the matrix; ``fraction`` and ``seed`` are 0 for zero-shot, which trains nothing."""

    run: str
    dataset: str
    task: str
    protocol: Protocol
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """The predictions' file below the folder of run and data set, without its end.

        >>> Evaluation("mammo-clip", "vindr", "mass", "linear-probe", 0.1, 0).name
        'mass/linear-probe-0.1-0'
        """
        trained = "" if self.protocol == "zero-shot" else f"-{self.fraction:g}-{self.seed}"
        return f"{self.task}/{self.protocol}{trained}"


class EvaluateSection(Section):
    """Zero-shot classification, linear probe, fine-tuning and retrieval."""

    mode: Mode = Field(
        default="strict",
        description="compat, as released: labels per row, zero-shot without temperature, a probe trained with "
        "augmentation, the epoch selected on the test images; tabulate.mode has to be compat too",
    )
    matrix: list[MatrixRow] = Field(default=[], description="evaluations: metrics are computed on the test patients")
    tasks: dict[Name, TaskSection] = Field(
        default={},
        validate_default=True,
        description="what is recognised, by name; findings, density, birads, malignancy and implant, which the matrix "
        "may name, need no entry; without a matrix: mass, suspicious_calcification, density",
    )
    retrieval: list[Name] = Field(
        default=[], description="data sets with texts whose test breasts are searched, image to text and back"
    )
    showcase: list[Name] = Field(
        default=[], description="data sets without labels: scored by zero-shot of the main run and shown image by image"
    )
    gpus: int = Field(
        default=1, ge=0, description="GPUs of a feature pass or a fine-tuning, one process each; 0: on the CPU"
    )
    batch_size: PositiveInt = Field(default=16, description="images per forward pass")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="of the frozen features: auto is bf16 on a GPU that has it, else fp32"
    )
    flip: bool = Field(default=False, description="frozen features are the mean of an image and its mirror image")
    probe_strengths: list[PositiveFloat] = Field(
        default=[0.001, 0.01, 0.1, 1.0],
        min_length=1,
        description="inverse L2 strengths; the best on validation patients is used",
    )
    prompts_per_class: PositiveInt = Field(
        default=16, description="zero-shot sentences whose embeddings are averaged; 1: the single prompts of the paper"
    )
    num_permutations: PositiveInt = Field(
        default=10, description="permutations of the training labels, on which the probe is fitted as a control"
    )
    num_resamples: PositiveInt = Field(default=2000, description="bootstrap resamples, clustered by patient")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="coverage of the intervals")
    fine_tune: FineTuneSection = FineTuneSection()

    @field_validator("tasks")
    @classmethod
    def _with_known_tasks(cls, tasks: dict[str, TaskSection], info: ValidationInfo) -> dict[str, TaskSection]:
        """Add the tasks that the matrix names and that need no entry."""
        named = [task for row in info.data.get("matrix", []) for task in row.tasks] or ([] if tasks else _PAPER_TASKS)
        for task in named:
            if task not in tasks and task not in TASKS:
                raise ConfigError(
                    f"evaluate.matrix names the task {task!r}{suggest(task, {*tasks, *TASKS})}; describe a new one "
                    "under evaluate.tasks"
                )
        return {task: TaskSection() for task in named} | tasks

    @property
    def datasets(self) -> list[str]:
        """The data sets of the matrix."""
        return list(dict.fromkeys(dataset for row in self.matrix for dataset in row.datasets))

    def evaluations(self, runs: Sequence[str]) -> list[Evaluation]:
        """Return the cells of the matrix, each once, of all pretraining ``runs`` where a row names none."""
        cells = [
            Evaluation(run, dataset, task, protocol, fraction, seed)
            for row in self.matrix
            for run, dataset, task, protocol in product(row.runs or runs, row.datasets, row.tasks, row.protocols)
            for fraction, seed in ([(0.0, 0)] if protocol == "zero-shot" else product(row.fractions, row.seeds))
        ]
        return list(dict.fromkeys(cells))
