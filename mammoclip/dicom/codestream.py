"""What a compressed frame says of itself, read before a codec allocates anything."""

from __future__ import annotations

import struct
from typing import NamedTuple

_START_OF_FRAME = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
"""SOF0 to SOF15 (ISO/IEC 10918-1, table B.1) and SOF55 of JPEG-LS (ISO/IEC 14495-1)."""
_JPEG_2000_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ markers (ISO/IEC 15444-1, annex A)."""


class Codestream(NamedTuple):
    """Size and sample format of a frame."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool


def read_jpeg(frame: bytes) -> Codestream:
    """Read the frame header of a JPEG or JPEG-LS codestream.

    Raises:
        ValueError: if there is none before the first scan.
    """
    if frame[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, components, precision, signed=False)
        elif marker == 0xDA:
            break
        else:
            position += 2 + max(2, int.from_bytes(frame[position + 2 : position + 4], "big"))
    raise ValueError("no frame header")


def read_jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ marker segment of a JPEG 2000 or HTJ2K codestream, raw or inside JP2 boxes.

    Raises:
        ValueError: if there is none.
    """
    start = frame.find(_JPEG_2000_START, 0, 4096)
    if start < 0 or len(frame) < start + 43:
        raise ValueError("no SIZ marker")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, depth = struct.unpack_from(">HB", frame, start + 40)
    return Codestream(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
