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
from mammoclip.data.progress import report_progress
from mammoclip.data.workers import map_ordered
from mammoclip.datasets import Adapter
from mammoclip.datasets.base import is_safe_id
from mammoclip.dicom import read_header
from mammoclip.errors import DatasetError, RejectedInput

Row = dict[str, Any]

_CHUNK = 32
"""Files that a worker reads at a time."""
_BATCH = 2048
"""Files after which what was read is kept: an interrupted stage goes on there."""
_TIME_LIMIT_S = 60.0
"""For one header; a healthy one takes a millisecond."""


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
    if not root.is_dir():
        raise DatasetError(f"the root of data set {dataset!r}, {root}, is not a folder; set datasets.{dataset}.root")
    files = adapter.files(root)
    found = files.filter(pl.col("path").is_not_null()).to_dicts()
    if not found:
        raise DatasetError(f"no image file was found for data set {dataset!r} under {root}")
    if not files.filter(pl.col("path").is_null() & pl.col("image_id").is_null()).is_empty():
        raise DatasetError(f"the tables of data set {dataset!r} list an image without image_id; give it one")
    results = _read_headers(found, root, processes, work)
    missing = [
        _reject(row["image_id"], "missing_file", "listed in the data set's tables, but there is no such file")
        for row in files.filter(pl.col("path").is_null()).to_dicts()
    ]
    rows, rejects = _drop_duplicates(list(report_progress(results, len(found), f"index {dataset}: headers")))
    index = pl.DataFrame(rows, schema_overrides=INDEX.schema, infer_schema_length=None) if rows else INDEX.empty()
    common = {"dataset": pl.lit(dataset)}
    index = index.with_columns(**common) if split is None else index.with_columns(**common, split=pl.lit(split))
    reject_table = pl.DataFrame([*rejects, *missing], schema_overrides=REJECTS.schema) if rejects or missing else None
    return Indexed(
        index=index.select(list(INDEX.columns)).sort("study_id", "image_id"),
        rejects=REJECTS.empty()
        if reject_table is None
        else reject_table.with_columns(**common, stage=pl.lit("index")).select(list(REJECTS.columns)).sort("path"),
        num_found=len(found),
    )


def _read_headers(found: list[Row], root: Path, processes: int, work: Path) -> Iterator[Row]:
    """Yield a row or a reject for each file; each batch is kept, and one that was kept before is not read again."""
    batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
    files = [work / f"{_fingerprint(batch, root)}.json" for batch in batches]
    unread = [row for batch, file in zip(batches, files, strict=True) if not file.is_file() for row in batch]
    results = map_ordered(partial(_index_file, root), unread, processes, _TIME_LIMIT_S, _CHUNK)
    for batch, file in zip(batches, files, strict=True):
        if file.is_file():
            yield from json.loads(file.read_text(encoding="utf-8"))
            continue
        rows: list[Row] = []
        for row, result in zip(batch, results, strict=False):
            rows.append(_to_row(row, result))
            yield rows[-1]
        write_text(json.dumps(rows), file)


def _to_row(row: Row, result: Row | RejectedInput) -> Row:
    return _reject(row["path"], result.reason, result.detail) if isinstance(result, RejectedInput) else result


def _fingerprint(batch: list[Row], root: Path) -> str:
    """Return a hash of what the data set says of the files, and of their sizes and times of change."""
    digest = hashlib.sha256()
    for row in batch:
        path = root / row["path"]
        status = path.stat() if path.exists() else None
        digest.update(json.dumps([row, status and [status.st_size, status.st_mtime_ns]], sort_keys=True).encode())
    return digest.hexdigest()


def _index_file(root: Path, row: Row) -> Row:
    path = root / row["path"]
    try:
        header = read_header(path)
        if row["image_id"] is None:
            raise RejectedInput("not_in_tables", "the data set's tables do not list this file")
        for key in ("patient_id", "study_id", "image_id"):
            if not is_safe_id(row[key]):
                raise RejectedInput("unsafe_id", f"{key} should be letters, digits and ._- only, and not empty")
        laterality = row["laterality"] or header.laterality
        view = row["view"] or header.view
        if laterality not in ("L", "R"):
            raise RejectedInput("missing_laterality", "neither the tables nor the header say left or right")
        if not view:
            raise RejectedInput("missing_view", "neither the tables nor the header name the view")
    except RejectedInput as error:
        return _reject(row["path"], error.reason, error.detail)
    return {
        **asdict(header),
        **{key: row[key] for key in ("patient_id", "study_id", "image_id", "path", "split")},
        "laterality": laterality,
        "laterality_source": "table" if row["laterality"] else header.laterality_source,
        "view": view,
        "view_source": "table" if row["view"] else header.view_source,
        "size_bytes": path.stat().st_size,
    }


def _reject(path: str, reason: str, detail: str) -> Row:
    return {"path": path, "reason": reason, "detail": detail}


def _drop_duplicates(results: list[Row]) -> tuple[list[Row], list[Row]]:
    rows: list[Row] = []
    rejects: list[Row] = []
    first: dict[str, str] = {}
    for result in results:
        if "reason" in result:
            rejects.append(result)
        elif result["image_id"] in first:
            detail = f"the same image_id as {first[result['image_id']]}"
            rejects.append(_reject(result["path"], "duplicate_image", detail))
        else:
            first[result["image_id"]] = result["path"]
            rows.append(result)
    return rows, rejects
