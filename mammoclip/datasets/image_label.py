"""One's own images with labels and no reports: ``images/`` and ``labels.csv`` with one row per image.

Columns: patient_id, image_id, laterality, view; study_id and split (train, test) may follow. Every other column is a
label of whole numbers (0 or 1 for a finding, 0 to 6 for birads), density one of A to D or 0 to 3; an empty cell is an
unknown label. A file belongs to the row whose image_id is its name without suffix.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.errors import DatasetError

_COLUMNS = ["patient_id", "image_id", "laterality", "view"]


class ImageLabel(base.Adapter):
    """Adapter of a folder of DICOM files with a table of labels."""

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the table by image id."""
        return base.join_by_stem(root / "images", root, self._table(root))

    def attributes(self, root: Path) -> pl.DataFrame:
        """Return every label that is known."""
        table, path = self._table(root), root / "labels.csv"
        labels = [name for name in table.columns if name not in (*_COLUMNS, "study_id", "split")]
        if not labels:
            raise DatasetError(
                f"{path} has no label: beside {', '.join(_COLUMNS)} a column for each label was expected"
            )
        return base.to_attributes(table.select("image_id", *(base.read_label(table[name], path) for name in labels)))

    def _table(self, root: Path) -> pl.DataFrame:
        return base.read_csv(root / "labels.csv", _COLUMNS)
