"""What a mammogram's header says: side, view, pixel format. The pixels are not read."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
)

from mammoclip.dicom.view import read_laterality, read_view
from mammoclip.errors import MammoClipError, RejectedInput

_PIXEL_DATA = frozenset(Tag(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
_HEADER_TAGS = [
    Tag(keyword)
    for keyword in (
        "SOPClassUID",
        "ImageType",
        "Modality",
        "Manufacturer",
        "PresentationIntentType",
        "ImageLaterality",
        "Laterality",
        "SharedFunctionalGroupsSequence",
        "ViewPosition",
        "ViewCodeSequence",
        "PatientOrientation",
        "EstimatedRadiographicMagnificationFactor",
        "PatientAge",
        "BreastImplantPresent",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "PhotometricInterpretation",
    )
]
_TOMOSYNTHESIS = frozenset(
    (
        BreastTomosynthesisImageStorage,
        BreastProjectionXRayImageStorageForPresentation,
        BreastProjectionXRayImageStorageForProcessing,
    )
)
_SYNTHETIC = frozenset(("GENERATED_2D", "TOMO_2D"))
"""Values of ImageType (0008,0008) that name a 2D image computed from a tomosynthesis; the second is a vendor's."""
MAX_PIXELS = 100_000_000
"""Rows x Columns above which an image is refused before anything is allocated: three times the largest film scan."""

_OLDEST_YEARS, _PLAUSIBLE_YEARS = 90, 120


@dataclass(frozen=True)
class MammogramHeader:
    """Header of one 2D mammogram; ``*_source`` is the DICOM keyword that the value came from."""

    laterality: str | None  # L or R
    laterality_source: str | None
    view: str | None  # CC, MLO, ...
    view_source: str | None
    magnification: bool
    spot_compression: bool
    age_years: int | None  # 90 for everybody above 89
    implant: bool | None  # None: the header does not say
    implant_displaced: bool
    synthetic_2d: bool
    transfer_syntax: str
    rows: int
    columns: int
    bits_stored: int
    photometric: str
    manufacturer: str | None
    presentation_intent: str | None


def read_header(path: Path) -> MammogramHeader:
    """Read the header of a DICOM file up to its pixel data.

    Side and view: ``view.read_laterality`` and ``view.read_view``. BreastImplantPresent (0028,1300) tells of an
    implant, PatientAge (0010,1010) of the age. A 2D image computed from a tomosynthesis is kept with a flag, the
    tomosynthesis itself is rejected. What is absent is None.

    Raises:
        RejectedInput: not_dicom, unreadable_header, not_mammography, tomosynthesis, multi_frame, too_large or
            no_pixel_data.
    """
    seen: list[BaseTag] = []

    def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
        del vr, length
        if tag in _PIXEL_DATA:
            seen.append(tag)
        return tag in _PIXEL_DATA

    with rejecting("unreadable_header", "the header cannot be parsed"), path.open("rb") as file:
        dataset = pydicom.filereader.read_partial(file, stop_when=at_pixel_data, specific_tags=list(_HEADER_TAGS))
        return _to_header(dataset, has_pixels=bool(seen))


def check_size(rows: int, columns: int) -> None:
    """Refuse an image of more than ``MAX_PIXELS``.

    Raises:
        RejectedInput: too_large.
    """
    if rows * columns > MAX_PIXELS:
        raise RejectedInput("too_large", f"{rows} x {columns} pixels; no mammogram has more than {MAX_PIXELS:,}")


@contextmanager
def rejecting(reason: str, sentence: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into ``RejectedInput``: the kinds of error have no end."""
    try:
        with _pydicom_silenced():
            yield
    except MammoClipError:
        raise
    except InvalidDicomError:
        raise RejectedInput("not_dicom", "the file has no DICOM prefix") from None
    except BaseException as error:
        # A codec in Rust panics with a class of its own that is no Exception; an interrupt passes.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # The message may quote a header value, and so a patient: only the kind of error is kept.
        raise RejectedInput(reason, f"{sentence} ({type(error).__name__})") from None


@contextmanager
def _pydicom_silenced() -> Iterator[None]:
    """Keep pydicom's warnings of values that break the standard's form from screen and log.

    Such files are common and usable, and the warnings quote the values, which may name a patient.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _age_years(age_string: str) -> int | None:
    """Return the whole years of an age string (PS3.5 6.2), None where it is none or hides the age, as 000Y and 999Y.

    Ages above 89 tell who somebody is, so they become 90 (45 CFR 164.514(b)(2)).

    >>> _age_years("045Y"), _age_years("600M"), _age_years("093Y"), _age_years("000Y"), _age_years("45")
    (45, 50, 90, None, None)
    """
    if not re.fullmatch(r"\d{3}[DWMY]", age_string, re.ASCII):
        return None
    years = int(int(age_string[:3]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[age_string[3]])
    return min(years, _OLDEST_YEARS) if 0 < years <= _PLAUSIBLE_YEARS else None


def _to_header(dataset: pydicom.Dataset, has_pixels: bool) -> MammogramHeader:
    if dataset.get("Modality") != "MG":
        raise RejectedInput("not_mammography", "the modality should be MG")
    image_type = dataset.get("ImageType") or []
    synthetic = not _SYNTHETIC.isdisjoint([image_type] if isinstance(image_type, str) else image_type)
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    if dataset.get("SOPClassUID") in _TOMOSYNTHESIS and not (synthetic and num_frames == 1):
        raise RejectedInput("tomosynthesis", "one 2D image was expected, the file holds a tomosynthesis")
    if num_frames > 1:
        raise RejectedInput("multi_frame", "one 2D image was expected, the file has several frames")
    if not has_pixels or "Rows" not in dataset or "Columns" not in dataset:
        raise RejectedInput("no_pixel_data", "the file ends before any pixel data")
    check_size(int(dataset.Rows), int(dataset.Columns))
    laterality, laterality_source = read_laterality(dataset)
    view = read_view(dataset, laterality)
    return MammogramHeader(
        laterality=laterality,
        laterality_source=laterality_source,
        view=view.view,
        view_source=view.source,
        magnification=view.magnification,
        spot_compression=view.spot_compression,
        age_years=_age_years(str(dataset.get("PatientAge") or "")),
        implant={"YES": True, "NO": False}.get(str(dataset.get("BreastImplantPresent") or "")),
        implant_displaced=view.implant_displaced,
        synthetic_2d=synthetic,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_stored=int(dataset.BitsStored),
        photometric=str(dataset.PhotometricInterpretation),
        manufacturer=str(dataset.get("Manufacturer") or "") or None,
        presentation_intent=str(dataset.get("PresentationIntentType") or "") or None,
    )
