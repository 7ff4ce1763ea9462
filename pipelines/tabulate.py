"""Stage ``tabulate``: reports, labels, boxes and image-text pairs of one data set."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mammoclip.artifacts import INDEX, MANIFEST, REJECTS, TABULATED, read_table, write_table
from mammoclip.config import Dataset, TabulateSection, resolve_source
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import tabulate_dataset
from mammoclip.datasets import ADAPTERS
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.tabulate")


def run(arguments: argparse.Namespace) -> None:
    """Write the tables, the rejects first and the images last."""
    config = arguments.config
    adapter = ADAPTERS[arguments.dataset_config.adapter]()
    tabulated = tabulate_dataset(
        read_table(INDEX, arguments.index),
        read_table(MANIFEST, arguments.manifest),
        adapter.annotations(Path(resolve_source(arguments.dataset_config.root))),
        arguments.dataset,
        config.mode,
        SplitFractions(config.validation_fraction, config.test_fraction, arguments.seed),
        stratify_by=config.stratify_by,
        processes=arguments.threads,
    )
    log.info("tabulate %s: %s", arguments.dataset, tabulated.summary)
    write_table(tabulated.rejects, REJECTS, arguments.rejects)
    for table in TABULATED:
        write_table(tabulated.tables[table.name], table, arguments.out / f"{table.name}.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(TabulateSection), required=True)
    parser.add_argument("--dataset-config", type=section_argument(Dataset), required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--rejects", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
