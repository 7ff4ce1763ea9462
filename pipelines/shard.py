"""Stage ``shard``: convert the images of one shard."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mammoclip.artifacts import INDEX, MANIFEST, REJECTS, read_table, write_table
from mammoclip.config import Dataset, ShardSection, resolve_source
from mammoclip.data.shard import select_shard, write_shard
from mammoclip.dicom import Recipe
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.shard")


def run(arguments: argparse.Namespace) -> None:
    """Write the tar, its manifest and its rejects."""
    config = arguments.config
    index = select_shard(read_table(INDEX, arguments.index), arguments.shard, config.num_shards)
    recipe = Recipe(
        grayscale=config.grayscale or config.mode,
        crop=config.mode,
        geometry=config.geometry,
        height_px=config.height_px,
        width_px=config.width_px,
        bits=config.bits,
        decoder=config.decoder,
    )
    root = Path(resolve_source(arguments.dataset_config.root))
    manifest, rejects = write_shard(
        index, root, arguments.dataset, arguments.tar, recipe, arguments.threads, config.time_limit_s
    )
    log.info("shard %s/%s: %d images, %d rejected", arguments.dataset, arguments.shard, len(manifest), len(rejects))
    write_table(rejects, REJECTS, arguments.rejects)
    write_table(manifest, MANIFEST, arguments.manifest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(ShardSection), required=True)
    parser.add_argument("--dataset-config", type=section_argument(Dataset), required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--tar", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--rejects", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
