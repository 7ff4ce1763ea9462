"""CMMD, the Chinese Mammography Database: ``CMMD/<patient>/...`` and ``CMMD_clinicaldata_revision.xlsx``.

The table has a row per breast: ID1 (patient), LeftRight, Age, number, abnormality (calcification, mass, both),
classification (Benign, Malignant; biopsy-proven), subtype. Side and view of an image come from its DICOM header. A
calcification is not always a suspicious one, so that it is a label of its own. No boxes, no reports, no split.

Get it at TCIA (CC BY 4.0). Source: Cui et al., TCIA 2021.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_TABLE = "CMMD_clinicaldata_revision.xlsx"
_COLUMNS = ["ID1", "LeftRight", "Age", "abnormality", "classification"]


class Cmmd(base.Adapter):
    """Adapter of CMMD."""

    source = base.Source(
        title="CMMD",
        kind="real digital mammograms of CMMD",
        licence="CC BY 4.0",
        url="https://www.cancerimagingarchive.net/collection/cmmd",
        citation="Cui C et al. The Chinese Mammography Database (CMMD): An online mammography database with biopsy "
        "confirmed types for machine diagnosis of breast [Data set]. The Cancer Imaging Archive (2021).",
        doi="10.7937/tcia.eqde-4b16",
        images="5,202 of 1,775 patients; DICOM",
        labels="biopsy-proven malignancy, mass, calcification, age",
    )
    layout = "CMMD/<patient>/<study>/<series>/<image>.dcm"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``CMMD/``; the patient is the folder, and folders of one patient are numbered as its exams."""
        paths = pl.DataFrame({"path": base.find_images(root / "CMMD", root)}, schema={"path": pl.String})
        parts = pl.col("path").str.split("/")
        exam = pl.col("folder").rank("dense").over("patient_id").cast(pl.String)
        named = (
            paths.filter(pl.col("path").str.ends_with(".dcm"), parts.list.len() > 2)
            .with_columns(patient_id=parts.list.get(1), folder=pl.col("path").str.replace(r"/[^/]*$", ""))
            .with_columns(study_id=pl.format("{}-{}", "patient_id", exam))
            .with_columns(image_id=pl.format("{}-{}", "study_id", parts.list.last().str.replace(r"\.dcm$", "")))
        )
        return base.to_files(named)

    def annotations(self, root: Path) -> base.Annotations:
        """Return malignancy, mass, calcification (of "both" both) and age of each breast."""
        sheet = Sheet(root, _TABLE, _COLUMNS)
        sheet.read_values("classification", {"Benign": 0, "Malignant": 1})
        sheet.read_integers("Age", low=0)
        side = pl.col("LeftRight").str.strip_chars().str.to_uppercase()
        sheet.drop(
            ~side.is_in(["L", "R"]).fill_null(False), "wrong_type", "LeftRight should be L or R; the row is left out"
        )
        kind = pl.col("abnormality").str.strip_chars().str.to_lowercase()
        known = kind.is_in(["mass", "calcification", "both"])
        sheet.note(
            (kind != "") & ~known,
            "wrong_type",
            "abnormality should be mass, calcification or both; the cell is left out",
        )
        present = pl.lit(1, pl.Int32)
        breasts = sheet.frame.select(
            patient_id="ID1",
            study_id=pl.lit(None, pl.String),
            laterality=side,
            malignancy="classification",
            age="Age",
            mass=pl.when(kind.is_in(["mass", "both"])).then(present),
            calcification=pl.when(kind.is_in(["calcification", "both"])).then(present),
        )
        return base.Annotations(breast_attributes=base.to_breast_attributes(breasts), rejected=sheet.rejected)
