"""Stage ``index``: what is there. Headers only; every file found becomes a row or a reject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from mammoclip.artifacts import INDEX, REJECTS, write_text
from mammoclip.data.listing import check_listing
from mammoclip.data.progress import report_progress
from mammoclip.data.workers import map_ordered
from mammoclip.datasets import Adapter
from mammoclip.dicom import read_header
from mammoclip.errors import DatasetError, RejectedInput

Row = dict[str, Any]

_CHUNK = 32
"""Files that a worker reads at a time."""
_BATCH = 2048
"""Files after which what was read is kept: an interrupted stage goes on there."""
_TIME_LIMIT_S = 60.0
"""For one header; a healthy one takes a millisecond."""
_TABLE_COLUMNS = ("dataset", "patient_id", "study_id", "image_id", "split", "fold")
_HEADER_SCHEMA = {name: dtype for name, dtype in INDEX.schema.items() if name not in _TABLE_COLUMNS}
_REJECT_SCHEMA = {"path": pl.String, "reason": pl.String, "detail": pl.String}


@dataclass(frozen=True)
class Indexed:
    """The two tables of the stage; ``num_found`` files = rows of ``index`` + ``rejects`` of found files."""

    index: pl.DataFrame
    rejects: pl.DataFrame
    num_found: int


def index_dataset(adapter: Adapter, root: Path, dataset: str, split: str | None, processes: int, work: Path) -> Indexed:
    """Read the header of every file of a data set.

    Args:
        adapter: layout of the data set.
        root: its folder.
        dataset: its name in the configuration.
        split: puts every image into this split; None: the data set's own.
        processes: worker processes; the result does not depend on it.
        work: folder that keeps what was read, for an interrupted stage to go on from. What is there of files that have
            another size or time of change by now is not used.

    Raises:
        DatasetError: if the data set's folder or tables are not as expected, or no file is found.
    """
    files = _list_files(adapter, root, dataset)
    found = files.filter(pl.col("path").is_not_null())
    paths = found["path"].unique(maintain_order=True).to_list()
    if not paths:
        raise DatasetError(
            f"no image file was found for data set {dataset!r}; {adapter.layout} was expected under {root}"
        )
    rows = list(report_progress(_read_headers(paths, root, processes, work), len(paths), f"index {dataset}: headers"))
    headers, unreadable = _to_frames(rows)
    usable, unusable = check_listing(_with_headers(found, headers, "inner", split))
    missing = files.filter(pl.col("path").is_null()).select(
        path=pl.col("image_id").fill_null("an image without image_id"),
        reason=pl.lit("missing_file"),
        detail=pl.lit("listed in the data set's tables, but there is no such file"),
    )
    return _indexed(dataset, usable, pl.concat([unreadable, unusable, missing.unique()]), len(paths))


def list_dataset(adapter: Adapter, root: Path, dataset: str) -> Indexed:
    """Return the index that the data set's tables give alone, whether the files are there or not.

    Only files of which the tables do not say side and view are opened. What only a header tells is null, or false for
    the flags; Rows and Columns are those of the tables.

    Raises:
        DatasetError: if the data set's folder or tables are not as expected, or no image is listed.
    """
    files = _list_files(adapter, root, dataset)
    listed = files.filter(pl.col("image_id").is_not_null())
    if listed.is_empty():
        raise DatasetError(f"no image is listed for data set {dataset!r}; {adapter.layout} was expected under {root}")
    needed = listed.filter(pl.any_horizontal(pl.col("laterality", "view").is_null()) & pl.col("path").is_not_null())
    headers, unreadable = _to_frames([_to_row(path, _read_header(root, path)) for path in needed["path"]])
    images = _with_headers(listed, headers, "left", None).with_columns(
        pl.col("magnification", "spot_compression").fill_null(False),
        rows=pl.coalesce("rows", "table_rows"),
        columns=pl.coalesce("columns", "table_columns"),
    )
    usable, unusable = check_listing(images.join(unreadable, on="path", how="anti"))
    return _indexed(dataset, usable, pl.concat([unreadable, unusable]), len(listed))


def _list_files(adapter: Adapter, root: Path, dataset: str) -> pl.DataFrame:
    if not root.is_dir():
        raise DatasetError(f"the root of data set {dataset!r}, {root}, is not a folder; set datasets.{dataset}.root")
    return adapter.files(root)


def _with_headers(listed: pl.DataFrame, headers: pl.DataFrame, how: Any, split: str | None) -> pl.DataFrame:
    """Join what the tables and the headers say; the tables come first."""
    table = listed.rename({name: f"table_{name}" for name in ("laterality", "view", "rows", "columns")})
    return table.join(headers, on="path", how=how, maintain_order="left").with_columns(
        header_laterality=pl.col("laterality"),
        laterality=pl.coalesce("table_laterality", "laterality"),
        view=pl.coalesce("table_view", "view"),
        laterality_source=_origin("table_laterality", "laterality_source"),
        view_source=_origin("table_view", "view_source"),
        split=pl.col("split") if split is None else pl.lit(split),
    )


def _origin(table: str, header: str) -> pl.Expr:
    return pl.when(pl.col(table).is_not_null()).then(pl.lit("table")).otherwise(pl.col(header))


def _indexed(dataset: str, usable: pl.DataFrame, rejects: pl.DataFrame, num_found: int) -> Indexed:
    named = rejects.with_columns(dataset=pl.lit(dataset), stage=pl.lit("index"))
    return Indexed(
        index=usable.with_columns(dataset=pl.lit(dataset)).select(list(INDEX.columns)).sort("study_id", "image_id"),
        rejects=named.select(pl.col(name).cast(dtype) for name, dtype in REJECTS.schema.items()).sort("path"),
        num_found=num_found,
    )


def _to_frames(rows: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the headers and the rejects."""
    rejected = [row for row in rows if "reason" in row]
    read = [row for row in rows if "reason" not in row]
    return pl.DataFrame(read, schema=_HEADER_SCHEMA), pl.DataFrame(rejected, schema=_REJECT_SCHEMA)


def _read_headers(paths: list[str], root: Path, processes: int, work: Path) -> Iterator[Row]:
    """Yield a header or a reject for each file; each batch is kept, and one that was kept before is not read again."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    files = [work / f"{_fingerprint(batch, root)}.json" for batch in batches]
    unread = [path for batch, file in zip(batches, files, strict=True) if not file.is_file() for path in batch]
    results = map_ordered(partial(_read_header, root), unread, processes, _TIME_LIMIT_S, _CHUNK)
    for batch, file in zip(batches, files, strict=True):
        if file.is_file():
            yield from json.loads(file.read_text(encoding="utf-8"))
            continue
        rows: list[Row] = []
        for path, result in zip(batch, results, strict=False):
            rows.append(_to_row(path, result))
            yield rows[-1]
        write_text(json.dumps(rows), file)


def _to_row(path: str, result: Row | RejectedInput) -> Row:
    if isinstance(result, RejectedInput):
        return {"path": path, "reason": result.reason, "detail": result.detail}
    return result


def _fingerprint(batch: list[str], root: Path) -> str:
    """Return a hash of what is read of a header, and of the names of the files, their sizes and times of change."""
    digest = hashlib.sha256(json.dumps([*_HEADER_SCHEMA]).encode())
    for path in batch:
        status = (root / path).stat() if (root / path).exists() else None
        digest.update(json.dumps([path, status and [status.st_size, status.st_mtime_ns]]).encode())
    return digest.hexdigest()


def _read_header(root: Path, path: str) -> Row:
    try:
        return {"path": path, **asdict(read_header(root / path)), "size_bytes": (root / path).stat().st_size}
    except RejectedInput as error:
        return _to_row(path, error)
