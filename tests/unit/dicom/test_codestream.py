import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mammoclip.dicom.codestream import Codestream, read_jpeg, read_jpeg_2000, whole_jpeg, whole_jpeg_2000
from tests.fuzz.corpus import COMPRESSED

ALL = [read_jpeg, whole_jpeg, read_jpeg_2000, whole_jpeg_2000]
SOI, END = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def start_of_frame(
    marker: int = 0xC3, rows: int = 300, columns: int = 200, precision: int = 12, components: int = 1
) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return segment(marker, struct.pack(">BHHB", precision, rows, columns, components) + parts)


def jpeg(*before: bytes, frame: bytes | None = None, data: bytes = b"\x12\x34", end: bytes = END) -> bytes:
    scan = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return SOI + b"".join(before) + (frame or start_of_frame()) + scan + data + end


def size(
    rows: int = 300,
    columns: int = 200,
    depth: int = 11,
    offset: tuple[int, int] = (0, 0),
    tile: tuple[int, int] = (300, 200),
    components: int = 1,
) -> bytes:
    """SIZ: a depth of 11 is 12 bits unsigned, 0x80 more is signed."""
    grid = (columns + offset[1], rows + offset[0], offset[1], offset[0], tile[1], tile[0], 0, 0)
    return segment(0x51, struct.pack(">H8IH", 0, *grid, components) + bytes([depth, 1, 1]) * components)


def tile_part(
    tile: int = 0, part: int = 0, num_parts: int = 1, data: bytes = b"\x55" * 9, length: int | None = None
) -> bytes:
    content = b"\xff\x93" + data
    return (
        segment(0x90, struct.pack(">HIBB", tile, 12 + len(content) if length is None else length, part, num_parts))
        + content
    )


def jpeg_2000(*parts: bytes, siz: bytes | None = None, end: bytes = END) -> bytes:
    return b"\xff\x4f" + (siz or size()) + segment(0x52, b"\0" * 10) + b"".join(parts) + end


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xCF, 0xF7])
def test_the_frame_header_of_jpeg_tells_size_and_format(marker: int) -> None:
    frame = start_of_frame(marker, 3518, 2800, 10, components=3)
    assert read_jpeg(jpeg(frame=frame)) == Codestream(3518, 2800, 3, 10, signed=False)


@pytest.mark.parametrize(
    "before",
    [
        segment(0xE0, b"JFIF\0" + b"\0" * 9),
        segment(0xC4, b"\xff\xc0\0\x11" * 5),  # a table that looks like a frame header
        segment(0xFE, b"comment"),
        b"\xff" * 3,  # fill bytes
        segment(0xE1, SOI + start_of_frame(0xC0, 16, 16) + END),  # a thumbnail
    ],
)
def test_what_stands_before_the_frame_header_of_jpeg_is_skipped(before: bytes) -> None:
    assert read_jpeg(jpeg(before)) == Codestream(300, 200, 1, 12, signed=False)
    assert whole_jpeg(jpeg(before)) == jpeg(before)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        SOI,
        SOI + END,
        END + start_of_frame(),
        start_of_frame(),
        jpeg()[:11],
        SOI + segment(0xDA, b"\0" * 9) + start_of_frame(),
        SOI + b"\0" + start_of_frame(),
        SOI + start_of_frame(0xC4),  # DHT, DAC and JPG look like SOF and are none
        SOI + start_of_frame(0xCC),
        SOI + start_of_frame(0xC8),
        jpeg_2000(tile_part()),
    ],
)
def test_jpeg_without_a_frame_header_before_the_scan_is_an_error(frame: bytes) -> None:
    with pytest.raises(ValueError, match=r"no (start of image|frame header)"):
        read_jpeg(frame)


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0", b"\xff", b"garbage"])
def test_jpeg_is_whole_up_to_its_end_marker_whatever_follows(tail: bytes) -> None:
    assert whole_jpeg(jpeg() + tail) == jpeg() + tail


@pytest.mark.parametrize("end", [b"", b"\xff", b"\0\0", b"\xff\0\xd9"])
@pytest.mark.parametrize("before", [b"", segment(0xE1, SOI + start_of_frame(0xC0, 16, 16) + END)])
def test_jpeg_without_its_own_end_marker_is_cut_short(before: bytes, end: bytes) -> None:
    with pytest.raises(ValueError, match="end marker"):
        whole_jpeg(jpeg(before, end=end))


@pytest.mark.parametrize(("depth", "precision", "signed"), [(11, 12, False), (0x8F, 16, True), (7, 8, False)])
@pytest.mark.parametrize("before", [b"", b"\0\0\0\x0cjP  \r\n\x87\n" + b"x" * 73])
def test_the_size_marker_of_jpeg_2000_tells_size_and_format(
    before: bytes, depth: int, precision: int, signed: bool
) -> None:
    frame = before + jpeg_2000(tile_part(), siz=size(3518, 2800, depth, offset=(7, 5), components=3))
    assert read_jpeg_2000(frame) == Codestream(3518, 2800, 3, precision, signed)


@pytest.mark.parametrize("frame", [b"", b"\xff\x4f", jpeg_2000()[:42], jpeg(), b"x" * 5000 + jpeg_2000(tile_part())])
@pytest.mark.parametrize("read", [read_jpeg_2000, whole_jpeg_2000])
def test_jpeg_2000_without_a_size_marker_is_an_error(read: Callable[[bytes], object], frame: bytes) -> None:
    with pytest.raises(ValueError, match="no SIZ marker"):
        read(frame)


FOUR_TILES = {"siz": size(300, 200, tile=(160, 100))}


@pytest.mark.parametrize(
    "frame",
    [
        jpeg_2000(tile_part()),
        jpeg_2000(tile_part(part=0, num_parts=2), tile_part(part=1, num_parts=2)),
        jpeg_2000(tile_part(part=0, num_parts=0), tile_part(part=1, num_parts=2)),  # the last part tells their number
        jpeg_2000(*(tile_part(tile) for tile in range(4)), **FOUR_TILES),
        jpeg_2000(*(tile_part(tile, part, 2) for part in (0, 1) for tile in range(4)), **FOUR_TILES),
    ],
)
@pytest.mark.parametrize("tail", [b"", b"\0", b"uuid box"])
def test_jpeg_2000_is_whole_with_all_its_tile_parts(frame: bytes, tail: bytes) -> None:
    assert whole_jpeg_2000(frame + tail) == frame + tail


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_the_end_marker_of_jpeg_2000_is_put_back(padding: bytes) -> None:
    frame = jpeg_2000(*(tile_part(tile) for tile in range(4)), **FOUR_TILES)
    assert whole_jpeg_2000(frame[:-2] + padding) == frame


@pytest.mark.parametrize("length", [0, None])
def test_a_tile_part_without_length_goes_on_to_the_end_marker(length: int | None) -> None:
    """Without that marker nothing tells where it ends."""
    frame = jpeg_2000(tile_part(length=length))
    assert whole_jpeg_2000(frame) == frame
    if length == 0:
        with pytest.raises(ValueError, match="end marker"):
            whole_jpeg_2000(frame[:-2])


@pytest.mark.parametrize(
    "frame",
    [
        jpeg_2000(),
        jpeg_2000(*(tile_part(tile) for tile in range(3)), **FOUR_TILES),
        jpeg_2000(*(tile_part(tile) for tile in (0, 1, 2, 2)), **FOUR_TILES),
        jpeg_2000(tile_part(part=0, num_parts=3), tile_part(part=1, num_parts=3)),
        jpeg_2000(tile_part(part=0, num_parts=3), tile_part(part=1, num_parts=0)),
        jpeg_2000(tile_part(part=0, num_parts=3), tile_part(part=1, num_parts=3), end=b""),
        jpeg_2000(tile_part(num_parts=0), end=b""),  # another part might have followed
        jpeg_2000(tile_part(), tile_part()[:11], siz=size(300, 200, tile=(300, 100))),
    ],
)
def test_jpeg_2000_without_one_of_its_tile_parts_is_cut_short(frame: bytes) -> None:
    with pytest.raises(ValueError, match="lacks a tile-part"):
        whole_jpeg_2000(frame)


@pytest.mark.parametrize(
    ("lost", "tail"),
    [(0, b"\0\0"), (0, b"\xff"), (0, b"garbage"), (1, b""), (1, b"\0\0\0"), (5, b""), (9, b"\0" * 11), (2, END)],
)
def test_jpeg_2000_whose_tail_is_lost_or_filled_up_is_cut_short(lost: int, tail: bytes) -> None:
    frame = jpeg_2000(tile_part(), end=b"")
    with pytest.raises(ValueError, match="end marker"):
        whole_jpeg_2000(frame[: len(frame) - lost] + tail)


def test_tiles_without_a_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="tiles"):
        whole_jpeg_2000(jpeg_2000(tile_part(), siz=size(tile=(0, 200))))


@pytest.mark.parametrize("name", [name for name in COMPRESSED if name != "rle"])
def test_what_real_encoders_write_is_understood_and_no_part_of_it_is_taken_for_the_whole(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 29), np.uint8)
    frame = COMPRESSED[name].encode(pixels, 8)
    jpeg_2000 = "2000" in name or "htj2k" in name
    read, whole = (read_jpeg_2000, whole_jpeg_2000) if jpeg_2000 else (read_jpeg, whole_jpeg)
    assert read(frame) == Codestream(33, 29, 1, 8, signed=False)
    assert whole(frame) == frame
    for kept in range(len(frame) - (2 if jpeg_2000 else 0)):
        with pytest.raises(ValueError):
            whole(frame[:kept])
    if jpeg_2000:
        assert whole(frame[:-2]) == frame


@pytest.mark.parametrize("read", ALL)
@given(frame=st.binary(max_size=200), start=st.sampled_from([b"", SOI, SOI + b"\xff", b"\xff\x4f\xff\x51"]))
@example(frame=b"\xff" * 50, start=SOI)
@example(frame=b"\xff" * 60, start=b"\xff\x4f\xff\x51")
def test_any_bytes_give_a_codestream_or_a_value_error(
    read: Callable[[bytes], object], frame: bytes, start: bytes
) -> None:
    try:
        result = read(start + frame)
    except ValueError:
        return
    assert isinstance(result, Codestream if read in (read_jpeg, read_jpeg_2000) else bytes)


@pytest.mark.parametrize("read", ALL)
@given(data=st.data())
def test_damaged_headers_give_a_codestream_or_a_value_error(
    read: Callable[[bytes], object], data: st.DataObject
) -> None:
    whole = jpeg(segment(0xE0, b"x" * 9)) if read in (read_jpeg, whole_jpeg) else jpeg_2000(tile_part(), tile_part(1))
    frame = bytearray(whole)
    for place in data.draw(st.lists(st.integers(2, len(frame) - 1), max_size=6)):
        frame[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xD9, 0xDA, 0xFE, 0xFF]))
    try:
        result = read(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    except ValueError:
        return
    assert isinstance(result, Codestream if read in (read_jpeg, read_jpeg_2000) else bytes)
