"""Ways in which a training ends before it is done, and what was read until then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mammoclip.errors import Interrupted

Read = Callable[[str], Any]


def _fail() -> None:
    raise OSError("the disk is gone")


def _ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


stops = pytest.mark.parametrize(("stop", "raised"), [(_fail, OSError), (_ask_to_stop, Interrupted)])
"""A test with ``stop``, which ends a training that calls it, and the exception that is ``raised`` then."""


def stopping(read: Read, at_read: int, stop: Callable[[], None]) -> Read:
    """Return ``read`` with a call of ``stop`` before the read of that number, from 1."""
    reads = iter(range(1, 10_000))

    def stopped(image_id: str) -> Any:
        if next(reads) == at_read:
            stop()
        return read(image_id)

    return stopped


def counting(read: Read, into: list[str]) -> Read:
    """Return ``read``, which notes what it is asked for."""

    def counted(image_id: str) -> Any:
        into.append(image_id)
        return read(image_id)

    return counted
