from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammoclip.datasets.phantom.acquisition import SYNTAX_SHARES, Syntax
from mammoclip.datasets.phantom.dicom_file import build_dataset, write_dicom
from mammoclip.datasets.phantom.exam import draw_exam

EXPECTED_UID = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_lossless": "1.2.840.10008.1.2.4.70",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
}


def write(
    path: Path, syntax: Syntax, bits: int = 12, monochrome1: bool = False, number: int = 0
) -> tuple[pydicom.Dataset, np.ndarray]:
    exam = draw_exam(1, 0, rows_px=200, columns_px=128)
    patient = replace(exam.acquisition, syntax=syntax, bits_stored=bits, monochrome1=monochrome1, view_code=True)
    pixels = np.random.default_rng(bits).integers(0, 2**bits, (131, 77)).astype(np.uint16)  # odd sizes need padding
    pixels[0, :2] = 0, 2**bits - 1
    image = exam.images[number]
    ds = build_dataset(pixels, patient, image.traits, patient_number=7, study_id="ab" * 16, image_id=image.image_id)
    write_dicom(path, ds, pixels, patient)
    return pydicom.dcmread(path), pixels


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("syntax", SYNTAX_SHARES)
def test_each_syntax_gives_back_the_pixels(tmp_path: Path, syntax: Syntax, bits: int, monochrome1: bool) -> None:
    ds, pixels = write(tmp_path / "image.dicom", syntax, bits, monochrome1)
    assert ds.file_meta.TransferSyntaxUID == EXPECTED_UID[syntax]
    assert ds.PhotometricInterpretation == ("MONOCHROME1" if monochrome1 else "MONOCHROME2")
    assert (ds.BitsStored, ds.HighBit, ds.BitsAllocated) == (bits, bits - 1, 16)
    np.testing.assert_array_equal(ds.pixel_array, pixels)


@pytest.mark.parametrize("syntax", SYNTAX_SHARES)
def test_the_same_image_is_written_with_the_same_bytes(tmp_path: Path, syntax: Syntax) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, syntax)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize(
    ("number", "laterality", "view", "orientation"),
    [
        (0, "L", "CC", ["A", "R"]),
        (1, "L", "MLO", ["A", "FR"]),
        (2, "R", "CC", ["P", "L"]),
        (3, "R", "MLO", ["P", "FL"]),
    ],
)
def test_the_header_names_side_view_and_orientation(
    tmp_path: Path, number: int, laterality: str, view: str, orientation: list[str]
) -> None:
    ds, _ = write(tmp_path / "image.dicom", "explicit", number=number)
    assert (ds.ImageLaterality, ds.ViewPosition, list(ds.PatientOrientation)) == (laterality, view, orientation)
    assert ds.ViewCodeSequence[0].CodeValue == {"CC": "399162004", "MLO": "399368009"}[view]


def test_the_file_is_a_digital_mammogram_for_presentation(tmp_path: Path) -> None:
    ds, _ = write(tmp_path / "image.dicom", "implicit")
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert (ds.Modality, ds.PresentationIntentType) == ("MG", "FOR PRESENTATION")
    assert ds.PatientID == "PHANTOM-00007"


def test_the_window_covers_every_stored_value(tmp_path: Path) -> None:
    ds, pixels = write(tmp_path / "image.dicom", "explicit", bits=10, monochrome1=True)
    low, high = ds.WindowCenter - ds.WindowWidth / 2, ds.WindowCenter + ds.WindowWidth / 2
    assert low <= pixels.min() < pixels.max() <= high
