"""Thousands of damaged mammograms: each gives an image or a reason."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.dicom import Converted, CropBox, Placement
from mammoclip.errors import RejectedInput
from tests.fuzz.fuzz_dicom import PNG_SHAPE, Outcome, judge

ROOT = Path(__file__).parents[2]


def fuzz(cases: int, seed: int, keep: Path) -> Counter[str]:
    """Run the script; return the counts that it prints."""
    command = [sys.executable, "tests/fuzz/fuzz_dicom.py", "--cases", cases, "--seed", seed, "--keep", keep]
    run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith(" files/s\n")
    counts = Counter({name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", run.stdout, re.MULTILINE)})
    assert counts.pop("total") == cases
    return counts


def test_damaged_files_give_an_image_or_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    counts = fuzz(2000, 0, kept)
    with capsys.disabled():
        print(f"\n2,000 damaged files: {counts['worker_crashed']} crashed a worker, {counts['time_limit']} hung")  # noqa: T201
    assert counts.total() == 2000
    assert set(counts) <= {"image", *REJECT_REASONS}
    often = {name for name, count in counts.items() if count >= 20}
    assert {"image", "undecodable", "no_pixel_data", "unreadable_header", "not_mammography"} <= often
    assert len(list(kept.glob("*"))) == counts["worker_crashed"] + counts["time_limit"]


def test_a_seed_gives_the_same_cases_again(tmp_path: Path) -> None:
    first, again, other = (fuzz(100, seed, tmp_path / str(seed)) for seed in (7, 7, 8))
    assert first == again != other


def converted(*shape: int) -> Converted:
    png = cv2.imencode(".png", np.zeros(shape, np.uint8))[1].tobytes()
    return Converted(png, Placement(CropBox(0, 1, 0, 1), 1.0, 1.0, 0, 0))


IMAGE = converted(*PNG_SHAPE)
REJECTED = RejectedInput("undecodable", "the pixel data cannot be decoded")


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (Outcome((None, IMAGE, IMAGE)), "image"),
        (Outcome((None, IMAGE, REJECTED)), "undecodable"),
        (Outcome((RejectedInput("no_pixel_data", "none"), REJECTED, REJECTED)), "no_pixel_data"),
        (RejectedInput("worker_crashed", "SIGSEGV"), "worker_crashed"),
        (RejectedInput("time_limit", "10 seconds"), "time_limit"),
    ],
)
def test_what_the_library_promises_is_no_complaint(outcome: object, name: str) -> None:
    assert judge(outcome) == (name, None)


@pytest.mark.parametrize(
    ("outcome", "complaint"),
    [
        (Outcome(bug="Traceback: ZeroDivisionError"), "ZeroDivisionError"),
        (Outcome((None, RejectedInput("bad_luck", "a sentence"), IMAGE)), "bad_luck"),
        (Outcome((RejectedInput("undecodable", ""),)), "no detail"),
        (Outcome((RejectedInput("undecodable", "of PHANTOM-00007"),)), "names the patient"),
        (Outcome((None, IMAGE, converted(20, 32))), "no image of the recipe's size"),
        (Outcome((None, Converted(b"\x89PNG", IMAGE.placement))), "no image of the recipe's size"),
        (RejectedInput("undecodable", "not from a worker"), "instead of an outcome"),
        (None, "instead of an outcome"),
    ],
)
def test_anything_else_is_unexpected(outcome: object, complaint: str) -> None:
    verdict = judge(outcome)
    assert verdict.name == "unexpected"
    assert complaint in verdict.complaint
