"""Stage ``shard``, its page: what the images of a data set are, and its most unusual crops."""

from __future__ import annotations

import argparse
from pathlib import Path

from mammoclip.artifacts import INDEX, MANIFEST, REJECTS, read_table, write_text
from mammoclip.datasets import ADAPTERS
from mammoclip.paper.quality import describe_quality, render_quality
from mammoclip.paper.unusual import read_pictures
from pipelines.command import run_stage


def run(arguments: argparse.Namespace) -> None:
    """Write the quality page of one data set."""
    manifest = read_table(MANIFEST, arguments.manifest)
    quality = describe_quality(
        arguments.dataset,
        read_table(INDEX, arguments.index),
        read_table(REJECTS, arguments.index_rejects),
        manifest,
        read_table(REJECTS, arguments.shard_rejects),
    )
    pictures = read_pictures(quality.unusual, manifest, arguments.shards)
    source = ADAPTERS[arguments.adapter].source if arguments.adapter else None
    write_text(render_quality(quality, pictures, source), arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--adapter", default="", help="adapter of the data set, for the credits")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--index-rejects", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--shard-rejects", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True, help="folder of the tars")
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
