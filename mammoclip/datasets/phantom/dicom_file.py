"""Write one synthetic mammogram as a DICOM file (PS3.3 A.26, Digital Mammography X-Ray Image, For Presentation)."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from mammoclip.datasets.phantom.acquisition import ImageTraits, PatientTraits
from mammoclip.datasets.phantom.anatomy import Float

# View codes of PS3.16 CID 4014, SNOMED CT: (code value, meaning).
_VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
# First axis: along a row; second: down a column (PS3.3 C.7.6.1.1.1). Outer tissue is on top in CC, the head in MLO.
_ORIENTATION = {
    ("L", "CC"): ["A", "R"],
    ("R", "CC"): ["P", "L"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "MLO"): ["P", "FL"],
}


def stored_pixels(grey: Float, bits_stored: int, monochrome1: bool) -> npt.NDArray[np.uint16]:
    """Quantise a grey image in [0, 1] (1 is white) to stored values in ``[0, 2**bits_stored - 1]``.

    With ``monochrome1`` the scale is inverted: the largest stored value is black.
    """
    maximum = (1 << bits_stored) - 1
    values = np.rint(grey * np.float32(maximum)).astype(np.uint16)
    return np.asarray(maximum - values if monochrome1 else values, dtype=np.uint16)


def build_dataset(
    pixels: npt.NDArray[np.uint16],
    patient: PatientTraits,
    image: ImageTraits,
    *,
    patient_number: int,
    study_id: str,
    image_id: str,
) -> Dataset:
    """Return the data set of one image, pixels uncompressed, explicit little endian.

    The identifiers in it (PatientID, PatientName, PatientBirthDate) are invented and appear nowhere else, so that
    a test can prove that they do not leak. UIDs are derived from ``study_id`` and ``image_id``.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[study_id, image_id])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[study_id])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[study_id, "series"])
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality = "MG"
    ds.StudyDate = "20190101"
    ds.PatientID = f"PHANTOM-{patient_number:05d}"
    ds.PatientName = f"Phantom^N{patient_number:05d}"
    ds.PatientBirthDate = f"{patient.birth_year}0615"
    ds.PatientAge = f"{2019 - patient.birth_year:03d}Y"
    ds.PatientSex = "F"
    ds.Manufacturer = patient.manufacturer
    ds.ManufacturerModelName = patient.model
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ImageLaterality = image.laterality
    ds.ViewPosition = image.view
    if patient.view_code:
        code = Dataset()
        code.CodeValue, code.CodeMeaning = _VIEW_CODES[image.view]
        code.CodingSchemeDesignator = "SCT"
        code.ViewModifierCodeSequence = Sequence()
        ds.ViewCodeSequence = Sequence([code])
    ds.PatientOrientation = _ORIENTATION[image.laterality, image.view]
    ds.BodyPartExamined = "BREAST"
    ds.BurnedInAnnotation = "NO"  # the label names the view, not the person
    spacing = [f"{patient.pixel_spacing_mm:.4f}"] * 2
    ds.ImagerPixelSpacing = spacing
    ds.PixelSpacing = spacing
    _describe_pixels(ds, pixels, patient)
    return ds


def _describe_pixels(ds: Dataset, pixels: npt.NDArray[np.uint16], patient: PatientTraits) -> None:
    """Fill the Image Pixel, Modality LUT and VOI LUT modules."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if patient.monochrome1 else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if patient.monochrome1 else "IDENTITY"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 16
    ds.BitsStored = patient.bits_stored
    ds.HighBit = patient.bits_stored - 1
    ds.PixelRepresentation = 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    levels = 1 << patient.bits_stored
    ds.WindowCenter, ds.WindowWidth = str(levels // 2), str(levels)
    ds.VOILUTFunction = "SIGMOID" if patient.sigmoid else "LINEAR"
    ds.LossyImageCompression = "00"
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"


def write_dicom(path: Path, ds: Dataset, pixels: npt.NDArray[np.uint16], patient: PatientTraits) -> None:
    """Encode the pixels in the patient's transfer syntax and write the file. All syntaxes used are lossless."""
    if patient.syntax == "implicit":
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    elif patient.syntax == "rle":
        ds.compress(RLELossless, generate_instance_uid=False)
    elif patient.syntax == "jpeg_2000":
        frame = imagecodecs.jpeg2k_encode(
            pixels, reversible=True, codecformat="j2k", bitspersample=patient.bits_stored, numthreads=1
        )
        _encapsulate(ds, frame, JPEG2000Lossless)
    elif patient.syntax == "jpeg_lossless":
        _encapsulate(ds, imagecodecs.ljpeg_encode(pixels, bitspersample=patient.bits_stored), JPEGLosslessSV1)
    ds.save_as(path, enforce_file_format=True)


def _encapsulate(ds: Dataset, frame: bytes | bytearray, syntax: UID) -> None:
    ds.PixelData = encapsulate([bytes(frame)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
