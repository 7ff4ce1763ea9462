"""The classification table, and the one-line answer that is read from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, RunResults
from mammoclip.paper.wording import (
    BINARY_TASKS,
    HEADLINE_METRICS,
    METRICS,
    NOT_AVAILABLE,
    PROTOCOLS,
    TASKS,
    format_interval,
    format_number,
)

_COUNTS = ("n", "n_positive", "num_patients")


@dataclass(frozen=True)
class Comparison:
    """The main run's AUROC of one binary task and protocol beside those of the control runs.

    ``controls`` are (run, text) pairs; ``above`` says for each control whose interval is known whether the main run's
    interval lies wholly above it.
    """

    dataset: str
    task: str
    protocol: str
    value: str
    interval: str
    controls: Sequence[tuple[str, str]]
    above: Sequence[bool]


def classification_csv(inputs: Inputs) -> str:
    """Return every metric of every run as CSV, one row each, full precision; an undefined number is n/a."""
    roles = pl.DataFrame([(run.name, run.control) for run in inputs.runs], ["run", "control"], orient="row")
    frame = pl.concat([run.metrics for run in inputs.runs]).join(roles, on="run", how="left", maintain_order="left")
    first = ["run", "control"]
    return frame.select(*first, pl.exclude(first)).fill_nan(None).write_csv(null_value=NOT_AVAILABLE)


def classification_grid(inputs: Inputs, evaluate: EvaluateSection) -> Grid:
    """Return rows data set x task x metric x protocol, one column per run, then images, positives and patients.

    Raises:
        ArtifactError: a run lacks a task or protocol, or was tested on other images than the main run.
    """
    rows: list[list[str]] = []
    for dataset in evaluate.datasets:
        for task in evaluate.tasks:
            for metric in _metrics_of(inputs.main, dataset, task):
                for protocol in PROTOCOLS:
                    found = [find_metric(run, dataset, task, protocol, metric) for run in inputs.runs]
                    counts = [[row[name] for name in _COUNTS] for row in found]
                    if any(count != counts[0] for count in counts):
                        raise ArtifactError(
                            f"the runs were not tested on the same images of {dataset!r}, task {task!r} (images, "
                            f"positives, patients: {counts}); rerun the evaluate stage for all runs"
                        )
                    labels = [dataset, TASKS[task], METRICS[metric], protocol]
                    values = [format_interval(row["value"], row["ci_low"], row["ci_high"]) for row in found]
                    rows.append([*labels, *values, *(_format_count(count) for count in counts[0])])
    header = ["Data set", "Task", "Metric", "Protocol", *(run.name for run in inputs.runs)]
    return Grid([*header, "Images", "Positive", "Patients"], rows, num_labels=4, num_group=3)


def compare_with_controls(inputs: Inputs, evaluate: EvaluateSection) -> list[Comparison]:
    """Return the main run beside its controls for every binary task, zero-shot and probe."""
    tasks = [task for task in evaluate.tasks if task in BINARY_TASKS]
    return [
        _compare(inputs, dataset, task, protocol)
        for dataset in evaluate.datasets
        for task in tasks
        for protocol in ("zero-shot", "probe")
    ]


def find_metric(run: RunResults, dataset: str, task: str, protocol: str, metric: str) -> dict[str, float]:
    """Return the row of a run's ``metrics`` table.

    Raises:
        ArtifactError: there is not exactly one such row.
    """
    rows = run.metrics.filter(dataset=dataset, task=task, protocol=protocol, metric=metric)
    if len(rows) != 1:
        raise ArtifactError(
            f"evaluate/{run.name}/{dataset}/metrics.parquet: expected one row for task {task!r}, protocol "
            f"{protocol!r}, metric {metric!r}, found {len(rows)}; rerun the evaluate stage"
        )
    row: dict[str, float] = rows.row(0, named=True)
    return row


def _metrics_of(run: RunResults, dataset: str, task: str) -> list[str]:
    present = set(run.metrics.filter(dataset=dataset, task=task)["metric"])
    metrics = [metric for metric in HEADLINE_METRICS[task] if metric in present]
    if not metrics:
        raise ArtifactError(
            f"evaluate/{run.name}/{dataset}/metrics.parquet: no {' or '.join(HEADLINE_METRICS[task])} of task "
            f"{task!r}; rerun the evaluate stage"
        )
    return metrics


def _compare(inputs: Inputs, dataset: str, task: str, protocol: str) -> Comparison:
    main = find_metric(inputs.main, dataset, task, protocol, "auroc")
    controls: list[tuple[str, str]] = []
    above: list[bool] = []
    for run in inputs.controls:
        row = find_metric(run, dataset, task, protocol, "auroc")
        controls.append((run.name, format_interval(row["value"], row["ci_low"], row["ci_high"])))
        if not math.isnan(main["ci_low"]) and not math.isnan(row["ci_high"]):
            above.append(main["ci_low"] > row["ci_high"])
    value, _, interval = format_interval(main["value"], main["ci_low"], main["ci_high"]).partition(" ")
    return Comparison(dataset, TASKS[task], protocol, value, interval, controls, above)


def _format_count(count: float | None) -> str:
    return NOT_AVAILABLE if count is None else format_number(count, digits=0)
