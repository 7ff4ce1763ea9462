"""Everything that the stage reads, loaded and checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mammoclip.artifacts import (
    ATTRIBUTES,
    BREASTS,
    FINDINGS,
    IMAGES,
    INDEX,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REJECTS,
    REPORTS,
    STEPS,
    Table,
    read_table,
)
from mammoclip.config import Control, EvaluateSection, PaperSection, PretrainSection
from mammoclip.datasets import ADAPTERS
from mammoclip.datasets.base import Source
from mammoclip.errors import ArtifactError, ConfigError


@dataclass(frozen=True)
class DatasetTables:
    """The tables of one data set, and the folder of its shards; ``source`` is None when its adapter is not known."""

    name: str
    source: Source | None
    shards: Path
    index: pl.DataFrame
    index_rejects: pl.DataFrame
    manifest: pl.DataFrame
    shard_rejects: pl.DataFrame
    images: pl.DataFrame
    findings: pl.DataFrame
    attributes: pl.DataFrame
    reports: pl.DataFrame
    breasts: pl.DataFrame
    tabulate_rejects: pl.DataFrame


@dataclass(frozen=True)
class RunResults:
    """One pretraining run: its role, ``steps``, ``metrics`` of all data sets, and ``predictions`` by data set."""

    name: str
    control: Control
    steps: pl.DataFrame
    metrics: pl.DataFrame
    predictions: Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Inputs:
    """All data sets in the order given; the main run first, then the others in the order of the configuration.

    ``files`` are the files read, relative to ``results``, for the provenance.
    """

    results: Path
    datasets: Mapping[str, DatasetTables]
    runs: Sequence[RunResults]
    files: Sequence[str]

    @property
    def main(self) -> RunResults:
        """The run whose curves are drawn."""
        return self.runs[0]

    @property
    def controls(self) -> list[RunResults]:
        """The control runs."""
        return [run for run in self.runs if run.control != "none"]


def load_inputs(
    results: Path,
    datasets: Sequence[str],
    adapters: Mapping[str, str],
    *,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
) -> Inputs:
    """Read every table that the report needs.

    Raises:
        ConfigError: the main run or an evaluated data set is not among those given.
        ArtifactError: names the file that is missing or not what it should be.
    """
    if paper.main_run not in pretrain.runs:
        raise ConfigError(
            f"paper.main_run names {paper.main_run!r}, which is not under pretrain.runs: {', '.join(pretrain.runs)}"
        )
    evaluated = [*evaluate.datasets, *evaluate.showcase]
    unknown = [name for name in evaluated if name not in datasets]
    if unknown:
        raise ConfigError(f"evaluate names the data set {unknown[0]!r}, which is not among {', '.join(datasets)}")
    reader = _Reader(results)
    tables = {
        name: _load_dataset(reader, name, ADAPTERS[adapters[name]].source if name in adapters else None)
        for name in datasets
    }
    names = [paper.main_run, *(name for name in pretrain.runs if name != paper.main_run)]
    runs = [_load_run(reader, name, pretrain.runs[name].control, evaluate) for name in names]
    return Inputs(results, tables, runs, sorted(reader.files))


class _Reader:
    """Reads tables below one folder and remembers which."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.files: list[str] = []

    def read(self, table: Table, path: str) -> pl.DataFrame:
        self.files.append(path)
        return read_table(table, self.results / path)

    def require(self, path: str) -> None:
        if not (self.results / path).is_file():
            raise ArtifactError(f"{self.results / path} does not exist; run the pretrain stage first")
        self.files.append(path)


def _load_dataset(reader: _Reader, name: str, source: Source | None) -> DatasetTables:
    tabulated = {
        table.name: reader.read(table, f"tabulate/{name}/{table.name}.parquet")
        for table in (IMAGES, FINDINGS, ATTRIBUTES, REPORTS, BREASTS)
    }
    return DatasetTables(
        name=name,
        source=source,
        shards=reader.results / "shard" / name,
        index=reader.read(INDEX, f"index/{name}.parquet"),
        index_rejects=reader.read(REJECTS, f"index/{name}.rejects.parquet"),
        manifest=reader.read(MANIFEST, f"shard/{name}/manifest.parquet"),
        shard_rejects=reader.read(REJECTS, f"shard/{name}.rejects.parquet"),
        tabulate_rejects=reader.read(REJECTS, f"tabulate/{name}.rejects.parquet"),
        **tabulated,
    )


def _load_run(reader: _Reader, run: str, control: Control, evaluate: EvaluateSection) -> RunResults:
    folder = f"evaluate/{run}"
    datasets = (*evaluate.datasets, *evaluate.showcase)
    predictions = {name: reader.read(PREDICTIONS, f"{folder}/{name}/predictions.parquet") for name in datasets}
    metrics = [reader.read(METRICS, f"{folder}/{name}/metrics.parquet") for name in datasets]
    for file in ("model.safetensors", "model_card.md"):
        reader.require(f"pretrain/{run}/{file}")
    return RunResults(
        name=run,
        control=control,
        steps=reader.read(STEPS, f"pretrain/{run}/metrics.parquet"),
        metrics=pl.concat([METRICS.empty(), *metrics]),
        predictions=predictions,
    )
