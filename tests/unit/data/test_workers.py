import ctypes
import math
import os
import signal
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammoclip.data.workers import MEMORY_LIMIT_BYTES, map_ordered
from mammoclip.errors import RejectedInput


def square_or_fault(item: int | str) -> int:
    """Fault for real: a null pointer, a C function that never returns and holds the interpreter, a kill."""
    if item == "segfault":
        ctypes.string_at(0)
    if item == "hang":
        ctypes.PyDLL(None).sleep(1_000_000)
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(item) ** 2


def fail_once(marker: Path, item: int) -> int:
    if item == 3 and not marker.exists():
        marker.touch()
        os.abort()
    return item


def allocate(num_bytes: int) -> str:
    try:
        return f"{len(np.ones(num_bytes, np.uint8)):,} bytes"
    except MemoryError:
        return "MemoryError"


def num_threads(_: int) -> int:
    return cv2.getNumThreads()


@pytest.mark.parametrize(
    ("processes", "num_items", "chunk"),
    [(1, 0, 1), (1, 1, 1), (1, 77, 1), (2, 2, 1), (2, 77, 1), (2, 77, 8), (3, 5, 9)],
)
def test_results_are_in_the_order_of_the_items(processes: int, num_items: int, chunk: int) -> None:
    items = [(7919 * i) % 101 for i in range(num_items)]
    found = list(map_ordered(math.factorial, items, processes, 60.0, chunk))
    assert found == [math.factorial(item) for item in items]


@pytest.mark.parametrize(("processes", "chunk"), [(1, 1), (2, 1), (2, 4)])
def test_an_item_that_kills_or_stops_its_worker_is_rejected_and_the_others_are_not(processes: int, chunk: int) -> None:
    items = [0, 1, "segfault", 3, "hang", 5, "killed", 7, 8, 9]
    found = list(map_ordered(square_or_fault, items, processes, 1.0, chunk))
    rejected = {item: result for item, result in zip(items, found, strict=True) if isinstance(result, RejectedInput)}
    assert {item: result.reason for item, result in rejected.items()} == {
        "segfault": "worker_crashed",
        "hang": "time_limit",
        "killed": "worker_crashed",
    }
    assert "SIGSEGV" in rejected["segfault"].detail and "1 seconds" in rejected["hang"].detail
    assert [result for result in found if not isinstance(result, RejectedInput)] == [0, 1, 9, 25, 49, 64, 81]


def test_an_item_whose_worker_died_once_is_not_blamed(tmp_path: Path) -> None:
    assert list(map_ordered(partial(fail_once, tmp_path / "marker"), range(6), 2, 60.0)) == list(range(6))
    assert (tmp_path / "marker").exists()


def test_an_error_of_the_function_comes_out_and_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(ValueError, match="not defined for negative values"):
        list(map_ordered(math.factorial, [3, -1, 4], 2, 60.0))
    assert children() <= before


def test_work_that_is_given_up_leaves_no_process() -> None:
    before = children()
    results = map_ordered(math.factorial, list(range(100)), 2, 60.0)
    assert next(results) == 1
    assert len(children() - before) >= 2
    results.close()  # type: ignore[attr-defined]
    assert children() <= before


def test_a_worker_cannot_take_the_machines_memory() -> None:
    sizes = [1 << 20, MEMORY_LIMIT_BYTES + (1 << 20), 1 << 20]
    assert list(map_ordered(allocate, sizes, 1, 60.0)) == ["1,048,576 bytes", "MemoryError", "1,048,576 bytes"]


def test_a_worker_runs_one_thread() -> None:
    assert list(map_ordered(num_threads, [0, 1], 2, 60.0)) == [1, 1]


def test_workers_begin_while_results_are_awaited() -> None:
    start = time.monotonic()
    assert list(map_ordered(time.sleep, [0.5] * 8, 4, 60.0)) == [None] * 8
    assert time.monotonic() - start < 8 * 0.5 + 20


def children() -> set[int]:
    tasks = Path("/proc/self/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()} - trackers()


def trackers() -> set[int]:
    """The one helper process that Python's multiprocessing keeps for itself."""
    from multiprocessing import resource_tracker

    pid = resource_tracker._resource_tracker._pid
    return {pid} if pid else set()
