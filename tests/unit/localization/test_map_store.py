"""The last maps of images on disk: what is kept, what goes on after a kill, and that the encoder runs once."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.errors import ArtifactError
from mammoclip.evaluation.features import FeatureRecipe
from mammoclip.localization.factor import pool_maps
from mammoclip.localization.factor_training import AttributedImages, FactorJob, MapStore, extract_maps, train_factor
from mammoclip.models import LoadedModel, normalise
from mammoclip.models.relevance import last_maps
from tests.unit.evaluation.fine_tune_process import SIZE_PX, make_model, read_image

SHA = "a" * 64
IDS = [f"{number}-{number % 2}" for number in range(7)]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    return make_model()


def images_of(ids: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"image_id": ids, "png_sha256": [hashlib.sha256(i.encode()).hexdigest() for i in ids]})


def store_of(
    work: Path,
    ids: list[str] = IDS,
    *,
    sha: str = SHA,
    precision: Any = "fp32",
    pool: int = 1,
    chunk_size: int = 3,
) -> MapStore:
    return MapStore(work, images_of(ids), FeatureRecipe(sha, SIZE_PX, precision, False), pool, chunk_size)


def extract(model: LoadedModel, store: MapStore, read: Any = read_image, batch_size: int = 2, **how: Any) -> MapStore:
    extract_maps(model, store, read, batch_size=batch_size, what="test", **how)
    return store


class CountedReads:
    """Reads images, notes which, and fails at one of them."""

    def __init__(self, failing: str | None = None) -> None:
        self.ids: list[str] = []
        self._failing = failing

    def __call__(self, image_id: str) -> np.ndarray:
        if image_id == self._failing:
            raise KeyboardInterrupt
        self.ids.append(image_id)
        return read_image(image_id)


def of_one_image(model: LoadedModel, image_id: str) -> torch.Tensor:
    with torch.no_grad():
        return last_maps(model.model.image_encoder, normalise(torch.from_numpy(read_image(image_id))[None]))


@pytest.mark.parametrize("encoder", ["timm:test_vit", "efficientnet-lite0"])
@pytest.mark.parametrize("pool", [1, 2])
def test_maps_are_the_encoders_rounded_to_float16_whatever_the_batch_size(
    tmp_path: Path, encoder: str, pool: int
) -> None:
    own = make_model(encoder)
    for batch_size in (1, 2, 100):
        store = extract(own, store_of(tmp_path / str(batch_size), pool=pool), batch_size=batch_size)
        for image_id in IDS:
            expected = pool_maps(of_one_image(own, image_id), pool)[0]
            maps = store.read(image_id)
            assert maps.dtype == np.float16
            assert maps.shape == store.map_shape == tuple(expected.shape)
            np.testing.assert_allclose(maps, expected.numpy(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_maps_are_written_in_whatever_order_they_lie_in_memory(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Encoders that compute channels last give maps that lie so."""
    store = store_of(tmp_path)
    maps = np.random.default_rng(0).random((3, 4, 2, 5)).astype(np.float16)
    store.write(0, np.ascontiguousarray(maps.transpose(order)).transpose(np.argsort(order)))
    assert store_of(tmp_path).is_whole(0)
    assert all(np.array_equal(store.read(image_id), each) for image_id, each in zip(store.chunks[0], maps, strict=True))


def test_an_image_takes_two_bytes_a_number(model: LoadedModel, tmp_path: Path) -> None:
    store = extract(model, store_of(tmp_path, chunk_size=100))
    (chunk,) = tmp_path.rglob("*.npy")
    assert chunk.stat().st_size == pytest.approx(len(IDS) * 2 * math.prod(store.map_shape), abs=200)
    assert np.load(chunk, mmap_mode="r").shape == (len(IDS), *store.map_shape)  # a file that others can read


def test_lower_precision_is_close(model: LoadedModel, tmp_path: Path) -> None:
    exact, rounded = (extract(model, store_of(tmp_path / p, precision=p)).read(IDS[0]) for p in ("fp32", "bf16"))
    assert not np.array_equal(exact, rounded)
    assert np.linalg.norm((exact - rounded).astype(float)) < 0.05 * np.linalg.norm(exact.astype(float))


def test_a_killed_extraction_goes_on_after_its_last_whole_chunk(model: LoadedModel, tmp_path: Path) -> None:
    whole = extract(model, store_of(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        extract(model, store_of(tmp_path / "work"), CountedReads(failing=IDS[4]))
    reads = CountedReads()
    store = extract(model, store_of(tmp_path / "work"), reads)
    assert sorted(reads.ids) == sorted(IDS[3:])
    assert all(np.array_equal(store.read(image_id), whole.read(image_id)) for image_id in IDS)


@pytest.mark.parametrize("damage", ["cut short", "another byte", "empty", "no digest"])
def test_a_damaged_chunk_is_computed_again(model: LoadedModel, tmp_path: Path, damage: str) -> None:
    expected = extract(model, store_of(tmp_path)).read(IDS[3])
    chunk = next(tmp_path.rglob("00001.npy"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    cut = {"cut short": content[:-100], "another byte": content, "empty": b"", "no digest": chunk.read_bytes()[:-32]}
    chunk.write_bytes(cut[damage])
    reads = CountedReads()
    store = extract(model, store_of(tmp_path), reads)
    assert sorted(reads.ids) == sorted(IDS[3:6])
    assert np.array_equal(store.read(IDS[3]), expected)


def test_maps_of_another_checkpoint_recipe_pooling_or_image_are_not_taken(model: LoadedModel, tmp_path: Path) -> None:
    extract(model, store_of(tmp_path))
    for how in ({"sha": "b" * 64}, {"precision": "bf16"}, {"pool": 2}, {"ids": IDS[::-1]}, {"chunk_size": 2}):
        assert not store_of(tmp_path, **how).is_whole(0), how
    assert store_of(tmp_path).is_whole(0)


def test_every_process_takes_its_chunks(model: LoadedModel, tmp_path: Path) -> None:
    read = []
    for rank in (1, 0):
        reads = CountedReads()
        extract(model, store_of(tmp_path), reads, rank=rank, world_size=2, threads=2)
        read.append(sorted(reads.ids))
    assert read == [sorted(IDS[3:6]), sorted(IDS[:3] + IDS[6:])]


def test_what_the_store_lacks_is_one_sentence(model: LoadedModel, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with pytest.raises(ArtifactError, match=r"00000\.npy is missing or damaged; run the same command again"):
        store.read(IDS[0])
    with pytest.raises(ArtifactError, match="image 'other' is none of those whose maps are kept"):
        store.read("other")


def test_maps_that_float16_cannot_hold_are_refused_with_the_image(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = model.model.image_encoder
    original, bright = encoder.maps, normalise(torch.from_numpy(read_image(IDS[4]))[None])[0]

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        last = original(images)[-1].clone()
        last[[bool(torch.equal(image, bright)) for image in images]] = 1e5
        return [last]

    monkeypatch.setattr(encoder, "maps", maps)
    with pytest.raises(ArtifactError, match=f"the maps of image '{IDS[4]}' are NaN or too large for float16"):
        extract(model, store_of(tmp_path))
    assert store_of(tmp_path).is_whole(0)


def test_the_store_is_removed_with_what_older_recipes_left_and_nothing_else(model: LoadedModel, tmp_path: Path) -> None:
    work = tmp_path / "work"
    extract(model, store_of(work, pool=2))
    store = extract(model, store_of(work))
    store.read(IDS[0])
    (work / "of-somebody-else").touch()
    store.remove()
    assert [path.name for path in work.iterdir()] == ["of-somebody-else"]
    (work / "of-somebody-else").unlink()
    store.remove()
    assert not work.exists()


def test_the_encoder_sees_every_image_once_in_three_epochs(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, seen = model.model.image_encoder, []
    original = encoder.maps
    monkeypatch.setattr(encoder, "maps", lambda images: seen.append(len(images)) or original(images))
    ids = [f"{number}-{number % 2}" for number in range(12)]
    store = extract(model, store_of(tmp_path / "maps", ids))
    labels = np.array([[number % 2] for number in range(12)])
    job = FactorJob(
        store,
        ["mass"],
        torch.eye(1, 4),
        AttributedImages(ids[:8], labels[:8]),
        AttributedImages(ids[8:], labels[8:]),
        "strict",
        seed=0,
        work=tmp_path / "work",
        num_epochs=3,
        batch_size=4,
        hidden=8,
    )
    assert len(train_factor(job).epochs) == 3
    assert sum(seen) == len(ids)
