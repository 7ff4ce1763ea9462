"""What a table is, and how files are written and read: atomic, validated, with errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mammoclip.errors import ArtifactError


@dataclass(frozen=True)
class Column:
    """A column: its type, what it means, and whether it may be null."""

    dtype: pl.DataType | type[pl.DataType]
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A published table format; ``version`` grows when a reader of the old one would be wrong."""

    name: str
    version: int
    columns: Mapping[str, Column]

    @property
    def schema(self) -> pl.Schema:
        """The polars schema."""
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})

    def empty(self) -> pl.DataFrame:
        """Return a table with no row."""
        return pl.DataFrame(schema=self.schema)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name, so that what a killed process left behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with told_when_full(path):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def told_when_full(path: Path) -> Iterator[None]:
    """Turn whatever a full disk makes of writing ``path`` into one sentence, an ``ArtifactError``."""
    try:
        yield
    except Exception as error:  # libraries raise errors of their own for it; any other goes on as it is
        if _of_full_disk(error):
            raise ArtifactError(f"{path} cannot be written: the disk is full; make room and rerun") from None
        raise


def _of_full_disk(error: BaseException | None) -> bool:
    """torch raises something else out of the operating system's error, safetensors has it in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__context__
    return False


def write_table(frame: pl.DataFrame, table: Table, path: Path) -> None:
    """Validate ``frame`` against ``table`` and write it atomically, columns in the published order.

    Raises:
        ArtifactError: if a column is missing, has another type, or holds nulls where none may be, or a patient is in
            several splits.
    """
    missing = [name for name in table.columns if name not in frame.columns]
    if missing:
        raise ArtifactError(f"{path}: table {table.name!r} lacks the column {missing[0]!r}")
    frame = pl.DataFrame([_cast(frame[name], dtype, path) for name, dtype in table.schema.items()])
    _check_values(frame, table, path)
    with atomic_path(path) as temporary:
        metadata = {"mammoclip.table": table.name, "mammoclip.version": str(table.version)}
        frame.write_parquet(temporary, metadata=metadata, compression="zstd")


def read_table(table: Table, path: Path) -> pl.DataFrame:
    """Read ``path`` as ``table``.

    Raises:
        ArtifactError: names the file, the column, what was expected and what was found.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; run the stage that writes the {table.name!r} table first")
    try:
        metadata = pl.read_parquet_metadata(path)
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{path} is not a readable Parquet file ({error}); delete it and rerun its stage") from None
    found = (metadata.get("mammoclip.table"), metadata.get("mammoclip.version"))
    if found != (table.name, str(table.version)):
        raise ArtifactError(
            f"{path}: expected table {table.name!r} version {table.version}, found {found[0]!r} version {found[1]}; "
            "delete it and rerun its stage"
        )
    for name, dtype in table.schema.items():
        if name not in frame.columns:
            raise ArtifactError(f"{path}: column {name!r} is missing; delete the file and rerun its stage")
        if frame.schema[name] != dtype:
            raise ArtifactError(f"{path}: column {name!r} should be {dtype}, found {frame.schema[name]}")
    _check_values(frame, table, path)
    return frame.select(list(table.columns))


def _cast(column: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    """Return ``column`` as ``dtype``, where every value survives it."""
    try:
        cast = column.cast(dtype)
        if column.dtype.is_float() and dtype.is_integer() and not cast.cast(column.dtype).equals(column):
            raise pl.exceptions.InvalidOperationError("fractions would be cut off")
        return cast
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(
            f"{path}: column {column.name!r} should be {dtype}, found {column.dtype} ({str(error).splitlines()[0]})"
        ) from None


def _check_values(frame: pl.DataFrame, table: Table, path: Path) -> None:
    for name, column in table.columns.items():
        if not column.nullable and frame[name].null_count():
            raise ArtifactError(f"{path}: column {name!r} holds {frame[name].null_count()} nulls, none may be")
    if {"patient_id", "split"} <= set(table.columns) and not table.columns["split"].nullable:
        splits = frame.lazy().group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
        if crossing := splits.collect().height:
            raise ArtifactError(
                f"{path}: {crossing} patients are in several splits; what is learned of a patient in training would be "
                "tested on the same patient. Give each patient one split and rerun the tabulate stage"
            )


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
