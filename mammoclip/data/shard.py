"""Stage ``shard``: DICOM to cropped PNGs in WebDataset tars with a manifest of byte offsets."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import polars as pl

from mammoclip.artifacts import MANIFEST, REJECTS, atomic_path
from mammoclip.data.progress import map_ordered
from mammoclip.dicom import read_mammogram, to_png_array
from mammoclip.errors import ArtifactError, RejectedInput

# Level 1 with run-length strategy: 2 to 3 times faster than the default at nearly the same size on mammograms.
_PNG_PARAMETERS = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a PNG: ``mode`` (compat or strict) and size in pixels."""

    mode: str
    height_px: int
    width_px: int


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
    index: pl.DataFrame, root: Path, dataset: str, tar_path: Path, recipe: Recipe, processes: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert the images of ``index`` into one tar, and return its manifest and rejects.

    The bytes of the tar depend on the images, the recipe and their order only: not on processes, time or user.
    WebDataset ends a sample's key at the first dot of a member's name, so a dot of an image id is written ``%2E``.
    """
    rows = index.select("image_id", "path", "laterality", "view").to_dicts()
    converted = map_ordered(partial(_convert, root, recipe), rows, processes, f"shard {dataset}/{tar_path.stem}")
    manifest: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    with atomic_path(tar_path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for row, (png, entry) in zip(rows, converted, strict=True):
            if png is None:
                rejects.append({"dataset": dataset, "stage": "shard", "path": row["path"], **entry})
                continue
            key = row["image_id"].replace(".", "%2E")
            offset = _add(tar, f"{key}.png", png)
            sidecar = {name: row[name] for name in ("image_id", "laterality", "view")}
            crop = {name: entry[name] for name in ("crop_top", "crop_bottom", "crop_left", "crop_right", "mode")}
            _add(tar, f"{key}.json", json.dumps({**sidecar, **crop}, sort_keys=True).encode())
            manifest.append({**entry, "shard": tar_path.name, "offset": offset, "length": len(png)})
    return (
        pl.DataFrame(manifest, schema=MANIFEST.schema) if manifest else MANIFEST.empty(),
        pl.DataFrame(rejects, schema=REJECTS.schema) if rejects else REJECTS.empty(),
    )


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


def _convert(root: Path, recipe: Recipe, row: dict[str, str]) -> tuple[bytes | None, dict[str, Any]]:
    """Return the PNG and its manifest entry, or None and why the image is rejected."""
    try:
        mammogram = read_mammogram(root / row["path"])
        image, crop = to_png_array(mammogram, recipe.mode, (recipe.height_px, recipe.width_px))
    except RejectedInput as error:
        return None, {"reason": error.reason, "detail": error.detail}
    encoded, buffer = cv2.imencode(".png", image, _PNG_PARAMETERS)
    if not encoded:
        raise ArtifactError(f"OpenCV could not encode image {row['image_id']} as PNG")
    png = buffer.tobytes()
    return png, {
        "image_id": row["image_id"],
        "height_px": image.shape[0],
        "width_px": image.shape[1],
        "crop_top": crop.top,
        "crop_bottom": crop.bottom,
        "crop_left": crop.left,
        "crop_right": crop.right,
        "mode": recipe.mode,
        "png_sha256": hashlib.sha256(png).hexdigest(),
    }


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file and return the offset of its first byte in the tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(content))
    num_blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return tar.offset - num_blocks * tarfile.BLOCKSIZE
