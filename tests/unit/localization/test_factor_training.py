"""Training of Mammo-FActOR on maps on disk: what is learned and where it is seen, which epoch, and exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.errors import ArtifactError, ModelError
from mammoclip.evaluation.features import FeatureRecipe
from mammoclip.localization.factor import MammoFactor, factor_loss, heat_map
from mammoclip.localization.factor_training import (
    AttributedImages,
    FactorJob,
    MapStore,
    TrainedFactor,
    factor_scores,
    train_factor,
)
from tests.interruption import counting, stopping, stops

# What it learns: attribute k of a toy image is a spot in channel SPOT_CHANNELS[k], in two columns of cells of its own;
# all other channels have spots of the same size too, but to the right of them, in every image.

MAP_SIZE, CHANNELS, SPOT_CHANNELS = (4, 7), 5, (2, 4)
ATTRIBUTES = ["mass", "asymmetry"]
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 320, 64, 48
TO_THE_END: dict[str, Any] = {"num_epochs": 20, "learning_rate": 5e-3}
TEST = range(NUM_TRAIN + NUM_VALIDATION, NUM_TRAIN + NUM_VALIDATION + NUM_TEST)


def toy_image(number: int) -> tuple[np.ndarray, list[int], list[tuple[int, int]]]:
    """Maps, labels, and the cell of each attribute's spot."""
    rng = np.random.default_rng(number)
    maps = 0.2 * rng.random((CHANNELS, *MAP_SIZE))
    labels = [number % 2, number // 2 % 2]
    cells = [(int(rng.integers(MAP_SIZE[0])), int(2 * k + rng.integers(2))) for k in range(2)]
    for channel in range(CHANNELS):
        row, column = int(rng.integers(MAP_SIZE[0])), int(rng.integers(4, 7))
        if channel in SPOT_CHANNELS and labels[SPOT_CHANNELS.index(channel)]:
            row, column = cells[SPOT_CHANNELS.index(channel)]
        maps[channel, row, column] += 1.0
    return maps.astype(np.float16), labels, cells


def toy_store(work: Path) -> tuple[MapStore, np.ndarray]:
    """The maps and labels of all toy images, number by number."""
    toys = [toy_image(number) for number in range(TEST.stop)]
    ids = [str(number) for number in range(len(toys))]
    images = pl.DataFrame({"image_id": ids, "png_sha256": ids})
    store = MapStore(work, images, FeatureRecipe("a" * 64, (32, 56), "fp32", False), chunk_size=50)
    for number, ids in enumerate(store.chunks):
        store.write(number, np.stack([toys[int(image_id)][0] for image_id in ids]))
    return store, np.array([labels for _, labels, _ in toys])


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[MapStore, np.ndarray]:
    torch.set_num_threads(1)
    return toy_store(tmp_path_factory.mktemp("toys"))


def toy_part(labels: np.ndarray, first: int, count: int) -> AttributedImages:
    return AttributedImages([str(number) for number in range(first, first + count)], labels[first : first + count])


def toy_job(toys: tuple[MapStore, np.ndarray], work: Path, **changes: Any) -> FactorJob:
    store, labels = toys
    job = FactorJob(
        store,
        ATTRIBUTES,
        torch.randn(2, 8, generator=torch.Generator().manual_seed(5)),
        toy_part(labels, 0, NUM_TRAIN),
        toy_part(labels, NUM_TRAIN, NUM_VALIDATION),
        "strict",
        seed=3,
        work=work,
        num_epochs=4,
        batch_size=16,
        learning_rate=3e-3,
        hidden=16,
        temperature=0.07,
    )
    return replace(job, **changes)


def share_of_hits(factor: MammoFactor, store: MapStore) -> tuple[float, float]:
    """Over test images and attributes that are there: how often the spot's channel is the most similar one, and how
    often the heat map is hottest where the spot is."""
    channels, places = [], []
    for number in TEST:
        _, labels, cells = toy_image(number)
        maps = torch.from_numpy(store.read(str(number)))
        with torch.no_grad():
            similarities = factor(maps[None])[1][0]
        for k in np.flatnonzero(labels):
            channels.append(int(similarities[:, k].argmax()) == SPOT_CHANNELS[k])
            heat = heat_map(maps, similarities[:, k], MAP_SIZE)
            places.append(np.unravel_index(heat.argmax(), MAP_SIZE) == cells[k])
    return float(np.mean(channels)), float(np.mean(places))


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_the_channel_of_an_attribute_and_its_place_are_found_from_image_labels(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path, mode: Any
) -> None:
    trained = train_factor(toy_job(toys, tmp_path, mode=mode, **TO_THE_END))
    channel, place = share_of_hits(trained.factor, toys[0])
    assert channel > 0.8
    assert place > 0.8
    scores = factor_scores(trained.factor, toys[0], [str(number) for number in TEST], 8)
    labels = toys[1][TEST.start :]
    for k in range(2):
        assert scores[labels[:, k] == 1, k].median() > scores[labels[:, k] == 0, k].quantile(0.9)


def test_shuffled_labels_find_neither(toys: tuple[MapStore, np.ndarray], tmp_path: Path) -> None:
    store, labels = toys
    shuffled = np.random.default_rng(0).permutation(labels)
    job = toy_job((store, shuffled), tmp_path, **TO_THE_END)
    channel, place = share_of_hits(train_factor(job).factor, store)
    assert channel < 0.5  # one in five by chance
    assert place < 0.4


def test_unknown_labels_are_not_learned_from(toys: tuple[MapStore, np.ndarray], tmp_path: Path) -> None:
    """An attribute that is unknown in half of the images is learned from the others, whatever the half would say."""
    store, labels = toys
    half = labels.copy()
    half[:NUM_TRAIN:4, 0] = half[1:NUM_TRAIN:4, 0] = -1
    trained = train_factor(toy_job((store, half), tmp_path, **TO_THE_END))
    assert share_of_hits(trained.factor, store)[0] > 0.7


# Which epoch


def assert_equal(found: TrainedFactor, expected: TrainedFactor) -> None:
    assert found.selected == expected.selected
    assert found.epochs == expected.epochs
    state = found.factor.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.factor.state_dict().items())


def misled(toys: tuple[MapStore, np.ndarray], work: Path, **changes: Any) -> FactorJob:
    """Validation labels are the opposite: the more is learned, the worse."""
    job = toy_job(toys, work, **changes)
    return replace(job, validation=replace(job.validation, labels=1 - job.validation.labels))


def test_strict_takes_the_epoch_with_the_lowest_validation_loss(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path
) -> None:
    for name, job in (("good", toy_job(toys, tmp_path / "1")), ("misled", misled(toys, tmp_path / "2"))):
        trained = train_factor(job)
        losses = [-epoch.score for epoch in trained.epochs]
        assert trained.selected == int(np.argmin(losses)) == {"good": 3, "misled": 0}[name]
        scores = factor_scores(trained.factor, job.store, job.validation.image_ids, 100)
        found = factor_loss(scores, torch.from_numpy(job.validation.labels), "strict")
        assert float(found) == pytest.approx(losses[trained.selected], rel=1e-5)


def test_compat_takes_the_last_epoch_and_needs_no_validation_images(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path
) -> None:
    trained = train_factor(misled(toys, tmp_path / "1", mode="compat"))
    assert trained.selected == 3
    none = AttributedImages([], np.zeros((0, 2), np.int64))
    alone = train_factor(toy_job(toys, tmp_path / "2", mode="compat", validation=none))
    assert alone.selected == 3
    assert [epoch.loss for epoch in alone.epochs] == [epoch.loss for epoch in trained.epochs]
    state = alone.factor.state_dict()
    assert all(torch.equal(state[name], value) for name, value in trained.factor.state_dict().items())


def test_the_training_loss_of_compat_is_larger(toys: tuple[MapStore, np.ndarray], tmp_path: Path) -> None:
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "num_epochs": 1}
    strict, compat = (
        train_factor(toy_job(toys, tmp_path / m, mode=m, **still)).epochs[0] for m in ("strict", "compat")
    )
    assert compat.loss > strict.loss


# The same again


@stops
def test_what_was_stopped_goes_on_to_the_very_same_result(
    toys: tuple[MapStore, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: Callable[[], None],
    raised: type[Exception],
) -> None:
    store = toys[0]
    expected = train_factor(toy_job(toys, tmp_path / "whole"))
    job = toy_job(toys, tmp_path / "stopped")
    of_epoch = NUM_TRAIN + NUM_VALIDATION
    with monkeypatch.context() as patch:
        patch.setattr(store, "read", stopping(store.read, 2 * of_epoch + 20, stop))
        with pytest.raises(raised):
            train_factor(job)
    read: list[str] = []
    monkeypatch.setattr(store, "read", counting(store.read, read))
    torch.rand(5)  # the global random state has no part in it
    assert_equal(train_factor(job), expected)
    assert len(read) == 2 * of_epoch  # not the first two epochs again


def test_what_is_done_is_not_done_again(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = toy_job(toys, tmp_path)
    expected = train_factor(job)
    monkeypatch.setattr(toys[0], "read", lambda image_id: pytest.fail("it reads maps"))
    assert_equal(train_factor(job), expected)


def test_threads_change_nothing_and_the_random_state_is_left_alone(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path
) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = train_factor(toy_job(toys, tmp_path / "1"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert_equal(train_factor(toy_job(toys, tmp_path / "3", threads=3)), one)


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = toys[0], []
    original = store.read
    monkeypatch.setattr(store, "read", lambda image_id: read.append(image_id) or original(image_id))
    orders = []
    for seed in (3, 4):
        read.clear()
        # 7 batches of 45 or 46: none is tiny, none is left out.
        train_factor(toy_job(toys, tmp_path / str(seed), seed=seed, num_epochs=2, batch_size=50))
        orders += [tuple(read[:NUM_TRAIN]), tuple(read[NUM_TRAIN + NUM_VALIDATION :][:NUM_TRAIN])]
        steps = torch.load(tmp_path / str(seed) / "step-2.pt", weights_only=True)["optimizer"]["state"][0]["step"]
        assert int(steps) == 2 * 7
    assert all(sorted(order, key=int) == [str(number) for number in range(NUM_TRAIN)] for order in orders)
    assert len(set(orders)) == 4


def test_batches_in_which_no_image_has_an_attribute_make_no_step(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path
) -> None:
    store, labels = toys
    rare = np.zeros_like(labels)
    rare[[5, NUM_TRAIN]] = 1
    trained = train_factor(toy_job((store, rare), tmp_path, num_epochs=1, batch_size=4))
    steps = torch.load(tmp_path / "step-1.pt", weights_only=True)["optimizer"]["state"][0]["step"]
    assert int(steps) == 1
    assert math.isfinite(trained.epochs[0].loss)


# Errors


@pytest.mark.parametrize(
    ("part", "column", "value", "says"),
    [
        ("train", 1, 0, "no training image is known to be with 'asymmetry'"),
        ("train", 0, 1, "no training image is known to be without 'mass'"),
        ("train", 0, -1, "no training image is known to be with 'mass'"),
        (
            "validation",
            slice(None),
            0,
            "no attribute has validation images with and without it, on which the epoch is chosen",
        ),
        (
            "validation",
            slice(None),
            1,
            "no attribute has validation images with and without it, on which the epoch is chosen",
        ),
    ],
)
def test_parts_without_contrast_are_refused(
    toys: tuple[MapStore, np.ndarray], tmp_path: Path, part: str, column: Any, value: int, says: str
) -> None:
    job = toy_job(toys, tmp_path)
    labels = getattr(job, part).labels.copy()
    labels[:, column] = value
    with pytest.raises(ArtifactError, match=says):
        train_factor(replace(job, **{part: replace(getattr(job, part), labels=labels)}))


def test_a_loss_that_is_not_finite_is_one_sentence(toys: tuple[MapStore, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not finite in epoch 1; lower localize\.factor\.learning_rate"):
        train_factor(toy_job(toys, tmp_path, learning_rate=1e30))
