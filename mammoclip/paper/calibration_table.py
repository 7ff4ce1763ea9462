"""Calibration on the test images, before and after the temperature that the validation images chose."""

from __future__ import annotations

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, in_order, principal
from mammoclip.paper.wording import (
    PROTOCOLS,
    explain_missing,
    format_count,
    format_interval,
    format_number,
    format_training,
    task_name,
)

_EVALUATION = ("run", "dataset", "task", "protocol", "fraction", "seed")
_METRICS = ("ece", "ece_calibrated", "brier", "brier_calibrated")
_CHOICES = ("temperature", "threshold")


def calibration_table(inputs: Inputs, evaluate: EvaluateSection) -> pl.DataFrame:
    """Return a row per evaluation of every run: mode, n, calibration errors and Brier scores, and what was chosen.

    ``ece`` and ``brier`` are of the scores as they are, ``ece_calibrated`` and ``brier_calibrated`` after division of
    their logits by ``temperature``; 0 is best. Bounds are ``ece_ci_low`` and so on. ``threshold`` is on the score of
    the positive class before scaling. Where there is none, it is null and ``why_no_temperature`` or
    ``why_no_threshold`` says why.
    """
    images = pl.concat([run.metrics for run in inputs.runs]).filter(level="image", subgroup="all")
    chosen = pl.concat([run.choices for run in inputs.runs])
    table = images.filter(pl.col("metric") == "ece").select(*_EVALUATION, "mode", "n")
    for metric in _METRICS:
        names = {"value": metric, **{bound: f"{metric}_{bound}" for bound in ("ci_low", "ci_high")}}
        values = images.filter(pl.col("metric") == metric).select(*_EVALUATION, *names).rename(names)
        table = table.join(values, on=_EVALUATION, how="left", validate="1:1")
    for choice in _CHOICES:
        names = {"value": choice, "reason": f"why_no_{choice}"}
        values = chosen.filter(pl.col("choice") == choice).select(*_EVALUATION, *names).rename(names)
        table = table.join(values, on=_EVALUATION, how="left", validate="1:1")
    return in_order(
        table.sort("fraction", "seed"),
        dataset=evaluate.datasets,
        task=list(evaluate.tasks),
        run=[run.name for run in inputs.runs],
        protocol=PROTOCOLS,
    )


def calibration_grid(table: pl.DataFrame, is_compat: bool) -> Grid:
    """Return the table of `calibration_table` for people: the largest fraction alone, of its seeds the lowest."""
    modes = ["Mode"] if is_compat else []
    rows = [
        [
            *(row["dataset"], task_name(row["task"]), row["run"], row["protocol"], format_training(row["fraction"])),
            *([row["mode"]] if modes else []),
            *(format_interval(row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"], 3) for name in _METRICS),
            *(
                explain_missing(row[f"why_no_{choice}"]) if row[choice] is None else format_number(row[choice], 3)
                for choice in _CHOICES
            ),
            format_count(row["n"]),
        ]
        for row in principal(table, "run", "dataset", "task", "protocol").iter_rows(named=True)
    ]
    header = ["Data set", "Task", "Run", "Protocol", "Train", *modes, "ECE", "ECE, scaled", "Brier", "Brier, scaled"]
    return Grid([*header, "Temperature", "Threshold", "Images"], rows, num_labels=5 + len(modes), num_group=2)
