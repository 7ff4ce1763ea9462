"""Progress of a stage as log lines, and ordered work over processes."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

SECONDS_BETWEEN_LINES = 5.0


def report_progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Pass ``items`` through and log ``what: done/total`` every few seconds and at the end."""
    done = 0
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > SECONDS_BETWEEN_LINES and done < total:
            last = time.monotonic()
            log.info("%s: %d/%d", what, done, total)
    log.info("%s: %d/%d", what, done, total)


def map_ordered(function: Callable[[T], R], items: Sequence[T], processes: int, what: str) -> list[R]:
    """Return ``[function(item) for item in items]``, computed by worker processes, with progress.

    The order of the results is that of ``items``, so nothing downstream depends on the number of processes.
    """
    if processes <= 1 or len(items) < 2:
        return list(report_progress(map(function, items), len(items), what))
    # Spawned, not forked: a fork copies the locks of polars' threads and can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        chunk = max(1, min(32, len(items) // (4 * processes)))
        return list(report_progress(pool.map(function, items, chunksize=chunk), len(items), what))
