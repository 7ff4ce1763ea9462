"""Files that are not what they say: each is rejected with a reason, before it costs memory or time."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mammoclip.data.workers import MEMORY_LIMIT_BYTES, map_ordered
from mammoclip.dicom import Recipe, convert_or_reject, read_header, read_mammogram
from mammoclip.errors import RejectedInput
from tests.fuzz.corpus import COMPRESSED, SYNTAXES, Syntax, make_dataset, write_mammogram

SHAPE = (40, 31)
RECIPE = Recipe("strict", "strict", "pad", 32, 20)
HUGE = struct.pack(">HH", 65535, 65535)
BYTES_PER_KIB = 1024
PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)

READ_ALL = """
import resource, sys
from mammoclip.dicom import read_mammogram
from mammoclip.errors import RejectedInput
good, *lying = sys.argv[1:]
read_mammogram(good)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in lying:
    try:
        read_mammogram(path)
        print("image")
    except RejectedInput as error:
        print(error.reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def noise(bits: int = 8, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 2**bits, shape, np.uint8 if bits <= 8 else np.uint16)


def write_frame(path: Path, frame: bytes, name: str, bits: int = 8) -> Path:
    """Write an image whose header is that of ``noise`` and whose frame is given."""
    syntax = Syntax(SYNTAXES[name].uid, lambda *_: frame)
    make_dataset(noise(bits), syntax, bits).save_as(path, enforce_file_format=True)
    return path


def relabelled(path: Path, uid: str) -> Path:
    """Change the transfer syntax that the file meta information names, and no other byte."""
    content = path.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI") + 6
    (length,) = struct.unpack_from("<H", content, start)
    value = uid.encode() + b"\0" * (len(uid) % 2)
    (group_length,) = struct.unpack_from("<I", content, 140)
    path.write_bytes(
        content[:140]
        + struct.pack("<I", group_length + len(value) - length)
        + content[144:start]
        + struct.pack("<H", len(value))
        + value
        + content[start + 2 + length :]
    )
    assert pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID == uid
    return path


def end_of_meta(content: bytes) -> int:
    """Where the file meta information ends: its first element tells its length."""
    return int(144 + struct.unpack_from("<I", content, 140)[0])


def rejection(path: Path) -> str:
    with pytest.raises(RejectedInput) as caught:
        read_mammogram(path)
    return caught.value.reason


def reasons_and_memory(good: Path, lying: list[Path]) -> tuple[list[str], int]:
    """The reasons of a process of its own, and the bytes by which its peak memory grew."""
    command = [sys.executable, "-c", READ_ALL, str(good), *map(str, lying)]
    *reasons, grown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    return reasons, int(grown) * BYTES_PER_KIB


def test_a_header_of_65535_squared_pixels_is_too_large_and_costs_no_memory(tmp_path: Path) -> None:
    good = write_mammogram(tmp_path / "good", noise(), "jpeg_2000", 8)
    lying = [write_mammogram(tmp_path / name, noise(), name, 8, Rows=65535, Columns=65535) for name in SYNTAXES]
    reasons, grown = reasons_and_memory(good, lying)
    assert reasons == ["too_large"] * len(SYNTAXES)
    assert grown < 32 << 20


def test_a_codestream_of_65535_squared_pixels_is_undecodable_and_costs_no_memory(tmp_path: Path) -> None:
    """The header of the file stays small."""
    good = write_mammogram(tmp_path / "good", noise(), "jpeg_2000", 8)
    true_size = struct.pack(">HH", *SHAPE)
    grid = struct.pack(">II", *SHAPE[::-1])
    lying = []
    for name, syntax in COMPRESSED.items():
        if name == "rle":  # has no size of its own
            continue
        frame = syntax.encode(noise(), 8)
        old, new = (grid, struct.pack(">II", 65535, 65535)) if b"\xff\x4f\xff\x51" in frame else (true_size, HUGE)
        assert old in frame
        lying.append(write_frame(tmp_path / name, frame.replace(old, new), name))  # the tiles of JPEG 2000 grow too
    reasons, grown = reasons_and_memory(good, lying)
    assert reasons == ["undecodable"] * len(lying)
    assert grown < 32 << 20


def test_a_deflate_bomb_is_rejected_by_workers_within_their_memory(tmp_path: Path) -> None:
    """8 GB of zeros behind a header; the deflated blocks of one chunk are repeated."""
    plain = write_mammogram(tmp_path / "plain", noise(), "explicit", 8).read_bytes()
    path = write_mammogram(tmp_path / "bomb", noise(), "deflated", 8)
    header = plain[end_of_meta(plain) : plain.index(PIXEL_DATA)]
    size, chunk = 0xFFFFFFF0, 1 << 24
    compress = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = compress.compress(header + PIXEL_DATA + struct.pack("<2sHI", b"OW", 0, size))
    start += compress.flush(zlib.Z_FULL_FLUSH)
    zeros = compress.compress(bytes(chunk)) + compress.flush(zlib.Z_FULL_FLUSH)
    meta = path.read_bytes()[: end_of_meta(path.read_bytes())]
    path.write_bytes(meta + start + zeros * ((8 << 30) // chunk) + compress.flush())
    assert path.stat().st_size < 16 << 20
    assert MEMORY_LIMIT_BYTES <= 2 << 30
    (converted,) = map_ordered(partial(convert_or_reject, RECIPE), [path], processes=1, time_limit_s=120)
    with pytest.raises(RejectedInput) as indexed:
        list(map_ordered(read_header, [path], processes=1, time_limit_s=120))
    for outcome in (converted, indexed.value):
        assert isinstance(outcome, RejectedInput)
        assert outcome.reason == "unreadable_header"
        assert "MemoryError" in outcome.detail


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_codestream_cut_short_anywhere_is_undecodable(tmp_path: Path, name: str) -> None:
    frame = COMPRESSED[name].encode(noise(), 8)
    # JPEG 2000 may lack its end marker, RLE the byte that makes it even.
    for kept in np.linspace(2, len(frame) - 3, 100).astype(int):
        assert rejection(write_frame(tmp_path / "image", frame[:kept], name)) == "undecodable", kept


@pytest.mark.parametrize("name", ["htj2k_rpcl", "htj2k", "jpeg_2000"])
def test_jpeg_2000_cut_short_and_given_an_end_marker_is_undecodable(tmp_path: Path, name: str) -> None:
    frame = COMPRESSED[name].encode(noise(), 8)
    for kept in np.linspace(2, len(frame) - 4, 100).astype(int):
        path = write_frame(tmp_path / "image", frame[:kept] + b"\xff\xd9", name)
        assert rejection(path) == "undecodable", kept


@pytest.mark.parametrize(
    "options", [{"tilepart": 1, "tlm": True}, {"tile": (16, 16)}, {"tile": (16, 16), "tilepart": 1}]
)
def test_jpeg_2000_cut_between_two_tile_parts_is_undecodable(tmp_path: Path, options: dict[str, object]) -> None:
    """Codecs decode what is there and leave the rest black."""
    frame = bytes(imagecodecs.htj2k_encode(noise(), reversible=True, **options))
    assert read_mammogram(write_frame(tmp_path / "image", frame, "htj2k")).pixels.tolist() == noise().tolist()
    starts = [place for place in range(len(frame)) if frame.startswith(b"\xff\x90\x00\x0a", place)]
    assert len(starts) > 3
    for start in starts:
        for end in (b"", b"\xff\xd9"):
            assert rejection(write_frame(tmp_path / "image", frame[:start] + end, "htj2k")) == "undecodable"


@pytest.mark.parametrize("name", ["jpeg_ls", "jpeg_ls_near", "jpeg_baseline", "jpeg_sv1"])
def test_a_thumbnails_end_marker_does_not_make_a_codestream_whole(tmp_path: Path, name: str) -> None:
    """CharLS looks for a marker behind the data, for ever if there is none."""
    thumbnail = b"\xff\xd8 small picture \xff\xd9"
    frame = COMPRESSED[name].encode(noise(), 8)
    with_thumbnail = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + frame[2:]
    good = write_frame(tmp_path / "good", with_thumbnail, name)
    lying = [
        write_frame(tmp_path / str(kept), with_thumbnail[:kept], name)
        for kept in np.linspace(60, len(with_thumbnail) - 2, 50).astype(int)
    ]
    assert reasons_and_memory(good, lying)[0] == ["undecodable"] * len(lying)


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("jpeg_baseline", partial(imagecodecs.jpeg8_encode, level=95)),
        ("jpeg_lossless_1", partial(imagecodecs.jpeg8_encode, lossless=True, predictor=1)),
        ("jpeg_ls", imagecodecs.jpegls_encode),
        ("jpeg_2000", partial(imagecodecs.jpeg2k_encode, codecformat="j2k", reversible=True)),
        ("htj2k", partial(imagecodecs.htj2k_encode, reversible=True)),
    ],
)
def test_a_codestream_in_colour_is_undecodable(
    tmp_path: Path, name: str, encode: Callable[[np.ndarray], bytes]
) -> None:
    frame = bytes(encode(noise(shape=(*SHAPE, 3))))
    assert rejection(write_frame(tmp_path / "image", frame, name)) == "undecodable"


FAMILIES = {
    "uncompressed": ["explicit"],
    "rle": ["rle"],
    "jpeg": ["jpeg_baseline", "jpeg_extended", "jpeg_sv1", "jpeg_lossless_6"],
    "jpeg_ls": ["jpeg_ls", "jpeg_ls_near"],
    "jpeg_2000": ["jpeg_2000", "jpeg_2000_lossy", "htj2k", "htj2k_rpcl", "htj2k_lossy"],
}


@pytest.mark.parametrize("said", FAMILIES)
@pytest.mark.parametrize("true", FAMILIES)
def test_a_transfer_syntax_that_names_another_codec_is_undecodable(tmp_path: Path, true: str, said: str) -> None:
    """Of the same family it does not matter: the codec sees what it has."""
    for true_name in FAMILIES[true]:
        for said_name in FAMILIES[said]:
            path = write_mammogram(tmp_path / "image", noise(), true_name, 8)
            relabelled(path, SYNTAXES[said_name].uid)
            if true == said:
                found = read_mammogram(path).pixels.astype(int)
                assert np.abs(found - noise()).max() <= (0 if SYNTAXES[true_name].lossless else 40)
            else:
                assert rejection(path) == "undecodable", (true_name, said_name)


@pytest.mark.parametrize("name", ["explicit", "implicit", "big_endian", "deflated", "rle"])
@pytest.mark.parametrize(
    "lie", [{"BitsStored": 0}, {"BitsStored": 17}, {"HighBit": 16}, {"HighBit": 10}, {"BitsAllocated": 8}]
)
def test_bits_that_contradict_each_other_are_undecodable(tmp_path: Path, name: str, lie: dict[str, int]) -> None:
    path = write_mammogram(tmp_path / "image", noise(12), name, 12)
    read_mammogram(path)
    assert rejection(write_mammogram(path, noise(12), name, 12, **lie)) == "undecodable"


@pytest.mark.parametrize("name", COMPRESSED)
def test_fragments_are_not_taken_for_uncompressed_pixels(tmp_path: Path, name: str) -> None:
    """Though they are more bytes than the pixels would be."""
    frame = COMPRESSED[name].encode(noise(), 8)
    path = write_frame(tmp_path / "image", frame + bytes(noise().nbytes), name)
    assert len(pydicom.dcmread(path).PixelData) > noise().nbytes
    assert rejection(relabelled(path, ExplicitVRLittleEndian)) == "undecodable"


def test_what_is_labelled_deflated_and_is_not_is_unreadable(tmp_path: Path) -> None:
    path = write_mammogram(tmp_path / "image", noise(), "explicit", 8)
    content = path.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    path.write_bytes(content[:start] + b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99" + content[start + 28 :])
    assert rejection(path) == "unreadable_header"


@pytest.mark.filterwarnings("ignore:Expected")
@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_value_representations_are_recognised_whatever_the_transfer_syntax_says(tmp_path: Path, said: str) -> None:
    pixels = noise(12)
    true = "implicit" if said == ExplicitVRLittleEndian else "explicit"
    path = relabelled(write_mammogram(tmp_path / "image", pixels, true, 12), said)
    np.testing.assert_array_equal(read_mammogram(path).pixels, pixels)
    assert read_header(path).transfer_syntax == said


@pytest.mark.parametrize(("true", "said"), [("explicit", ExplicitVRBigEndian), ("big_endian", ExplicitVRLittleEndian)])
def test_the_other_byte_order_is_rejected(tmp_path: Path, true: str, said: str) -> None:
    """No group is recognised: there are no pixel data to be found, or a length is beyond the file."""
    path = write_mammogram(tmp_path / "image", noise(12), true, 12)
    assert rejection(relabelled(path, said)) in {"no_pixel_data", "unreadable_header"}


def test_without_a_transfer_syntax_the_header_is_unreadable(tmp_path: Path) -> None:
    dataset = make_dataset(noise(), SYNTAXES["explicit"], 8)
    dataset.preamble = bytes(128)
    del dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(tmp_path / "image", dataset, implicit_vr=False, little_endian=True)
    assert rejection(tmp_path / "image") == "unreadable_header"


@pytest.mark.parametrize(("preamble", "reason"), [(b"", "not_dicom"), (bytes(128) + b"DICM", "unreadable_header")])
def test_without_file_meta_information_a_data_set_is_rejected(tmp_path: Path, preamble: bytes, reason: str) -> None:
    path = write_mammogram(tmp_path / "image", noise(), "explicit", 8)
    content = path.read_bytes()
    path.write_bytes(preamble + content[end_of_meta(content) :])
    assert rejection(path) == reason
