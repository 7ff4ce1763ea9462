import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.data import png as module
from mammoclip.data.png import decode_png
from mammoclip.dicom.recipe import encode_png

IMAGES = st.one_of(
    hnp.arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9))) for dtype in (np.uint8, np.uint16)
)


@settings(deadline=None)
@given(IMAGES)
def test_our_pngs_are_decoded_without_opencv_to_the_very_pixels(image: np.ndarray) -> None:
    decoded = module._decode_differences(encode_png(image))
    assert decoded is not None
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)


@settings(deadline=None)
@given(IMAGES, st.sampled_from([cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_ALL_FILTERS]))
def test_pngs_of_any_row_filter_are_decoded(image: np.ndarray, row_filter: int) -> None:
    png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_FILTER, row_filter])[1].tobytes()
    np.testing.assert_array_equal(decode_png(png), image)


def test_image_data_in_several_chunks_are_joined() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = zlib.compress(bytes([2, 0, 1, 2, 2, 3, 3, 3]))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0))
    parts = chunk(b"IDAT", content[:5]) + chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", content[5:]) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_png(b"\x89PNG\r\n\x1a\n" + header + parts), image)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_png_of_several_channels_is_none(channels: int) -> None:
    assert decode_png(cv2.imencode(".png", np.zeros((3, 4, channels), np.uint8))[1].tobytes()) is None


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (2**31, 8), (9, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_a_header_that_claims_more_than_the_file_can_hold_takes_no_memory(size: tuple[int, int]) -> None:
    png = bytearray(encode_png(np.random.default_rng(0).integers(0, 255, (8, 9), np.uint8)))
    png[16:24] = struct.pack(">II", *size)
    assert decode_png(bytes(png)) is None


def test_an_image_of_one_grey_value_is_decoded_however_well_it_is_compressed() -> None:
    image = np.full((3000, 2400), 7, np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
@example(164, 190)
def test_damage_gives_an_image_or_none_and_never_an_exception(position: int, value: int) -> None:
    png = bytearray(encode_png(np.random.default_rng(0).integers(0, 255, (8, 9), np.uint8)))
    png[position % len(png)] = value
    image = decode_png(bytes(png[: position + 40]))
    assert image is None or image.ndim == 2


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not a PNG at all"])
def test_what_is_no_png_is_none(content: bytes) -> None:
    assert decode_png(content) is None
