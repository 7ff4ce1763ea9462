"""Writes mammograms in every transfer syntax that an archive may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
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
    RLELossless,
)

from mammoclip.datasets.phantom.dicom_file import build_dataset
from mammoclip.datasets.phantom.exam import draw_exam

Encode = Callable[[np.ndarray, int], bytes]
"""Stored pixels and bits stored to a codestream."""
ALL_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax, the encoder of its frames (None: uncompressed) and what it can hold."""

    uid: UID
    encode: Encode | None = None
    depths: tuple[int, ...] = ALL_DEPTHS
    lossless: bool = True
    signed: bool = True


def as_unsigned(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return two's complement as JPEG and JPEG-LS code it: as if unsigned."""
    return pixels.view(f"u{pixels.itemsize}") & ((1 << bits) - 1)


def encode_jpeg(pixels: np.ndarray, bits: int, **options: Any) -> bytes:
    """Return a JPEG codestream: lossy with ``level``, lossless with ``lossless`` and ``predictor``."""
    return bytes(imagecodecs.jpeg8_encode(as_unsigned(pixels, bits), bitspersample=bits, **options))


def encode_jpeg_sv1(pixels: np.ndarray, bits: int) -> bytes:
    """Return a lossless JPEG codestream by another encoder than ``encode_jpeg``, with the first predictor."""
    return bytes(imagecodecs.ljpeg_encode(as_unsigned(pixels, bits), bitspersample=bits))


def encode_jpeg_ls(pixels: np.ndarray, bits: int, near: int = 0) -> bytes:
    """Return a JPEG-LS codestream of 8 or 16 bits: the encoder codes all bits of a container."""
    return bytes(imagecodecs.jpegls_encode(as_unsigned(pixels, 8 * pixels.itemsize), near))


def encode_jpeg_2000(pixels: np.ndarray, bits: int, **options: Any) -> bytes:
    """Return a JPEG 2000 codestream, signed as the pixels are."""
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=bits, **options))


def encode_htj2k(pixels: np.ndarray, bits: int, **options: Any) -> bytes:
    """Return an HTJ2K codestream, signed as the pixels are.

    The encoder codes all bits of a container. Fewer are had by saying so in SIZ afterwards: what is lost with them is
    the offset of unsigned values, or when lossy a factor of the step size.
    """
    unsigned, spare = pixels.dtype.kind == "u", 8 * pixels.itemsize - bits
    if not options["reversible"]:
        pixels = pixels << spare
    elif unsigned and spare:
        pixels = (pixels.astype(np.int32) - (1 << (bits - 1))).astype(f"i{pixels.itemsize}")
    frame = bytearray(imagecodecs.htj2k_encode(pixels, **options))
    frame[frame.index(b"\xff\x51") + 40] = bits - 1 | (0 if unsigned else 0x80)
    return bytes(frame)


def encode_rle(pixels: np.ndarray, bits: int) -> bytes:
    """Return an RLE frame, by pydicom's own encoder."""
    rows, columns = pixels.shape
    return bytes(
        get_encoder(RLELossless).encode(
            pixels.tobytes(),
            encoding_plugin="pydicom",
            rows=rows,
            columns=columns,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=8 * pixels.itemsize,
            bits_stored=8 * pixels.itemsize,
            pixel_representation=int(pixels.dtype.kind == "i"),
            photometric_interpretation="MONOCHROME2",
        )
    )


UNCOMPRESSED: Mapping[str, Syntax] = {
    "implicit": Syntax(ImplicitVRLittleEndian),
    "explicit": Syntax(ExplicitVRLittleEndian),
    "big_endian": Syntax(ExplicitVRBigEndian),
    "deflated": Syntax(DeflatedExplicitVRLittleEndian),
}
COMPRESSED: Mapping[str, Syntax] = {
    "rle": Syntax(RLELossless, encode_rle),
    "jpeg_baseline": Syntax(JPEGBaseline8Bit, partial(encode_jpeg, level=95), (8,), lossless=False, signed=False),
    "jpeg_extended": Syntax(JPEGExtended12Bit, partial(encode_jpeg, level=95), (8, 12), lossless=False, signed=False),
    "jpeg_sv1": Syntax(JPEGLosslessSV1, encode_jpeg_sv1),
    **{
        f"jpeg_lossless_{predictor}": Syntax(JPEGLossless, partial(encode_jpeg, lossless=True, predictor=predictor))
        for predictor in range(1, 8)
    },
    "jpeg_ls": Syntax(JPEGLSLossless, encode_jpeg_ls),
    "jpeg_ls_near": Syntax(JPEGLSNearLossless, partial(encode_jpeg_ls, near=2), lossless=False, signed=False),
    "jpeg_2000": Syntax(JPEG2000Lossless, partial(encode_jpeg_2000, reversible=True)),
    "jpeg_2000_lossy": Syntax(JPEG2000, partial(encode_jpeg_2000, level=60), lossless=False),
    "htj2k": Syntax(HTJ2KLossless, partial(encode_htj2k, reversible=True)),
    "htj2k_rpcl": Syntax(HTJ2KLosslessRPCL, partial(encode_htj2k, reversible=True, tlm=True, tilepart=1)),
    "htj2k_lossy": Syntax(HTJ2K, partial(encode_htj2k, reversible=False, level=0.001), lossless=False),
}
SYNTAXES: Mapping[str, Syntax] = {**UNCOMPRESSED, **COMPRESSED}


def encapsulated(dataset: Dataset, frame: bytes, uid: UID, fragments: int = 1) -> None:
    """Put a codestream into a data set."""
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid


def make_dataset(pixels: np.ndarray, syntax: Syntax, bits: int, **attributes: Any) -> Dataset:
    """Return the data set of a mammogram with these stored pixels; ``attributes`` replace or add to the header's."""
    exam = draw_exam(1, 0, rows_px=200, columns_px=128)
    patient = replace(exam.acquisition, bits_stored=bits, monochrome1=False, sigmoid=False)
    dataset = build_dataset(
        pixels, patient, exam.images[0].traits, patient_number=7, study_id="ab" * 16, image_id="image"
    )
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if syntax.encode is None:
        order = ">" if syntax.uid == ExplicitVRBigEndian else "<"
        content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 and syntax.uid != ImplicitVRLittleEndian else "OW"
        dataset.file_meta.TransferSyntaxUID = syntax.uid
    else:
        encapsulated(dataset, syntax.encode(pixels, bits), syntax.uid)
    dataset.update(attributes)
    return dataset


def write_mammogram(path: Path, pixels: np.ndarray, name: str, bits: int, **attributes: Any) -> Path:
    """Write a mammogram in a transfer syntax of ``SYNTAXES``."""
    make_dataset(pixels, SYNTAXES[name], bits, **attributes).save_as(path, enforce_file_format=True)
    return path
