"""The stage ``index`` as the workflow runs it, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from mammoclip.artifacts import INDEX, read_table
from mammoclip.datasets.phantom import generate_cohort

NUM_FILES = 6000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of one's own with many files (one file, linked) and a row for each."""
    generate_cohort(tmp_path / "phantom", num_patients=1, seed=1, rows_px=128, columns_px=128, processes=1)
    row = pl.read_csv(tmp_path / "phantom" / "breast-level_annotations.csv").row(0, named=True)
    source = tmp_path / "phantom" / "images" / row["study_id"] / f"{row['image_id']}.dicom"
    (tmp_path / "data" / "images").mkdir(parents=True)
    rows = ["patient_id,image_id,laterality,view,FINDINGS,IMPRESSION"]
    for number in range(NUM_FILES):
        os.link(source, tmp_path / "data" / "images" / f"i{number:05d}.dcm")
        rows.append(f"p{number // 4},i{number:05d},L,CC,normal,normal")
    (tmp_path / "data" / "reports.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def command(root: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines.index", "--dataset", "d", "--threads", "1", "--log", str(out / "log")),
        *("--config", json.dumps({"adapter": "image_report", "root": str(root)}), "--work", str(out / "work")),
        *("--index", str(out / "index.parquet"), "--rejects", str(out / "rejects.parquet")),
    ]


def test_a_killed_index_goes_on_where_it_was_and_gives_the_same_tables(root: Path, tmp_path: Path) -> None:
    subprocess.run(command(root, tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(root, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((killed / "work").glob("*.json")):
        assert process.poll() is None, "the stage was faster than the test"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "index.parquet").exists()
    (kept,) = (killed / "work").glob("*.json")

    # What was kept is used: a row of it is changed, and the changed one arrives in the table.
    rows = json.loads(kept.read_text())
    kept.write_text(json.dumps([{**rows[0], "manufacturer": "read before"}, *rows[1:]]))
    subprocess.run(command(root, killed), check=True, capture_output=True)
    index, whole = (read_table(INDEX, folder / "index.parquet") for folder in (killed, tmp_path / "whole"))
    assert index["manufacturer"][0] == "read before"
    assert index.drop("manufacturer").equals(whole.drop("manufacturer"))
    assert len(index) == NUM_FILES
    assert not (killed / "work").exists()
