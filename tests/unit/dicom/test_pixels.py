import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, generate_uid

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.dicom import read_header, read_mammogram, to_png_array
from mammoclip.errors import RejectedInput

Write = Callable[..., Any]

SYNTAXES = ["explicit", "implicit", "rle", "jpeg_lossless", "jpeg_2000"]
ENCAPSULATED = ["rle", "jpeg_lossless", "jpeg_2000"]


def encode_jpeg_lossless(pixels: np.ndarray, bits: int, predictor: int = 1, restart_rows: int = 0) -> bytes:
    """ISO/IEC 10918-1 process 14, pixel by pixel: 17 codes of 5 bits, predictors 1 to 7, restart every few rows."""
    height, width = pixels.shape
    x = pixels.astype(int)
    data = bytearray()
    pending = ""

    def put(value: int, length: int) -> None:
        nonlocal pending
        pending += f"{value:0{length}b}" if length else ""
        while len(pending) >= 8:
            data.append(int(pending[:8], 2))
            if data[-1] == 0xFF:
                data.append(0)
            pending = pending[8:]

    def fill_byte() -> None:
        put(2 ** (-len(pending) % 8) - 1, -len(pending) % 8)

    first_row = 0
    for row in range(height):
        if restart_rows and row and row % restart_rows == 0:
            fill_byte()
            data += bytes([0xFF, 0xD0 + (row // restart_rows - 1) % 8])
            first_row = row
        for column in range(width):
            if row == first_row:
                predicted = x[row, column - 1] if column else 1 << (bits - 1)
            elif column == 0:
                predicted = x[row - 1, 0]
            else:
                a, b, c = x[row, column - 1], x[row - 1, column], x[row - 1, column - 1]
                choices = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
                predicted = choices[predictor - 1]
            difference = (int(x[row, column] - predicted) + 32768) % 65536 - 32768
            if difference == -32768:
                put(16, 5)
                continue
            size = abs(difference).bit_length()
            put(size, 5)
            put(difference if difference >= 0 else difference + 2**size - 1, size)
    fill_byte()

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    return b"".join(
        [
            b"\xff\xd8",
            segment(0xC4, bytes([0, *[0] * 4, 17, *[0] * 11, *range(17)])),
            segment(0xC3, struct.pack(">BHHBBBB", bits, height, width, 1, 1, 0x11, 0)),
            segment(0xDD, struct.pack(">H", restart_rows * width)) if restart_rows else b"",
            segment(0xDA, bytes([1, 1, 0, predictor, 0, 0])),
            bytes(data),
            b"\xff\xd9",
        ]
    )


def encapsulated(dataset: Dataset, frame: bytes) -> None:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def codestream(dataset: Dataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def rejection(path: Any) -> RejectedInput:
    with pytest.raises(RejectedInput) as caught:
        read_mammogram(path)
    assert caught.value.reason in REJECT_REASONS
    return caught.value


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_gives_the_stored_pixels(write_file: Write, syntax: str, bits: int) -> None:
    written = write_file(syntax, bits=bits)
    mammogram = read_mammogram(written.path)
    assert mammogram.pixels.dtype == np.uint16
    np.testing.assert_array_equal(mammogram.pixels, written.pixels)
    assert mammogram.photometric == "MONOCHROME2"


@pytest.mark.parametrize("restart_rows", [0, 4])
@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_jpeg_lossless_of_every_depth_and_predictor(
    write_file: Write, bits: int, predictor: int, restart_rows: int
) -> None:
    rng = np.random.default_rng(bits)
    pixels = rng.integers(0, 2**bits, (17, 23)).astype(np.uint16 if bits > 8 else np.uint8)
    pixels[0, :2], pixels[1], pixels[2, ::2] = (0, 2**bits - 1), 0, 2**bits - 1  # the largest differences wrap

    def change(dataset: Dataset) -> None:
        encapsulated(dataset, encode_jpeg_lossless(pixels, bits, predictor, restart_rows))
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16 if bits > 8 else 8, bits, bits - 1
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1 if predictor == 1 else JPEGLossless

    written = write_file("jpeg_lossless", change=change)
    np.testing.assert_array_equal(read_mammogram(written.path).pixels, pixels)
    np.testing.assert_array_equal(pydicom.dcmread(written.path).pixel_array, pixels)


def test_jpeg_lossless_equals_a_second_codec_on_a_phantom(phantom_images: list, write_file: Write) -> None:
    pixels = phantom_images[0].pixels[:150, :200]

    def change(dataset: Dataset) -> None:
        encapsulated(dataset, encode_jpeg_lossless(pixels, 14))
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsStored, dataset.HighBit = 14, 13

    path = write_file("jpeg_lossless", change=change).path
    ours, theirs = read_mammogram(path).pixels, pydicom.dcmread(path).pixel_array
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_jpeg_lossless_in_several_fragments(write_file: Write) -> None:
    def change(dataset: Dataset) -> None:
        frame = codestream(dataset)
        dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
        dataset["PixelData"].is_undefined_length = True

    written = write_file("jpeg_lossless", change=change)
    np.testing.assert_array_equal(read_mammogram(written.path).pixels, written.pixels)


def test_signed_pixels_stay_signed(write_file: Write) -> None:
    stored = np.arange(-50, 50, dtype="<i2").reshape(10, 10)

    def change(dataset: Dataset) -> None:
        dataset.PixelData = stored.tobytes()
        dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 10, 10, 1
        dataset.BitsStored, dataset.HighBit = 16, 15

    pixels = read_mammogram(write_file(change=change).path).pixels
    assert pixels.dtype == np.int16
    np.testing.assert_array_equal(pixels, stored)


def test_the_header_comes_without_the_pixel_data(write_file: Write) -> None:
    dataset = read_mammogram(write_file().path).dataset
    assert "PixelData" not in dataset
    assert float(dataset.WindowWidth) == 4096


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("syntax", ENCAPSULATED)
def test_a_codestream_cut_short_is_undecodable(write_file: Write, syntax: str, kept: float) -> None:
    def change(dataset: Dataset) -> None:
        frame = codestream(dataset)
        encapsulated(dataset, frame[: max(2, int(len(frame) * kept))])

    assert rejection(write_file(syntax, change=change).path).reason == "undecodable"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_file_cut_short_anywhere_is_rejected(write_file: Write, syntax: str) -> None:
    written = write_file(syntax)
    content = written.path.read_bytes()
    # The last bytes of an encapsulated file only mark its end.
    for size in np.linspace(0, len(content) - 20, 60).astype(int):
        written.path.write_bytes(content[:size])
        assert rejection(written.path).reason in {"not_dicom", "unreadable_header", "no_pixel_data", "undecodable"}


@pytest.mark.parametrize("lie", [{"Rows": 65}, {"Rows": 0}, {"Columns": 65535}, {"Rows": 63, "Columns": 41}])
@pytest.mark.parametrize("syntax", ["explicit", "jpeg_lossless", "jpeg_2000"])
def test_a_header_that_lies_about_the_size_is_rejected(write_file: Write, syntax: str, lie: dict[str, int]) -> None:
    def change(dataset: Dataset) -> None:
        for keyword, value in lie.items():
            setattr(dataset, keyword, value)

    path = write_file(syntax, change=change).path
    if syntax == "explicit" and lie.get("Rows") == 63:  # surplus bytes are padding
        assert read_mammogram(path).pixels.shape == (63, 41)
    else:
        assert rejection(path).reason == "undecodable"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_several_frames_are_rejected(write_file: Write, syntax: str) -> None:
    def change(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 2
        if syntax in ENCAPSULATED:
            frame = codestream(dataset)
            dataset.PixelData = encapsulate([frame, frame])
            dataset["PixelData"].is_undefined_length = True
        else:
            dataset.PixelData = dataset.PixelData * 2

    assert rejection(write_file(syntax, change=change).path).reason == "multi_frame"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("no_pixel_data", lambda dataset: delattr(dataset, "PixelData")),
        ("undecodable", lambda dataset: setattr(dataset, "PixelData", b"")),
        ("undecodable", lambda dataset: setattr(dataset, "PhotometricInterpretation", "RGB")),
        ("undecodable", lambda dataset: delattr(dataset, "PhotometricInterpretation")),
        ("undecodable", lambda dataset: delattr(dataset, "Rows")),
        ("undecodable", lambda dataset: delattr(dataset, "BitsAllocated")),
        ("undecodable", lambda dataset: delattr(dataset, "PixelRepresentation")),
    ],
)
def test_each_reason(write_file: Write, reason: str, change: Callable[[Dataset], None]) -> None:
    assert rejection(write_file(change=change).path).reason == reason


def test_an_encapsulated_file_without_a_frame_is_undecodable(write_file: Write) -> None:
    def change(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate([b"\0\0"])[:8]  # an empty offset table and nothing after it
        dataset["PixelData"].is_undefined_length = True

    assert rejection(write_file("jpeg_lossless", change=change).path).reason == "undecodable"


def test_an_unknown_transfer_syntax_is_undecodable(write_file: Write) -> None:
    written = write_file()
    dataset = pydicom.dcmread(written.path)
    dataset.file_meta.TransferSyntaxUID = generate_uid(entropy_srcs=["private"])
    dataset.save_as(written.path, implicit_vr=False, little_endian=True)
    assert rejection(written.path).reason == "undecodable"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_damaged_files_give_an_image_or_a_reason_and_never_another_error(write_file: Write, syntax: str) -> None:
    written = write_file(syntax)
    content = written.path.read_bytes()
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(120):
        damaged = bytearray(content)
        for place in rng.integers(132, len(content), rng.integers(1, 12)):
            damaged[place] = rng.integers(256)
        written.path.write_bytes(damaged)
        for read in (read_header, read_mammogram, lambda path: to_png_array(read_mammogram(path), "strict")):
            try:
                read(written.path)
                outcomes.add("read")
            except RejectedInput as error:
                assert error.reason in REJECT_REASONS
                outcomes.add(error.reason)
    assert {"read", "no_pixel_data"} <= outcomes
