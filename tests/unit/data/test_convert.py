import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mammoclip.cli import app
from mammoclip.data.convert import convert_files, find_targets
from mammoclip.dicom import Recipe, convert_file
from mammoclip.errors import DatasetError

RECIPE = Recipe("strict", "strict", "stretch", 48, 32)


@pytest.fixture
def folder(cohort: Any, tmp_path: Path) -> Path:
    """Two good mammograms, one in a subfolder with a blank in its name, and a text."""
    source = tmp_path / "in"
    (source / "left side").mkdir(parents=True)
    first, second = cohort.index["path"][:2]
    shutil.copy(cohort.root / first, source / "a.dcm")
    shutil.copy(cohort.root / second, source / "left side" / "1.2.840.5")
    (source / "notes.txt").write_text("no image")
    return source


def convert(inputs: list[Path], out: Path) -> list[str | None]:
    outcomes = convert_files(find_targets(inputs, out), out, RECIPE, 1, 60.0)
    return [None if outcome is None else outcome.reason for outcome in outcomes]


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_a_folder_becomes_pngs_with_their_provenance_in_its_own_subfolders(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert convert([folder], out) == [None, None, "not_dicom"]
    assert names(out) == {"a.png", "a.json", "left side/1.2.840.5.png", "left side/1.2.840.5.json", "rejects.json"}
    expected = convert_file(folder / "a.dcm", RECIPE)
    assert (out / "a.png").read_bytes() == expected.png
    said = json.loads((out / "a.json").read_text())
    assert [said[f"crop_{side}"] for side in ("top", "bottom", "left", "right")] == list(expected.placement.crop)
    assert (said["scale_x"], said["grayscale"], said["height_px"]) == (expected.placement.scale_x, "strict", 48)
    (reject,) = json.loads((out / "rejects.json").read_text())
    assert (reject["path"], reject["reason"]) == (str(folder / "notes.txt"), "not_dicom")


def test_without_rejects_there_is_an_empty_list_of_them(folder: Path, tmp_path: Path) -> None:
    assert convert([folder / "a.dcm"], tmp_path / "out") == [None]
    assert json.loads((tmp_path / "out" / "rejects.json").read_text()) == []


def test_a_second_run_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    convert([folder], tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    convert([folder], tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_the_output_may_lie_in_the_input(folder: Path) -> None:
    convert([folder], folder / "out")
    assert convert([folder], folder / "out") == [None, None, "not_dicom"]


def test_two_files_of_one_name_give_one_png_and_a_reject(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.dcm", folder / "a.dicom")
    shutil.copy(folder / "a.dcm", folder / "rejects.dcm")
    assert convert([folder], tmp_path / "out") == [None, "duplicate_image", None, "not_dicom", "duplicate_image"]
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert [Path(reject["path"]).name for reject in rejects] == ["a.dicom", "notes.txt", "rejects.dcm"]


def test_a_file_given_twice_is_converted_once(folder: Path, tmp_path: Path) -> None:
    assert convert([folder / "a.dcm", folder / "a.dcm"], tmp_path / "out") == [None]


@pytest.mark.parametrize(
    ("given", "message"), [("nowhere", "neither a file nor a folder"), ("empty", "there is no file in")]
)
def test_an_input_that_is_not_there_or_empty_is_an_error(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        find_targets([tmp_path / given], tmp_path / "out")


def test_the_command_converts_and_counts(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--geometry", "pad", "--bits", "16", "--height", "40", "--width", "30", "--processes", "2"]
    result = CliRunner().invoke(app, ["convert", str(folder), str(out), *options])
    assert result.exit_code == 0, result.output
    assert "2 of 3 written" in result.stdout and "1 not_dicom" in result.stdout
    image = cv2.imdecode(np.frombuffer((out / "a.png").read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (image.shape, image.dtype) == ((40, 30), np.uint16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--bits", "16", "--mode", "compat"], "bits is 16; expected 8"), (["--bits", "12"], "expected 8 or 16")],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["convert", str(folder), str(tmp_path / "out"), *arguments])
    assert message in str(result.exception)


def test_nothing_converted_is_an_error(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(folder / "notes.txt"), str(tmp_path / "out")])
    assert "no file could be converted" in str(result.exception)
