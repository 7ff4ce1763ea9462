"""The phantom cohort as a data set: VinDr-Mammo's tables, and a report per exam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet
from mammoclip.datasets.vindr import VinDr


class Phantom(VinDr):
    """Adapter of the cohort that ``mammoclip.datasets.phantom`` generates."""

    source = base.Source(
        title="phantom cohort",
        kind="computer-generated phantoms, not patients",
        licence="Apache-2.0, as this software",
        url="",
        images="as many as asked for; DICOM",
        boxes="exact, of masses and calcifications",
        reports="one per exam",
        labels="ten findings, BI-RADS, density",
        splits="80 % of the patients for training, 20 % for testing",
    )

    def annotations(self, root: Path) -> base.Annotations:
        """Return what VinDr-Mammo's tables say, and the whole report of each exam."""
        sheet = Sheet(root, "reports.csv", ["patient_id", "study_id", "report"])
        reports = sheet.frame.select(
            "patient_id",
            "study_id",
            laterality=pl.lit(None, pl.String),
            section=pl.lit("REPORT"),
            text=pl.col("report"),
            source=sheet.source,
        )
        tables = super().annotations(root)
        return replace(tables, reports=reports, rejected=pl.concat([tables.rejected, sheet.rejected]))
