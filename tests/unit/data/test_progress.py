import logging
import math

import pytest

from mammoclip.data import progress
from mammoclip.data.progress import map_ordered, report_progress


@pytest.mark.parametrize(("processes", "num_items"), [(1, 0), (1, 1), (1, 77), (2, 0), (2, 1), (2, 2), (2, 77)])
def test_results_are_in_the_order_of_the_items(processes: int, num_items: int) -> None:
    items = [(7919 * i) % 101 for i in range(num_items)]
    assert map_ordered(math.factorial, items, processes, "work") == [math.factorial(item) for item in items]


def test_an_error_of_a_worker_comes_out() -> None:
    with pytest.raises(ValueError, match="not defined for negative values"):
        map_ordered(math.factorial, [3, -1, 4], 2, "work")


def test_items_pass_through_and_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mammoclip"):
        assert list(report_progress("abc", 3, "index demo")) == ["a", "b", "c"]
    assert caplog.messages == ["index demo: 3/3"]


def test_slow_work_logs_lines_on_the_way(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with caplog.at_level(logging.INFO, "mammoclip"):
        list(report_progress(range(3), 3, "shard"))
    assert caplog.messages == ["shard: 1/3", "shard: 2/3", "shard: 3/3"]


def test_no_item_is_logged_as_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mammoclip"):
        assert list(report_progress([], 0, "index")) == []
    assert caplog.messages == ["index: 0/0"]
