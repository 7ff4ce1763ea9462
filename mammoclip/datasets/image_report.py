"""One's own images and reports: ``images/`` and ``reports.csv`` with one row per image.

Columns: patient_id, image_id, laterality, view, FINDINGS, IMPRESSION (the layout of the paper's in-house data);
study_id, split (train, validation, test) and fold may follow. A file belongs to the row whose image_id is its name
without suffix.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_COLUMNS = ["patient_id", "image_id", "laterality", "view", "FINDINGS", "IMPRESSION"]


class ImageReport(base.Adapter):
    """Adapter of a folder of DICOM files with a report table."""

    source = base.Source(
        title="your own images and reports",
        kind="mammograms of one's own",
        licence="yours",
        url="",
        images="any; DICOM",
        reports="FINDINGS and IMPRESSION, per image",
        labels="read from the reports",
        splits="where reports.csv has a column split",
    )
    layout = "images/**/<image_id>.<any suffix>"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the table by image id."""
        return base.join_by_stem(root / "images", root, self._sheet(root).frame)

    def annotations(self, root: Path) -> base.Annotations:
        """Return FINDINGS and IMPRESSION of each side, once where several images carry the same."""
        sheet = self._sheet(root)
        keys = ["patient_id", "study_id", "laterality"]
        table = sheet.frame.select(*keys, "FINDINGS", "IMPRESSION", source=sheet.source)
        long = table.with_columns(pl.col("laterality").str.to_uppercase()).unpivot(
            on=["FINDINGS", "IMPRESSION"], index=[*keys, "source"], variable_name="section", value_name="text"
        )
        reports = long.unique([*keys, "section", "text"], keep="first", maintain_order=True)
        return base.Annotations(reports=reports.select(list(base.REPORTS)), rejected=sheet.rejected)

    def _sheet(self, root: Path) -> Sheet:
        sheet = Sheet(root, "reports.csv", _COLUMNS)
        if "study_id" not in sheet.frame.columns:
            sheet.frame = sheet.frame.with_columns(study_id=pl.col("patient_id"))
        return sheet
