"""Stage ``evaluate``, its start: frozen features of one data set by one run.

Under torchrun the processes share the images, each on the GPU of its LOCAL_RANK, and the first one joins the parts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from mammoclip.artifacts import FEATURES, IMAGES, read_table, write_table
from mammoclip.data.reader import ShardReader
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.features import FeatureRecipe, FeatureStore, extract_features, weights_sha256
from mammoclip.models import load
from mammoclip.models.cpu_memory import keep_freed_memory
from pipelines.command import run_stage

_LONGEST_WAIT = timedelta(days=30)  # a process that dies is noticed at once; a slow one has the stage's time


def run(arguments: argparse.Namespace) -> None:
    """Write the features of every image."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    model = load(arguments.model, device=device)
    images = read_table(IMAGES, arguments.images)
    out: Path = arguments.out
    recipe = FeatureRecipe.of(model, weights_sha256(arguments.model), arguments.precision, arguments.flip)
    store = FeatureStore(arguments.work or out.with_name(f".{out.name}.work"), images, recipe)
    reader = ShardReader(images, arguments.shards, model.image_size_px)
    with _processes() as (rank, world_size):
        extract_features(
            model,
            store,
            reader.read,
            batch_size=arguments.batch_size,
            what=f"features {out.parent.parent.name}/{out.parent.name}",
            threads=arguments.threads,
            rank=rank,
            world_size=world_size,
        )
    reader.close()
    if rank == 0:
        write_table(store.table(), FEATURES, out)
        store.remove()


@contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Give (rank, number of processes), and wait at the end until all of them got there.

    Raises:
        ArtifactError: another process failed.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield 0, 1
        return
    # Not NCCL, which has no barrier that notices the end of a process; nothing but the barrier is sent.
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), world_size
        try:
            dist.monitored_barrier(timeout=_LONGEST_WAIT)
        except RuntimeError as error:
            raise ArtifactError(
                "another process of the stage failed, see its log; run the same command again: what was done is kept"
            ) from error
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp16", "fp32"], default="auto")
    parser.add_argument("--flip", action="store_true", help="mean of the features of image and mirror image")
    parser.add_argument("--work", type=Path, help="folder of this run and data set for what is done; default: by --out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
