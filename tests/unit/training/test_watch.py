from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from mammoclip.training import watch as watch_module
from mammoclip.training.interruption import SIGNALS, stop_requests
from mammoclip.training.watch import Watch

TERMS = {"loss": 3.25, "image_text": 1.5}


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SECONDS_BETWEEN_LINES", 0.0)


def test_a_line_tells_where_the_run_is(every_step: None, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(num_steps=10, images_per_step=32)
    with caplog.at_level(logging.INFO):
        for _ in watch.waiting(range(1)):
            time.sleep(0.05)
            watch.step(0, 1, TERMS, 0.07, 5e-5)
    (line,) = [record.message for record in caplog.records]
    assert "epoch 1, step 1/10, loss 3.250, image_text 1.500, temperature 0.0700, lr 5.0e-05" in line
    speed = float(line.split(" images/s")[0].rsplit(" ", 1)[1])
    assert 100 < speed <= 32 / 0.05
    assert line.endswith(" left") and " GB, 0:00:0" in line


def test_lines_come_every_few_seconds_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(num_steps=50, images_per_step=2)
    with caplog.at_level(logging.INFO):
        for step in range(1, 51):
            watch.step(0, step, TERMS, 0.07, 5e-5)
    assert len(caplog.records) == 1 and "step 50/50" in caplog.text


def test_a_loader_that_starves_training_is_told_once(every_step: None, caplog: pytest.LogCaptureFixture) -> None:
    def slow_batches():  # type: ignore[no-untyped-def]
        for number in range(4):
            time.sleep(0.02)
            yield number

    watch = Watch(num_steps=9, images_per_step=2)
    watch_module.SECONDS_BETWEEN_LINES = 0.05
    for step, _ in enumerate(watch.waiting(slow_batches()), start=1):
        watch.step(0, step, TERMS, 0.07, 5e-5)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "waiting for data: raise pretrain.threads" in warnings[0]


def test_a_temperature_that_falls_too_far_is_told_once(every_step: None, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(num_steps=9, images_per_step=2)
    for step in range(1, 4):
        watch.step(0, step, TERMS, 0.009 / step, 5e-5)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "the temperature fell to 0.0090" in warnings[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_to_stop_is_noted_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.received
    assert signal.getsignal(number) == before
