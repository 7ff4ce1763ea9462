"""The synthetic cohort on disk: many exams, written by a process pool in the layout of VinDr-Mammo."""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import polars as pl

from mammoclip.datasets.phantom.broken import write_broken_files
from mammoclip.datasets.phantom.dicom_file import build_dataset, write_dicom
from mammoclip.datasets.phantom.exam import Exam, draw_exam, render_image
from mammoclip.datasets.phantom.findings import Box, Lesion
from mammoclip.errors import DatasetError

VERSION = 1
_SMALLEST_PX = 128
_Found = list[list[tuple[Lesion, Box]]]


def generate_cohort(
    out: Path,
    *,
    num_patients: int,
    seed: int,
    rows_px: int,
    columns_px: int,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a synthetic cohort under ``out``; the same arguments give the same bytes, whatever ``processes`` is.

    Layout: ``images/<study_id>/<image_id>.dicom`` (L and R, CC and MLO), ``breast-level_annotations.csv``,
    ``finding_annotations.csv``, ``reports.csv``, a few unreadable files listed in ``broken_files.csv`` and,
    written last, ``phantom.json``. Image sizes scatter by 3 % about ``rows_px`` x ``columns_px``; boxes are half-open,
    in stored pixels. ``progress`` is called with (patients done, patients in all).

    Processes are spawned, so a script that calls this with ``processes > 1`` needs an
    ``if __name__ == "__main__"`` guard.

    Raises:
        DatasetError: for impossible sizes, or if ``out/images`` already holds files.
    """
    if num_patients < 1 or processes < 1:
        raise DatasetError(
            f"The phantom cohort cannot have {num_patients} patients drawn by {processes} processes; "
            "ask for at least 1 of each."
        )
    if min(rows_px, columns_px) < _SMALLEST_PX:
        raise DatasetError(
            f"Phantom images of {rows_px} x {columns_px} pixels are too small to show findings; "
            f"ask for at least {_SMALLEST_PX} rows and columns."
        )
    images = out / "images"
    if images.is_dir() and any(images.iterdir()):
        raise DatasetError(
            f"{images} already holds files; delete that folder or choose another place for the phantom cohort."
        )
    images.mkdir(parents=True, exist_ok=True)
    write = functools.partial(_write_patient, images, seed, rows_px, columns_px)
    breast_rows: list[dict[str, object]] = []
    finding_rows: list[dict[str, object]] = []
    report_rows: list[dict[str, object]] = []
    for done, (exam, found) in enumerate(_map_ordered(write, num_patients, processes), start=1):
        rows = _breast_rows(exam)
        breast_rows += rows
        finding_rows += _finding_rows(rows, found)
        report_rows.append({"patient_id": exam.patient_id, "study_id": exam.study_id, "report": exam.report})
        if progress is not None:
            progress(done, num_patients)
    broken_rows = write_broken_files(images, draw_exam(seed, 0, rows_px=rows_px, columns_px=columns_px), seed)
    pl.DataFrame(breast_rows).write_csv(out / "breast-level_annotations.csv")
    pl.DataFrame(finding_rows, infer_schema_length=None).write_csv(out / "finding_annotations.csv")
    pl.DataFrame(report_rows).write_csv(out / "reports.csv")
    pl.DataFrame(broken_rows).write_csv(out / "broken_files.csv")
    summary = {
        "format": "phantom-cohort",
        "version": VERSION,
        "seed": seed,
        "rows_px": rows_px,
        "columns_px": columns_px,
        "num_patients": num_patients,
        "num_images": len(breast_rows),
        "num_boxes": sum(row["xmin"] is not None for row in finding_rows),
        "num_broken_files": len(broken_rows),
    }
    unfinished = out / "phantom.json.partial"
    unfinished.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(out / "phantom.json")


def _map_ordered(
    write: Callable[[int], tuple[Exam, _Found]], num_patients: int, processes: int
) -> Iterator[tuple[Exam, _Found]]:
    """Yield ``write(0)``, ``write(1)``, ... in order, computed by the given number of processes."""
    if processes == 1:
        yield from map(write, range(num_patients))
        return
    context = multiprocessing.get_context("spawn")
    # One OpenCV thread per process: the processes already fill the cores.
    with ProcessPoolExecutor(processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(write, range(num_patients), chunksize=4)


def _write_patient(images: Path, seed: int, rows_px: int, columns_px: int, patient_index: int) -> tuple[Exam, _Found]:
    exam = draw_exam(seed, patient_index, rows_px=rows_px, columns_px=columns_px)
    folder = images / exam.study_id
    folder.mkdir()
    found: _Found = []
    for number, image in enumerate(exam.images):
        pixels, boxes = render_image(seed, exam, number, rows_px)
        ds = build_dataset(
            pixels,
            exam.acquisition,
            image.traits,
            patient_number=patient_index,
            study_id=exam.study_id,
            image_id=image.image_id,
        )
        write_dicom(folder / f"{image.image_id}.dicom", ds, pixels, exam.acquisition)
        found.append(boxes)
    return exam, found


def _breast_rows(exam: Exam) -> list[dict[str, object]]:
    return [
        {
            "patient_id": exam.patient_id,
            "study_id": exam.study_id,
            "series_id": exam.series_id,
            "image_id": image.image_id,
            "laterality": image.traits.laterality,
            "view_position": image.traits.view,
            "height": image.traits.rows_px,
            "width": image.traits.columns_px,
            "breast_birads": f"BI-RADS {exam.birads[image.traits.laterality]}",
            "breast_density": f"DENSITY {exam.density}",
            "split": exam.split,
        }
        for image in exam.images
    ]


def _finding_rows(breast_rows: list[dict[str, object]], found: _Found) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for image_row, boxes in zip(breast_rows, found, strict=True):
        shared = {key: value for key, value in image_row.items() if key != "split"}
        for lesion, box in boxes:
            corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
            birads = f"BI-RADS {lesion.birads}"
            categories = str([lesion.kind])
            rows.append(
                {
                    **shared,
                    "finding_categories": categories,
                    "finding_birads": birads,
                    **corners,
                    "split": image_row["split"],
                }
            )
        if not boxes:
            nothing = dict.fromkeys(("finding_birads", "xmin", "ymin", "xmax", "ymax"))
            rows.append({**shared, "finding_categories": "['No Finding']", **nothing, "split": image_row["split"]})
    return rows
