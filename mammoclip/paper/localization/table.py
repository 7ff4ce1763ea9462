"""What the runs found where: detectors, and Mammo-FActOR beside its baselines, with intervals.

Several seeds: the mean of the values, the lowest low and the highest high of their intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import polars as pl

from mammoclip.config import ALL_FINDINGS, FACTOR, DetectionProtocol, LocalizeSection
from mammoclip.config.data import FINDING_NAMES
from mammoclip.errors import ArtifactError
from mammoclip.localization.protocols import SHUFFLED, WITHOUT_MODEL
from mammoclip.paper.classification import summarise_seeds, with_roles
from mammoclip.paper.grid import Grid
from mammoclip.paper.inputs import Inputs, RunResults, in_order
from mammoclip.paper.wording import (
    LOCALIZATION_MEANINGS,
    LOCALIZATION_PROTOCOLS,
    NOT_AVAILABLE,
    explain_missing,
    finding_name,
    format_count,
    format_training,
    task_name,
)

_PRECISIONS: Mapping[str, str] = MappingProxyType({"ap_25": "AP@.25", "ap_50": "AP@.5"})
_SENSITIVITIES: Mapping[str, str] = MappingProxyType(
    {
        f"sensitivity_at_{rate}_fp": f"Sens. at {name} FP"
        for rate, name in (("0.25", "1/4"), ("0.5", "1/2"), ("1", "1"), ("2", "2"))
    }
)
_DETECTED = MappingProxyType({**_PRECISIONS, "coco_ap": "COCO AP", **_SENSITIVITIES})
_ATTRIBUTED = MappingProxyType(
    {
        "pointing_game": "Pointing game",
        "energy_inside": "Energy inside",
        "region_iou": "Region IoU",
        **_PRECISIONS,
    }
)
_DETECTORS: tuple[str, ...] = get_args(DetectionProtocol)
_ONLY_ONE = "-"  # in place of a run, where no run has a part
_COUNTS = ("num_images", "num_lesions", "num_patients")


class Line(NamedTuple):
    """What a row of a table is about; the protocol of a control ends in ``-shuffled``."""

    dataset: str
    finding: str
    protocol: str
    target: str
    fraction: float
    run: str

    @property
    def method(self) -> str:
        """The protocol, and what was trained together where it is not the finding alone."""
        return method_name(self.protocol, self.target)


def method_name(protocol: str, target: str) -> str:
    """Return the protocol, and what was trained together where it is not one finding alone.

    >>> method_name("detection-frozen", "all_findings"), method_name("detection-frozen", "mass")
    ('detection-frozen (all findings)', 'detection-frozen')
    """
    return f"{protocol} ({finding_name(target)})" if target == ALL_FINDINGS else protocol


def base_protocol(protocol: str) -> str:
    """Return the protocol that a control is one of.

    >>> base_protocol("grad-cam-shuffled"), base_protocol("grad-cam")
    ('grad-cam', 'grad-cam')
    """
    return protocol.removesuffix(SHUFFLED)


def localization_table(inputs: Inputs, localize: LocalizeSection) -> pl.DataFrame:
    """Return the rows of ``localization`` of every run, with the run's control, in the order of the tables.

    Raises:
        ArtifactError: a run lacks a detector of the matrix, or Mammo-FActOR.
    """
    for run in inputs.runs:
        _check_complete(run, localize)
    rows = with_roles(inputs, pl.concat([run.localization for run in inputs.runs]))
    others = sorted(set(rows["finding"]) - {*FINDING_NAMES})
    targets = sorted(set(rows["target"]), key=lambda target: (target == ALL_FINDINGS, target))
    return in_order(
        rows.sort("fraction", maintain_order=True),
        dataset=localize.datasets,
        finding=[*FINDING_NAMES, *others],
        protocol=LOCALIZATION_PROTOCOLS,
        target=targets,
        fraction=sorted(set(rows["fraction"])),
    )


def detection_table(inputs: Inputs, localize: LocalizeSection) -> pl.DataFrame:
    """Return those rows of `localization_table` that are of detectors."""
    return localization_table(inputs, localize).filter(_of(_DETECTORS))


def attribution_table(inputs: Inputs, localize: LocalizeSection) -> pl.DataFrame:
    """Return those rows of `localization_table` that are of Mammo-FActOR and its baselines."""
    return localization_table(inputs, localize).filter(_of(set(LOCALIZATION_MEANINGS) - {*_DETECTORS}))


def lesion_size_table(inputs: Inputs, localize: LocalizeSection) -> pl.DataFrame:
    """Return the rows of the main run's detectors that are of lesions of a size, of the largest fraction."""
    rows = localization_table(inputs, localize).filter(
        pl.col("lesion_size").is_not_null(), pl.col("protocol").is_in(_DETECTORS), run=inputs.main.name
    )
    over = ("dataset", "finding", "protocol", "target")
    return rows.filter(pl.col("fraction") == pl.col("fraction").max().over(over))


def detection_grid(inputs: Inputs, localize: LocalizeSection) -> Grid:
    """Return rows data set x finding x protocol x share of the training patients x run: precision and sensitivity.

    Controls whose true boxes are those of other patients are shown of the main run alone. In mode compat a column says
    so. A reason that several cells of a row share is given once.

    Raises:
        ArtifactError: as `localization_table`, or the runs were not tested on the same images.
    """
    table = detection_table(inputs, localize).filter(pl.col("lesion_size").is_null())
    modes = ["Mode"] if "compat" in table["mode"] else []
    rows = []
    for line, found in _lines(table, inputs, _DETECTED):
        labels = [*_names(line), line.method, format_training(line.fraction), line.run, *_mode(found, modes)]
        rows.append([*labels, *_cells(found, _DETECTED), *_counts(found, _COUNTS)])
    header = ["Data set", "Finding", "Protocol", "Train", "Run", *modes, *_DETECTED.values()]
    return Grid([*header, "Images", "Lesions", "Patients"], rows, num_labels=5 + len(modes), num_group=2)


def attribution_grid(inputs: Inputs, localize: LocalizeSection) -> Grid:
    """Return rows data set x finding x method x run: how well maps point, and average precision of their boxes.

    Controls whose true boxes are those of other patients are shown of the main run alone, and what no run has a part
    in once. In mode compat a column says so.

    Raises:
        ArtifactError: as `detection_grid`.
    """
    table = attribution_table(inputs, localize).filter(pl.col("lesion_size").is_null())
    modes = ["Mode"] if "compat" in table["mode"] else []
    rows = []
    for line, found in _lines(table, inputs, _ATTRIBUTED):
        run = _ONLY_ONE if base_protocol(line.protocol) in WITHOUT_MODEL else line.run
        labels = [*_names(line), line.method, run, *_mode(found, modes)]
        rows.append([*labels, *_cells(found, _ATTRIBUTED), *_counts(found, _COUNTS[1:])])
    header = ["Data set", "Finding", "Method", "Run", *modes, *_ATTRIBUTED.values()]
    return Grid([*header, "Lesions", "Patients"], rows, num_labels=4 + len(modes), num_group=2)


def lesion_size_grid(inputs: Inputs, localize: LocalizeSection) -> Grid:
    """Return rows data set x finding x protocol x size of the lesion: sensitivity of the main run.

    Of several shares of the training patients the largest. In mode compat a column says so.
    """
    table = lesion_size_table(inputs, localize)
    modes = ["Mode"] if "compat" in table["mode"] else []
    rows = []
    keys = [*Line._fields, "lesion_size"]
    for (*names, size), found in _groups(table, keys):
        line = Line._make(names)
        labels = [*_names(line), line.method, format_training(line.fraction), size, *_mode(found, modes)]
        rows.append([*labels, *_cells(found, _SENSITIVITIES), *_counts(found, _COUNTS[1:])])
    header = ["Data set", "Finding", "Protocol", "Train", "Size", *modes, *_SENSITIVITIES.values()]
    return Grid([*header, "Lesions", "Patients"], rows, num_labels=5 + len(modes), num_group=2)


def _of(protocols: Iterable[str]) -> pl.Expr:
    return pl.col("protocol").str.strip_suffix(SHUFFLED).is_in(list(protocols))


def _groups(table: pl.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return list(table.group_by(keys, maintain_order=True))


def _lines(table: pl.DataFrame, inputs: Inputs, metrics: Iterable[str]) -> list[tuple[Line, pl.DataFrame]]:
    """Return the lines that are shown, each with its rows."""
    lines: list[tuple[Line, pl.DataFrame]] = []
    for key, of_line in _groups(table.filter(pl.col("metric").is_in(list(metrics))), Line._fields[:-1]):
        by_run = {str(name): rows for (name,), rows in _groups(of_line, ["run"])}
        in_turn = [run.name for run in inputs.runs if run.name in by_run]
        counted = {by_run[name].sort("metric", "seed").select(_COUNTS).row(0) for name in in_turn}
        if len(counted) > 1:
            raise ArtifactError(
                f"the runs did not look for {finding_name(key[1])} in the same images of {key[0]!r} (images, lesions, "
                f"patients: {sorted(counted)}); rerun the localize stage for all runs"
            )
        if key[2] != base_protocol(key[2]):
            in_turn = [name for name in in_turn if name == inputs.main.name]
        if base_protocol(key[2]) in WITHOUT_MODEL:  # controls themselves, which need none of their own
            in_turn = in_turn[:1] if key[2] in WITHOUT_MODEL else []
        lines += [(Line._make([*key, name]), by_run[name]) for name in in_turn]
    return lines


def _names(line: Line) -> tuple[str, str]:
    return line.dataset, task_name(line.finding)


def _mode(found: pl.DataFrame, modes: Sequence[str]) -> list[str]:
    return [" and ".join(sorted(set(found["mode"])))] if modes else []


def _cells(found: pl.DataFrame, metrics: Iterable[str]) -> list[str]:
    """Return the cell of every metric of a line; a reason is not repeated in the cell that follows."""
    cells: list[str] = []
    told: str | None = None
    for metric in metrics:
        rows = found.filter(metric=metric).sort("seed")
        summary = summarise_seeds(rows)
        if summary.value is not None:
            cells.append(summary.text)
            continue
        reason = next(iter(rows["reason"].drop_nulls()), None)
        cells.append(explain_missing(reason) if reason != told else NOT_AVAILABLE)
        told = reason
    return cells


def _counts(found: pl.DataFrame, names: Iterable[str]) -> list[str]:
    return [format_count(found.sort("metric", "seed")[name][0]) for name in names]


def _check_complete(run: RunResults, localize: LocalizeSection) -> None:
    """Raise unless a run has rows of every detector that the matrix gives it, and of Mammo-FActOR."""
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        (
            cell.dataset,
            cell.name,
            {
                "protocol": cell.protocol,
                "target": cell.target,
                "fraction": float(f"{cell.fraction:g}"),  # as the file is named
                "seed": cell.seed,
            },
        )
        for cell in localize.detectors([run.name])
        if cell.run == run.name
    ]
    factors = [dataset for name, dataset in localize.factors([run.name]) if name == run.name]
    wanted += [(dataset, FACTOR, {"protocol": FACTOR}) for dataset in factors]
    for dataset, name, what in wanted:
        if run.localization.filter(dataset=dataset, **what).is_empty():
            raise ArtifactError(
                f"localize/{run.name}/{dataset}/localization.parquet has no row of {name}; rerun the localize stage"
            )
