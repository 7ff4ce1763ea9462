"""Stage ``tabulate``: reports, labels, boxes and image-text pairs of one data set."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mammoclip.artifacts import ATTRIBUTES, BREASTS, FINDINGS, IMAGES, INDEX, MANIFEST, REPORTS, read_table, write_table
from mammoclip.config import Dataset, TabulateSection, resolve_source
from mammoclip.data.tabulate import RawTables, SplitFractions, tabulate_dataset
from mammoclip.datasets import ADAPTERS
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.tabulate")


def run(arguments: argparse.Namespace) -> None:
    """Write the five tables."""
    config = arguments.config
    adapter = ADAPTERS[arguments.dataset_config.adapter]()
    root = Path(resolve_source(arguments.dataset_config.root))
    raw = RawTables(
        index=read_table(INDEX, arguments.index),
        manifest=read_table(MANIFEST, arguments.manifest),
        findings=adapter.findings(root),
        attributes=adapter.attributes(root),
        reports=adapter.reports(root),
    )
    fractions = SplitFractions(config.validation_fraction, config.test_fraction, arguments.seed)
    tables = tabulate_dataset(raw, arguments.dataset, config.mode, fractions)
    log.info("tabulate %s: %s", arguments.dataset, ", ".join(f"{len(t)} {name}" for name, t in tables.items()))
    for table in (FINDINGS, ATTRIBUTES, REPORTS, BREASTS, IMAGES):
        write_table(tables[table.name], table, arguments.out / f"{table.name}.parquet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(TabulateSection), required=True)
    parser.add_argument("--dataset-config", type=section_argument(Dataset), required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
