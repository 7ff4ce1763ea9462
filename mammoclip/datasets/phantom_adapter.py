"""The phantom cohort as a data set: VinDr-Mammo's tables, and a report per exam."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.vindr import VinDr


class Phantom(VinDr):
    """Adapter of the cohort that ``mammoclip.datasets.phantom`` generates."""

    def reports(self, root: Path) -> pl.DataFrame:
        """Return the whole report of each exam."""
        frame = base.read_csv(root / "reports.csv", ["patient_id", "study_id", "report"])
        return frame.select(
            "patient_id",
            "study_id",
            laterality=pl.lit(None, pl.String),
            section=pl.lit("REPORT"),
            text=pl.col("report"),
        )
