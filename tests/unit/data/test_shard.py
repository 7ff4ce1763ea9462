import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mammoclip.artifacts import MANIFEST, REJECTS, write_table
from mammoclip.data.shard import check_conservation, select_shard, shard_of, write_shard
from mammoclip.dicom import Recipe, convert_file
from mammoclip.errors import ArtifactError

SMALL = Recipe("strict", "strict", "stretch", 32, 16)


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def broken_rows(cohort: Any) -> pl.DataFrame:
    """Index rows that point at the broken files, as if their headers had been good."""
    broken = pl.read_csv(cohort.root / "broken_files.csv")
    rows = cohort.index.head(len(broken))
    return rows.with_columns(path=broken["path"], image_id=broken["what"].str.replace_all(" ", "-"))


def test_every_image_is_in_the_manifest_once(cohort: Any, sharded: Any) -> None:
    assert sharded.manifest["image_id"].to_list() == cohort.index["image_id"].to_list()
    assert len(sharded.rejects) == 0


def test_the_manifests_offsets_point_at_the_png(cohort: Any, sharded: Any) -> None:
    content = sharded.tar.read_bytes()
    paths = dict(cohort.index.select("image_id", "path").rows())
    for row in sharded.manifest.iter_rows(named=True):
        png = content[row["offset"] : row["offset"] + row["length"]]
        assert hashlib.sha256(png).hexdigest() == row["png_sha256"]
        image = decode(png)
        assert image.dtype == np.uint8
        assert image.shape == (row["height_px"], row["width_px"]) == (96, 64)
        expected = convert_file(cohort.root / paths[row["image_id"]], sharded.recipe)
        assert png == expected.png
        crop, *placed = expected.placement
        assert crop == (row["crop_top"], row["crop_bottom"], row["crop_left"], row["crop_right"])
        assert placed == [row[name] for name in ("scale_x", "scale_y", "pad_left", "pad_top")]
        assert [row[name] for name in ("grayscale", "crop", "geometry", "bits", "shard")] == [
            *("strict", "strict", "stretch", 8, "00000.tar")
        ]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("compat", "compat", "stretch", 96, 64),
        Recipe("compat", "strict", "pad", 96, 64),
        Recipe("strict", "compat", "pad", 40, 90, bits=16),
    ],
)
def test_the_recipe_decides_the_pixels(cohort: Any, tmp_path: Path, recipe: Recipe) -> None:
    index = cohort.index.head(2)
    manifest, _ = write_shard(index, cohort.root, "d", tmp_path / "c.tar", recipe, 1, 60.0)
    content = (tmp_path / "c.tar").read_bytes()
    for row, path in zip(manifest.iter_rows(named=True), index["path"], strict=True):
        png = content[row["offset"] : row["offset"] + row["length"]]
        assert png == convert_file(cohort.root / path, recipe).png
        image = decode(png)
        assert image.dtype == (np.uint16 if recipe.bits == 16 else np.uint8)
        assert image.shape == (row["height_px"], row["width_px"]) == (recipe.height_px, recipe.width_px)
        assert [row[name] for name in ("grayscale", "crop", "geometry", "bits")] == [
            *(recipe.grayscale, recipe.crop, recipe.geometry, recipe.bits)
        ]


def test_the_tar_is_a_web_dataset(cohort: Any, sharded: Any) -> None:
    samples = list(webdataset.WebDataset(str(sharded.tar), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == cohort.index["image_id"].to_list()
    sides = {
        image_id: (side, view) for image_id, side, view in cohort.index.select("image_id", "laterality", "view").rows()
    }
    for sample, row in zip(samples, sharded.manifest.iter_rows(named=True), strict=True):
        assert hashlib.sha256(sample["png"]).hexdigest() == row["png_sha256"]
        sidecar = json.loads(sample["json"])
        assert sidecar["image_id"] == sample["__key__"]
        assert (sidecar["laterality"], sidecar["view"]) == sides[sample["__key__"]]
        assert sidecar.keys() - {"laterality", "view"} == row.keys() - {"shard", "offset", "length"}
        assert all(sidecar[name] == row[name] for name in sidecar.keys() & row.keys())


@pytest.mark.parametrize(
    "ids", [["1.2.840.1", "1.2.840.2"], ["a.b", "a.c"], ["x" * 128, "y" * 128], ["z." * 60 + "z", "q"]]
)
def test_image_ids_with_dots_or_of_any_length_stay_samples_of_their_own(
    cohort: Any, tmp_path: Path, ids: list[str]
) -> None:
    index = cohort.index.head(2).with_columns(image_id=pl.Series(ids))
    tar = tmp_path / "00000.tar"
    manifest, _ = write_shard(index, cohort.root, "d", tar, SMALL, 1, 60.0)
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert [json.loads(sample["json"])["image_id"] for sample in samples] == ids
    assert len({sample["__key__"] for sample in samples}) == 2
    content = tar.read_bytes()
    for row, sample in zip(manifest.iter_rows(named=True), samples, strict=True):
        assert content[row["offset"] : row["offset"] + row["length"]] == sample["png"]


def test_the_bytes_do_not_depend_on_the_number_of_processes(cohort: Any, sharded: Any, tmp_path: Path) -> None:
    rows = pl.concat([cohort.index, broken_rows(cohort)])
    results = {}
    for processes in (1, 2):
        tar = tmp_path / str(processes) / "00000.tar"
        results[processes] = (
            *write_shard(rows, cohort.root, "d", tar, sharded.recipe, processes, 60.0),
            tar.read_bytes(),
        )
    assert results[1][2] == results[2][2]
    assert_frame_equal(results[1][0], results[2][0])
    assert_frame_equal(results[1][1], results[2][1])
    assert len(results[1][1]) == 5


def test_nothing_of_time_or_user_is_in_the_tar(sharded: Any) -> None:
    with tarfile.open(sharded.tar) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_broken_files_are_rejected_and_leave_no_trace_in_the_tar(cohort: Any, tmp_path: Path) -> None:
    rows = pl.concat([broken_rows(cohort), cohort.index.tail(1)])
    manifest, rejects = write_shard(rows, cohort.root, "d", tmp_path / "00000.tar", SMALL, 1, 60.0)
    what = dict(pl.read_csv(cohort.root / "broken_files.csv").select("path", "what").rows())
    assert {what[path]: reason for path, reason in rejects.select("path", "reason").rows()} == {
        "truncated": "undecodable",
        "not DICOM": "not_dicom",
        "empty": "not_dicom",
        "no pixel data": "no_pixel_data",
        "constant image": "constant_image",
    }
    assert set(rejects["stage"]) == {"shard"}
    assert manifest["image_id"].to_list() == cohort.index["image_id"].tail(1).to_list()
    with tarfile.open(tmp_path / "00000.tar") as tar:
        assert tar.getnames() == [f"{manifest['image_id'][0]}{suffix}" for suffix in (".png", ".json")]
    write_table(manifest, MANIFEST, tmp_path / "m.parquet")
    write_table(rejects, REJECTS, tmp_path / "r.parquet")


def test_a_file_that_went_away_is_rejected(cohort: Any, tmp_path: Path) -> None:
    _, rejects = write_shard(
        cohort.index.head(1),
        tmp_path,
        "d",
        tmp_path / "00000.tar",
        SMALL,
        1,
        60.0,
    )
    assert rejects["reason"].to_list() == ["unreadable_header"]


def test_a_shard_without_images_is_an_empty_tar(cohort: Any, tmp_path: Path) -> None:
    manifest, rejects = write_shard(
        cohort.index.head(0), cohort.root, "d", tmp_path / "0.tar", Recipe("strict", "strict", "stretch", 9, 9), 1, 60.0
    )
    assert (manifest.schema, rejects.schema) == (MANIFEST.schema, REJECTS.schema)
    assert len(manifest) == len(rejects) == 0
    with tarfile.open(tmp_path / "0.tar") as tar:
        assert tar.getnames() == []


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(1, 1000))
def test_a_study_has_one_shard_that_sha256_decides(study_id: str, num_shards: int) -> None:
    expected = int(hashlib.sha256(study_id.encode()).hexdigest()[:16], 16) % num_shards
    assert shard_of(study_id, num_shards) == expected


def test_known_shards() -> None:
    """Fixed for ever: another value would move every study to another shard."""
    assert [shard_of(f"study-{number}", 64) for number in range(6)] == [4, 55, 22, 55, 26, 14]


def test_shards_share_the_studies_about_equally() -> None:
    counts = Counter(shard_of(f"{number:08d}", 16) for number in range(16_000))
    assert all(850 < counts[shard] < 1150 for shard in range(16))


@pytest.mark.parametrize("num_shards", [1, 3, 64])
def test_the_shards_cut_the_index_into_whole_studies(cohort: Any, num_shards: int) -> None:
    parts = [select_shard(cohort.index, shard, num_shards) for shard in range(num_shards)]
    assert sorted(pl.concat(parts)["image_id"]) == sorted(cohort.index["image_id"])
    studies = [set(part["study_id"]) for part in parts]
    assert sum(map(len, studies)) == cohort.index["study_id"].n_unique()
    for part in parts:
        assert_frame_equal(part, cohort.index.filter(pl.col("image_id").is_in(part["image_id"].implode())))


def reject_of(path: str) -> pl.DataFrame:
    row = {"dataset": "d", "stage": "shard", "path": path, "reason": "undecodable", "detail": ""}
    return pl.DataFrame([row], schema=REJECTS.schema)


def test_conservation_holds_when_every_image_is_written_or_rejected_once(cohort: Any, sharded: Any) -> None:
    check_conservation(cohort.index, sharded.manifest, sharded.rejects)
    check_conservation(cohort.index, sharded.manifest[1:], reject_of(cohort.index["path"][0]))


@pytest.mark.parametrize(
    "case",
    [
        "lost",
        "doubled",
        "lost and doubled",
        "lost and rejected twice",
        "written and rejected",
        "a stranger for a lost one",
    ],
)
def test_conservation_breaks_when_an_image_is_lost_or_doubled(cohort: Any, sharded: Any, case: str) -> None:
    manifest, rejects = sharded.manifest, sharded.rejects
    first, second = reject_of(cohort.index["path"][0]), reject_of(cohort.index["path"][1])
    stranger = manifest.head(1).with_columns(image_id=pl.lit("stranger"))
    manifest, rejects = {
        "lost": (manifest[1:], rejects),
        "doubled": (pl.concat([manifest, manifest.head(1)]), rejects),
        "lost and doubled": (pl.concat([manifest[1:], manifest.tail(1)]), rejects),
        "lost and rejected twice": (manifest[2:], pl.concat([first, first])),
        "written and rejected": (manifest[1:], second),
        "a stranger for a lost one": (pl.concat([manifest[1:], stranger]), rejects),
    }[case]
    with pytest.raises(ArtifactError, match=f"do not conserve images: {len(cohort.index)} indexed"):
        check_conservation(cohort.index, manifest, rejects)
