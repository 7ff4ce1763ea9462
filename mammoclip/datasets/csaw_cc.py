"""CSAW-CC: ``CSAW-CC_breast_cancer_screening_data.csv`` and the DICOM files in any folder below the root.

A row per image: anon_patientid, exam_year, x_case (1: a cancer was found at some time), x_cancer_laterality (Left,
Right), rad_timing (1: within 60 days of the exam, 2: up to two years, 3: later), imagelaterality (Left, Right),
viewposition, x_age, anon_filename, and measures of density and readers that are not used. ``malignancy`` is 1 for the
breast and exam in which the cancer was found (rad_timing 1), 0 for women without one, and unknown for a case's earlier
exams and its other breast. No boxes, no reports, no split.

Get it at the Swedish National Data Service, on application, for research. Source: Strand, SND 2022.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_TABLE = "CSAW-CC_breast_cancer_screening_data.csv"
_COLUMNS = [
    "anon_patientid", "exam_year", "x_case", "x_cancer_laterality", "rad_timing", "imagelaterality", "viewposition",
    "anon_filename",
]  # fmt: skip


class CsawCc(base.Adapter):
    """Adapter of CSAW-CC."""

    source = base.Source(
        title="CSAW-CC",
        kind="real digital mammograms of CSAW-CC",
        licence="on application, for research only",
        url="https://doi.org/10.5878/45vm-t798",
        citation="Strand F. CSAW-CC (mammography): a dataset for AI research to improve screening, diagnostics and "
        "prognostics of breast cancer. Swedish National Data Service (2022).",
        doi="10.5878/45vm-t798",
        images="98,788 of 8,723 women, several exams each; DICOM",
        labels="malignancy found at the exam, age",
    )
    layout = "**/<anon_filename>"

    def files(self, root: Path) -> pl.DataFrame:
        """List the DICOM files below the root and join the table by file name."""
        frame = self._sheet(root).frame
        files = base.join_by_stem(root, root, frame)
        return files.filter(pl.col("image_id").is_not_null() | pl.col("path").str.ends_with(".dcm").fill_null(True))

    def annotations(self, root: Path) -> base.Annotations:
        """Return malignancy and age of each image."""
        sheet = self._sheet(root)
        sheet.read_integers("x_case", low=0, high=1)
        sheet.read_integers("rad_timing")
        found = (
            (pl.col("x_case") == 1)
            & (pl.col("rad_timing") == 1)
            & (_side("x_cancer_laterality") == pl.col("laterality")).fill_null(False)
        )
        malignancy = pl.when(pl.col("x_case") == 0).then(0).when(found).then(1).cast(pl.Int32)
        labels = {"malignancy": malignancy}
        if "x_age" in sheet.frame.columns:
            sheet.read_numbers("x_age")
            labels["age"] = pl.col("x_age").floor().cast(pl.Int32)
        return base.Annotations(
            attributes=base.to_attributes(sheet.frame.select("image_id", **labels)), rejected=sheet.rejected
        )

    def _sheet(self, root: Path) -> Sheet:
        sheet = Sheet(root, _TABLE, _COLUMNS)
        sheet.frame = sheet.frame.with_columns(
            image_id=pl.col("anon_filename").str.replace(r"\.[^.]*$", ""),
            patient_id="anon_patientid",
            study_id=pl.format("{}-{}", "anon_patientid", "exam_year"),
            laterality=_side("imagelaterality"),
            view="viewposition",
        )
        return sheet


def _side(column: str) -> pl.Expr:
    """Return L for Left and R for Right."""
    return pl.col(column).str.strip_chars().str.to_uppercase().str.slice(0, 1)
