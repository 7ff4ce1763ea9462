import logging

import pytest

from mammoclip.data import progress
from mammoclip.data.progress import report_progress


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
