"""The classification table, and the one-line answer that is read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, RunResults
from mammoclip.paper.wording import (
    METRICS,
    NOT_AVAILABLE,
    PROTOCOLS,
    TESTED_PROTOCOLS,
    format_count,
    format_interval,
    format_training,
    task_name,
)

_TWO_CLASSES = ("auroc",)
_SEVERAL_CLASSES = ("macro_auroc", "balanced_accuracy", "kappa")
_COUNTS = ("n", "n_positive", "num_patients")
_POOLED = {"image": "none", "breast": "mean"}


class Line(NamedTuple):
    """What a row of the table is about; ``level`` is image or breast, whose images' scores are averaged."""

    dataset: str
    task: str
    metric: str
    level: str
    protocol: str
    fraction: float


class Summary(NamedTuple):
    """A metric over seeds: of one seed its value and interval, of several the mean, lowest low and highest high.

    ``num_seeds`` have a value, of ``num_tried``.
    """

    value: float | None
    low: float | None
    high: float | None
    num_seeds: int
    num_tried: int

    @property
    def text(self) -> str:
        """Value and interval, and of how many seeds if there are several."""
        text = format_interval(self.value, self.low, self.high)
        if self.num_tried < 2:
            return text
        seeds = self.num_tried if self.num_seeds == self.num_tried else f"{self.num_seeds} of {self.num_tried}"
        return f"{text} ({seeds} seeds)"


@dataclass(frozen=True)
class Headline:
    """The main run's AUROC of one binary task and protocol beside those of the control runs.

    ``fraction`` is the share of the training patients, the largest one. ``controls`` are (run, text) pairs; ``above``
    says for each control whose interval is known whether the main run's interval lies wholly above it.
    """

    dataset: str
    task: str
    protocol: str
    fraction: float
    mode: str
    value: str
    interval: str
    controls: Sequence[tuple[str, str]]
    above: Sequence[bool]

    @property
    def how(self) -> str:
        """The protocol, and what of it is not usual."""
        share = f" on {format_training(self.fraction)}" if 0 < self.fraction < 1 else ""
        return f"{self.protocol}{share}{', compat' if self.mode == 'compat' else ''}"


def classification_csv(inputs: Inputs) -> str:
    """Return every metric of every run as CSV, one row each, full precision; an undefined number is n/a."""
    return with_roles(inputs, pl.concat([run.metrics for run in inputs.runs])).write_csv(null_value=NOT_AVAILABLE)


def with_roles(inputs: Inputs, rows: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with the columns run and control (none, untrained, ...) first."""
    roles = pl.DataFrame([(run.name, run.control) for run in inputs.runs], ["run", "control"], orient="row")
    first = ["run", "control"]
    return rows.join(roles, on="run", how="left", maintain_order="left").select(*first, pl.exclude(first))


def classification_grid(inputs: Inputs, evaluate: EvaluateSection) -> Grid:
    """Return rows data set x task x metric x protocol x fraction, one column per run, then cases and patients.

    A run that the matrix of evaluations leaves out of a row has n/a there; see `Summary` for several seeds. In mode
    compat a column says so.

    Raises:
        ArtifactError: a run lacks an evaluation of the matrix, or was tested on other images than the others.
    """
    for run in inputs.runs:
        _check_complete(run, inputs, evaluate)
    modes = ["Mode"] if inputs.is_compat else []
    rows: list[list[str]] = []
    for line in _lines(inputs, evaluate):
        found = [find_metrics(run, line) for run in inputs.runs]
        known = pl.concat(found)
        counts = known.select(_COUNTS).unique(maintain_order=True).rows()
        if len(counts) > 1:
            raise ArtifactError(
                f"the runs were not tested on the same images of {line.dataset!r}, task {line.task!r} (cases, "
                f"positives, patients: {counts}); rerun the evaluate stage for all runs"
            )
        name = METRICS[line.metric] + (" (breast)" if line.level == "breast" else "")
        labels = [line.dataset, task_name(line.task), name, line.protocol, format_training(line.fraction)]
        mode = [" and ".join(sorted(set(known["mode"])))] if modes else []
        values = [summarise_seeds(rows_of_run).text for rows_of_run in found]
        rows.append([*labels, *mode, *values, *map(format_count, counts[0])])
    header = ["Data set", "Task", "Metric", "Protocol", "Train", *modes, *(run.name for run in inputs.runs)]
    return Grid([*header, "Cases", "Positive", "Patients"], rows, num_labels=5 + len(modes), num_group=3)


def compare_with_controls(inputs: Inputs, evaluate: EvaluateSection) -> list[Headline]:
    """Return the main run beside its controls for every binary task and protocol that it was evaluated on."""
    return [
        _headline(inputs, dataset, task, protocol)
        for dataset in evaluate.datasets
        for task in inputs.binary_tasks(dataset, evaluate.tasks)
        for protocol in TESTED_PROTOCOLS
        if len(_of_images(inputs.main, dataset, task).filter(protocol=protocol))
    ]


def find_metrics(run: RunResults, line: Line) -> pl.DataFrame:
    """Return the rows of a run's ``metrics`` table for a line, one per seed; none if the run has no such evaluation."""
    dataset, task, metric, level, protocol, fraction = line
    rows = run.metrics.filter(
        dataset=dataset, task=task, metric=metric, level=level, protocol=protocol, fraction=fraction
    )
    return rows.filter(pooling=_POOLED[level], subgroup="all").sort("seed")


def summarise_seeds(rows: pl.DataFrame) -> Summary:
    """Summarise rows of ``metrics`` that differ in their seeds alone."""
    defined = rows.drop_nulls("value")
    bounds = defined.drop_nulls(["ci_low", "ci_high"])
    bounded = len(bounds) == len(defined) and len(defined) > 0
    low, high = bounds.select(pl.col("ci_low").min(), pl.col("ci_high").max()).row(0) if bounded else (None, None)
    value = defined.select(pl.col("value").mean()).item()
    return Summary(value, low, high, num_seeds=len(defined), num_tried=len(rows))


def _of_images(run: RunResults, dataset: str, task: str) -> pl.DataFrame:
    return run.metrics.filter(dataset=dataset, task=task, level="image", subgroup="all")


def _headline_metrics(inputs: Inputs, dataset: str, task: str) -> Sequence[str]:
    return _TWO_CLASSES if inputs.num_classes(dataset, task) == 2 else _SEVERAL_CLASSES


def _lines(inputs: Inputs, evaluate: EvaluateSection) -> Iterator[Line]:
    """Yield the lines of the table in order: those of which any run has a row."""
    tables = pl.concat([run.metrics for run in inputs.runs]).filter(subgroup="all")
    for dataset in evaluate.datasets:
        for task in evaluate.tasks:
            of_task = tables.filter(dataset=dataset, task=task)
            images = of_task.filter(level="image")
            breasts = of_task.filter(level="breast", pooling="mean")
            for metric in _headline_metrics(inputs, dataset, task):
                for level, rows in (("image", images), ("breast", breasts)):
                    if level == "breast" and (metric != "auroc" or set(rows["n"]) <= set(images["n"])):
                        continue
                    pairs = set(rows.filter(metric=metric).select("protocol", "fraction").rows())
                    for protocol, fraction in sorted(pairs, key=lambda pair: (PROTOCOLS.index(pair[0]), pair[1])):
                        yield Line(dataset, task, metric, level, protocol, fraction)


def _check_complete(run: RunResults, inputs: Inputs, evaluate: EvaluateSection) -> None:
    """Raise unless a run has one row for every evaluation that the matrix gives it, and headline metric."""
    for cell in evaluate.evaluations([run.name]):
        if cell.run != run.name:
            continue
        for metric in _headline_metrics(inputs, cell.dataset, cell.task):
            fraction = float(f"{cell.fraction:g}")  # as the file is named
            line = Line(cell.dataset, cell.task, metric, "image", cell.protocol, fraction)
            num_found = len(find_metrics(run, line).filter(seed=cell.seed))
            if num_found != 1:
                raise ArtifactError(
                    f"evaluate/{run.name}/{cell.dataset}/metrics.parquet: expected one row for {cell.name}, metric "
                    f"{metric!r}, found {num_found}; rerun the evaluate stage"
                )


def _headline(inputs: Inputs, dataset: str, task: str, protocol: str) -> Headline:
    rows = _of_images(inputs.main, dataset, task).filter(protocol=protocol, metric="auroc")
    fraction = float(rows.select(pl.col("fraction").max()).item())
    line = Line(dataset, task, "auroc", "image", protocol, fraction)
    main = summarise_seeds(find_metrics(inputs.main, line))
    controls: list[tuple[str, str]] = []
    above: list[bool] = []
    for run in inputs.controls:
        control = summarise_seeds(find_metrics(run, line))
        controls.append((run.name, control.text))
        if main.low is not None and control.high is not None:
            above.append(main.low > control.high)
    value, _, interval = main.text.partition(" ")
    return Headline(dataset, task_name(task), protocol, fraction, rows["mode"][0], value, interval, controls, above)
