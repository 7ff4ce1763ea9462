"""One's own images with labels and no reports: ``images/`` and ``labels.csv`` with one row per image.

Columns: patient_id, image_id, laterality, view; study_id, split (train, validation, test) and fold may follow. Every
other column is a label of whole numbers (0 or 1 for a finding, 0 to 6 for birads), density one of A to D or 0 to 3; an
empty cell is an unknown label. A file belongs to the row whose image_id is its name without suffix.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet
from mammoclip.errors import DatasetError

_COLUMNS = ["patient_id", "image_id", "laterality", "view"]
_OPTIONAL = ["study_id", "split", "fold"]


class ImageLabel(base.Adapter):
    """Adapter of a folder of DICOM files with a table of labels."""

    source = base.Source(
        title="your own images and labels",
        kind="mammograms of one's own",
        licence="yours",
        url="",
        images="any; DICOM",
        labels="every column of labels.csv",
        splits="where labels.csv has a column split",
    )
    layout = "images/**/<image_id>.<any suffix>"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the table by image id."""
        return base.join_by_stem(root / "images", root, Sheet(root, "labels.csv", _COLUMNS).frame)

    def annotations(self, root: Path) -> base.Annotations:
        """Return every label that is known.

        Raises:
            DatasetError: there is no column beside those that name the image.
        """
        sheet = Sheet(root, "labels.csv", _COLUMNS)
        labels = [name for name in sheet.frame.columns if name not in ("_row", *_COLUMNS, *_OPTIONAL)]
        if not labels:
            raise DatasetError(
                f"{root / sheet.name} has no label: beside {', '.join(_COLUMNS)} a column for each label was expected"
            )
        sheet.read_integers(*(name for name in labels if name != "density"))
        if "density" in labels:
            sheet.read_density("density")
        return base.Annotations(
            attributes=base.to_attributes(sheet.frame.select("image_id", *labels)), rejected=sheet.rejected
        )
