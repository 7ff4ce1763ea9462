"""The stage ``shard`` as the workflow runs it, under what breaks other people's nights; every fault is real."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import pydicom
import pytest
from polars.testing import assert_frame_equal
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from mammoclip.artifacts import INDEX, MANIFEST, REJECTS, read_table, write_table
from mammoclip.data.shard import check_conservation

# Python runs this before anything else in every process of the stage: the codec of JPEG lossless crashes or hangs on
# files that carry a mark in a comment segment. A null pointer and a C function that never comes back, not exceptions.
FAULTY_CODEC = """
import ctypes, imagecodecs
decode = imagecodecs.jpeg8_decode
def jpeg8_decode(frame, *arguments, **options):
    if b"crash!" in frame[:64]:
        ctypes.string_at(0)
    if b"hang!!" in frame[:64]:
        ctypes.PyDLL(None).sleep(1_000_000)
    return decode(frame, *arguments, **options)
imagecodecs.jpeg8_decode = jpeg8_decode
"""


@dataclass(frozen=True)
class Stage:
    root: Path
    index: Path

    def command(self, out: Path, threads: int, **section: object) -> list[str]:
        config = {"height_px": 96, "width_px": 64, "num_shards": 1, **section}
        dataset = {"adapter": "image_report", "root": str(self.root)}
        return [
            *(sys.executable, "-m", "pipelines.shard", "--config", json.dumps(config), "--dataset", "d"),
            *("--dataset-config", json.dumps(dataset), "--shard", "0", "--index", str(self.index)),
            *("--tar", str(out / "00000.tar"), "--manifest", str(out / "00000.parquet")),
            *("--rejects", str(out / "00000.rejects.parquet"), "--threads", str(threads), "--log", str(out / "log")),
        ]

    def run(self, out: Path, threads: int = 2, **section: object) -> subprocess.CompletedProcess[str]:
        command = self.command(out, threads, **section)
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def write_jpeg(path: Path, number: int, mark: bytes = b"", shape: tuple[int, int] = (300, 220)) -> None:
    """Write a breast-like half disc; ``mark`` goes into a comment segment of the codestream."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = ((y - shape[0] / 2) / (0.4 * shape[0])) ** 2 + (x / ((0.5 + number % 7 / 20) * shape[1])) ** 2
    pixels = np.where(distance < 1, 800 + 2000 * np.sqrt(np.maximum(0, 1 - distance)), 0).astype(np.uint16)
    frame = bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=12))
    comment = b"\xff\xfe" + (len(mark) + 2).to_bytes(2, "big") + mark if mark else b""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "MG", 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = encapsulate([frame[:2] + comment + frame[2:]])
    dataset["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def index_of(paths: list[str]) -> pl.DataFrame:
    common = {"dataset": "d", "laterality": "L", "view": "CC", "laterality_source": "table", "view_source": "table"}
    pixels = {"transfer_syntax": JPEGLosslessSV1, "rows": 300, "columns": 220, "bits_stored": 12, "size_bytes": 1}
    flags = dict.fromkeys(("magnification", "spot_compression", "implant_displaced", "synthetic_2d"), False)
    rows = [
        {**common, **pixels, **flags, "photometric": "MONOCHROME2", "path": path, "image_id": f"i{number:04d}"}
        | {"patient_id": f"p{number}", "study_id": f"s{number:04d}"}
        for number, path in enumerate(paths)
    ]
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in INDEX.schema.items() if name not in rows[0]]
    return pl.DataFrame(rows).with_columns(missing).cast(dict(INDEX.schema)).select(list(INDEX.columns))


def make_stage(folder: Path, paths: list[str]) -> Stage:
    write_table(index_of(paths), INDEX, folder / "index.parquet")
    return Stage(folder / "data", folder / "index.parquet")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    paths = [f"{number}.dcm" for number in range(60)]
    for number, path in enumerate(paths):
        write_jpeg(tmp_path / "data" / path, number)
    return make_stage(tmp_path, paths)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "log"}


def test_a_codec_that_crashes_or_hangs_costs_its_own_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {3: b"crash!", 8: b"hang!!", 11: b"crash!"}
    paths = [f"{number}.dcm" for number in range(12)]
    for number, path in enumerate(paths):
        write_jpeg(tmp_path / "data" / path, number, marks.get(number, b"innocent"))
    stage = make_stage(tmp_path, paths)
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(FAULTY_CODEC)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faulty"))
    run = stage.run(tmp_path / "out", time_limit_s=2.0)
    assert run.returncode == 0, run.stderr
    manifest = read_table(MANIFEST, tmp_path / "out" / "00000.parquet")
    rejects = read_table(REJECTS, tmp_path / "out" / "00000.rejects.parquet")
    assert dict(rejects.select("path", "reason").rows()) == {
        "3.dcm": "worker_crashed",
        "8.dcm": "time_limit",
        "11.dcm": "worker_crashed",
    }
    check_conservation(read_table(INDEX, stage.index), manifest, rejects)
    # The same files without the faulty codec: what was written is what a healthy machine writes.
    monkeypatch.delenv("PYTHONPATH")
    assert stage.run(tmp_path / "healthy").returncode == 0
    healthy = read_table(MANIFEST, tmp_path / "healthy" / "00000.parquet")
    assert len(healthy) == 12
    kept = healthy.filter(pl.col("image_id").is_in(manifest["image_id"].implode()))
    assert_frame_equal(manifest.drop("offset"), kept.drop("offset"))


def test_a_killed_stage_leaves_nothing_behind_and_its_rerun_writes_the_same_bytes(stage: Stage, tmp_path: Path) -> None:
    assert stage.run(tmp_path / "whole", threads=1).returncode == 0
    out = tmp_path / "killed"
    out.mkdir()
    process = subprocess.Popen(stage.command(out, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = out / ".00000.tar.partial"
    while not (partial.exists() and partial.stat().st_size > 20_000):
        assert process.poll() is None, "the stage was faster than the test"
        time.sleep(0.002)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    assert not (out / "00000.tar").exists()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the stage"
        time.sleep(0.1)
    assert stage.run(out, threads=2).returncode == 0
    assert contents(out) == contents(tmp_path / "whole")


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def test_a_full_disk_is_one_sentence_and_leaves_no_half_shard(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "small disk"
    out.mkdir()
    script = 'mount -t tmpfs -o size=60k tmpfs "$0" && { "$@"; status=$?; ls -A "$0"; exit $status; }'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(out)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip(
            "missing: a user namespace, in which a small disk is mounted; whoever runs the machine allows it "
            "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
        )
    run = subprocess.run([*inside, *stage.command(out, 2)], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 1
    assert "Error:" in run.stderr and "the disk is full" in run.stderr and "Traceback" not in run.stderr
    assert run.stdout.split() == ["log"]


def test_files_of_every_kind_of_bad_are_rejected_with_their_reason(tmp_path: Path) -> None:
    root = tmp_path / "data"
    good = ["good.dcm", "mit Leerzeichen und Ümläuten/乳房 1.dcm"]
    for number, path in enumerate(good):
        write_jpeg(root / path, number)
    content = (root / "good.dcm").read_bytes()
    (root / "truncated.dcm").write_bytes(content[: len(content) // 2])
    (root / "text.dcm").write_text("not DICOM")
    (root / "empty.dcm").touch()
    (root / "io error.dcm").symlink_to("/proc/self/mem")  # reading its first page is an input/output error
    (root / "folder.dcm").mkdir()
    dataset = pydicom.dcmread(root / "good.dcm")
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(root / "bomb.dcm")
    write_jpeg(root / "small.dcm", 1, shape=(9, 9))
    bad = {
        "truncated.dcm": {"undecodable", "no_pixel_data"},
        "text.dcm": {"not_dicom"},
        "empty.dcm": {"not_dicom"},
        "io error.dcm": {"unreadable_header"},
        "folder.dcm": {"unreadable_header"},
        "gone.dcm": {"unreadable_header"},
        "bomb.dcm": {"too_large"},
        "small.dcm": {"constant_image"},
    }
    stage = make_stage(tmp_path, [*good, *bad])
    run = stage.run(tmp_path / "out")
    assert run.returncode == 0, run.stderr
    rejects = read_table(REJECTS, tmp_path / "out" / "00000.rejects.parquet")
    assert {path: reason in bad[path] for path, reason in rejects.select("path", "reason").rows()} == dict.fromkeys(
        bad, True
    )
    assert read_table(MANIFEST, tmp_path / "out" / "00000.parquet")["image_id"].to_list() == ["i0000", "i0001"]


def test_a_gpu_decoder_without_a_gpu_is_one_sentence_that_says_what_to_do(stage: Stage, tmp_path: Path) -> None:
    jpeg_2000 = pydicom.dcmread(stage.root / "0.dcm")
    jpeg_2000.decompress()
    jpeg_2000.compress(pydicom.uid.JPEG2000Lossless)
    jpeg_2000.save_as(stage.root / "0.dcm")
    if shutil.which("nvidia-smi"):
        pytest.skip("missing: a machine without a GPU, which CI provides; this one has nvidia-smi")
    run = stage.run(tmp_path / "out", decoder="gpu")
    assert run.returncode == 1
    assert "Error: shard.decoder: gpu" in run.stderr and "set decoder: cpu" in run.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["log"]
