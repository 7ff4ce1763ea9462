"""Ordered work over processes that survives what it works on."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as TimeLimitExceeded
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from mammoclip.errors import RejectedInput

T = TypeVar("T")
R = TypeVar("R")

MEMORY_LIMIT_BYTES = 2 << 30
"""Memory that one worker may allocate: what an image claims to need beyond it is a lie, and becomes a MemoryError."""


def map_ordered(
    function: Callable[[T], R], items: Sequence[T], processes: int, time_limit_s: float, chunk: int = 1
) -> Iterator[R | RejectedInput]:
    """Yield ``function(item)`` in the order of ``items``, computed by worker processes.

    The worker of an item that crashes it, or takes longer than ``time_limit_s``, is replaced. When that happens again,
    ``RejectedInput`` (worker_crashed or time_limit) is yielded for the item. What ``function`` raises is raised here,
    and ends the work.

    Args:
        function: importable by name; it and the items are pickled.
        items: what it is called with.
        processes: worker processes; they run one thread each, and the results do not depend on their number.
        time_limit_s: seconds for one item.
        chunk: items sent to a worker at a time, more than one where an item takes less than milliseconds.
    """
    if not items:
        return
    # Spawned, not forked: a fork copies the locks of polars' threads and can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(processes, initializer=_prepare_worker, context=context)
    run = _Runner(pool, function, time_limit_s)
    try:
        chunks = (items[start : start + chunk] for start in range(0, len(items), chunk))
        pending: deque[tuple[Sequence[T], ProcessFuture[list[R]]]] = deque()
        for part in chunks:
            pending.append((part, run.schedule(part)))
            if len(pending) > 4 * processes:
                yield from run.collect(*pending.popleft())
        while pending:
            yield from run.collect(*pending.popleft())
        pool.close()
    finally:
        pool.stop()
        pool.join()


@dataclass(frozen=True)
class _Runner(Generic[T, R]):
    pool: ProcessPool
    function: Callable[[T], R]
    time_limit_s: float

    def schedule(self, part: Sequence[T]) -> ProcessFuture[list[R]]:
        return self.pool.schedule(_call, (self.function, part), timeout=self.time_limit_s * len(part))

    def collect(self, part: Sequence[T], future: ProcessFuture[list[R]]) -> list[R | RejectedInput]:
        try:
            return [*future.result()]
        except (ProcessExpired, TimeLimitExceeded):
            return [self._alone(item) for item in part]

    def _alone(self, item: T) -> R | RejectedInput:
        """Try an item again by itself: others of its part, or a full machine, may have been to blame."""
        try:
            result: list[R] = self.schedule([item]).result()
            return result[0]
        except ProcessExpired as error:
            return RejectedInput(
                "worker_crashed", f"the process that worked on it died ({_name_of(error.exitcode)}), twice"
            )
        except TimeLimitExceeded:
            return RejectedInput("time_limit", f"it took longer than {self.time_limit_s:g} seconds, twice")


def _call(function: Callable[[T], R], part: Sequence[T]) -> list[R]:
    return [function(item) for item in part]


def _prepare_worker() -> None:
    cv2.setNumThreads(1)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _name_of(exitcode: int) -> str:
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
