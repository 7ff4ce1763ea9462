"""Image-text retrieval of every run: recall and median rank in both directions, and what chance gives."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

import polars as pl

from mammoclip.errors import ArtifactError
from mammoclip.evaluation.retrieval import RECALL_AT
from mammoclip.paper.classification import with_roles
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.wording import format_count, format_interval, format_number

_DIRECTIONS: Mapping[str, str] = MappingProxyType({"image_to_text": "image to text", "text_to_image": "text to image"})


def retrieval_table(inputs: Inputs) -> pl.DataFrame:
    """Return the rows of ``retrieval`` of every run, with the run's control."""
    return with_roles(inputs, pl.concat([run.retrieval for run in inputs.runs]))


def retrieval_grid(inputs: Inputs) -> Grid:
    """Return rows data set x what is searched x direction x metric, one column per run, then chance and counts.

    Chance is the recall of a random ranking; there is none of a median rank.

    Raises:
        ArtifactError: a run lacks a metric, or the runs were not tested on the same breasts.
    """
    table = retrieval_table(inputs)
    recalls = [(f"recall_at_{k}", f"recall@{k}", f"chance_recall_at_{k}", 2) for k in RECALL_AT]
    wanted = [*recalls, ("median_rank", "median rank", None, 1)]
    rows: list[list[str]] = []
    for dataset, candidates in table.select("dataset", "candidates").unique(maintain_order=True).rows():
        searched = table.filter(dataset=dataset, candidates=candidates)
        counts = searched.select("n", "num_patients").unique(maintain_order=True).rows()
        if len(counts) > 1:
            raise ArtifactError(
                f"the runs did not retrieve the same breasts of {dataset!r} (breasts, patients: {counts}); rerun the "
                "evaluate stage for all runs"
            )
        for direction, (metric, name, chance, digits) in product(_DIRECTIONS, wanted):
            found = [_find(searched, run.name, f"{direction}_{metric}") for run in inputs.runs]
            by_chance = _find(searched, inputs.main.name, chance)[0] if chance else None
            values = [format_interval(*numbers, digits=digits) for numbers in found]
            labels = [dataset, candidates, _DIRECTIONS[direction], name]
            rows.append([*labels, *values, format_number(by_chance), *map(format_count, counts[0])])
    header = ["Data set", "Searched", "Direction", "Metric", *(run.name for run in inputs.runs)]
    return Grid([*header, "Chance", "Breasts", "Patients"], rows, num_labels=4, num_group=2)


def _find(searched: pl.DataFrame, run: str, metric: str) -> tuple[float, float | None, float | None]:
    rows = searched.filter(run=run, metric=metric).select("value", "ci_low", "ci_high").rows()
    if len(rows) != 1:
        raise ArtifactError(
            f"evaluate/{run}/retrieval.parquet: expected one row of {metric!r} for each of what is searched, found "
            f"{len(rows)}; rerun the evaluate stage"
        )
    return rows[0]
