"""Batches of examples for one process, prefetched by threads, in an order that nothing but the seed decides."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mammoclip.data.pairs import Example, PairSampler
from mammoclip.data.warp import SamplingNodes
from mammoclip.errors import ConfigError
from mammoclip.models import tokenise


@dataclass(frozen=True)
class Batch:
    """B examples, the first views and texts of all, then the second ones, so that an encoder runs once.

    Images: uint8 (int32 of 16-bit ones), 2B x H x W. Token ids and mask: int64, 2B x T. Identities of texts and
    patients: int64, 2B. ``warps``: what is still to be done to the images, 2B; empty: nothing.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    patient_ids: Tensor
    warps: tuple[SamplingNodes, ...] = ()

    def __len__(self) -> int:
        """Return B."""
        return len(self.images) // 2

    def parts(self, size: int) -> list[Batch]:
        """Return the batch in parts of ``size`` examples, the last one smaller where it does not divide."""
        halves = [tensor.chunk(2) for tensor in self._tensors()]
        first, second = self.warps[: len(self)], self.warps[len(self) :]
        return [
            _batch([torch.cat([one[rows], other[rows]]) for one, other in halves], (*first[rows], *second[rows]))
            for rows in (slice(start, start + size) for start in range(0, len(self), size))
        ]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return _batch([tensor.to(device) for tensor in self._tensors()], self.warps)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.images, self.input_ids, self.attention_mask, self.text_ids, self.patient_ids


def _batch(tensors: list[Tensor], warps: tuple[SamplingNodes, ...]) -> Batch:
    images, input_ids, attention_mask, text_ids, patient_ids = tensors
    return Batch(images, input_ids, attention_mask, text_ids, patient_ids, warps)


def batch_sizes(global_batch_size: int, micro_batch_size: int | None, world_size: int) -> tuple[int, int]:
    """Return how many examples a process has in a step, and how many of them it embeds at a time.

    Raises:
        ConfigError: shows the arithmetic when the sizes do not divide.

    >>> batch_sizes(512, 16, 4)
    (128, 16)
    """
    own, rest = divmod(global_batch_size, world_size)
    if rest or not own:
        raise ConfigError(
            f"pretrain.global_batch_size: {global_batch_size} examples over {world_size} processes are "
            f"{global_batch_size / world_size:.2f} each; choose a multiple of {world_size}"
        )
    micro = micro_batch_size or own
    if own % micro:
        raise ConfigError(
            f"pretrain.micro_batch_size: the {own} examples of a process ({global_batch_size} / {world_size}) are "
            f"{own / micro:.2f} times {micro}; choose a divisor of {own}"
        )
    return own, micro


def num_batches(sampler: PairSampler, global_batch_size: int) -> int:
    """Return the whole global batches in an epoch, in every one equally many.

    Raises:
        ConfigError: as ``PairSampler.order``.
    """
    return len(sampler.order(0, global_batch_size))


def iterate_batches(
    sampler: PairSampler,
    tokenizer: Any,
    *,
    epoch: int,
    first_batch: int,
    batch_size: int,
    rank: int,
    world_size: int,
    threads: int,
) -> Iterator[Batch]:
    """Yield this process's part of every global batch of an epoch from ``first_batch`` on.

    Raises:
        ArtifactError: an image cannot be read; what else was to be read ahead is given up.
        ConfigError: as ``PairSampler.order``.
    """
    own = sampler.order(epoch, batch_size * world_size)[first_batch:, rank * batch_size : (rank + 1) * batch_size]
    following = iter(own.tolist())
    pool = ThreadPoolExecutor(max(1, threads))

    def submit(number: int) -> list[list[Future[Example]]]:
        """Start on the next ``number`` batches, as far as there are any."""
        return [
            [pool.submit(sampler.example, epoch, index) for index in indices] for indices in islice(following, number)
        ]

    try:
        waiting = deque(submit(2))
        while waiting:
            examples = [future.result() for future in waiting.popleft()]
            waiting.extend(submit(1))
            yield _collate(examples, tokenizer)
    finally:  # after an error, or when the caller stops early, nobody waits for examples that were not begun
        pool.shutdown(cancel_futures=True)


def _collate(examples: list[Example], tokenizer: Any) -> Batch:
    images = np.stack([e.image_1 for e in examples] + [e.image_2 for e in examples])
    if images.dtype == np.uint16:  # torch computes little with it
        images = images.astype(np.int32)
    texts = [e.text_1 for e in examples] + [e.text_2 for e in examples]
    patients = _identify([e.patient for e in examples] * 2)
    warps = tuple(e.warps[view] for view in (0, 1) for e in examples if e.warps)
    return Batch(torch.from_numpy(images), *tokenise(tokenizer, texts), _identify(texts), patients, warps)


def _identify(names: list[str]) -> Tensor:
    """Return an int64 for each name, the same in every process."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])
