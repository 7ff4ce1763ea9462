"""Decoding of stored pixels, with the fastest correct codec per transfer syntax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from mammoclip.dicom.codestream import Codestream, read_jpeg, read_jpeg_2000, whole_jpeg, whole_jpeg_2000
from mammoclip.dicom.gpu import gpu_decoder
from mammoclip.dicom.header import check_size, rejecting
from mammoclip.errors import RejectedInput

Pixels = npt.NDArray[Any]
FrameDecoder = Callable[[bytes], Pixels]


class _Codec(NamedTuple):
    read: Callable[[bytes], Codestream]
    whole: Callable[[bytes], bytes]
    decode: FrameDecoder


# libjpeg-turbo 3, CharLS and OpenJPEG: 1.2 to 7 times faster than the plugins that pydicom knows for the same syntax.
# RLE, deflated and uncompressed pixels are pydicom's own. OpenJPH would decode HTJ2K 2 times faster still, but as
# imagecodecs wraps it a lossy value past the largest starts again at 0 (white turns black), and an error in the middle
# of an image is lost (half of it stays black).
_JPEG = _Codec(read_jpeg, whole_jpeg, imagecodecs.jpeg8_decode)
_JPEG_LS = _Codec(read_jpeg, whole_jpeg, imagecodecs.jpegls_decode)
_JPEG_2000 = _Codec(read_jpeg_2000, whole_jpeg_2000, imagecodecs.jpeg2k_decode)
_CODECS: Mapping[UID, _Codec] = {
    JPEGBaseline8Bit: _JPEG,
    JPEGExtended12Bit: _JPEG,
    JPEGLossless: _JPEG,
    JPEGLosslessSV1: _JPEG,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    JPEG2000Lossless: _JPEG_2000,
    JPEG2000: _JPEG_2000,
    HTJ2KLossless: _JPEG_2000,
    HTJ2KLosslessRPCL: _JPEG_2000,
    HTJ2K: _JPEG_2000,
}
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@dataclass(frozen=True)
class Mammogram:
    """Stored pixels (native dtype, height x width, read-only) and the header that says how they become grey."""

    pixels: Pixels
    dataset: pydicom.Dataset

    @property
    def photometric(self) -> str:
        """PhotometricInterpretation (0028,0004): MONOCHROME1 or MONOCHROME2."""
        return str(self.dataset.PhotometricInterpretation)


def read_mammogram(path: Path, decoder: str = "cpu") -> Mammogram:
    """Decode the stored pixel values of a 2D mammogram; no LUT, window or inversion is applied.

    A stored value is the BitsStored (0028,0101) bits of a sample up to HighBit (0028,0102), signed where
    PixelRepresentation (0028,0103) says so; what lies in the other bits (overlays of old files) is dropped.

    Args:
        path: DICOM file.
        decoder: cpu, or gpu for JPEG 2000 through nvImageCodec.

    Raises:
        RejectedInput: not_dicom, unreadable_header, no_pixel_data, multi_frame, too_large or undecodable.
        ConfigError: if there is no GPU or nvImageCodec where they are asked for.
    """
    with rejecting("unreadable_header", "the header cannot be parsed"):
        dataset = pydicom.dcmread(path)
        num_frames = int(dataset.get("NumberOfFrames") or 1)
        photometric = dataset.get("PhotometricInterpretation")
        syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset:
        raise RejectedInput("no_pixel_data", "the file has no pixel data")
    if num_frames > 1:
        raise RejectedInput("multi_frame", "one 2D image was expected, the file has several frames")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RejectedInput("undecodable", "the photometric interpretation should be MONOCHROME1 or MONOCHROME2")
    with rejecting("undecodable", f"the pixel data ({syntax.name}) cannot be decoded"):
        check_size(int(dataset.Rows), int(dataset.Columns))
        if dataset["PixelData"].is_undefined_length and not syntax.is_encapsulated:
            raise ValueError("the pixel data are fragments, which this transfer syntax has not")
        if syntax in _CODECS:
            pixels = _decode_frame(dataset, decoder)
        else:
            pixels = (_view if syntax in _UNCOMPRESSED else _decode_with_pydicom)(dataset)
    if pixels.ndim != 2:
        raise RejectedInput("multi_frame", f"one grey 2D image was expected, found an array of shape {pixels.shape}")
    del dataset.PixelData
    return Mammogram(pixels, dataset)


def _view(dataset: pydicom.Dataset) -> Pixels:
    """Return uncompressed little-endian samples where the file's bytes lie: no pixel is copied."""
    bits, kind = int(dataset.BitsAllocated), "i" if dataset.PixelRepresentation else "u"
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if bits not in (8, 16, 32) or int(dataset.get("SamplesPerPixel", 1)) != 1 or rows * columns == 0:
        raise ValueError("one sample of 8, 16 or 32 bits a pixel was expected")
    samples = np.frombuffer(dataset.PixelData, f"<{kind}{bits // 8}", rows * columns)
    return _stored_bits(samples.reshape(rows, columns), dataset)


def _decode_with_pydicom(dataset: pydicom.Dataset) -> Pixels:
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    options: Any = {"correct_unused_bits": False}  # pydicom's correction takes the lowest bits, wherever HighBit is
    native = np.asarray(decoder.as_array(dataset, raw=True, index=0, **options)[0])
    return _stored_bits(native.astype(native.dtype.newbyteorder("="), copy=False), dataset)


def _decode_frame(dataset: pydicom.Dataset, decoder: str) -> Pixels:
    codec = _CODECS[dataset.file_meta.TransferSyntaxUID]
    decode = gpu_decoder() if decoder == "gpu" and codec is _JPEG_2000 else codec.decode
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    found = codec.read(frame)
    if (found.rows, found.columns, found.components) != (int(dataset.Rows), int(dataset.Columns), 1):
        raise ValueError("the codestream has another size than the header")
    pixels = decode(codec.whole(frame))
    if pixels.shape != (found.rows, found.columns):
        raise ValueError("the codec gave another size than the codestream")
    return _as_represented(pixels, found, signed=bool(dataset.PixelRepresentation))


def _as_represented(pixels: Pixels, codestream: Codestream, signed: bool) -> Pixels:
    """Read the bits of a decoded sample as PixelRepresentation has it: JPEG codes two's complement as if unsigned."""
    if signed == (pixels.dtype.kind == "i"):
        return pixels
    width = pixels.dtype.itemsize
    unused = 8 * width - codestream.precision
    shifted = pixels.view(f"u{width}") << unused
    return (shifted.view(f"i{width}") if signed else shifted) >> unused


def _stored_bits(pixels: Pixels, dataset: pydicom.Dataset) -> Pixels:
    """Return the values of the stored bits of uncompressed samples, without copying where every bit is stored."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high_bit = int(dataset.get("HighBit", stored - 1))
    if not 0 < stored <= high_bit + 1 <= allocated:
        raise ValueError("bits stored, high bit and bits allocated contradict each other")
    if stored == allocated or pixels.dtype.kind not in "iu":
        return pixels
    limit = 1 << (stored - (pixels.dtype.kind == "i"))
    fits = pixels.max(initial=0) < limit and (pixels.dtype.kind == "u" or pixels.min(initial=0) >= -limit)
    if high_bit == stored - 1 and fits:
        return pixels
    return (pixels << (allocated - 1 - high_bit)) >> (allocated - stored)
