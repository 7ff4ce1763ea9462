"""Damage to a DICOM file: of bytes, wherever they lie, and of values that stay well-formed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import pydicom
from pydicom import DataElement, Dataset
from pydicom.tag import Tag
from pydicom.uid import BreastTomosynthesisImageStorage

Rng = np.random.Generator

_PREAMBLE = 132
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
# Length fields of explicit value representations, of elements without one, of items, and of marker segments.
_LENGTHS = re.compile(
    rb"(?:(?:OB|OW|SQ|UN|UT)\0\0(?=....))|(?:(?:US|CS|DS|IS|LO|PN|UI|SH|DA)(?=..))"
    rb"|(?:[\x08\x10\x18\x20\x28]\0[\0-\xff]{2}(?=..\0\0))|(?:\xfe\xff\0\xe0(?=....))"
    rb"|(?:\xff[\x51-\x64\x90\xc0-\xcf\xda-\xef\xf7](?=..))",
    re.DOTALL,
)
_SHORT = ("0", "1", "7", "8", "12", "13", "15", "16", "17", "31", "32", "64", "255", "65535")
_VALUES: dict[str, Sequence[object]] = {
    **{
        keyword: [int(text) for text in _SHORT] + [[8, 8], None]
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel")
    },
    "PixelRepresentation": [0, 1, 2, 65535, None],
    "NumberOfFrames": ["0", "1", "2", "-1", "999999999", "1.5", "", "many"],
    "PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL_422", "PALETTE COLOR", "", "x" * 70],
    "PixelPaddingValue": [0, 1, 4095, 65535],
    "WindowCenter": ["0", "-1", "1e308", "nan", "inf", "", "2048\\100", "centre"],
    "WindowWidth": ["0", "-1", "0.5", "1", "1e308", "1e-308", "nan", "inf", "", "1\\2\\3", "wide"],
    "VOILUTFunction": ["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC", ""],
    "RescaleSlope": ["0", "-1", "1e308", "nan", "", "steep"],
    "RescaleIntercept": ["0", "-1e308", "1e308", "nan", ""],
    "LUTDescriptor": [[0, 0, 16], [65535, 0, 16], [256, 65535, 8], [1, 0, 16], [256, 0, 0], [256], None],
    "LUTData": [[], [7], [7] * 300, b"", b"\0", b"\0\1" * 256],
    "Modality": ["MG", "CT", "", "mg"],
    "SOPClassUID": [str(BreastTomosynthesisImageStorage), "1.2", ""],
    "ImageType": ["", "DERIVED\\PRIMARY\\TOMO_2D", "x"],
    "PatientOrientation": ["", "A\\F", "A\\FR", "\\", "CC"],
}


def mutate(rng: Rng, content: bytes, others: Sequence[bytes]) -> tuple[bytes, list[str]]:
    """Return the file with one to three kinds of damage, and their names; the fewer the further reading gets."""
    names = []
    if rng.random() < 0.4:
        content, name = edit_value(rng, content)
        names.append(name)
    for _ in range(rng.choice([0, 1, 2], p=(0.7, 0.2, 0.1) if names else (0, 0.8, 0.2))):
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        content = damage(rng, content, others)
        names.append(damage.__name__)
    return content, names


def edit_value(rng: Rng, content: bytes) -> tuple[bytes, str]:
    """Replace one value and write the file again."""
    keyword = list(_VALUES)[rng.integers(len(_VALUES))]
    value = _VALUES[keyword][rng.integers(len(_VALUES[keyword]))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(BytesIO(content))
        where = _item_with(dataset, keyword)
        if value is None:
            where.pop(Tag(keyword), None)
        else:
            where[Tag(keyword)] = _element(keyword, value)
            if keyword == "Rows" and rng.random() < 0.3:
                where.Columns = value
        edited = BytesIO()
        pydicom.dcmwrite(edited, dataset)
    return edited.getvalue(), f"{keyword}={str(value)[:20]!r}"


def _item_with(dataset: Dataset, keyword: str) -> Dataset:
    if keyword.startswith("LUT"):
        for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
            if sequence in dataset:
                return dataset[sequence].value[0]
    return dataset


def _element(keyword: str, value: object) -> DataElement:
    if isinstance(value, str):  # text that may not be a number, under a representation that takes any
        return DataElement(Tag(keyword), "LO", value)
    if isinstance(value, bytes):
        return DataElement(Tag(keyword), "OW", value)
    return DataElement(Tag(keyword), "US", value)


def flip_bytes(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Replace up to eight bytes of one part of the file."""
    start, end = _part(rng, content)
    damaged = bytearray(content)
    for place in rng.integers(start, end, rng.integers(1, 9)):
        damaged[place] = rng.integers(256)
    return bytes(damaged)


def flip_bits(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Invert up to four bits of one part of the file."""
    start, end = _part(rng, content)
    damaged = bytearray(content)
    for place in rng.integers(start, end, rng.integers(1, 5)):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def truncate(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Keep the beginning, or fill the end with zeros as an interrupted copy does."""
    end = _place(rng, content)
    return content[:end] + bytes(len(content) - end if rng.random() < 0.3 else 0)


def delete(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Take out some bytes."""
    start = _place(rng, content)
    return content[:start] + content[start + _length(rng) :]


def insert(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Put in random bytes, zeros or ones."""
    start, length = _place(rng, content), _length(rng)
    new = (rng.bytes(length), bytes(length), b"\xff" * length)[rng.integers(3)]
    return content[:start] + new + content[start:]


def duplicate(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Repeat some bytes."""
    start, length = _place(rng, content), _length(rng)
    return content[: start + length] + content[start:]


def splice(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """Go on with another file: from anywhere, or from its pixel data."""
    other = others[rng.integers(len(others))]
    if rng.random() < 0.5:
        return content[: _pixel_data(content)] + other[_pixel_data(other) :]
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def lie_about_length(rng: Rng, content: bytes, _: Sequence[bytes]) -> bytes:
    """Set a length field to nothing, to much or to the largest number."""
    places = [match.end() for match in _LENGTHS.finditer(content, _PREAMBLE)]
    if not places:
        return content
    # The lengths of values are many, those of items and marker segments few.
    late = [place for place in places if place >= _pixel_data(content)]
    chosen = late if late and rng.random() < 0.5 else places
    place = chosen[rng.integers(len(chosen))]
    value = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", rng.bytes(2), rng.bytes(1))[rng.integers(6)]
    return content[:place] + value + content[place + len(value) :]


DAMAGES: Sequence[Callable[[Rng, bytes, Sequence[bytes]], bytes]] = (
    flip_bytes,
    flip_bytes,
    flip_bits,
    truncate,
    delete,
    insert,
    duplicate,
    splice,
    lie_about_length,
    lie_about_length,
)


def _pixel_data(content: bytes) -> int:
    """Where the pixel data element starts; in a deflated file nothing tells, and it is somewhere."""
    return next((place for mark in _PIXEL_DATA if (place := content.rfind(mark)) > 0), 2 * len(content) // 3)


def _part(rng: Rng, content: bytes) -> tuple[int, int]:
    """Header, beginning of the pixel data (with the codestream's header), or all of it."""
    start, length = min(_PREAMBLE, max(len(content) - 1, 0)), len(content)
    pixels = min(max(_pixel_data(content), start + 1), length)
    return ((start, pixels), (pixels - 1, min(pixels + 200, length)), (pixels - 1, length), (0, length))[
        rng.choice(4, p=(0.4, 0.3, 0.2, 0.1))
    ]


def _place(rng: Rng, content: bytes) -> int:
    start, end = _part(rng, content)
    return int(rng.integers(start, max(end, start + 1)))


def _length(rng: Rng) -> int:
    return int(rng.choice([1, 2, 4, rng.integers(1, 64), rng.integers(1, 1000)]))
