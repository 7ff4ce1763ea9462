"""One's own images and reports: ``images/`` and ``reports.csv`` with one row per image.

Columns: patient_id, image_id, laterality, view, FINDINGS, IMPRESSION (the layout of the paper's in-house data);
study_id and split (train, test) may follow. A file belongs to the row whose image_id is its name without suffix.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base

_COLUMNS = ["patient_id", "image_id", "laterality", "view", "FINDINGS", "IMPRESSION"]


class ImageReport(base.Adapter):
    """Adapter of a folder of DICOM files with a report table."""

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the table by image id."""
        return base.join_by_stem(root / "images", root, self._table(root))

    def reports(self, root: Path) -> pl.DataFrame:
        """Return FINDINGS and IMPRESSION of each side, once where several images carry the same."""
        long = self._table(root).unpivot(
            on=["FINDINGS", "IMPRESSION"],
            index=["patient_id", "study_id", "laterality"],
            variable_name="section",
            value_name="text",
        )
        reports = long.with_columns(pl.col("laterality").str.to_uppercase(), pl.col("text").fill_null(""))
        return reports.select(pl.col(name).cast(dtype) for name, dtype in base.REPORTS.items()).unique(
            maintain_order=True
        )

    def _table(self, root: Path) -> pl.DataFrame:
        frame = base.read_csv(root / "reports.csv", _COLUMNS)
        if "study_id" not in frame.columns:
            frame = frame.with_columns(study_id=pl.col("patient_id"))
        return frame
