"""Progress of a stage as log lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

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
