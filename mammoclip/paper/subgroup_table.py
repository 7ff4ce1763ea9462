"""AUROC of the main run in subgroups of the test images: by density, age, manufacturer, view, size of the lesion."""

from __future__ import annotations

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, in_order, principal
from mammoclip.paper.wording import explain_missing, format_count, format_interval, format_training, task_name

_PROTOCOLS = ("zero-shot", "linear-probe")
_UNKNOWN = "not known"


def subgroup_table(inputs: Inputs, evaluate: EvaluateSection) -> pl.DataFrame:
    """Return the rows of ``metrics`` of the main run's subgroups, zero-shot and linear probe, in order of the tasks.

    Of the probe's fractions the largest, of its seeds the lowest. Where a group is too small, ``value`` is null and
    ``reason`` says so. ``group`` is null for images of which it is not known.
    """
    rows = inputs.main.metrics.filter(pl.col("subgroup") != "all", pl.col("protocol").is_in(_PROTOCOLS))
    rows = principal(rows, "dataset", "task", "protocol")
    # Groups stay as they come: densities and ages ascend.
    return in_order(rows, dataset=evaluate.datasets, task=list(evaluate.tasks), protocol=_PROTOCOLS)


def subgroup_grid(table: pl.DataFrame, is_compat: bool) -> Grid:
    """Return the table of `subgroup_table` for people."""
    modes = ["Mode"] if is_compat else []
    rows = [
        [
            *(row["dataset"], task_name(row["task"]), row["protocol"]),
            *(row["subgroup"], row["group"] or _UNKNOWN, format_training(row["fraction"])),
            *([row["mode"]] if modes else []),
            *map(format_count, (row["n"], row["n_positive"])),
            explain_missing(row["reason"])
            if row["value"] is None
            else format_interval(row["value"], row["ci_low"], row["ci_high"]),
        ]
        for row in table.iter_rows(named=True)
    ]
    header = ["Data set", "Task", "Protocol", "Subgroup", "Group", "Train", *modes, "Images", "Positive", "AUROC"]
    return Grid(header, rows, num_labels=6 + len(modes), num_group=3)
