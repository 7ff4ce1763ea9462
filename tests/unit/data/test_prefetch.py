"""Reading ahead: the same batches whatever the threads, no further than asked, and errors that reach the reader."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.data.prefetch import of_size, prefetch
from mammoclip.errors import ArtifactError

BATCHES = st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=4), max_size=6)


@given(BATCHES, st.integers(1, 4), st.integers(1, 3))
def test_batches_come_in_order_whatever_the_threads(batches: list[list[int]], threads: int, ahead: int) -> None:
    found = prefetch(lambda key: np.full((2, 3), key, np.uint8), batches, threads, ahead)
    assert [batch[:, 0, 0].tolist() for batch in found] == batches


@pytest.mark.parametrize(("stored", "given_out"), [("uint8", "uint8"), ("uint16", "int32"), ("float16", "float16")])
def test_numbers_are_kept_and_16_bits_get_a_sign(stored: str, given_out: str) -> None:
    (batch,) = prefetch(lambda key: np.array([key], stored), [[7, 200]], threads=1)
    assert batch.dtype == given_out
    assert batch.tolist() == [[7], [200]]


def test_no_more_is_read_ahead_than_asked() -> None:
    read: list[int] = []
    batches = prefetch(lambda key: read.append(key) or np.zeros(1), [[key] for key in range(9)], 1, ahead=2)
    next(batches)
    batches.close()
    assert len(read) <= 3


def test_an_error_is_raised_at_its_batch_and_no_thread_is_left() -> None:
    def read(key: int) -> np.ndarray:
        if key == 3:
            raise OSError("the disk is gone")
        return np.full(1, key)

    before = threading.active_count()
    batches = prefetch(read, [[0, 1], [2, 3], [4, 5]], 2)
    assert next(batches).tolist() == [[0], [1]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_image_of_another_size_is_named() -> None:
    read = of_size(lambda image_id: np.zeros((2, int(image_id)), np.uint8), (2, 3))
    assert read("3").shape == (2, 3)
    with pytest.raises(ArtifactError, match=r"image '4' has the shape \(2, 4\); .* of 2 x 3 pixels"):
        read("4")
