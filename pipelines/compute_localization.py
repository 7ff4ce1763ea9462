"""Stage ``localize``: metrics of detectors and of Mammo-FActOR, of one run on one data set."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import product
from pathlib import Path

import polars as pl

from mammoclip.artifacts import ATTRIBUTIONS, DETECTIONS, LOCALIZATION, Table, read_table, write_table
from mammoclip.config import FACTOR, LocalizeSection, findings_of
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.inputs import DatasetTables
from mammoclip.localization.boxed import boxed_images
from mammoclip.localization.protocols import BASELINES, SHUFFLED
from mammoclip.localization.summary import Cell, Row, summarise_attributions, summarise_detections
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.localize")

_HEADLINES = ("ap_50", "pointing_game")


def run(arguments: argparse.Namespace) -> None:
    """Write the table."""
    of_run = {"run": arguments.run, "dataset": arguments.dataset}
    frame = pl.DataFrame([of_run | row for row in _rows(arguments)], schema=LOCALIZATION.schema)
    write_table(frame, LOCALIZATION, arguments.out)
    for row in frame.filter(pl.col("metric").is_in(_HEADLINES), pl.col("lesion_size").is_null()).iter_rows(named=True):
        value = "n/a" if row["value"] is None else f"{row['value']:.3f}"
        target = "" if row["target"] == row["finding"] else f" ({row['target']})"
        told = f"{arguments.run}/{arguments.dataset}: {row['finding']}{target} {row['protocol']} {row['fraction']:g}"
        log.info("localize %s %s %s", told, row["metric"], value)


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    section: LocalizeSection = arguments.config
    tables = DatasetTables.read(arguments.results, arguments.dataset)
    named = (tables.images, tables.findings, tables.attributes, tables.labels)

    @cache
    def tested(target: str) -> pl.DataFrame:
        return boxed_images(*named, findings_of(target), section.mode, parts=()).filter(split="test")

    detected, attributed = _evaluations(arguments)
    for cell, rows in _of_cells(DETECTIONS, detected, asdict):
        yield from summarise_detections(rows, tested(cell.target), tables.findings, cell, section, arguments.seed)
    for cell, rows in _of_cells(ATTRIBUTIONS, attributed, _of_finding):
        yield from summarise_attributions(rows, tested(cell.target), tables.findings, cell, section, arguments.seed)


def _evaluations(arguments: argparse.Namespace) -> tuple[dict[Path, list[Cell]], dict[Path, list[Cell]]]:
    """Return what was evaluated, by file: a file of detections can be empty, and does not say it then."""
    detected: dict[Path, list[Cell]] = {}
    for target, protocol, fraction, seed, path in arguments.detections:
        detected.setdefault(Path(path), []).append(Cell(target, protocol, float(fraction), int(seed)))
    if not arguments.factor:
        return detected, {}
    boxes, shown = map(Path, arguments.factor)
    of_factor = list(product(arguments.config.factor.attributes, (FACTOR, *BASELINES)))
    detected[boxes] = [Cell(name, protocol, 1.0, arguments.seed) for name, protocol in of_factor]
    controlled = [(name, protocol + ending) for name, protocol in of_factor for ending in ("", SHUFFLED)]
    return detected, {shown: [Cell(name, protocol, 1.0, arguments.seed) for name, protocol in controlled]}


def _of_finding(cell: Cell) -> Row:
    return {"finding": cell.target, "protocol": cell.protocol}


def _of_cells(
    table: Table, files: Mapping[Path, Sequence[Cell]], columns_of: Callable[[Cell], Row]
) -> Iterator[tuple[Cell, pl.DataFrame]]:
    """Yield each cell and its rows, which are those that hold what ``columns_of`` the cell says."""
    for path, cells in files.items():
        frame = read_table(table, path)
        left = len(frame)
        for cell in cells:
            rows = frame.filter(**columns_of(cell))
            left -= len(rows)
            yield cell, rows
        if left:
            raise ArtifactError(
                f"{path} has {left} of {len(frame)} rows of other targets, protocols, fractions or seeds than asked "
                "for; delete it and rerun the localize stage"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(LocalizeSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument(
        "--detections",
        nargs=5,
        action="append",
        default=[],
        metavar=("TARGET", "PROTOCOL", "FRACTION", "SEED", "FILE"),
        help="a detector's boxes; once for each detector",
    )
    parser.add_argument(
        "--factor",
        nargs=2,
        type=Path,
        metavar=("DETECTIONS", "ATTRIBUTIONS"),
        help="what Mammo-FActOR and its baselines found, of the attributes of the configuration",
    )
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
