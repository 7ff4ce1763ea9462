"""Everything that the stage reads, loaded and checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mammoclip.artifacts import (
    ATTRIBUTES,
    ATTRIBUTIONS,
    BREASTS,
    CHOICES,
    DETECTIONS,
    FINDINGS,
    HEAT_MAPS,
    IMAGES,
    INDEX,
    LABELS,
    LOCALIZATION,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REJECTS,
    REPORTS,
    RETRIEVAL,
    STEPS,
    Table,
    read_table,
)
from mammoclip.config import FACTOR, Control, EvaluateSection, LocalizeSection, PaperSection, PretrainSection
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
    labels: pl.DataFrame
    reports: pl.DataFrame
    breasts: pl.DataFrame
    tabulate_rejects: pl.DataFrame


@dataclass(frozen=True)
class RunResults:
    """One pretraining run: its role and the tables of these names.

    ``predictions`` are by data set, of all evaluations of the run, and of repeated controls the first repeat; a data
    set that the run was not evaluated on has none; showcases have those of the main run alone. ``metrics`` and
    ``choices`` are of all data sets.

    ``localization`` is of all data sets. ``detections``, of detectors and of Mammo-FActOR with its baselines, and
    ``attributions`` and ``heat_maps`` are by data set, empty for one that nothing of the run localised on.
    """

    name: str
    control: Control
    steps: pl.DataFrame
    metrics: pl.DataFrame
    predictions: Mapping[str, pl.DataFrame]
    choices: pl.DataFrame
    retrieval: pl.DataFrame
    localization: pl.DataFrame = field(default_factory=LOCALIZATION.empty)
    detections: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    attributions: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    heat_maps: Mapping[str, pl.DataFrame] = field(default_factory=dict)


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

    @property
    def untrained(self) -> list[RunResults]:
        """The control runs that were never trained, for which all is shown that is shown for the main run."""
        return [run for run in self.runs[1:] if run.control == "untrained"]

    @property
    def is_compat(self) -> bool:
        """Whether any number was computed as released, so that tables have to say which."""
        return any("compat" in run.metrics["mode"] for run in self.runs)

    def num_classes(self, dataset: str, task: str) -> int | None:
        """Return the classes that a task has by the scores of any run, or None if none was evaluated on it."""
        for run in self.runs:
            scores = run.predictions[dataset].filter(task=task)["scores"]
            if len(scores):
                return len(scores[0])
        return None

    def binary_tasks(self, dataset: str, tasks: Iterable[str]) -> list[str]:
        """Return those of ``tasks`` that have two classes on a data set."""
        return [task for task in tasks if self.num_classes(dataset, task) == 2]


def principal(frame: pl.DataFrame, *over: str) -> pl.DataFrame:
    """Return the rows of one evaluation per group of ``over``: the largest fraction, of its seeds the lowest."""
    largest = frame.filter(pl.col("fraction") == pl.col("fraction").max().over(over))
    return largest.filter(pl.col("seed") == pl.col("seed").min().over(over))


def in_order(frame: pl.DataFrame, **orders: Sequence[str]) -> pl.DataFrame:
    """Return the rows sorted by columns whose values come in the given orders; others stay as they are."""
    places = [pl.col(name).replace_strict(list(values), range(len(values))) for name, values in orders.items()]
    return frame.sort(places, maintain_order=True)


def load_inputs(
    results: Path,
    datasets: Sequence[str],
    adapters: Mapping[str, str],
    *,
    paper: PaperSection,
    pretrain: PretrainSection,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
) -> Inputs:
    """Read every table that the report needs.

    Raises:
        ConfigError: the main run, or a data set of evaluation or localisation, is not among those given.
        ArtifactError: names the file that is missing or not what it should be.
    """
    if paper.main_run not in pretrain.runs:
        raise ConfigError(
            f"paper.main_run names {paper.main_run!r}, which is not under pretrain.runs: {', '.join(pretrain.runs)}"
        )
    evaluated = [*evaluate.datasets, *evaluate.showcase, *evaluate.retrieval]
    for section, names in (("evaluate", evaluated), ("localize", localize.datasets)):
        unknown = [name for name in names if name not in datasets]
        if unknown:
            raise ConfigError(f"{section} names the data set {unknown[0]!r}, which is not among {', '.join(datasets)}")
    reader = _Reader(results)
    tables = {
        name: _load_dataset(reader, name, ADAPTERS[adapters[name]].source if name in adapters else None)
        for name in datasets
    }
    ordered = [paper.main_run, *(name for name in pretrain.runs if name != paper.main_run)]
    runs = [
        _load_run(
            reader,
            name,
            pretrain.runs[name].control,
            evaluate,
            localize,
            evaluate.showcase if name == paper.main_run else [],
        )
        for name in ordered
    ]
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
            stage = Path(path).parts[0]
            raise ArtifactError(f"{self.results / path} does not exist; run the {stage} stage first")
        self.files.append(path)


def _load_dataset(reader: _Reader, name: str, source: Source | None) -> DatasetTables:
    tabulated = {
        table.name: reader.read(table, f"tabulate/{name}/{table.name}.parquet")
        for table in (IMAGES, FINDINGS, ATTRIBUTES, LABELS, REPORTS, BREASTS)
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


def _load_run(
    reader: _Reader,
    run: str,
    control: Control,
    evaluate: EvaluateSection,
    localize: LocalizeSection,
    showcase: Sequence[str],
) -> RunResults:
    folder = f"evaluate/{run}"
    cells = [(cell.dataset, cell.name) for cell in evaluate.evaluations([run]) if cell.run == run]
    shown = [(dataset, f"{task}/zero-shot") for dataset in showcase for task in evaluate.tasks]
    predictions = {name: [PREDICTIONS.empty()] for name in (*evaluate.datasets, *showcase)}
    for dataset, name in dict.fromkeys([*cells, *shown]):
        table = reader.read(PREDICTIONS, f"{folder}/{dataset}/{name}.parquet")
        predictions[dataset].append(table.filter(repeat=0))
    tested = dict.fromkeys(dataset for dataset, _ in cells)
    metrics = [reader.read(METRICS, f"{folder}/{name}/metrics.parquet") for name in tested]
    choices = [reader.read(CHOICES, f"{folder}/{name}/choices.parquet") for name in tested]
    for file in ("model.safetensors", "model_card.md"):
        reader.require(f"pretrain/{run}/{file}")
    return RunResults(
        name=run,
        control=control,
        steps=reader.read(STEPS, f"pretrain/{run}/metrics.parquet"),
        metrics=pl.concat([METRICS.empty(), *metrics]),
        predictions={name: pl.concat(tables) for name, tables in predictions.items()},
        choices=pl.concat([CHOICES.empty(), *choices]),
        retrieval=reader.read(RETRIEVAL, f"{folder}/retrieval.parquet") if evaluate.retrieval else RETRIEVAL.empty(),
        localization=_load_localization(reader, run, localize),
        **_load_localized(reader, run, localize),
    )


def _load_localization(reader: _Reader, run: str, localize: LocalizeSection) -> pl.DataFrame:
    localized = [*((cell.run, cell.dataset) for cell in localize.detectors([run])), *localize.factors([run])]
    datasets = dict.fromkeys(dataset for name, dataset in localized if name == run)
    tables = [reader.read(LOCALIZATION, f"localize/{run}/{name}/localization.parquet") for name in datasets]
    return pl.concat([LOCALIZATION.empty(), *tables])


def _load_localized(reader: _Reader, run: str, localize: LocalizeSection) -> dict[str, dict[str, pl.DataFrame]]:
    """Return detections, attributions and heat maps of a run, each by data set, with an empty one where none is."""
    tables = (DETECTIONS, ATTRIBUTIONS, HEAT_MAPS)
    found = {table.name: {dataset: table.empty() for dataset in localize.datasets} for table in tables}

    def add(table: Table, dataset: str, name: str) -> None:
        more = reader.read(table, f"localize/{run}/{dataset}/{name}.parquet")
        found[table.name][dataset] = pl.concat([found[table.name][dataset], more])

    for cell in localize.detectors([run]):
        if cell.run == run:
            add(DETECTIONS, cell.dataset, cell.name)
    for name, dataset in localize.factors([run]):
        if name == run:
            for table in tables:
                add(table, dataset, f"{FACTOR}/{table.name}")
            reader.require(f"localize/{run}/{dataset}/{FACTOR}/factor.safetensors")
    return found
