import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, JPEG2000, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless

from mammoclip.dicom import read_mammogram
from mammoclip.dicom.codestream import read_jpeg, read_jpeg_2000
from tests.fuzz.corpus import (
    COMPRESSED,
    SYNTAXES,
    UNCOMPRESSED,
    Syntax,
    encapsulated,
    encode_htj2k,
    encode_jpeg,
    encode_jpeg_2000,
    make_dataset,
    write_mammogram,
)

from .jpeg_ls import encode_jpeg_ls

SHAPE = (37, 41)
LOSSLESS = [name for name, syntax in SYNTAXES.items() if syntax.lossless]
DEPTHS = [(name, bits) for name, syntax in SYNTAXES.items() for bits in syntax.depths]
JPEG_2000 = ["jpeg_2000", "jpeg_2000_lossy", "htj2k", "htj2k_rpcl", "htj2k_lossy"]


def smooth(bits: int, shape: tuple[int, int] = SHAPE, signed: bool = False) -> np.ndarray:
    """Waves and noise over the whole range of values; both ends occur."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(bits).normal(0, 0.02, shape)
    values = np.rint(np.clip((np.sin(x / 7) + np.cos(y / 9) + 2) / 4 + noise, 0, 1) * (2**bits - 1)).astype(int)
    values.flat[:2] = 0, 2**bits - 1
    return (values - (2 ** (bits - 1) if signed else 0)).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def second_codec(path: Path) -> np.ndarray:
    """libjpeg of the JPEG committee's reference (JPEG, JPEG-LS), pylibjpeg's OpenJPEG, or pydicom's RLE in Python.

    There is no free decoder of JPEG 2000 beside OpenJPEG; HTJ2K is compared with OpenJPH too.
    """
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "pydicom" if syntax == COMPRESSED["rle"].uid else "pylibjpeg"
    return get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin=plugin)[0]


def write_frame(path: Path, pixels: np.ndarray, frame: bytes, uid: str, bits: int, **attributes: object) -> Path:
    """Write an image whose frame is given, coded elsewhere."""
    dataset = make_dataset(pixels, Syntax(uid, lambda *_: frame), bits, **attributes)
    dataset.save_as(path, enforce_file_format=True)
    return path


def assert_rounded_alike(ours: np.ndarray, theirs: np.ndarray, name: str) -> None:
    """Lossless and near-lossless codecs compute with integers; inverse DCT and 9/7 wavelet may round differently.

    Of 12-bit JPEG libjpeg-turbo keeps one bit less between the two passes of its DCT: a few pixels differ by 2.
    """
    difference = np.abs(ours.astype(int) - theirs)
    exact = COMPRESSED[name].lossless or name == "jpeg_ls_near"
    assert difference.max() <= (0 if exact else 2 if name == "jpeg_extended" else 1)
    assert np.mean(difference > 1) < 1e-4


def assert_same(pixels: np.ndarray, expected: np.ndarray) -> None:
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(("name", "bits"), [(name, bits) for name, bits in DEPTHS if SYNTAXES[name].lossless])
def test_a_lossless_syntax_gives_what_went_in(tmp_path: Path, name: str, bits: int) -> None:
    pixels = smooth(bits)
    mammogram = read_mammogram(write_mammogram(tmp_path / "image", pixels, name, bits))
    assert_same(mammogram.pixels, pixels)
    assert mammogram.dataset.file_meta.TransferSyntaxUID == SYNTAXES[name].uid


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("name", [name for name in LOSSLESS if SYNTAXES[name].signed])
def test_negative_values_stay_negative(tmp_path: Path, name: str, bits: int) -> None:
    pixels = smooth(bits, signed=True)
    assert pixels.min() == -(2 ** (bits - 1))
    assert_same(read_mammogram(write_mammogram(tmp_path / "image", pixels, name, bits)).pixels, pixels)


@pytest.mark.parametrize(("name", "bits"), [(name, bits) for name, bits in DEPTHS if name in COMPRESSED])
def test_every_compressed_syntax_equals_a_second_codec(tmp_path: Path, name: str, bits: int) -> None:
    path = write_mammogram(tmp_path / "image", smooth(bits), name, bits)
    ours, theirs = read_mammogram(path).pixels, second_codec(path)
    assert ours.dtype == theirs.dtype
    assert_rounded_alike(ours, theirs, name)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["htj2k", "htj2k_rpcl", "htj2k_lossy"])
def test_htj2k_equals_another_library(tmp_path: Path, name: str, bits: int) -> None:
    pixels = smooth(bits) // 2 + 2 ** (bits - 2)  # away from the ends: the other library lets values overflow
    path = write_mammogram(tmp_path / "image", pixels, name, bits)
    other = imagecodecs.htj2k_decode(COMPRESSED[name].encode(pixels, bits))
    assert_rounded_alike(read_mammogram(path).pixels, other, name)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("jpeg_2000_lossy", 150), ("htj2k_lossy", 150), ("jpeg_extended", 150)]
)
def test_white_stays_white_and_black_black_in_lossy_syntaxes(tmp_path: Path, name: str, tolerance: int) -> None:
    pixels = np.where(smooth(12, (96, 96)) > 2000, 4095, 0).astype(np.uint16)  # what rings past both ends of the range
    found = read_mammogram(write_mammogram(tmp_path / "image", pixels, name, 12)).pixels
    np.testing.assert_allclose(found.astype(int), pixels.astype(int), atol=tolerance)
    assert found.max() <= 4095


@pytest.fixture(scope="module")
def film(real_files: list[Path]) -> np.ndarray:
    """Part of a film mammogram, breast and background, as a detector of 12 bits has it."""
    pixels = read_mammogram(real_files[0]).pixels
    height, width = pixels.shape
    crop = pixels[height // 2 - 300 : height // 2 + 300, width // 2 - 250 : width // 2 + 250].astype(np.uint32)
    return (crop * 4095 // crop.max()).astype(np.uint16)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_real_mammogram_in_every_compressed_syntax(tmp_path: Path, film: np.ndarray, name: str) -> None:
    pixels, bits = ((film >> 4).astype(np.uint8), 8) if name == "jpeg_baseline" else (film, 12)
    path = write_mammogram(tmp_path / "image", pixels, name, bits)
    ours, theirs = read_mammogram(path).pixels, second_codec(path)
    assert ours.std() > pixels.std() / 2 > 0
    assert_rounded_alike(ours, theirs, name)
    if COMPRESSED[name].lossless:
        assert_same(ours, pixels)
    else:
        assert 0 < np.abs(ours.astype(int) - pixels).mean() < pixels.max() / 100


@pytest.mark.parametrize("near", [0, 2])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_jpeg_ls_of_every_precision(tmp_path: Path, phantom_images: list, bits: int, near: int) -> None:
    """Written by an encoder of the standard's text: one library alone might agree with itself."""
    pixels = phantom_images[0].pixels[100:148, 60:101].astype(np.uint32)
    pixels = (pixels * (2**bits - 1) // pixels.max()).astype(np.uint16 if bits > 8 else np.uint8)
    frame = encode_jpeg_ls(pixels, bits, near)
    assert read_jpeg(frame).precision == bits
    path = write_frame(tmp_path / "image", pixels, frame, JPEGLSNearLossless if near else JPEGLSLossless, bits)
    found = read_mammogram(path).pixels
    assert found.dtype == pixels.dtype
    assert np.abs(found.astype(int) - pixels).max() == near
    np.testing.assert_array_equal(found, second_codec(path))


def test_jpeg_ls_of_12_bits_codes_negative_values_as_if_unsigned(tmp_path: Path) -> None:
    pixels = smooth(12, signed=True)
    frame = encode_jpeg_ls(pixels.view(np.uint16) & 0xFFF, 12)
    path = write_frame(tmp_path / "image", pixels, frame, JPEGLSLossless, 12)
    assert_same(read_mammogram(path).pixels, pixels)
    np.testing.assert_array_equal(second_codec(path), pixels)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("name", [*UNCOMPRESSED, "rle"])
def test_bits_beside_the_stored_ones_are_dropped(tmp_path: Path, name: str, high_bit: int, signed: bool) -> None:
    """Old files keep overlays there; the sample's lowest bit may lie above bit 0."""
    pixels = smooth(12, signed=signed)
    place = high_bit - 11
    overlay = np.random.default_rng(0).integers(0, 2**16, SHAPE, np.uint16) & ~np.uint16(0xFFF << place)
    content = ((pixels.view(np.uint16) & 0xFFF) << place | overlay).view(pixels.dtype)
    path = write_mammogram(tmp_path / "image", content, name, 12, HighBit=high_bit)
    assert_same(read_mammogram(path).pixels, pixels)


@pytest.mark.parametrize("name", LOSSLESS)
def test_an_odd_number_of_bytes_is_padded_in_the_file(tmp_path: Path, name: str) -> None:
    pixels = smooth(8, (11, 13))
    assert_same(read_mammogram(write_mammogram(tmp_path / "image", pixels, name, 8)).pixels, pixels)


def test_bytes_in_big_endian_words_are_swapped(tmp_path: Path) -> None:
    pixels = smooth(8, (10, 13))
    dataset = make_dataset(pixels, SYNTAXES["big_endian"], 8)
    dataset.PixelData = pixels.reshape(-1, 2)[:, ::-1].tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(tmp_path / "image", enforce_file_format=True)
    assert_same(read_mammogram(tmp_path / "image").pixels, pixels)


@pytest.mark.parametrize("name", SYNTAXES)
def test_monochrome1_is_named_and_not_inverted(tmp_path: Path, name: str) -> None:
    pixels = smooth(8)
    plain = read_mammogram(write_mammogram(tmp_path / "plain", pixels, name, 8))
    inverse = read_mammogram(
        write_mammogram(tmp_path / "inverse", pixels, name, 8, PhotometricInterpretation="MONOCHROME1")
    )
    assert (plain.photometric, inverse.photometric) == ("MONOCHROME2", "MONOCHROME1")
    assert_same(inverse.pixels, plain.pixels)


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize(
    ("uid", "encode"),
    [
        (JPEGLosslessSV1, partial(encode_jpeg, lossless=True, predictor=1)),
        (JPEGLSLossless, encode_jpeg_ls),
        (JPEG2000, partial(encode_jpeg_2000, reversible=True)),
        (HTJ2K, partial(encode_htj2k, reversible=True)),
    ],
)
def test_the_codestream_knows_its_precision_better_than_bits_stored(
    tmp_path: Path, uid: str, encode: Callable[[np.ndarray, int], bytes], bits: int
) -> None:
    """The header says 12: no value is cut to 12 bits or scaled (as in pydicom's issues 1149 and 2073)."""
    pixels = smooth(bits)
    path = write_frame(tmp_path / "image", pixels, encode(pixels, bits), uid, 12)
    assert_same(read_mammogram(path).pixels, pixels)


@pytest.mark.parametrize("name", ["jpeg_sv1", "jpeg_ls", "jpeg_2000", "htj2k"])
def test_a_codestream_of_8_bits_in_16_allocated_ones(tmp_path: Path, name: str) -> None:
    pixels = smooth(8)
    path = write_mammogram(tmp_path / "image", pixels, name, 8, BitsAllocated=16)
    np.testing.assert_array_equal(read_mammogram(path).pixels, pixels)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("name", ["jpeg_2000", "htj2k"])
def test_the_header_decides_about_the_sign_and_the_codestream_about_the_bits(
    tmp_path: Path, name: str, bits: int
) -> None:
    signed = smooth(bits, signed=True)
    unsigned = signed.view(np.uint16) & np.uint16(2**bits - 1)
    path = write_mammogram(tmp_path / "image", unsigned, name, bits, PixelRepresentation=1)
    assert_same(read_mammogram(path).pixels, signed)
    np.testing.assert_array_equal(second_codec(path), signed)
    path = write_mammogram(tmp_path / "image", signed, name, bits, PixelRepresentation=0)
    assert_same(read_mammogram(path).pixels, unsigned)
    np.testing.assert_array_equal(second_codec(path), unsigned)


def pydicoms(name: str) -> Path:
    return Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm"


@pytest.mark.parametrize(
    "name",
    ["J2K_pixelrep_mismatch", "693_J2KI", "JPEG2000", "JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "JPGExtended"],
)
def test_files_of_other_writers_equal_a_second_codec(name: str) -> None:
    """Among them a sign that the codestream lacks, and 16 bits of precision where 14 are stored."""
    ours, theirs = read_mammogram(pydicoms(name)).pixels, second_codec(pydicoms(name))
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=1 if name == "JPGExtended" else 0)


@pytest.mark.parametrize("syntax", ["implicit", "bigendian", "expb", "RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_one_image_that_other_writers_stored_in_many_syntaxes(syntax: str) -> None:
    original = np.frombuffer(pydicom.dcmread(pydicoms("MR_small")).PixelData, "<i2").reshape(64, 64)
    assert_same(read_mammogram(pydicoms(f"MR_small_{syntax}")).pixels, original)


@pytest.mark.parametrize("bits", [8, 12])
def test_jpeg_2000_in_jp2_boxes(tmp_path: Path, bits: int) -> None:
    pixels = smooth(bits)
    frame = bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", bitspersample=bits, reversible=True))
    assert frame[4:8] == b"jP  "
    path = write_frame(tmp_path / "image", pixels, frame, JPEG2000, bits)
    assert_same(read_mammogram(path).pixels, pixels)


@pytest.mark.parametrize("fragments", [2, 5])
@pytest.mark.parametrize("name", [name for name in COMPRESSED if name != "rle"])  # one fragment is RLE's whole frame
def test_a_frame_in_several_fragments(tmp_path: Path, name: str, fragments: int) -> None:
    syntax = COMPRESSED[name]
    pixels = smooth(8)
    dataset = make_dataset(pixels, syntax, 8)
    dataset.save_as(tmp_path / "one", enforce_file_format=True)
    encapsulated(dataset, syntax.encode(pixels, 8), syntax.uid, fragments)
    dataset.save_as(tmp_path / "several", enforce_file_format=True)
    content = (tmp_path / "several").read_bytes()
    assert content.count(b"\xfe\xff\x00\xe0", content.index(struct.pack("<HH", 0x7FE0, 0x0010))) == 1 + fragments
    assert_same(read_mammogram(tmp_path / "several").pixels, read_mammogram(tmp_path / "one").pixels)


@pytest.mark.parametrize("name", JPEG_2000)
def test_jpeg_2000_that_lacks_nothing_but_its_end_marker(tmp_path: Path, name: str) -> None:
    pixels, syntax = smooth(12), COMPRESSED[name]
    whole = syntax.encode(pixels, 12)
    assert whole.endswith(b"\xff\xd9")
    assert read_jpeg_2000(whole).precision == 12
    expected = read_mammogram(write_frame(tmp_path / "whole", pixels, whole, syntax.uid, 12)).pixels
    path = write_frame(tmp_path / "image", pixels, whole[:-2], syntax.uid, 12)
    assert_same(read_mammogram(path).pixels, expected)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(LOSSLESS), bits=st.sampled_from([8, 12, 16]), signed=st.booleans())
def test_whatever_is_written_losslessly_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str, bits: int, signed: bool
) -> None:
    rows, columns = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    offset = 2 ** (bits - 1) if signed else 0
    values = st.integers(0, 2**bits - 1) | st.sampled_from([0, 2**bits - 1])
    drawn = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    pixels = (np.array(drawn).reshape(rows, columns) - offset).astype(
        f"{'i' if signed else 'u'}{1 if bits == 8 else 2}"
    )
    path = write_mammogram(tmp_path_factory.mktemp("image") / "image", pixels, name, bits)
    assert_same(read_mammogram(path).pixels, pixels)
