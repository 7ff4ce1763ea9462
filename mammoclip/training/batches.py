"""Batches of examples for one process, prefetched by threads, in an order that nothing but the seed decides."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mammoclip.data.pairs import Example, PairSampler
from mammoclip.errors import ConfigError
from mammoclip.models import tokenise


@dataclass(frozen=True)
class Batch:
    """B examples, the first views and texts of all, then the second ones, so that an encoder runs once.

    Images: uint8, 2B x H x W. Token ids and mask: int64, 2B x T. Identities of texts and patients: int64, 2B.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    patient_ids: Tensor

    def __len__(self) -> int:
        """Return B."""
        return len(self.images) // 2

    def parts(self, size: int) -> list[Batch]:
        """Return the batch in parts of ``size`` examples, the last one smaller where it does not divide."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        first, second = ([tensor.chunk(2)[view].split(size) for tensor in tensors] for view in (0, 1))
        return [
            Batch(*(torch.cat(views) for views in zip(one, other, strict=True)))
            for one, other in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True)
        ]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


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


def num_batches(num_examples: int, batch_size: int, world_size: int) -> int:
    """Return the whole global batches in an epoch; the rest of the shuffled epoch is left out."""
    return num_examples // (batch_size * world_size)


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
    """Yield this process's part of every global batch of an epoch from ``first_batch`` on."""
    order = sampler.order(epoch)
    last = num_batches(len(order), batch_size, world_size)

    def submit(pool: ThreadPoolExecutor, batch: int) -> list[Future[Example]]:
        start = (batch * world_size + rank) * batch_size
        rows = order[start : start + batch_size].tolist()
        return [pool.submit(sampler.example, epoch, row) for row in rows]

    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting = deque(submit(pool, batch) for batch in range(first_batch, min(first_batch + 2, last)))
        following = first_batch + 2
        while waiting:
            examples = [future.result() for future in waiting.popleft()]
            if following < last:
                waiting.append(submit(pool, following))
                following += 1
            yield _collate(examples, tokenizer)


def _collate(examples: list[Example], tokenizer: Any) -> Batch:
    images = [e.image_1 for e in examples] + [e.image_2 for e in examples]
    texts = [e.text_1 for e in examples] + [e.text_2 for e in examples]
    patients = _identify([e.patient for e in examples] * 2)
    return Batch(torch.from_numpy(np.stack(images)), *tokenise(tokenizer, texts), _identify(texts), patients)


def _identify(names: list[str]) -> Tensor:
    """Return an int64 for each name, the same in every process."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])
