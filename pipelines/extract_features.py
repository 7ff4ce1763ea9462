"""Stage ``evaluate``, its start: frozen features of one data set by one run."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mammoclip.artifacts import FEATURES, IMAGES, read_table, write_table
from mammoclip.data.reader import ShardReader
from mammoclip.evaluation.features import extract_features
from mammoclip.models import load
from mammoclip.models.cpu_memory import keep_freed_memory
from pipelines.command import run_stage


def run(arguments: argparse.Namespace) -> None:
    """Write the features of every image."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model = load(arguments.model, device="cuda" if torch.cuda.is_available() else "cpu")
    images = read_table(IMAGES, arguments.images)
    reader = ShardReader(images, arguments.shards, model.image_size_px)
    what = f"features {arguments.out.parent.parent.name}/{arguments.out.parent.name}"
    features = extract_features(model, images["image_id"].to_list(), reader.read, arguments.batch_size, what)
    reader.close()
    write_table(features, FEATURES, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
