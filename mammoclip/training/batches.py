"""Batches of examples for one process, prefetched by threads, in an order that nothing but the seed decides."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mammoclip.data.pairs import Example, PairSampler


@dataclass(frozen=True)
class Batch:
    """B examples: images uint8 (B x H x W), token ids and masks (B x T), text identities (B)."""

    images: tuple[Tensor, Tensor]
    tokens: tuple[dict[str, Tensor], dict[str, Tensor]]
    text_ids: tuple[Tensor, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        first, second = ({name: value.to(device) for name, value in tokens.items()} for tokens in self.tokens)
        return Batch(
            (self.images[0].to(device), self.images[1].to(device)),
            (first, second),
            (self.text_ids[0].to(device), self.text_ids[1].to(device)),
        )


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
    max_tokens: int,
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
            yield _collate(examples, tokenizer, max_tokens)


def _collate(examples: list[Example], tokenizer: Any, max_tokens: int) -> Batch:
    def images(views: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(views))

    def tokens(texts: list[str]) -> dict[str, Tensor]:
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def ids(texts: list[str]) -> Tensor:
        digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
        return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])

    texts_1, texts_2 = [e.text_1 for e in examples], [e.text_2 for e in examples]
    return Batch(
        (images([e.image_1 for e in examples]), images([e.image_2 for e in examples])),
        (tokens(texts_1), tokens(texts_2)),
        (ids(texts_1), ids(texts_2)),
    )
