from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from mammoclip.config import LossWeights
from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.captions import Captions
from mammoclip.data.mixture import ALIKE, Mixture
from mammoclip.data.pairs import Breast, Image, PairSampler
from mammoclip.data.warp import SamplingNodes
from mammoclip.errors import ArtifactError
from mammoclip.models import normalise
from mammoclip.training.augmentation_batch import augment_batch
from mammoclip.training.batches import Batch, iterate_batches, num_batches
from mammoclip.training.step import Stepper

UNCHANGED = AugmentationStrength(0.0, False, 0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 1.0)
STRONG = AugmentationStrength(0.5, True, 20.0, 0.1, (0.8, 1.2), 20.0, 10.0, 15.0)


def read_flat(image_id: str) -> Image:
    """The CC image of breast n is filled with n, the MLO image with 100 + n."""
    view, number = image_id.split("-")
    return np.full((6, 4), int(number) + (100 if view == "mlo" else 0), np.uint8)


def read_noise(image_id: str) -> Image:
    return np.random.default_rng(list(image_id.encode())).integers(0, 256, (6, 4), np.uint8)


def breast(number: int, *texts: str) -> Breast:
    sections = texts or (f"finding {number}", "birads 1")
    return Breast((f"cc-{number}",), (f"mlo-{number}",), Captions(tuple((text,) for text in sections), "L"))


def training_sampler(
    num: int,
    strength: AugmentationStrength = UNCHANGED,
    read: Callable[[str], Image] = read_flat,
    mixture: Mixture = ALIKE,
    warp_later: bool = False,
) -> PairSampler:
    """Every third breast is of the data set ``b``, the others of ``a``."""
    breasts = [replace(breast(n), dataset="b" if n % 3 == 2 else "a") for n in range(num)]
    return PairSampler(breasts, read, seed=5, strength=strength, mixture=mixture, warp_later=warp_later)


def batches(
    sampler: PairSampler,
    tokenizer: Any,
    *,
    batch_size: int,
    epoch: int = 0,
    first_batch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    threads: int = 2,
) -> list[Batch]:
    return list(
        iterate_batches(
            sampler,
            tokenizer,
            epoch=epoch,
            first_batch=first_batch,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            threads=threads,
        )
    )


def breasts_in(batch: Batch) -> list[int]:
    """Which breasts the first views show; the second views show the same ones."""
    first, second = (half[:, 0, 0].remainder(100).tolist() for half in batch.images.chunk(2))
    assert first == second
    return first


def assert_equal_batches(found: Sequence[Batch], expected: Sequence[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in ("images", "input_ids", "attention_mask", "text_ids"):
            assert torch.equal(getattr(one, field), getattr(other, field))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3))
def test_every_example_exactly_once_per_epoch_over_all_processes(
    tokenizer: Any, num: int, batch_size: int, world_size: int, epoch: int
) -> None:
    sampler = training_sampler(num)
    whole = num_batches(sampler, batch_size * world_size)
    seen: list[int] = []
    for rank in range(world_size):
        own = batches(sampler, tokenizer, batch_size=batch_size, epoch=epoch, rank=rank, world_size=world_size)
        assert [len(breasts_in(batch)) for batch in own] == [batch_size] * whole
        seen += [n for batch in own for n in breasts_in(batch)]
    assert len(set(seen)) == len(seen)
    assert num - len(seen) < batch_size * world_size  # only what does not fill a global batch is left out


MIXTURES = [ALIKE, Mixture({"a": 0.5, "b": 2.5}), Mixture({"a": 1.5, "b": 2.0}, homogeneous=True)]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from(MIXTURES))
def test_processes_divide_the_global_batch_of_one_process(
    tokenizer: Any, batch_size: int, world_size: int, mixture: Mixture
) -> None:
    sampler = training_sampler(30, mixture=mixture)
    one = batches(sampler, tokenizer, batch_size=batch_size * world_size)
    shares = [
        batches(sampler, tokenizer, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    divided = [[n for part in parts for n in breasts_in(part)] for parts in zip(*shares, strict=True)]
    assert divided == [breasts_in(batch) for batch in one]
    assert len(one) == num_batches(sampler, batch_size * world_size)


def test_epochs_shuffle_differently_and_leave_out_different_examples(tokenizer: Any) -> None:
    sampler = training_sampler(11)
    orders = [
        [n for batch in batches(sampler, tokenizer, batch_size=4, epoch=epoch) for n in breasts_in(batch)]
        for epoch in range(6)
    ]
    assert len({tuple(order) for order in orders}) == 6
    assert set().union(*orders) == set(range(11))


def test_validation_goes_through_the_breasts_in_order(tokenizer: Any) -> None:
    sampler = PairSampler([breast(n) for n in range(7)], read_flat, seed=5, strength=None)
    found = batches(sampler, tokenizer, batch_size=3, epoch=2)
    assert [breasts_in(batch) for batch in found] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_neither_threads_nor_repetition_change_a_batch(tokenizer: Any, threads: int) -> None:
    sampler = training_sampler(14, STRONG, read_noise)
    expected = batches(sampler, tokenizer, batch_size=3, threads=2)
    assert_equal_batches(batches(sampler, tokenizer, batch_size=3, threads=threads), expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 6), st.integers(0, 1))
def test_an_epoch_resumes_in_its_middle_with_equal_batches(tokenizer: Any, first_batch: int, rank: int) -> None:
    whole = batches(training_sampler(26, STRONG, read_noise), tokenizer, batch_size=2, epoch=3, rank=rank, world_size=2)
    resumed = batches(
        training_sampler(26, STRONG, read_noise),
        tokenizer,
        batch_size=2,
        epoch=3,
        first_batch=first_batch,
        rank=rank,
        world_size=2,
    )
    assert len(whole) == 6
    assert_equal_batches(resumed, whole[first_batch:])


def test_first_views_and_texts_come_before_second_ones(tokenizer: Any) -> None:
    breasts = [breast(0, "one mass", "birads 4"), breast(1, "no mass", "birads 1")]
    (batch,) = batches(PairSampler(breasts, read_flat, seed=0, strength=None), tokenizer, batch_size=2)
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4, 6, 4)
    assert batch.images[:, 0, 0].tolist() == [0, 1, 100, 101]
    assert tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True) == [
        "one mass",
        "no mass",
        "birads 4",
        "birads 1",
    ]
    assert batch.attention_mask.shape == batch.input_ids.shape


texts_strategy = st.lists(st.text(max_size=3) | st.sampled_from(["mass", "Mass", "mass "]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(texts_strategy)
def test_text_ids_are_equal_exactly_where_texts_are(tokenizer: Any, texts: list[str]) -> None:
    breasts = [breast(n, text) for n, text in enumerate(texts)]
    sampler = PairSampler(breasts, read_flat, seed=0, strength=None)
    (batch,) = batches(sampler, tokenizer, batch_size=len(texts))
    ids, both = batch.text_ids.tolist(), texts * 2
    assert [[a == b for b in ids] for a in ids] == [[a == b for b in both] for a in both]


def test_text_ids_are_the_same_in_another_process_or_run(tokenizer: Any) -> None:
    sampler = PairSampler([breast(0, "no mass")], read_flat, seed=0, strength=None)
    (batch,) = batches(sampler, tokenizer, batch_size=1)
    # First eight bytes of SHA-256, big-endian and signed: Python's hash() would differ from process to process.
    assert batch.text_ids.tolist() == [-7_068_145_201_186_607_781] * 2


def test_the_error_of_an_image_reaches_the_caller_as_it_is(tokenizer: Any) -> None:
    def read(image_id: str) -> Image:
        if image_id == "cc-3":
            raise ArtifactError("no PNG of cc-3")
        return read_flat(image_id)

    sampler = PairSampler([breast(n) for n in range(9)], read, seed=0, strength=None)
    with pytest.raises(ArtifactError, match="no PNG of cc-3"):
        batches(sampler, tokenizer, batch_size=3)


@pytest.mark.parametrize("threads", [1, 4])
def test_after_an_error_nothing_more_is_read(tokenizer: Any, threads: int) -> None:
    """An error in the second batch: of the rest of it, and of the third, only what threads had begun."""
    read_ids = []

    def read(image_id: str) -> Image:
        read_ids.append(image_id)
        if image_id == "cc-20":
            raise ArtifactError("no PNG of cc-20")
        time.sleep(0.01)
        return read_flat(image_id)

    sampler = PairSampler([breast(n) for n in range(200)], read, seed=0, strength=None)
    found = iterate_batches(
        sampler, tokenizer, epoch=0, first_batch=0, batch_size=20, rank=0, world_size=1, threads=threads
    )
    assert breasts_in(next(found)) == list(range(20))
    with pytest.raises(ArtifactError, match="no PNG of cc-20"):
        next(found)
    begun = max(int(image_id.partition("-")[2]) for image_id in read_ids)
    assert begun <= 20 + 2 * threads  # what ran beside it, and one more where a thread was quicker than the news
    num_read = len(read_ids)
    time.sleep(0.05)
    assert len(read_ids) == num_read  # all threads have ended


def test_a_caller_that_stops_early_waits_for_nothing_that_was_not_begun(tokenizer: Any) -> None:
    read_ids = []

    def read(image_id: str) -> Image:
        read_ids.append(image_id)
        time.sleep(0.01)
        return read_flat(image_id)

    sampler = PairSampler([breast(n) for n in range(100)], read, seed=0, strength=None)
    found = iterate_batches(sampler, tokenizer, epoch=0, first_batch=0, batch_size=2, rank=0, world_size=1, threads=1)
    next(found)
    found.close()  # type: ignore[attr-defined]
    num_read = len(read_ids)
    assert num_read <= 2 * 6
    time.sleep(0.05)
    assert len(read_ids) == num_read


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100), st.integers(1, 16), st.sampled_from([STRONG, None]))
def test_an_epoch_has_as_many_batches_as_fit(
    num: int, global_batch_size: int, strength: AugmentationStrength | None
) -> None:
    sampler = PairSampler([breast(n) for n in range(num)], read_flat, 5, strength)
    whole = num_batches(sampler, global_batch_size)
    assert whole * global_batch_size <= num < (whole + 1) * global_batch_size


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 2))
def test_sixteen_bit_images_come_as_whole_numbers_that_torch_can_compute_with(
    tokenizer: Any, batch_size: int, epoch: int, first_batch: int
) -> None:
    def read(image_id: str) -> Image:
        return read_noise(image_id).astype(np.uint16) * 257

    options = {"batch_size": batch_size, "epoch": epoch, "first_batch": first_batch}
    deep = batches(training_sampler(14, UNCHANGED, read), tokenizer, **options)
    eight = batches(training_sampler(14, UNCHANGED, read_noise), tokenizer, **options)
    for one, other in zip(deep, eight, strict=True):
        assert one.images.dtype == torch.int32
        assert torch.equal(one.images, other.images.int() * 257)
        torch.testing.assert_close(normalise(one.images), normalise(other.images))


WHOLE = AugmentationStrength(0.7, True, 20.0, 0.1, (0.8, 1.2), 20.0, 60.0, 8.0)


def read_smooth(image_id: str) -> Image:
    """Waves of the image's own: a grey level more or less is rounding, another image or warp is much more."""
    x, y, phase = np.random.default_rng(list(image_id.encode())).uniform(0.1, 0.3, 3)
    rows, columns = np.mgrid[:48, :40]
    return np.rint(127 * (1 + np.sin(x * rows + y * columns + 20 * phase))).astype(np.uint8)


def assert_equal_images(found: torch.Tensor, expected: torch.Tensor) -> None:
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(0, 3))
def test_warps_left_for_later_give_the_images_of_those_applied_by_the_loader(
    tokenizer: Any, part_size: int, epoch: int
) -> None:
    """In whole batches and in parts, which keep each image with its own warp."""
    now, later = (
        batches(training_sampler(10, WHOLE, read_smooth, warp_later=late), tokenizer, batch_size=5, epoch=epoch)
        for late in (False, True)
    )
    for one, other in zip(now, later, strict=True):
        assert len(other.warps) == len(other.images) and one.warps == ()
        assert torch.equal(one.input_ids, other.input_ids)
        assert not torch.equal(one.images, other.images)
        assert_equal_images(augment_batch(other.images, other.warps), one.images)
        moved = other.to(torch.device("cpu")).parts(part_size)
        for part, wanted in zip(moved, one.parts(part_size), strict=True):
            assert len(part.warps) == len(part.images) == 2 * len(wanted) and wanted.warps == ()
            assert_equal_images(augment_batch(part.images, part.warps), wanted.images)


class Recorder:
    """An engine that keeps the images it is given; its embeddings are of their mean in four quarters."""

    def __init__(self) -> None:
        self.module, self.device = nn.Linear(4, 8), torch.device("cpu")
        self.seen: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor, input_ids: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.seen.append(images)
        views = [nn.functional.adaptive_avg_pool2d(images, 2).flatten(1), input_ids[:, :4].float()]
        return *(normalize(self.module(view)) for view in views), torch.tensor(2.0, requires_grad=True)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        pass


@pytest.mark.parametrize("micro_batch_size", [6, 3, 2, 1])
def test_a_step_sees_the_images_warped_and_the_same_ones_when_parts_are_embedded_again(
    tokenizer: Any, micro_batch_size: int
) -> None:
    now, later = (
        batches(training_sampler(6, WHOLE, read_smooth, warp_later=late), tokenizer, batch_size=6)[0]
        for late in (False, True)
    )
    engine = Recorder()
    Stepper(engine, LossWeights(), micro_batch_size, 7, 0).train(later, 0)
    num_parts = 6 // micro_batch_size
    expected = [normalise(part.images) for part in now.parts(micro_batch_size)]
    assert len(engine.seen) == (2 * num_parts if num_parts > 1 else 1)
    for images, wanted in zip(engine.seen, expected * 2, strict=False):
        # A grey level is 0.016 of normalised images.
        torch.testing.assert_close(images, wanted, atol=0.05, rtol=0)


def test_a_batch_moves_as_a_whole(tokenizer: Any) -> None:
    (batch,) = batches(training_sampler(2), tokenizer, batch_size=2)
    moved = batch.to(torch.device("meta"))
    tensors = (moved.images, moved.input_ids, moved.attention_mask, moved.text_ids, moved.patient_ids)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    warps = (SamplingNodes(np.zeros((3, 3, 2), np.float32), 16),) * 4
    assert replace(batch, warps=warps).to(torch.device("meta")).warps == warps
