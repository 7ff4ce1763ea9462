"""A few files that no reader can use, each in a study of its own that no table lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from mammoclip.datasets.phantom.dicom_file import build_dataset, write_dicom
from mammoclip.datasets.phantom.exam import Exam, hex_id


def write_broken_files(images: Path, exam: Exam, seed: int) -> list[dict[str, str]]:
    """Write five broken files under ``images``, with headers like those of ``exam``.

    Returns one row per file: ``path`` relative to the parent of ``images``, POSIX, and ``what`` is wrong with it.
    """
    traits = exam.images[0].traits
    gradient = np.arange(traits.rows_px * traits.columns_px, dtype=np.uint32) % (1 << exam.acquisition.bits_stored)
    pixels = gradient.astype(np.uint16).reshape(traits.rows_px, traits.columns_px)
    rows: list[dict[str, str]] = []

    def place(what: str) -> Path:
        number = len(rows)
        path = images / hex_id(seed, number, "broken study") / f"{hex_id(seed, number, 'broken image')}.dicom"
        path.parent.mkdir()
        rows.append({"path": path.relative_to(images.parent).as_posix(), "what": what})
        return path

    def dataset(path: Path, stored: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> Dataset:
        number = 90_000 + len(rows)
        study, image = path.parent.name, path.stem
        return build_dataset(stored, exam.acquisition, traits, patient_number=number, study_id=study, image_id=image)

    path = place("truncated")
    write_dicom(path, dataset(path, pixels), pixels, exam.acquisition)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])

    path = place("not DICOM")
    path.write_text("This is a text file with the suffix of an image.\n", encoding="utf-8")

    path = place("empty")
    path.touch()

    path = place("no pixel data")
    ds = dataset(path, pixels)
    del ds.PixelData
    ds.save_as(path, enforce_file_format=True)

    path = place("constant image")
    constant = np.full_like(pixels, 100)
    write_dicom(path, dataset(path, constant), constant, exam.acquisition)
    return rows
