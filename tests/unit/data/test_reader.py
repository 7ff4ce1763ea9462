import errno
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from mammoclip.data.reader import ImageSource, ShardReader, eight_bits
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


def shard_of(folder: Path, image: np.ndarray) -> pl.DataFrame:
    """A shard of one PNG behind 100 other bytes, and its rows of the table."""
    png = cv2.imencode(".png", image)[1].tobytes()
    (folder / "0.tar").write_bytes(bytes(100) + png)
    row = {"image_id": "i", "shard": "0.tar", "offset": 100, "length": len(png)}
    return pl.DataFrame([{**row, "png_sha256": hashlib.sha256(png).hexdigest()}])


@pytest.mark.parametrize("size_px", [None, (40, 30), (20, 15), (90, 31)])
def test_sixteen_bits_are_read_as_sixteen_bits(tmp_path: Path, size_px: tuple[int, int] | None) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (40, 30), dtype=np.uint16)
    image = ShardReader(shard_of(tmp_path, deep), tmp_path, size_px).read("i")
    expected = deep if size_px is None else cv2.resize(deep, size_px[::-1], interpolation=cv2.INTER_AREA)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, expected)


def test_a_picture_has_the_upper_eight_bits() -> None:
    assert eight_bits(np.array([[0, 255, 256, 65535]], np.uint16)).tolist() == [[0, 0, 1, 255]]
    assert eight_bits(np.array([[0, 255]], np.uint16)).dtype == np.uint8
    assert eight_bits(np.array([[0, 255]], np.uint8)).tolist() == [[0, 255]]


def test_a_png_in_colour_is_refused(tmp_path: Path) -> None:
    images = shard_of(tmp_path, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ArtifactError, match=r"0\.tar: image 'i' is not a PNG of one channel; rerun the shard stage"):
        ShardReader(images, tmp_path).read("i")


def test_a_file_that_is_no_png_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"no picture")
    digest = hashlib.sha256(b"no picture").hexdigest()
    row = {"image_id": "i", "shard": "0.tar", "offset": 0, "length": 10, "png_sha256": digest}
    with pytest.raises(ArtifactError, match="image 'i' is not a PNG of one channel"):
        ShardReader(pl.DataFrame([row]), tmp_path).read("i")


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
    message = (
        rf"00000\.tar: .* {last['image_id']!r} is not at byte .*, so the file is cut short .*; rerun the shard and"
    )
    with pytest.raises(ArtifactError, match=message):
        reader.read(last["image_id"])


def test_a_shard_that_is_cut_while_it_is_read_is_noticed(sharded: Any, tmp_path: Path) -> None:
    tar = tmp_path / "00000.tar"
    shutil.copy(sharded.tar, tar)
    reader = ShardReader(sharded.manifest, tmp_path)
    first, last = sharded.manifest["image_id"][0], sharded.manifest["image_id"][-1]
    reader.read(last)
    os.truncate(tar, sharded.manifest["offset"][-1])
    with pytest.raises(ArtifactError, match=r"of its \d+ bytes 0 are there, so the file is cut short"):
        reader.read(last)
    assert reader.read(first).shape == (96, 64)


def test_a_read_that_comes_in_pieces_is_put_together(sharded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems do: fewer bytes than asked for are no end of the file."""
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: whole(descriptor, min(length, 77), offset))
    row = sharded.manifest.row(2, named=True)
    image = ShardReader(sharded.manifest, sharded.folder).read(row["image_id"])
    np.testing.assert_array_equal(image, stored(sharded, row))


def test_a_shard_that_vanishes_while_it_is_open_is_named(sharded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(*_: Any) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "pread", vanished)
    message = r"00000\.tar: image .* cannot be read \(Stale file handle\); check the disk, then run it again"
    with pytest.raises(ArtifactError, match=message):
        ShardReader(sharded.manifest, sharded.folder).read(sharded.manifest["image_id"][0])


def test_a_shard_that_may_not_be_opened_is_named(sharded: Any, tmp_path: Path) -> None:
    (tmp_path / "00000.tar").mkdir()
    with pytest.raises(ArtifactError, match=r"00000\.tar: image .* cannot be read \(Is a directory\)"):
        ShardReader(sharded.manifest, tmp_path).read(sharded.manifest["image_id"][0])


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
