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
from mammoclip.models import tokenise


@dataclass(frozen=True)
class Batch:
    """B examples, the first views and texts of all, then the second ones, so that an encoder runs once.

    Images: uint8, 2B x H x W. Token ids and mask: int64, 2B x T. Text identities: int64, 2B.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


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
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    ids = [int.from_bytes(digest, "big", signed=True) for digest in digests]
    return Batch(torch.from_numpy(np.stack(images)), *tokenise(tokenizer, texts), torch.tensor(ids))
