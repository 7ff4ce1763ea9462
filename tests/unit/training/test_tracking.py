from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mammoclip.errors import ConfigError
from mammoclip.training.tracking import Tracker, without_monitors

TRAIN = [("train", 0, step, 4.0 - step, 1.5, 1.25, 0.5, 1e-4 * step, 0.07) for step in (1, 2, 3)]
VALIDATION = ("validation", 0, 3, 2.5, 1.0, 0.75, 0.25, None, 0.07)


class FakeWandb(SimpleNamespace):
    """Stands for the package wandb and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(runs=[], points=[])

    def init(self, **options: Any) -> None:
        self.runs.append(options)

    def log(self, values: dict[str, float], step: int, commit: bool | None) -> None:
        self.points += [(name, step, value) for name, value in values.items()]


@pytest.fixture(autouse=True)
def rank(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Which process this is, as DeepSpeed sees it."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    this = {"rank": 0}
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda: this["rank"])
    return this


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def write_all(tracker: Tracker) -> None:
    for row in TRAIN:
        tracker.write_row(row)
    tracker.write_row(VALIDATION)
    tracker.write_validation(3, {"zero_shot_auroc_mass": 0.625})


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(point.step, pytest.approx(point.value, rel=1e-6)) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


CURVES = {
    "train/loss": [(1, 3.0), (2, 2.0), (3, 1.0)],
    "train/image_text": [(1, 1.5), (2, 1.5), (3, 1.5)],
    "train/image_image": [(1, 1.25), (2, 1.25), (3, 1.25)],
    "train/text_text": [(1, 0.5), (2, 0.5), (3, 0.5)],
    "train/learning_rate": [(1, 1e-4), (2, 2e-4), (3, 3e-4)],
    "train/temperature": [(1, 0.07), (2, 0.07), (3, 0.07)],
    "validation/loss": [(3, 2.5)],
    "validation/image_text": [(3, 1.0)],
    "validation/image_image": [(3, 0.75)],
    "validation/text_text": [(3, 0.25)],
    "validation/temperature": [(3, 0.07)],
    "validation/zero_shot_auroc_mass": [(3, 0.625)],
}


def test_tensorboard_reads_the_curves_that_were_written(tmp_path: Path) -> None:
    write_all(Tracker({}, tmp_path / "curves" / "main"))
    assert read_curves(tmp_path / "curves" / "main") == CURVES


def test_a_curve_can_be_watched_while_the_run_goes_on(tmp_path: Path) -> None:
    tracker = Tracker({}, tmp_path)
    for number, row in enumerate(TRAIN, start=1):
        tracker.write_row(row)
        assert read_curves(tmp_path)["train/loss"] == CURVES["train/loss"][:number]


def test_after_a_resume_the_points_that_are_written_again_are_the_same(tmp_path: Path) -> None:
    first = Tracker({}, tmp_path)
    for row in TRAIN[:2]:
        first.write_row(row)
    resumed = Tracker({}, tmp_path)  # at the checkpoint of step 1
    for row in TRAIN[1:]:
        resumed.write_row(row)
    points = read_curves(tmp_path)["train/loss"]
    assert sorted(step for step, _ in points) == [1, 2, 2, 3]
    assert all(value == dict(CURVES["train/loss"])[step] for step, value in points)


def test_process_0_alone_writes(tmp_path: Path, rank: dict[str, int], wandb: FakeWandb) -> None:
    rank["rank"] = 1
    write_all(Tracker({"wandb": {"enabled": True}}, tmp_path / "curves"))
    assert not (tmp_path / "curves").exists() and not wandb.runs


def test_without_tensorboard_a_warning_says_so_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wandb: FakeWandb
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with caplog.at_level(logging.WARNING, logger="mammoclip"):
        write_all(Tracker({"wandb": {"enabled": True}}, tmp_path / "curves"))
    assert [record.message for record in caplog.records] == [
        "pretrain: no curves are written for TensorBoard; pip install tensorboard to have them"
    ]
    assert not (tmp_path / "curves").exists()
    assert ("train/loss", 1, 3.0) in wandb.points  # the others write on


def test_the_deepspeed_configuration_can_turn_tensorboard_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    write_all(Tracker({"tensorboard": {"enabled": False}}, tmp_path / "curves"))
    assert not (tmp_path / "curves").exists() and not caplog.records


def test_weights_and_biases_gets_the_same_points_where_it_is_enabled(tmp_path: Path, wandb: FakeWandb) -> None:
    section = {"enabled": True, "project": "mammography", "team": "radiology"}
    write_all(Tracker({"gradient_clipping": 1.0, "wandb": section}, tmp_path))
    assert wandb.runs == [{"project": "mammography", "group": None, "entity": "radiology"}]
    expected = [(tag, step, value) for tag, points in CURVES.items() for step, value in points]
    assert sorted(wandb.points) == [(tag, step, pytest.approx(value)) for tag, step, value in sorted(expected)]
    assert read_curves(tmp_path) == CURVES


@pytest.mark.parametrize("config", [{}, {"wandb": {"project": "mammography"}}, {"wandb": {"enabled": False}}])
def test_weights_and_biases_is_left_alone_unless_enabled(
    tmp_path: Path, wandb: FakeWandb, config: dict[str, Any]
) -> None:
    write_all(Tracker(config, tmp_path))
    assert not wandb.runs and not wandb.points


def test_a_monitor_that_is_enabled_and_not_installed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pretrain\.deepspeed: a monitor is enabled whose package .* wandb"):
        Tracker({"wandb": {"enabled": True}}, tmp_path)


def test_the_engine_gets_a_configuration_without_monitors() -> None:
    config = {"gradient_clipping": 1.0, "wandb": {"enabled": True}, "tensorboard": {}, "csv_monitor": {}, "comet": {}}
    assert without_monitors(config) == {"gradient_clipping": 1.0}
