"""Decoding the PNGs of our shards, which is most of what loading a training image costs."""

from __future__ import annotations

import struct

import cv2
import imagecodecs
import numpy as np

from mammoclip.data.warp import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0  # colour type of the PNG specification, third edition, 6.1
_NONE, _UP = 0, 2  # row filters, 9.2; there is nothing above the first row
_HEADER = struct.Struct(">II5B")
_DEFLATE_RATIO = 1032  # bytes that one compressed byte can stand for at most: 258 for two bits


def decode_png(png: bytes) -> Image | None:
    """Return the image, height x width, uint8 or uint16; None if it is not a PNG of one channel.

    A PNG as ``mammoclip.dicom.encode_png`` writes it (grey, not interlaced, every row a difference to the row above)
    takes half the time that libpng needs; any other is OpenCV's. Checksums of chunks are not looked at on the fast way:
    the reader has compared the whole file's SHA-256.
    """
    image = _decode_differences(png)
    if image is None:
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None
    return None if image is None or image.ndim != 2 else np.asarray(image)


def _decode_differences(png: bytes) -> Image | None:
    """Return the image if every row is stored as differences (modulo 256, byte by byte) to the row above."""
    if not png.startswith(_SIGNATURE + b"\0\0\0\rIHDR") or len(png) < 33:
        return None
    width, height, bits, colour, _, _, interlace = _HEADER.unpack_from(png, 16)
    stride = 1 + width * bits // 8
    # No memory is taken for what a damaged header claims.
    is_possible = 0 < stride * height <= _DEFLATE_RATIO * len(png)
    if colour != _GREY or bits not in (8, 16) or interlace or not is_possible:
        return None
    try:
        rows = np.frombuffer(imagecodecs.deflate_decode(_image_data(png), out=stride * height), np.uint8)
    except imagecodecs.DeflateError:
        return None
    if rows.size != stride * height:
        return None
    rows = rows.reshape(height, stride)
    if rows[0, 0] not in (_NONE, _UP) or (rows[1:, 0] != _UP).any():
        return None
    pixels = np.empty((height, stride - 1), np.uint8)
    pixels[0] = rows[0, 1:]
    for row in range(1, height):
        np.add(pixels[row - 1], rows[row, 1:], out=pixels[row])
    return pixels if bits == 8 else pixels.view(">u2").astype(np.uint16)


def _image_data(png: bytes) -> bytes:
    """Return the contents of the IDAT chunks, joined."""
    pieces, start = [], len(_SIGNATURE)
    while start + 8 <= len(png):
        length = int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] == b"IDAT":
            pieces.append(png[start + 8 : start + 8 + length])
        start += length + 12
    return b"".join(pieces)
