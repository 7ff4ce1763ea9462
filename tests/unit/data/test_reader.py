import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from mammoclip.data.reader import ImageSource, ShardReader
from mammoclip.errors import ArtifactError


def stored(sharded: Any, row: dict[str, Any]) -> np.ndarray:
    png = sharded.tar.read_bytes()[row["offset"] : row["offset"] + row["length"]]
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_images_are_read_as_stored_in_any_order(sharded: Any) -> None:
    reader = ShardReader(sharded.manifest, sharded.folder)
    rows = sharded.manifest.sample(fraction=1, shuffle=True, seed=1).to_dicts()
    for row in rows + rows[:3]:
        image = reader.read(row["image_id"])
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, stored(sharded, row))
    reader.close()


def test_images_are_resized_by_area_interpolation(sharded: Any) -> None:
    row = sharded.manifest.row(3, named=True)
    original = stored(sharded, row)
    for size_px in ((48, 32), (20, 60), (96, 64)):
        image = ShardReader(sharded.manifest, sharded.folder, size_px).read(row["image_id"])
        np.testing.assert_array_equal(image, cv2.resize(original, size_px[::-1], interpolation=cv2.INTER_AREA))
    halved = ShardReader(sharded.manifest, sharded.folder, (48, 32)).read(row["image_id"])
    mean = original.astype(float).reshape(48, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(halved, mean, atol=0.51)


def test_an_unknown_image_is_named(sharded: Any) -> None:
    with pytest.raises(ArtifactError, match=f"'no-such' is not in the images table of {sharded.folder}"):
        ShardReader(sharded.manifest, sharded.folder).read("no-such")


def test_a_missing_shard_is_named(sharded: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"{tmp_path}/00000\.tar does not exist; rerun the shard stage"):
        ShardReader(sharded.manifest, tmp_path).read(sharded.manifest["image_id"][0])


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 0},
        {"offset": 513},
        {"offset": 10**9},
        {"length": 10},
        {"length": 0},
        {"length": 10**6},
    ],
)
def test_a_manifest_that_does_not_fit_the_shard_is_noticed(sharded: Any, change: dict[str, int]) -> None:
    images = sharded.manifest.with_columns(**{name: pl.lit(value) for name, value in change.items()})
    with pytest.raises(ArtifactError, match=r"00000\.tar: the PNG of image .* is not at byte .*; rerun the shard"):
        ShardReader(images, sharded.folder).read(images["image_id"][0])


@pytest.mark.parametrize("surplus", [0, 100])
def test_the_png_of_another_image_is_never_taken_for_the_one_asked_for(sharded: Any, surplus: int) -> None:
    """As when the shards were written anew and the table was not: the bytes are a good PNG, but of someone else."""
    other = sharded.manifest.row(1, named=True)
    offset, length = pl.lit(other["offset"]), pl.lit(other["length"] + surplus)
    images = sharded.manifest.with_columns(offset=offset, length=length)
    with pytest.raises(ArtifactError, match="is not at byte"):
        ShardReader(images, sharded.folder).read(images["image_id"][0])


def test_a_shard_cut_short_is_noticed(sharded: Any, tmp_path: Path) -> None:
    last = sharded.manifest.row(-1, named=True)
    (tmp_path / "00000.tar").write_bytes(sharded.tar.read_bytes()[: last["offset"] + last["length"] // 2])
    reader = ShardReader(sharded.manifest, tmp_path)
    assert reader.read(sharded.manifest["image_id"][0]).shape == (96, 64)
    with pytest.raises(ArtifactError, match="is not at byte"):
        reader.read(last["image_id"])


def test_threads_share_a_reader_and_open_each_shard_once(sharded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    closed: list[int] = []
    original_open, original_close = os.open, os.close

    def counting_open(*args: Any, **kwargs: Any) -> int:
        opened.append(original_open(*args, **kwargs))
        return opened[-1]

    def counting_close(descriptor: int) -> None:
        closed.append(descriptor)
        original_close(descriptor)

    monkeypatch.setattr(os, "open", counting_open)
    monkeypatch.setattr(os, "close", counting_close)
    reader = ShardReader(sharded.manifest, sharded.folder)
    ids = sharded.manifest["image_id"].to_list() * 4
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(reader.read, ids))
    reader.close()
    for row, image in zip(sharded.manifest.iter_rows(named=True), images, strict=False):
        np.testing.assert_array_equal(image, stored(sharded, row))
    assert sorted(opened) == sorted(closed)


def test_a_closed_reader_opens_again(sharded: Any) -> None:
    reader = ShardReader(sharded.manifest, sharded.folder)
    first = sharded.manifest["image_id"][0]
    image = reader.read(first)
    reader.close()
    reader.close()
    np.testing.assert_array_equal(reader.read(first), image)


def test_a_source_reads_each_image_from_its_own_data_set(sharded: Any, tmp_path: Path) -> None:
    shutil.copy(sharded.tar, tmp_path / "00000.tar")
    swapped = sharded.manifest.with_columns(image_id=pl.col("image_id").reverse())
    source = ImageSource(
        {"one": ShardReader(sharded.manifest, sharded.folder), "two": ShardReader(swapped, tmp_path, (10, 10))}
    )
    first, last = sharded.manifest["image_id"][0], sharded.manifest["image_id"][-1]
    np.testing.assert_array_equal(source(f"one/{first}"), stored(sharded, sharded.manifest.row(0, named=True)))
    assert source(f"two/{last}").shape == (10, 10)
