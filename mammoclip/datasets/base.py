"""What an adapter gives: four raw tables, whatever the data set's own layout."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Protocol

import polars as pl

from mammoclip.errors import DatasetError

FILES = pl.Schema(
    {
        "path": pl.String,  # relative to the root, POSIX
        "patient_id": pl.String,
        "study_id": pl.String,
        "image_id": pl.String,  # null: the data set's tables do not list the file
        "laterality": pl.String,  # null: to be read from the DICOM header
        "view": pl.String,
        "split": pl.String,  # train, test or null
    }
)
FINDINGS = pl.Schema(
    {
        "image_id": pl.String,
        "finding": pl.String,
        "birads": pl.Int32,
        "x_min": pl.Float64,  # box in stored pixels; null: the finding has no box
        "y_min": pl.Float64,
        "x_max": pl.Float64,
        "y_max": pl.Float64,
    }
)
ATTRIBUTES = pl.Schema({"image_id": pl.String, "attribute": pl.String, "value": pl.Int32})
REPORTS = pl.Schema(
    {
        "patient_id": pl.String,
        "study_id": pl.String,
        "laterality": pl.String,  # null: the text speaks of both sides
        "section": pl.String,  # REPORT: a whole report, to be cut into sections
        "text": pl.String,
    }
)

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Adapter(Protocol):
    """Reads one data set layout. Every frame has the schema of the same name in this module.

    An adapter inherits from this class and overrides what its data set has; what it does not have is an empty table.
    """

    def files(self, root: Path) -> pl.DataFrame:
        """List every file that may be an image, and what the tables say of it; ``FILES``, sorted by path."""

    def findings(self, root: Path) -> pl.DataFrame:
        """Return the annotated findings with their boxes; ``FINDINGS``."""
        del root
        return pl.DataFrame(schema=FINDINGS)

    def attributes(self, root: Path) -> pl.DataFrame:
        """Return image-level labels; ``ATTRIBUTES``."""
        del root
        return pl.DataFrame(schema=ATTRIBUTES)

    def reports(self, root: Path) -> pl.DataFrame:
        """Return raw report texts; ``REPORTS``."""
        del root
        return pl.DataFrame(schema=REPORTS)


def is_safe_id(identifier: str | None) -> bool:
    """Tell whether an identifier can be part of a file name: letters, digits, ``._-``, at most 128, no leading dot."""
    return identifier is not None and _SAFE_ID.fullmatch(identifier) is not None


def read_csv(path: Path, required: list[str]) -> pl.DataFrame:
    """Read a CSV with every column as text; blank lines are left out.

    Raises:
        DatasetError: if the file or one of the ``required`` columns is missing, or the file is not a CSV in UTF-8.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; the data set's root should hold it")
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} is not a readable CSV ({reason}); save it as comma-separated UTF-8") from None
    for column in required:
        if column not in frame.columns:
            raise DatasetError(f"{path} has no column {column!r}; found {', '.join(frame.columns)}")
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


def read_label(column: pl.Series, path: Path) -> pl.Series:
    """Read whole numbers, also when written as ``1.0``, ``True`` or ``False``; an empty cell is null.

    In the column ``density`` A to D stand for 0 to 3.

    Raises:
        DatasetError: names the file, the column and the first value that is none.
    """
    if column.name == "density":
        return _read_density(column, path)
    return _read_integers(column, path)


def _read_integers(column: pl.Series, path: Path) -> pl.Series:
    text = column.str.strip_chars().replace({"": None, "True": "1", "False": "0"})
    numbers = text.cast(pl.Float64, strict=False)
    whole = numbers.cast(pl.Int32, strict=False)
    wrong = column.filter(text.is_not_null() & (whole != numbers).fill_null(True))
    if len(wrong):
        raise DatasetError(f"{path}: column {column.name!r} should hold whole numbers, found {wrong[0]!r}")
    return whole


def _read_density(column: pl.Series, path: Path) -> pl.Series:
    letters = column.str.strip_chars().str.to_uppercase().replace({"A": "0", "B": "1", "C": "2", "D": "3"})
    densities = _read_integers(letters.rename(column.name), path)
    wrong = column.filter((densities < 0) | (densities > 3))
    if len(wrong):
        raise DatasetError(f"{path}: column {column.name!r} should hold A to D or 0 to 3, found {wrong[0]!r}")
    return densities


def to_attributes(wide: pl.DataFrame) -> pl.DataFrame:
    """Turn a table of image_id and one column per attribute into ``ATTRIBUTES``; nulls are left out."""
    long = wide.unpivot(index="image_id", variable_name="attribute", value_name="value").drop_nulls("value")
    return long.cast(dict(ATTRIBUTES.items()))


def join_by_stem(folder: Path, root: Path, table: pl.DataFrame) -> pl.DataFrame:
    """Return ``FILES``: each file under ``folder`` with the row whose image_id is its name without suffix.

    ``study_id`` (default: the patient) and ``split`` are used where ``table`` has them.
    """
    paths = find_images(folder, root)
    stems = [PurePosixPath(path).stem for path in paths]
    found = pl.DataFrame({"path": paths, "key": stems}, schema={"path": pl.String, "key": pl.String})
    if "study_id" not in table.columns:
        table = table.with_columns(study_id=pl.col("patient_id"))
    if "split" not in table.columns:
        table = table.with_columns(split=pl.lit(None, pl.String))
    listed = table.with_columns(pl.col("laterality", "view").str.to_uppercase(), key=pl.col("image_id"))
    joined = found.join(listed, on="key", how="full", coalesce=True)
    return joined.select(pl.col(name).cast(dtype) for name, dtype in FILES.items()).sort(
        "path", "image_id", nulls_last=True
    )


def find_images(folder: Path, root: Path) -> list[str]:
    """Return the regular files under ``folder`` as sorted POSIX paths relative to ``root``.

    Raises:
        DatasetError: if the folder is missing.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing; the images of the data set should lie there")
    files = (path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file())
    # A name that is no UTF-8 is not found again under the name that can be written down: the file is then rejected.
    return sorted(file.encode(errors="surrogateescape").decode(errors="replace") for file in files)
