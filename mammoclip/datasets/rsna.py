"""RSNA Screening Mammography Breast Cancer Detection (2023): ``train_images/<patient>/<image>.dcm`` and ``train.csv``.

Columns of the table: site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant,
density, machine_id, difficult_negative_case. A column ``fold``, where there is one, gives the folds.
Get it at Kaggle, under the competition's rules (non-commercial use). 11,913 patients of one exam each, 54,706 images;
no boxes, no reports, no split. ``cancer`` is biopsy-proven and becomes the attribute ``malignancy``.

Source: Carr et al., Kaggle 2022.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_FLAGS = ["cancer", "biopsy", "invasive", "implant"]
_COLUMNS = ["patient_id", "image_id", "laterality", "view", *_FLAGS, "BIRADS", "density"]


class Rsna(base.Adapter):
    """Adapter of the RSNA training data."""

    source = base.Source(
        title="RSNA Screening Mammography 2023",
        kind="real digital mammograms of the RSNA 2023 challenge",
        licence="rules of the Kaggle competition: non-commercial use",
        url="https://www.kaggle.com/competitions/rsna-breast-cancer-detection",
        citation="Carr C et al. RSNA Screening Mammography Breast Cancer Detection. Kaggle (2022).",
        images="54,706 of 11,913 patients; DICOM",
        labels="biopsy-proven malignancy, biopsy, invasive, implant, BI-RADS 0-2, density, age",
        splits="folds where train.csv has a column fold",
    )
    layout = "train_images/<patient_id>/<image_id>.dcm"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``train_images/`` and join the table by image id."""
        sheet = self._sheet(root)
        return base.join_by_stem(root / "train_images", root, sheet.frame)

    def annotations(self, root: Path) -> base.Annotations:
        """Return malignancy, biopsy, invasive, implant (0 or 1), BI-RADS (0-2), density (0-3) and age in years."""
        sheet = self._sheet(root)
        sheet.read_integers(*_FLAGS, low=0, high=1)
        sheet.read_integers("BIRADS", low=0, high=6)
        sheet.read_density("density")
        sheet.frame = sheet.frame.rename({"cancer": "malignancy", "BIRADS": "birads"})
        labels = ["malignancy", *_FLAGS[1:], "birads", "density"]
        if "age" in sheet.frame.columns:
            sheet.read_numbers("age")
            sheet.frame = sheet.frame.with_columns(pl.col("age").floor().cast(pl.Int32))
            labels.append("age")
        return base.Annotations(
            attributes=base.to_attributes(sheet.frame.select("image_id", *labels)), rejected=sheet.rejected
        )

    def _sheet(self, root: Path) -> Sheet:
        return Sheet(root, "train.csv", _COLUMNS)
