"""Being asked to stop: a time limit of SLURM (SIGTERM, SIGUSR1) ends a run at its next step, with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether one of ``SIGNALS`` has come."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.received = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note ``SIGNALS`` within the block instead of ending at once; handlers are as before afterwards."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.received = True

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
