"""The tables of one data set that an evaluation reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mammoclip.artifacts import ATTRIBUTES, FINDINGS, IMAGES, INDEX, LABELS, read_table
from mammoclip.config import Mode, TaskSection
from mammoclip.evaluation.examples import labelled_images


@dataclass(frozen=True)
class DatasetTables:
    """Tables of the index and tabulate stages, by their names."""

    index: pl.DataFrame
    images: pl.DataFrame
    attributes: pl.DataFrame
    labels: pl.DataFrame
    findings: pl.DataFrame

    @classmethod
    def read(cls, results: Path, dataset: str) -> DatasetTables:
        """Read the tables of a data set below the folder of all artifacts; raises ``ArtifactError``."""
        folder = results / "tabulate" / dataset
        tables = {
            table.name: read_table(table, folder / f"{table.name}.parquet")
            for table in (IMAGES, ATTRIBUTES, LABELS, FINDINGS)
        }
        return cls(index=read_table(INDEX, results / "index" / f"{dataset}.parquet"), **tables)

    def labelled(self, task: TaskSection, name: str, mode: Mode) -> pl.DataFrame:
        """Return the labelled images of a task, see ``examples.labelled_images``."""
        return labelled_images(self.images, self.attributes, self.labels, task, name, mode)
