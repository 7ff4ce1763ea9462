"""What every stage command does, seen from outside: a real process, its exit code, its screen and its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

STAGE = """
import argparse
import logging

from mammoclip.config import PhantomCohort
from mammoclip.errors import DatasetError, Interrupted
from pipelines.command import run_stage, section_argument


def run(arguments):
    logging.getLogger("mammoclip.stage").info("generating %d patients", arguments.config.num_patients)
    logging.getLogger("some.library").warning("chatter of a library")
    if arguments.fail == "known":
        raise DatasetError("data/x has no folder 'images'; give another root")
    if arguments.fail == "stop":
        raise Interrupted("asked to stop after step 3 of 9; run it again")
    if arguments.fail == "bug":
        raise KeyError("internal detail")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=section_argument(PhantomCohort), required=True)
    parser.add_argument("--fail")
    run_stage(parser, run)
"""


@dataclass(frozen=True)
class Finished:
    code: int
    screen: str
    log: Path

    @property
    def errors(self) -> list[str]:
        return [line for line in self.screen.splitlines() if line.startswith("Error")]


def start(command: list[str], log: Path) -> Finished:
    process = subprocess.run(
        [sys.executable, *command, "--log", str(log)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout == ""  # a stage speaks on stderr; stdout is for what people pipe on
    return Finished(process.returncode, process.stderr, log)


def run_command(tmp_path: Path, *arguments: str, config: str = '{"num_patients": 3}') -> Finished:
    stage = tmp_path / "stage.py"
    stage.write_text(STAGE)
    return start([str(stage), "--config", config, *arguments], tmp_path / "logs" / "stage" / "run.log")


def test_a_stage_that_succeeds_exits_with_0_and_shows_its_progress_alone(tmp_path: Path) -> None:
    finished = run_command(tmp_path)
    assert (finished.code, finished.screen) == (0, "  generating 3 patients\n")
    story = finished.log.read_text()
    assert "INFO mammoclip.stage: generating 3 patients" in story
    assert "WARNING some.library: chatter of a library" in story


def test_an_error_meant_for_people_is_one_sentence_on_the_screen_and_a_traceback_in_the_log(tmp_path: Path) -> None:
    finished = run_command(tmp_path, "--fail", "known")
    assert finished.code == 1
    assert finished.screen == "  generating 3 patients\nError: data/x has no folder 'images'; give another root\n"
    assert "Traceback" in finished.log.read_text()


def test_work_that_was_asked_to_stop_says_so_and_exits_with_a_code_that_means_try_again(tmp_path: Path) -> None:
    finished = run_command(tmp_path, "--fail", "stop")
    assert finished.code == 75
    assert finished.screen == "  generating 3 patients\n  asked to stop after step 3 of 9; run it again\n"
    assert "Traceback" not in finished.log.read_text()


def test_a_bug_names_its_kind_and_the_log_that_holds_the_traceback(tmp_path: Path) -> None:
    finished = run_command(tmp_path, "--fail", "bug")
    assert finished.code == 1
    assert finished.errors == [f"Error: unexpected KeyError; the whole story is in {finished.log}"]
    assert "Traceback" not in finished.screen
    story = finished.log.read_text()
    assert "Traceback" in story
    assert "KeyError: 'internal detail'" in story


def test_the_log_is_that_of_the_last_run(tmp_path: Path) -> None:
    run_command(tmp_path, "--fail", "bug")
    assert "Traceback" not in run_command(tmp_path).log.read_text()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"num_patient": 3}', "argument --config: unknown key 'num_patient'; did you mean 'num_patients'?"),
        ('{"num_patients": "many"}', "argument --config: num_patients: "),
        ('{"num_patients": 0}', "argument --config: num_patients: input should be greater than 0, got 0"),
        ('{"rows_px": 5, "columns_px": 5}', "columns_px: input should be greater than or equal to 128, got 5"),
        ("{", "argument --config: "),
        ("[]", "argument --config: "),
    ],
)
def test_a_bad_configuration_exits_with_2_and_names_the_key(tmp_path: Path, config: str, message: str) -> None:
    finished = run_command(tmp_path, config=config)
    assert finished.code == 2
    assert message in finished.screen
    assert "Traceback" not in finished.screen
    assert "generating" not in finished.screen


def test_a_stage_wants_a_log(tmp_path: Path) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(STAGE)
    command = [sys.executable, str(stage), "--config", "{}"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert "--log" in process.stderr


def test_a_real_stage_keeps_the_promise(tmp_path: Path) -> None:
    config = {"adapter": "vindr", "root": str(tmp_path / "nowhere")}
    command = ["-m", "pipelines.index", "--config", json.dumps(config), "--dataset", "vindr"]
    command += ["--index", str(tmp_path / "index.parquet"), "--rejects", str(tmp_path / "rejects.parquet")]
    command += ["--work", str(tmp_path / "work")]
    finished = start(command, tmp_path / "index.log")
    assert finished.code == 1
    assert len(finished.errors) == 1
    assert "nowhere" in finished.errors[0]
    assert "unexpected" not in finished.errors[0]
    assert not (tmp_path / "index.parquet").exists()


def test_of_several_processes_only_the_first_has_the_screen_and_each_has_a_log(tmp_path: Path) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(STAGE)
    command = [sys.executable, str(stage), "--config", "{}", "--log", str(tmp_path / "stage.log")]
    screens = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"RANK": rank}).stderr
        for rank in ("0", "1")
    ]
    assert screens == ["  generating 400 patients\n", ""]
    for name in ("stage.log", "stage.log.rank1"):
        assert "generating 400 patients" in (tmp_path / name).read_text(encoding="utf-8")
