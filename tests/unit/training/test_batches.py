from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.captions import Captions
from mammoclip.data.pairs import Breast, Image, PairSampler
from mammoclip.errors import ArtifactError
from mammoclip.training.batches import Batch, iterate_batches, num_batches

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
    num: int, strength: AugmentationStrength = UNCHANGED, read: Callable[[str], Image] = read_flat
) -> PairSampler:
    return PairSampler([breast(n) for n in range(num)], read, seed=5, strength=strength)


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
    whole = num_batches(num, batch_size, world_size)
    seen: list[int] = []
    for rank in range(world_size):
        own = batches(sampler, tokenizer, batch_size=batch_size, epoch=epoch, rank=rank, world_size=world_size)
        assert [len(breasts_in(batch)) for batch in own] == [batch_size] * whole
        seen += [n for batch in own for n in breasts_in(batch)]
    assert len(set(seen)) == len(seen)
    assert num - len(seen) < batch_size * world_size  # only what does not fill a global batch is left out


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4))
def test_processes_divide_the_global_batch_of_one_process(tokenizer: Any, batch_size: int, world_size: int) -> None:
    sampler = training_sampler(30)
    one = batches(sampler, tokenizer, batch_size=batch_size * world_size)
    shares = [
        batches(sampler, tokenizer, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    divided = [[n for part in parts for n in breasts_in(part)] for parts in zip(*shares, strict=True)]
    assert divided == [breasts_in(batch) for batch in one]


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


@given(st.integers(0, 10_000), st.integers(1, 64), st.integers(1, 16))
def test_an_epoch_has_as_many_batches_as_fit(num: int, batch_size: int, world_size: int) -> None:
    whole = num_batches(num, batch_size, world_size)
    assert whole * batch_size * world_size <= num < (whole + 1) * batch_size * world_size


def test_a_batch_moves_as_a_whole(tokenizer: Any) -> None:
    (batch,) = batches(training_sampler(2), tokenizer, batch_size=2)
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.images, moved.input_ids, moved.attention_mask, moved.text_ids)} == {"meta"}
