"""RSNA Screening Mammography Breast Cancer Detection (2023): ``train_images/<patient>/<image>.dcm`` and ``train.csv``.

Get it at kaggle.com/competitions/rsna-breast-cancer-detection, under the competition's rules (non-commercial use).
Source: Carr et al., Kaggle 2022. 11,913 patients of one exam each, 54,706 images; no boxes, no reports, no split.
``cancer`` is biopsy-proven and becomes the attribute ``malignancy``.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base

_LABELS = ["cancer", "biopsy", "invasive", "BIRADS", "implant", "density"]
_COLUMNS = ["patient_id", "image_id", "laterality", "view", *_LABELS]
_NAMES = {"cancer": "malignancy", "BIRADS": "birads"}


class Rsna(base.Adapter):
    """Adapter of the RSNA training data."""

    def files(self, root: Path) -> pl.DataFrame:
        """List ``train_images/`` and join the table by image id."""
        return base.join_by_stem(root / "train_images", root, self._table(root))

    def attributes(self, root: Path) -> pl.DataFrame:
        """Return malignancy, biopsy, invasive and implant (0 or 1), BI-RADS (0-2) and density (0-3); empty: no row."""
        table, path = self._table(root), root / "train.csv"
        wide = table.select(
            "image_id",
            *(base.read_label(table[name], path).alias(_NAMES.get(name, name)) for name in _LABELS),
        )
        return base.to_attributes(wide)

    def _table(self, root: Path) -> pl.DataFrame:
        return base.read_csv(root / "train.csv", _COLUMNS)
