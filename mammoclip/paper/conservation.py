"""What went in and what came out: every file found is an image written or a reject with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.data.shard import accounted_paths
from mammoclip.errors import ArtifactError
from mammoclip.paper.inputs import DatasetTables

NOT_A_FILE = "missing_file"
"""The reason of a reject that was never found: the data set's tables list it, but it is not there."""


@dataclass(frozen=True)
class RejectCount:
    """How many inputs one stage rejected for one reason."""

    stage: str
    reason: str
    sentence: str
    count: int


@dataclass(frozen=True)
class Conservation:
    """The books of one data set: ``num_found = num_written + num_rejected_index + num_rejected_shard``.

    ``num_missing`` files are named by the data set's tables but are not there, so they were never found. ``rejects``
    are those of index and shard, which are files, and of tabulate, which are rows and cells of the data set's tables.
    ``outputs`` are rows of the tabulated tables.
    """

    dataset: str
    num_found: int
    num_rejected_index: int
    num_rejected_shard: int
    num_written: int
    num_missing: int
    rejects: Sequence[RejectCount]
    outputs: Sequence[tuple[str, int]]


def balance_books(tables: DatasetTables) -> Conservation:
    """Count what one data set's stages took in and gave out.

    Raises:
        ArtifactError: says which files or images are lost or counted twice, with the counts.
    """
    rejected_index = tables.index_rejects.filter(pl.col("reason") != NOT_A_FILE)
    files = pl.concat([tables.index["path"], rejected_index["path"]])
    if files.n_unique() != len(files):
        raise ArtifactError(
            f"data set {tables.name!r}: {len(files)} rows of index and rejects speak of {files.n_unique()} files; "
            "rerun the index stage"
        )
    accounted = accounted_paths(tables.index, tables.manifest, tables.shard_rejects)
    if accounted != sorted(tables.index["path"]):
        raise ArtifactError(
            f"data set {tables.name!r}: {len(tables.index)} images indexed, {len(tables.manifest)} written and "
            f"{len(tables.shard_rejects)} rejected do not add up; rerun the shard stage"
        )
    if sorted(tables.images["image_id"]) != sorted(tables.manifest["image_id"]):
        raise ArtifactError(
            f"data set {tables.name!r}: {len(tables.manifest)} images written, {len(tables.images)} tabulated, "
            "and they should be the same; rerun the tabulate stage"
        )
    return Conservation(
        dataset=tables.name,
        num_found=len(files),
        num_rejected_index=len(rejected_index),
        num_rejected_shard=len(tables.shard_rejects),
        num_written=len(tables.manifest),
        num_missing=len(tables.index_rejects) - len(rejected_index),
        rejects=[
            reject
            for rejects in (tables.index_rejects, tables.shard_rejects, tables.tabulate_rejects)
            for reject in count_rejects(rejects)
        ],
        outputs=[
            ("images", len(tables.images)),
            ("finding boxes", len(tables.findings)),
            ("labels", len(tables.attributes)),
            ("report sections", len(tables.reports)),
            ("breasts", len(tables.breasts)),
            ("breasts with text", tables.breasts.filter(pl.col("texts").list.len() > 0).height),
        ],
    )


def count_rejects(rejects: pl.DataFrame) -> list[RejectCount]:
    """Count the rows of a ``rejects`` table by stage and reason, most frequent first."""
    counted = rejects.with_columns(pl.col("reason").cast(pl.String)).group_by("stage", "reason").len()
    rows = counted.sort(["len", "reason", "stage"], descending=[True, False, False]).rows()
    return [RejectCount(stage, reason, REJECT_REASONS[reason], count) for stage, reason, count in rows]
