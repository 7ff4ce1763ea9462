"""One synthetic exam: drawn as a plan first (cheap), rendered to stored pixels image by image afterwards.

Every patient has a random stream of its own, ``default_rng([seed, patient_index])``, split into independent streams for
anatomy and findings, acquisition, report, and images. So nothing depends on the number of processes, patient ``i`` is
the same in a cohort of any size, and acquisition traits cannot depend on findings.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mammoclip.datasets.phantom.acquisition import (
    ImageTraits,
    Laterality,
    PatientTraits,
    burn_in,
    draw_image_traits,
    draw_patient_traits,
    expose,
)
from mammoclip.datasets.phantom.anatomy import BreastShape, Density, View, draw_shape, draw_sizes, render_tissue
from mammoclip.datasets.phantom.dicom_file import stored_pixels
from mammoclip.datasets.phantom.findings import Box, Lesion, add_lesion, add_scattered_specks, draw_lesions
from mammoclip.datasets.phantom.report import write_report

DENSITY_SHARES: dict[Density, float] = {"A": 0.15, "B": 0.35, "C": 0.35, "D": 0.15}
_VIEWS: tuple[tuple[Laterality, View], ...] = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
_TEST_BLOCK = 5  # one patient of every five is in the test split, as in VinDr-Mammo (4,000 : 1,000)


@dataclass(frozen=True)
class ExamImage:
    """One image before it is rendered: identifiers, projection of the breast, acquisition."""

    image_id: str
    shape: BreastShape
    traits: ImageTraits


@dataclass(frozen=True)
class Exam:
    """One patient's only exam, complete but for its pixels. ``lesions`` and ``birads`` are keyed by laterality."""

    patient_index: int
    patient_id: str
    study_id: str
    series_id: str
    split: Literal["training", "test"]
    density: Density
    lesions: dict[Laterality, tuple[Lesion, ...]]
    birads: dict[Laterality, int]
    acquisition: PatientTraits
    images: tuple[ExamImage, ...]
    report: str


def draw_exam(seed: int, patient_index: int, *, rows_px: int, columns_px: int) -> Exam:
    """Draw one exam without rendering it (under a millisecond or two, so that tests can draw thousands)."""
    anatomy_rng, acquisition_rng, report_rng, _ = _streams(seed, patient_index)
    density: Density = anatomy_rng.choice(np.array(list(DENSITY_SHARES), dtype=object), p=list(DENSITY_SHARES.values()))
    sizes = dict(zip(("R", "L"), draw_sizes(anatomy_rng), strict=True))
    shapes = {(side, view): draw_shape(anatomy_rng, sizes[side], view, rows_px, columns_px) for side, view in _VIEWS}
    lesions: dict[Laterality, tuple[Lesion, ...]] = {}
    birads: dict[Laterality, int] = {}
    sides: tuple[Laterality, ...] = ("L", "R")
    for side in sides:
        lesions[side] = draw_lesions(anatomy_rng, shapes[side, "CC"], shapes[side, "MLO"], rows_px)
        without = int(anatomy_rng.choice([1, 2], p=[0.7, 0.3]))
        birads[side] = max((lesion.birads for lesion in lesions[side]), default=without)
    acquisition = draw_patient_traits(acquisition_rng, rows_px)
    images = tuple(
        ExamImage(
            hex_id(seed, patient_index, f"image {side} {view}"),
            shapes[side, view],
            draw_image_traits(acquisition_rng, side, view, rows_px, columns_px),
        )
        for side, view in _VIEWS
    )
    block, place = divmod(patient_index, _TEST_BLOCK)
    in_test = place == int(hex_id(seed, block, "test"), 16) % _TEST_BLOCK
    return Exam(
        patient_index=patient_index,
        patient_id=hex_id(seed, patient_index, "patient"),
        study_id=hex_id(seed, patient_index, "study"),
        series_id=hex_id(seed, patient_index, "series"),
        split="test" if in_test else "training",
        density=density,
        lesions=lesions,
        birads=birads,
        acquisition=acquisition,
        images=images,
        report=write_report(report_rng, density, lesions, birads, acquisition.pixel_spacing_mm * rows_px),
    )


def render_image(
    seed: int, exam: Exam, number: int, rows_px: int
) -> tuple[npt.NDArray[np.uint16], list[tuple[Lesion, Box]]]:
    """Render image ``number`` (0 to 3) of an exam.

    Returns the stored pixels (rows x columns, ``[0, 2**bits_stored - 1]``) and, per lesion, its tight box
    ``(xmin, ymin, xmax, ymax)`` in those pixels, half-open.
    """
    rng = _streams(seed, exam.patient_index)[3].spawn(len(_VIEWS))[number]
    image = exam.images[number]
    traits, rows, columns = image.traits, image.traits.rows_px, image.traits.columns_px
    tissue, mask = render_tissue(rng, image.shape, exam.density, rows, columns)
    add_scattered_specks(rng, tissue, image.shape, mask, rows_px)
    boxes: list[tuple[Lesion, Box]] = []
    for lesion in exam.lesions[traits.laterality]:
        centre = image.shape.to_pixel(lesion.depth, lesion.outer if traits.view == "CC" else lesion.upper)
        boxes.append((lesion, add_lesion(rng, tissue, lesion, centre, rows_px)))
    grey = expose(rng, tissue, mask, exam.acquisition, traits)
    if traits.laterality == "R":
        grey = np.ascontiguousarray(grey[:, ::-1])
        boxes = [(lesion, (columns - x1, y0, columns - x0, y1)) for lesion, (x0, y0, x1, y1) in boxes]
    burn_in(grey, exam.acquisition, traits)
    return stored_pixels(grey, exam.acquisition.bits_stored, exam.acquisition.monochrome1), boxes


def hex_id(seed: int, index: int, what: str) -> str:
    """Return 32 hexadecimal digits that look like VinDr-Mammo's identifiers, derived from the arguments alone."""
    return hashlib.md5(f"phantom/{seed}/{index}/{what}".encode(), usedforsecurity=False).hexdigest()


def _streams(seed: int, patient_index: int) -> list[np.random.Generator]:
    return np.random.default_rng([seed, patient_index]).spawn(4)
