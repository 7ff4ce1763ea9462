"""What a compressed frame says of itself, read before a codec allocates anything, and whether all of it is there."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_START_OF_FRAME = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7))
"""SOF0 to SOF15 (ISO/IEC 10918-1, table B.1) and SOF55 of JPEG-LS (ISO/IEC 14495-1)."""
_START_OF_SCAN = 0xDA
_END = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000: in compressed data these two bytes never follow each other."""
_JPEG_2000_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ markers (ISO/IEC 15444-1, annex A)."""
_TILE_PART = b"\xff\x90"
"""SOT marker."""


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
    for marker, position in _jpeg_segments(frame):
        if marker in _START_OF_FRAME and position + 10 <= len(frame):
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, components, precision, signed=False)
    raise ValueError("no frame header")


def whole_jpeg(frame: bytes) -> bytes:
    """Return a JPEG or JPEG-LS codestream that has its end marker.

    Without it libjpeg-turbo fills what is missing with grey and CharLS may search for ever.

    Raises:
        ValueError: if the marker is not there, or only where a scan has not yet begun (a thumbnail has its own).
    """
    for marker, position in _jpeg_segments(frame):
        if marker == _START_OF_SCAN and frame.rfind(_END, position) >= 0:
            return frame
    raise ValueError("the codestream ends before its end marker")


def read_jpeg_2000(frame: bytes) -> Codestream:
    """Read the SIZ marker segment of a JPEG 2000 or HTJ2K codestream, raw or inside JP2 boxes.

    Raises:
        ValueError: if there is none.
    """
    start = _jpeg_2000_start(frame)
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, depth = struct.unpack_from(">HB", frame, start + 40)
    return Codestream(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def whole_jpeg_2000(frame: bytes) -> bytes:
    """Return a JPEG 2000 or HTJ2K codestream, all of whose tile-parts are there, with its end marker.

    Some archives hold codestreams that lack nothing but that marker; it is put back. OpenJPEG itself refuses a
    tile-part that is cut short, but not a missing one.

    Raises:
        ValueError: if something else is missing.
    """
    position = _first_tile_part(frame, _jpeg_2000_start(frame))
    found: Counter[int] = Counter()
    announced: dict[int, int] = {}
    while frame.startswith(_TILE_PART, position) and position + 12 <= len(frame):
        tile, length, _, num_parts = struct.unpack_from(">HIBB", frame, position + 4)
        found[tile] += 1
        announced[tile] = max(num_parts, announced.get(tile, 0))
        if length == 0:  # it is the last one, and goes on to the end marker
            position = end if (end := frame.rfind(_END, position + 12)) >= 0 else len(frame) + 1
            break
        position += max(length, 12)
    ended = frame.startswith(_END, position)
    # A tile whose parts are not numbered is known to be whole by what comes after it.
    parts_missing = any(found[tile] < (number or (1 if ended else 256)) for tile, number in announced.items())
    if len(found) != _num_tiles(frame) or parts_missing:
        raise ValueError("the codestream lacks a tile-part")
    if ended:
        return frame
    # One zero pads the frame to an even length; where more of them stand, a tail was lost and filled up.
    if position > len(frame) or frame[position:] not in (b"", b"\0") or frame.endswith(_END, 0, position):
        raise ValueError("the codestream ends before its end marker")
    return frame[:position] + _END


def _jpeg_segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of the marker segments up to the first scan's."""
    if frame[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        yield marker, position
        if marker == _START_OF_SCAN:
            break
        position += 2 + max(2, int.from_bytes(frame[position + 2 : position + 4], "big"))


def _jpeg_2000_start(frame: bytes) -> int:
    start = frame.find(_JPEG_2000_START, 0, 4096)
    if start < 0 or len(frame) < start + 43:
        raise ValueError("no SIZ marker")
    return start


def _first_tile_part(frame: bytes, start: int) -> int:
    """Return where the main header ends."""
    position = start + 2
    while position + 4 <= len(frame) and frame[position] == 0xFF and not frame.startswith(_TILE_PART, position):
        position += 2 + max(2, int.from_bytes(frame[position + 2 : position + 4], "big"))
    return position


def _num_tiles(frame: bytes) -> int:
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", frame, _jpeg_2000_start(frame) + 8)
    if not width or not height:
        raise ValueError("tiles without a size")
    return int(-((left - right) // width) * -((top - bottom) // height))
