"""What an adapter gives: the images that a data set lists, and what its tables say of them."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import polars as pl

from mammoclip import artifacts
from mammoclip.datasets.sheet import REJECTED

FILES = pl.Schema(
    {
        "path": pl.String,  # relative to the root, POSIX; null: listed, but there is no such file
        "patient_id": pl.String,
        "study_id": pl.String,
        "image_id": pl.String,  # null: the data set's tables do not list the file
        "laterality": pl.String,  # null: to be read from the DICOM header
        "view": pl.String,
        "split": pl.String,  # train, validation, test or null
        "fold": pl.Int32,  # fold given by the data set's tables
        "rows": pl.Int32,  # Rows and Columns as the tables give them
        "columns": pl.Int32,
    }
)
FINDINGS = pl.Schema(
    {
        "image_id": pl.String,
        "finding": pl.String,  # one of FINDING_NAMES, or no_finding
        "birads": pl.Int32,
        "x_min": pl.Float64,  # box in stored pixels; null: the finding has no box
        "y_min": pl.Float64,
        "x_max": pl.Float64,
        "y_max": pl.Float64,
        "source": pl.String,  # table and row; the findings of one row share it
    }
)
ATTRIBUTES = pl.Schema({"image_id": pl.String, "attribute": pl.String, "value": pl.Int32})
BREAST_ATTRIBUTES = pl.Schema(
    {
        "patient_id": pl.String,
        "study_id": pl.String,  # null: of every exam of the patient
        "laterality": pl.String,  # null: of both sides
        "attribute": pl.String,
        "value": pl.Int32,
    }
)
REPORTS = pl.Schema(
    {
        "patient_id": pl.String,
        "study_id": pl.String,
        "laterality": pl.String,  # null: the text speaks of both sides
        "section": pl.String,  # REPORT: a whole report, to be cut into sections
        "text": pl.String,
        "source": pl.String,  # table and row
    }
)

FINDING_NAMES, NO_FINDING = artifacts.FINDING_NAMES, artifacts.NO_FINDING
BOX = ("x_min", "y_min", "x_max", "y_max")

SAFE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""An identifier that can be part of a file name."""


@dataclass(frozen=True)
class Source:
    """What a data set is and gives, in words, for reports, model cards and ``docs/datasets.md``."""

    title: str
    kind: str  # what the images are, as it follows "images: "
    licence: str
    url: str  # where to get it; "": one's own
    citation: str = ""
    doi: str = ""
    images: str = ""
    boxes: str = "-"
    reports: str = "-"
    labels: str = "-"
    splits: str = "-"
    weights_may_be_released: bool = True  # False: the licence forbids to pass on what is trained on it


@dataclass(frozen=True)
class Annotations:
    """What a data set's tables say. Every frame has the schema of the same name; what there is not is empty."""

    findings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FINDINGS))
    attributes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ATTRIBUTES))
    breast_attributes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=BREAST_ATTRIBUTES))
    reports: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REPORTS))
    rejected: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECTED))
    searched: Mapping[str, pl.Series] = field(default_factory=dict)
    """Attribute -> image_id of the images in which the annotators looked for it: where no label says 1, it is 0."""


class Adapter(ABC):
    """Reads one data set layout. An adapter inherits from this class and overrides what its data set has.

    Cells and rows that cannot be used are not errors: they are left out and told in ``Annotations.rejected``. A table
    or a column that is missing is a ``DatasetError``.
    """

    source: ClassVar[Source]
    layout: ClassVar[str]
    """Where the images lie below the root, for messages."""

    @abstractmethod
    def files(self, root: Path) -> pl.DataFrame:
        """List every file that may be an image, and every image of the tables; ``FILES``, sorted by path."""

    def annotations(self, root: Path) -> Annotations:
        """Return findings, labels of images and of breasts, and reports."""
        del root
        return Annotations()


def is_safe_id(identifier: str | None) -> bool:
    """Tell whether an identifier can be part of a file name: letters, digits, ``._-``, at most 128, no leading dot."""
    return identifier is not None and re.fullmatch(SAFE_ID[1:-1], identifier) is not None


def to_attributes(wide: pl.DataFrame) -> pl.DataFrame:
    """Turn a table of image_id and one column per attribute into ``ATTRIBUTES``; nulls are left out."""
    return _to_long(wide, ATTRIBUTES)


def to_breast_attributes(wide: pl.DataFrame) -> pl.DataFrame:
    """Turn a table of patient_id, study_id, laterality and one column per attribute into ``BREAST_ATTRIBUTES``."""
    return _to_long(wide, BREAST_ATTRIBUTES)


def _to_long(wide: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    keys = list(schema)[:-2]
    long = wide.unpivot(index=keys, variable_name="attribute", value_name="value").drop_nulls("value")
    return long.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def most_urgent(birads: pl.Expr) -> pl.Expr:
    """Return the BI-RADS category of the highest concern in a group, in the order 1, 2, 3, 0, 4, 5, 6."""
    order = [1, 2, 3, 0, 4, 5, 6]
    rank = birads.replace_strict(order, list(range(7)), default=None, return_dtype=pl.Int32)
    return rank.max().replace_strict(list(range(7)), order, return_dtype=pl.Int32)


def present_findings(findings: pl.DataFrame) -> pl.DataFrame:
    """Label every image with 1 for the findings it has; ``ATTRIBUTES``."""
    present = findings.select("image_id", attribute="finding", value=pl.lit(1, pl.Int32))
    return present.unique(maintain_order=True)


def join_by_stem(folder: Path, root: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Return ``FILES``: each file under ``folder`` with the rows whose image_id is its name without suffix.

    Columns of ``FILES`` that ``table`` does not have are null, ``study_id`` is then the patient.
    """
    found = pl.DataFrame({"path": find_images(folder, root)}, schema={"path": pl.String})
    name = pl.col("path").str.split("/").list.last()
    found = found.with_columns(key=name.str.replace(r"^(.+)\.[^.]+$", "$1"))
    if "study_id" not in table.columns:
        table = table.with_columns(study_id=pl.col("patient_id"))
    upper = pl.col("laterality", "view").str.to_uppercase()
    listed = to_files(table.drop("path", strict=False)).drop("path").with_columns(upper, key=pl.col("image_id"))
    return to_files(found.join(listed.unique(maintain_order=True), on="key", how="full", coalesce=True))


def to_files(table: pl.DataFrame) -> pl.DataFrame:
    """Return ``FILES``, sorted by path: the columns of that name, null where ``table`` does not have them.

    One's own table may have a column ``rows`` that means something else: what is no number is null.
    """
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in FILES.items() if name not in table.columns]
    complete = table.with_columns(absent).select(
        pl.col(name).cast(dtype, strict=False) for name, dtype in FILES.items()
    )
    return complete.sort("path", "image_id", nulls_last=True, maintain_order=True)


def find_images(folder: Path, root: Path) -> list[str]:
    """Return the regular files under ``folder`` as sorted POSIX paths relative to ``root``; none: no such folder."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    paths = (file.relative_to(root).as_posix() for file in files if file.is_file())
    # A name that is no UTF-8 is not found again under the name that can be written down: the file is then rejected.
    return sorted(path.encode(errors="surrogateescape").decode(errors="replace") for path in paths)
