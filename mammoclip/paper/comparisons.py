"""The main run against every other run on the same test images: difference of AUROC, with a test for it.

The p-values are of DeLong's test with the images of a patient taken as dependent, adjusted by Holm over the whole
table; the intervals are of a bootstrap in which both runs see the same resampled patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.delong import delong_test
from mammoclip.evaluation.metrics import auroc
from mammoclip.evaluation.statistics import holm, paired_clustered_bootstrap
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, RunResults
from mammoclip.paper.wording import (
    TESTED_PROTOCOLS,
    explain_missing,
    format_count,
    format_interval,
    format_number,
    format_p_value,
    format_training,
    task_name,
)

_SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "task": pl.String,
        "protocol": pl.String,
        "fraction": pl.Float64,
        "seed": pl.Int32,
        "mode": pl.String,
        "run": pl.String,
        "other": pl.String,
        "auroc": pl.Float64,
        "auroc_other": pl.Float64,
        "difference": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "p_value": pl.Float64,
        "p_holm": pl.Float64,
        "n": pl.Int32,
        "n_positive": pl.Int32,
        "num_patients": pl.Int32,
        "reason": pl.String,
    }
)


def comparisons(inputs: Inputs, evaluate: EvaluateSection, seed: int) -> pl.DataFrame:
    """Return a row per binary evaluation of the main run and other run.

    An evaluation is a data set, task, protocol and fraction; of several seeds the lowest one is compared. ``auroc`` is
    of images and ``difference`` is ``auroc`` minus ``auroc_other``; a number that is not defined is null, and
    ``reason`` says why. ``p_holm`` counts all defined p-values of the table.

    Args:
        inputs: predictions of all runs.
        evaluate: data sets and tasks in order, resamples and confidence of the intervals.
        seed: of the resamples.

    Raises:
        ArtifactError: two runs were not tested on the same images.
    """
    rows = [
        {**cell, "run": inputs.main.name, "other": run.name, **_compare(inputs.main, run, cell, evaluate, seed)}
        for cell in _cells(inputs, evaluate)
        for run in inputs.runs[1:]
    ]
    table = pl.DataFrame(rows, schema=_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    adjusted = holm(table["p_value"].fill_null(float("nan")).to_numpy())
    return table.with_columns(p_holm=pl.Series(adjusted, dtype=pl.Float64).fill_nan(None))


def comparisons_grid(table: pl.DataFrame, is_compat: bool) -> Grid:
    """Return the table of `comparisons` for people."""
    modes = ["Mode"] if is_compat else []
    rows = [_grid_row(row, modes) for row in table.iter_rows(named=True)]
    header = ["Data set", "Task", "Protocol", "Train", *modes, "Other run", "AUROC", "AUROC of other", "Difference"]
    return Grid(
        [*header, "p", "p (Holm)", "Images", "Positive", "Patients"], rows, num_labels=5 + len(modes), num_group=2
    )


def _grid_row(row: dict[str, Any], modes: list[str]) -> list[str]:
    difference = format_interval(row["difference"], row["ci_low"], row["ci_high"])
    p_value = format_p_value(row["p_value"])
    if row["difference"] is None:
        difference = explain_missing(row["reason"])
    elif row["p_value"] is None:
        p_value = explain_missing(row["reason"])
    return [
        *(row["dataset"], task_name(row["task"]), row["protocol"], format_training(row["fraction"])),
        *([row["mode"]] if modes else []),
        row["other"],
        format_number(row["auroc"]),
        format_number(row["auroc_other"]),
        *(difference, p_value, format_p_value(row["p_holm"])),
        *(format_count(row[name]) for name in ("n", "n_positive", "num_patients")),
    ]


def _cells(inputs: Inputs, evaluate: EvaluateSection) -> Iterator[dict[str, Any]]:
    """Yield data set, task, protocol, fraction, seed and mode of the main run's evaluations of binary tasks."""
    for dataset in evaluate.datasets:
        predictions = inputs.main.predictions[dataset]
        for task in inputs.binary_tasks(dataset, evaluate.tasks):
            for protocol in TESTED_PROTOCOLS:
                of_protocol = predictions.filter(task=task, protocol=protocol)
                for fraction, seed in (
                    of_protocol.group_by("fraction").agg(pl.col("seed").min()).sort("fraction").rows()
                ):
                    cell = {"task": task, "protocol": protocol, "fraction": fraction, "seed": seed}
                    modes = inputs.main.metrics.filter(dataset=dataset, **cell)["mode"]
                    yield {"dataset": dataset, **cell, "mode": modes[0] if len(modes) else None}


def _tested(run: RunResults, cell: dict[str, Any]) -> pl.DataFrame:
    """Return the test rows of an evaluation: image_id, patient_id, label, score; compat has several of some images."""
    evaluation = {name: cell[name] for name in ("task", "protocol", "fraction", "seed")}
    rows = run.predictions[cell["dataset"]].filter(split="test", **evaluation)
    score = pl.col("scores").list.get(1).alias("score")
    return rows.select("image_id", "patient_id", "label", score).sort("image_id", "label")


def _compare(
    main: RunResults, other: RunResults, cell: dict[str, Any], evaluate: EvaluateSection, seed: int
) -> dict[str, Any]:
    ours, theirs = _tested(main, cell), _tested(other, cell)
    labels, patients = ours["label"].to_numpy(), np.asarray(ours["patient_id"].to_list())
    counts = {"n": len(labels), "n_positive": int(labels.sum()), "num_patients": ours["patient_id"].n_unique()}
    if theirs.is_empty():
        return {**counts, "auroc": auroc(labels, ours["score"]), "reason": f"{other.name} has no such evaluation"}
    if not ours.drop("score").equals(theirs.drop("score")):
        raise ArtifactError(
            f"the runs {main.name!r} and {other.name!r} were not tested on the same images of {cell['dataset']!r}, "
            f"task {cell['task']!r}, {cell['protocol']}; rerun the evaluate stage for all runs"
        )
    our_scores, their_scores = ours["score"].to_numpy(), theirs["score"].to_numpy()
    p_value = delong_test(labels, our_scores, their_scores, patients).p_value
    interval = paired_clustered_bootstrap(
        auroc,
        labels,
        our_scores,
        their_scores,
        patients,
        num_resamples=evaluate.num_resamples,
        confidence=evaluate.confidence,
        seed=seed,
    )
    return {
        **counts,
        "auroc": auroc(labels, our_scores),
        "auroc_other": auroc(labels, their_scores),
        "difference": interval.value,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "p_value": p_value,
        "reason": _why_no_test(ours, p_value),
    }


def _why_no_test(rows: pl.DataFrame, p_value: float) -> str | None:
    if not math.isnan(p_value):
        return None
    for label, name in enumerate(("negative", "positive")):
        num_patients = rows.filter(label=label)["patient_id"].n_unique()
        if num_patients < 2:
            return f"a single patient has {name} test images" if num_patients else f"no test image is {name}"
    return "the difference has no variance"
