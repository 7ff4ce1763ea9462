"""What a person watches while a model trains: speed, losses, temperature, memory, and early warnings."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 5.0
MAX_WAITING = 0.3
"""Share of the time spent waiting for data from which the loader is the brake."""
MIN_TEMPERATURE = 0.01
"""The limit that CLIP sets (logit scale 100): below it few pairs decide the loss."""


class Watch:
    """Times the steps of a run and logs one line every few seconds, and each warning once."""

    def __init__(self, num_steps: int, images_per_step: int) -> None:
        """Watch a run of ``num_steps`` in all, each with ``images_per_step`` over all processes."""
        self._num_steps = num_steps
        self._images_per_step = images_per_step
        self._warned: set[str] = set()
        self._start_line()

    def _start_line(self) -> None:
        self._since = time.monotonic()
        self._steps = 0
        self._waited = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Pass ``batches`` through and count the time until each is there."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - asked
            yield batch

    def step(self, epoch: int, step: int, terms: dict[str, float], temperature: float, learning_rate: float) -> None:
        """Tell of a step that was made; ``terms`` are those of the loss, ``epoch`` counts from 0, ``step`` from 1."""
        self._steps += 1
        if temperature < MIN_TEMPERATURE:
            self._warn(f"the temperature fell to {temperature:.4f}: lower pretrain.learning_rate")
        seconds = time.monotonic() - self._since
        if seconds < SECONDS_BETWEEN_LINES and step < self._num_steps:
            return
        waiting = self._waited / seconds
        if waiting > MAX_WAITING and self._steps > 1:
            self._warn(f"{waiting:.0%} of the time is spent waiting for data: raise pretrain.threads")
        left = (self._num_steps - step) * seconds / self._steps
        losses = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
        log.info(
            "pretrain: epoch %d, step %d/%d, %s, temperature %.4f, lr %.1e, %.1f images/s, %.1f GB, %s left",
            epoch + 1, step, self._num_steps, losses, temperature, learning_rate,
            self._steps * self._images_per_step / seconds, _memory_gb(), _duration(left),
        )  # fmt: skip
        self._start_line()

    def _warn(self, sentence: str) -> None:
        kind = sentence.split(":", maxsplit=1)[1]
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("pretrain: %s", sentence)


def _memory_gb() -> float:
    """Return the largest memory so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _duration(seconds: float) -> str:
    """Return hours, minutes and seconds.

    >>> _duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
