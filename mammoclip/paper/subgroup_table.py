"""AUROC in subgroups of the test images: by density, age, manufacturer, view, size of the lesion.

Of the main run, and beside it of every untrained control.
"""

from __future__ import annotations

import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.paper.classification import with_roles
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, in_order, principal
from mammoclip.paper.wording import (
    NOT_AVAILABLE,
    explain_missing,
    format_count,
    format_interval,
    format_training,
    task_name,
)

_PROTOCOLS = ("zero-shot", "linear-probe")
_EVALUATION = ("dataset", "task", "protocol", "fraction", "seed")
_GROUP = (*_EVALUATION, "subgroup", "group")
_UNKNOWN = "not known"


def subgroup_table(inputs: Inputs, evaluate: EvaluateSection) -> pl.DataFrame:
    """Return run, control and ``metrics`` of the subgroups, zero-shot and linear probe, in order of the tasks.

    Of every task and protocol first the rows of the main run, then those of the untrained controls. Of the probe's
    fractions the largest that the main run has, of its seeds the lowest; of a control the same fraction and seed, or no
    row. Where a group is too small, ``value`` is null and ``reason`` says so. ``group`` is null for images of which it
    is not known.
    """
    runs = [inputs.main, *inputs.untrained]
    divided = pl.col("subgroup") != "all", pl.col("protocol").is_in(_PROTOCOLS)
    main = principal(inputs.main.metrics.filter(*divided), "dataset", "task", "protocol")
    controls = [
        run.metrics.filter(*divided).join(main.select(_EVALUATION).unique(), on=_EVALUATION, how="semi")
        for run in inputs.untrained
    ]
    # Groups stay as they come: densities and ages ascend.
    rows = in_order(
        pl.concat([main, *controls]),
        dataset=evaluate.datasets,
        task=list(evaluate.tasks),
        protocol=_PROTOCOLS,
        run=[run.name for run in runs],
    )
    return with_roles(inputs, rows)


def subgroup_grid(table: pl.DataFrame, inputs: Inputs) -> Grid:
    """Return the table of `subgroup_table` for people: a row per group, a column per run, the main run first.

    n/a where a control has no such evaluation. Counts are of the main run's test images, as of all.
    """
    modes = ["Mode"] if inputs.is_compat else []
    cells = {
        (row["run"], *(row[name] for name in _GROUP)): explain_missing(row["reason"])
        if row["value"] is None
        else format_interval(row["value"], row["ci_low"], row["ci_high"])
        for row in table.iter_rows(named=True)
    }
    runs = [inputs.main.name, *(run.name for run in inputs.untrained)]
    rows = [
        [
            *(row["dataset"], task_name(row["task"]), row["protocol"]),
            *(row["subgroup"], row["group"] or _UNKNOWN, format_training(row["fraction"])),
            *([row["mode"]] if modes else []),
            *map(format_count, (row["n"], row["n_positive"])),
            *(cells.get((run, *(row[name] for name in _GROUP)), NOT_AVAILABLE) for run in runs),
        ]
        for row in table.filter(run=inputs.main.name).iter_rows(named=True)
    ]
    header = ["Data set", "Task", "Protocol", "Subgroup", "Group", "Train", *modes, "Images", "Positive"]
    return Grid([*header, *(f"AUROC, {run}" for run in runs)], rows, num_labels=6 + len(modes), num_group=3)
