"""Stage ``shard``, its end: one manifest and one table of rejects per data set, nothing lost."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mammoclip.artifacts import INDEX, MANIFEST, REJECTS, read_table, write_table
from mammoclip.data.shard import check_conservation
from pipelines.command import run_stage


def run(arguments: argparse.Namespace) -> None:
    """Join the tables of the shards and check that every indexed image is written or rejected."""
    manifest = pl.concat([read_table(MANIFEST, path) for path in arguments.manifests]).sort("image_id")
    rejects = pl.concat([read_table(REJECTS, path) for path in arguments.shard_rejects]).sort("path")
    check_conservation(read_table(INDEX, arguments.index), manifest, rejects)
    write_table(rejects, REJECTS, arguments.rejects)
    write_table(manifest, MANIFEST, arguments.manifest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--manifests", type=Path, nargs="+", required=True)
    parser.add_argument("--shard-rejects", type=Path, nargs="+", required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--rejects", type=Path, required=True)
    run_stage(parser, run)
