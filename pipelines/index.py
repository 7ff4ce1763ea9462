"""Stage ``index``: read the header of every file of a data set."""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from mammoclip.artifacts import INDEX, REJECTS, write_table
from mammoclip.config import Dataset, resolve_source
from mammoclip.data.index import index_dataset
from mammoclip.datasets import ADAPTERS
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.index")


def run(arguments: argparse.Namespace) -> None:
    """Write the index and its rejects."""
    config = arguments.config
    root = Path(resolve_source(config.root))
    adapter = ADAPTERS[config.adapter]()
    indexed = index_dataset(adapter, root, arguments.dataset, config.split, arguments.threads, arguments.work)
    found = f"{indexed.num_found} files: {len(indexed.index)} indexed, {len(indexed.rejects)} rejected"
    log.info("index %s: %s", arguments.dataset, found)
    write_table(indexed.rejects, REJECTS, arguments.rejects)
    write_table(indexed.index, INDEX, arguments.index)
    shutil.rmtree(arguments.work, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(Dataset), required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--rejects", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for an interrupted stage to go on from")
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
