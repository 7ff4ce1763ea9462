"""What a mammogram's header says: side, view, pixel format. The pixels are not read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag

from mammoclip.errors import RejectedInput

_VIEWS = ("MLO", "CC", "LMO", "XCCL", "XCCM", "ML", "LM", "AT", "SIO", "ISO", "FB", "CV")
# Code meanings of ViewCodeSequence (0054,0220), DICOM PS3.16 CID 4014.
_VIEW_MEANINGS = {
    "cranio-caudal": "CC",
    "medio-lateral oblique": "MLO",
    "medio-lateral": "ML",
    "latero-medial": "LM",
    "latero-medial oblique": "LMO",
    "caudo-cranial (from below)": "FB",
}
_PIXEL_DATA = frozenset(Tag(keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
_HEADER_KEYWORDS = [
    "Modality",
    "Manufacturer",
    "PresentationIntentType",
    "ImageLaterality",
    "Laterality",
    "SharedFunctionalGroupsSequence",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsStored",
    "PhotometricInterpretation",
]


@dataclass(frozen=True)
class MammogramHeader:
    """Header of one 2D mammogram; ``*_source`` is the DICOM keyword that the value came from."""

    laterality: str | None  # L or R
    laterality_source: str | None
    view: str | None  # CC, MLO, ...
    view_source: str | None
    transfer_syntax: str
    rows: int
    columns: int
    bits_stored: int
    photometric: str
    manufacturer: str | None
    presentation_intent: str | None


def read_header(path: Path) -> MammogramHeader:
    """Read the header of a DICOM file up to its pixel data.

    Laterality: ImageLaterality (0020,0062), else Laterality (0020,0060), else FrameLaterality (0020,9072) in the shared
    functional groups. View: ViewPosition (0018,5101), else ViewCodeSequence (0054,0220), else PatientOrientation
    (0020,0020) where it names a view, as in CBIS-DDSM. What is absent is None.

    Raises:
        RejectedInput: not_dicom, unreadable_header, not_mammography, multi_frame or no_pixel_data.
    """
    seen: list[BaseTag] = []

    def at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
        del vr, length
        if tag in _PIXEL_DATA:
            seen.append(tag)
        return tag in _PIXEL_DATA

    with rejecting("unreadable_header", "the header cannot be parsed"), path.open("rb") as file:
        dataset = pydicom.filereader.read_partial(
            file, stop_when=at_pixel_data, specific_tags=[t for k in _HEADER_KEYWORDS if (t := tag_for_keyword(k))]
        )
        return _to_header(dataset, has_pixels=bool(seen))


@contextmanager
def rejecting(reason: str, sentence: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into ``RejectedInput``: the kinds of error have no end."""
    try:
        with _pydicom_silenced():
            yield
    except RejectedInput:
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


def _to_header(dataset: pydicom.Dataset, has_pixels: bool) -> MammogramHeader:
    modality = dataset.get("Modality")
    if modality != "MG":
        raise RejectedInput("not_mammography", "the modality should be MG")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise RejectedInput("multi_frame", "one 2D image was expected, the file has several frames")
    if not has_pixels or "Rows" not in dataset or "Columns" not in dataset:
        raise RejectedInput("no_pixel_data", "the file ends before any pixel data")
    laterality, laterality_source = _laterality(dataset)
    view, view_source = _view(dataset)
    return MammogramHeader(
        laterality=laterality,
        laterality_source=laterality_source,
        view=view,
        view_source=view_source,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_stored=int(dataset.BitsStored),
        photometric=str(dataset.PhotometricInterpretation),
        manufacturer=str(dataset.get("Manufacturer") or "") or None,
        presentation_intent=str(dataset.get("PresentationIntentType") or "") or None,
    )


def _laterality(dataset: pydicom.Dataset) -> tuple[str | None, str | None]:
    for keyword in ("ImageLaterality", "Laterality"):
        if dataset.get(keyword) in ("L", "R"):
            return str(dataset[keyword].value), keyword
    for group in dataset.get("SharedFunctionalGroupsSequence") or []:
        for anatomy in group.get("FrameAnatomySequence") or []:
            if anatomy.get("FrameLaterality") in ("L", "R"):
                return str(anatomy.FrameLaterality), "FrameLaterality"
    return None, None


def _view(dataset: pydicom.Dataset) -> tuple[str | None, str | None]:
    position = str(dataset.get("ViewPosition") or "").upper()
    if position in _VIEWS:
        return position, "ViewPosition"
    for code in dataset.get("ViewCodeSequence") or []:
        view = _VIEW_MEANINGS.get(str(code.get("CodeMeaning") or "").lower())
        if view:
            return view, "ViewCodeSequence"
    orientation = dataset.get("PatientOrientation")
    named = orientation if isinstance(orientation, str) else "/".join(orientation or [])
    if named.upper() in _VIEWS:
        return named.upper(), "PatientOrientation"
    return None, None
