"""Stage ``shard``: DICOM to cropped PNGs in WebDataset tars with a manifest of byte offsets."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from mammoclip.artifacts import MANIFEST, REJECTS, atomic_path
from mammoclip.data.progress import report_progress
from mammoclip.data.workers import map_ordered
from mammoclip.dicom import Converted, Recipe, convert_or_reject
from mammoclip.errors import ArtifactError, RejectedInput


def shard_of(study_id: str, num_shards: int) -> int:
    """Return the shard of a study: the first 8 bytes of SHA-256 of its id, modulo ``num_shards``.

    >>> shard_of("a-study", 4) == shard_of("a-study", 4)
    True
    """
    return int.from_bytes(hashlib.sha256(study_id.encode()).digest()[:8], "big") % num_shards


def select_shard(index: pl.DataFrame, shard: int, num_shards: int) -> pl.DataFrame:
    """Return the rows of ``index`` whose study belongs to ``shard``, in the order of the index."""
    keep = [shard_of(study_id, num_shards) == shard for study_id in index["study_id"]]
    return index.filter(pl.Series(keep, dtype=pl.Boolean))


def write_shard(
    index: pl.DataFrame,
    root: Path,
    dataset: str,
    tar_path: Path,
    recipe: Recipe,
    processes: int,
    time_limit_s: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert the images of ``index`` into one tar, and return its manifest and rejects.

    The bytes of the tar depend on the images, the recipe and their order only: not on processes, time or user. An image
    whose codec crashes, or takes longer than ``time_limit_s``, is rejected; the others are written.
    WebDataset ends a sample's key at the first dot of a member's name, so a dot of an image id is written ``%2E``.

    Raises:
        ArtifactError: if the disk is full. No half shard is left.
    """
    rows = index.select("image_id", "path", "laterality", "view").to_dicts()
    paths = [root / row["path"] for row in rows]
    converted = map_ordered(partial(convert_or_reject, recipe), paths, processes, time_limit_s)
    manifest: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    with atomic_path(tar_path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        results = report_progress(converted, len(rows), f"shard {dataset}/{tar_path.stem}")
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, RejectedInput):
                reject = {"path": row["path"], "reason": result.reason, "detail": result.detail}
                rejects.append({"dataset": dataset, "stage": "shard", **reject})
                continue
            key = row["image_id"].replace(".", "%2E")
            offset = _add(tar, f"{key}.png", result.png)
            provenance = describe(result, recipe)
            sidecar = {**{name: row[name] for name in ("image_id", "laterality", "view")}, **provenance}
            _add(tar, f"{key}.json", json.dumps(sidecar, sort_keys=True).encode())
            place = {"shard": tar_path.name, "offset": offset, "length": len(result.png)}
            manifest.append({"image_id": row["image_id"], **place, **provenance})
    return (
        pl.DataFrame(manifest, schema=MANIFEST.schema) if manifest else MANIFEST.empty(),
        pl.DataFrame(rejects, schema=REJECTS.schema) if rejects else REJECTS.empty(),
    )


def describe(converted: Converted, recipe: Recipe) -> dict[str, Any]:
    """Return what the manifest and the JSON beside a PNG say of its pixels."""
    crop, placement = converted.placement.crop, converted.placement
    return {
        "height_px": recipe.height_px,
        "width_px": recipe.width_px,
        "crop_top": crop.top,
        "crop_bottom": crop.bottom,
        "crop_left": crop.left,
        "crop_right": crop.right,
        "scale_x": placement.scale_x,
        "scale_y": placement.scale_y,
        "pad_left": placement.pad_left,
        "pad_top": placement.pad_top,
        "grayscale": recipe.grayscale,
        "crop": recipe.crop,
        "geometry": recipe.geometry,
        "bits": recipe.bits,
        "png_sha256": hashlib.sha256(converted.png).hexdigest(),
    }


def accounted_paths(index: pl.DataFrame, manifest: pl.DataFrame, rejects: pl.DataFrame) -> list[str]:
    """Return, sorted, the paths of all images written or rejected; "" for an image that is not in the index.

    Images are conserved when this equals the sorted paths of the index.
    """
    paths = dict(index.select("image_id", "path").rows())
    return sorted([paths.get(image_id, "") for image_id in manifest["image_id"]] + rejects["path"].to_list())


def check_conservation(index: pl.DataFrame, manifest: pl.DataFrame, rejects: pl.DataFrame) -> None:
    """Check that every indexed image was either written or rejected, once.

    Raises:
        ArtifactError: with the counts, if images were lost or counted twice.
    """
    accounted = accounted_paths(index, manifest, rejects)
    if accounted != sorted(index["path"]):
        raise ArtifactError(
            f"shards do not conserve images: {len(index)} indexed, {len(manifest)} written, {len(rejects)} rejected, "
            f"{len(set(accounted) & set(index['path']))} of the indexed among them; "
            "delete the shards and rerun the stage"
        )


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file and return the offset of its first byte in the tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))
    num_blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return tar.offset - num_blocks * tarfile.BLOCKSIZE
