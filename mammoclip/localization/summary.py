"""From boxes and heat maps to metrics: of each finding, of lesions by size and of controls, each with its interval.

Boxes are held against true boxes image by image. Strict: in all tested images, so that boxes in those without the
finding are false positives. Compat, as released: in images with a box of the finding alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.config import LocalizeSection, findings_of
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.checks import FloatArray
from mammoclip.evaluation.groups import SIZE_EDGES
from mammoclip.evaluation.statistics import Interval
from mammoclip.evaluation.subgroups import size_bins
from mammoclip.localization.attribution_metrics import mean_over_images
from mammoclip.localization.boxed import CORNERS, other_patients, to_boxed_images, true_boxes
from mammoclip.localization.detection_metrics import (
    Detections,
    Truths,
    average_precision_intervals,
    images_with_truths,
    mean_average_precision_intervals,
)
from mammoclip.localization.froc import ALL, RATES, froc_table
from mammoclip.localization.protocols import SHUFFLED

Row = dict[str, Any]

FROC_IOU = 0.5
"""Intersection over union at which a box finds a lesion, for the sensitivities."""
PRECISIONS: Mapping[str, str] = {"ap_25": "AP@0.25", "ap_50": "AP@0.5", "coco_ap": "COCO AP"}
"""Metrics and their names in ``detection_metrics``."""
SENSITIVITIES: Mapping[str, float] = {f"sensitivity_at_{rate:g}_fp": rate for rate in RATES}
"""Metrics and the false positives per image that each allows."""
ATTRIBUTION_METRICS = ("pointing_game", "energy_inside", "region_iou")

_ONE_PATIENT = "boxes cannot be exchanged between patients: one patient alone has any"


@dataclass(frozen=True)
class Cell:
    """What is evaluated: that which was trained for ``target`` by ``protocol`` on a share of the training patients."""

    target: str
    protocol: str
    fraction: float
    seed: int


@dataclass(frozen=True)
class _Cohort:
    """What was found of one finding and what is true, the patients (I,) of the images and the sizes (T,) of lesions."""

    detections: Detections
    truths: Truths
    patients: npt.NDArray[np.str_]
    sizes: pl.Series

    def with_truths(self) -> _Cohort:
        """Return the images with a true box alone."""
        detections, truths, kept = images_with_truths(self.detections, self.truths)
        return replace(self, detections=detections, truths=truths, patients=self.patients[kept])

    def without_negatives(self) -> _Cohort:
        """Return the same images, but what was found in those without a true box left out."""
        kept = np.isin(self.detections.images, self.truths.images)
        return replace(self, detections=self.detections.at(kept))

    @property
    def counts(self) -> Row:
        """The columns that count."""
        num_images, num_lesions = self.truths.num_images, len(self.truths.images)
        return {"num_images": num_images, "num_lesions": num_lesions, "num_patients": len(np.unique(self.patients))}


def summarise_detections(
    detections: pl.DataFrame,
    tested: pl.DataFrame,
    findings: pl.DataFrame,
    cell: Cell,
    section: LocalizeSection,
    seed: int,
) -> Iterator[Row]:
    """Yield the rows of the table ``localization``, without run and data set, of what one detector found.

    Of each finding of the target average precision, and the sensitivity at IoU .5 of all lesions and by lesion size. Of
    several findings also the mean of the average precisions over those with a true box; ``finding`` is then the target.
    Controls, whose protocol ends in ``-shuffled``: the same boxes held against those of another patient's image, see
    ``boxed.other_patients``, scaled to the image; what a detector keeps of its precision, it owes to where findings
    usually are. What has no value is null with its reason.

    Args:
        detections: rows of the table of this name, all of the cell; none, if nothing was found.
        tested: image_id, patient_id, height_px and width_px of the tested images, without a box or with, in any order.
        findings: table of this name.
        cell: target, protocol, fraction and seed.
        section: mode, resamples and confidence.
        seed: of the resamples, and of the control.

    Raises:
        ArtifactError: a box is of an image that is not tested.
    """
    tested = tested.sort("image_id")
    if others := sorted({*detections["image_id"]} - {*tested["image_id"]}):
        raise ArtifactError(
            f"the detections of {cell.target} by {cell.protocol} have boxes in {len(others)} images that are not "
            f"tested, such as {others[0]!r}; delete them and rerun the localize stage"
        )
    compat = section.mode == "compat"
    names = findings_of(cell.target)
    cohorts = {name: _cohort(detections.filter(finding=name), tested, findings, name) for name in names}
    for name, cohort in cohorts.items():
        told = {"finding": name, **asdict(cell), "mode": section.mode}
        held = cohort.with_truths() if compat else cohort
        yield from _precision_rows(told, held, section, seed)
        yield from _sensitivity_rows(told, held, section, seed, by_size=True)
        control = {**told, "protocol": cell.protocol + SHUFFLED}
        shuffled = _shuffled(cohort, tested, findings, name, seed)
        held = shuffled.with_truths() if compat else shuffled
        why = _ONE_PATIENT if len(cohort.truths.images) and not len(held.truths.images) else None
        rows = [*_precision_rows(control, held, section, seed), *_sensitivity_rows(control, held, section, seed)]
        yield from (row | ({"reason": why} if why else {}) for row in rows if row["metric"] != "coco_ap")
    if len(names) > 1:
        told = {"finding": cell.target, **asdict(cell), "mode": section.mode}
        of_each = [each.without_negatives() if compat else each for each in cohorts.values()]
        yield from _mean_rows(told, of_each, section, seed)


def summarise_attributions(
    attributions: pl.DataFrame,
    tested: pl.DataFrame,
    findings: pl.DataFrame,
    cell: Cell,
    section: LocalizeSection,
    seed: int,
) -> Iterator[Row]:
    """Yield the rows of the table ``localization``, without run and data set, of one protocol's heat maps.

    Means over the tested images with a box of the finding. A control, whose protocol ends in ``-shuffled``, was held
    against the boxes of other patients when its rows were made; the lesions counted are those of the images themselves.

    Args:
        attributions: rows of the table of this name, all of the cell's finding and protocol.
        tested: image_id and patient_id of the tested images, in any order.
        findings: table of this name.
        cell: the finding as its target, and what is told of it.
        section: mode, resamples and confidence.
        seed: of the resamples.

    Raises:
        ArtifactError: an image with a box has no row.
    """
    name = cell.target
    boxes = findings.filter(finding=name).group_by("image_id").agg(num_boxes=pl.len())
    having = tested.select("image_id", "patient_id").join(boxes, on="image_id").sort("image_id")
    shown = having.join(attributions.select("image_id", *ATTRIBUTION_METRICS), on="image_id", how="left")
    shown = shown.sort("image_id")
    only_one = having["patient_id"].n_unique() == 1 and cell.protocol.endswith(SHUFFLED)
    if (lacking := shown["pointing_game"].null_count()) and not only_one:
        raise ArtifactError(
            f"the attributions of {name} by {cell.protocol} lack {lacking} of {len(having)} tested images with a box; "
            "delete them and rerun the localize stage"
        )
    patients = np.array(having["patient_id"].to_list(), np.str_)
    told = {
        **{"finding": name, **asdict(cell), "mode": section.mode, "num_images": len(having)},
        **{"num_lesions": int(having["num_boxes"].sum()), "num_patients": len(np.unique(patients))},
    }
    why = _ONE_PATIENT if len(having) and only_one else _no_box(name)
    for metric in ATTRIBUTION_METRICS:
        values = shown[metric].to_numpy().astype(np.float64)
        yield _row(told, metric, mean_over_images(values, patients, seed=seed, **_resamples(section)), why)


def _cohort(detections: pl.DataFrame, tested: pl.DataFrame, findings: pl.DataFrame, name: str) -> _Cohort:
    """Return boxes of one finding in images that are numbered as ``tested`` has them."""
    numbered = detections.join(tested.select("image_id").with_row_index("number"), on="image_id")
    found = Detections.of(
        numbered["number"].to_numpy().astype(np.int64),
        numbered.select(CORNERS).to_numpy(),
        numbered["score"].to_numpy(),
    )
    boxes = true_boxes(findings, tested["image_id"].to_list(), (name,)).boxes
    return _with_boxes(found, boxes, tested)


def _with_boxes(found: Detections, boxes: Sequence[FloatArray], tested: pl.DataFrame) -> _Cohort:
    images = np.repeat(np.arange(len(boxes)), np.array([len(each) for each in boxes], np.int64))
    corners = np.concatenate([np.zeros((0, 4)), *boxes])
    longer = (corners[:, 2:] - corners[:, :2]).max(axis=1, initial=0)
    sizes = size_bins((longer / tested["height_px"].to_numpy()[images]).tolist(), SIZE_EDGES)
    patients = np.array(tested["patient_id"].to_list(), np.str_)
    return _Cohort(found, Truths.of(images, corners, len(tested)), patients, sizes)


def _shuffled(cohort: _Cohort, tested: pl.DataFrame, findings: pl.DataFrame, name: str, seed: int) -> _Cohort:
    """Return the same detections with the true boxes of other patients' images; no box, if one patient has them all."""
    having = np.unique(cohort.truths.images)
    shares = to_boxed_images(tested, findings, (name,), (1, 1)).boxes
    boxes = [np.zeros((0, 4)) for _ in shares]
    sides = np.tile(tested.select("width_px", "height_px").to_numpy().astype(np.float64), 2)
    others = other_patients(cohort.patients[having].tolist(), seed)
    for image, other in zip(having, having[others], strict=False):
        boxes[image] = shares[other] * sides[image]
    return _with_boxes(cohort.detections, boxes, tested)


def _precision_rows(told: Row, cohort: _Cohort, section: LocalizeSection, seed: int) -> Iterator[Row]:
    told = told | cohort.counts
    if not told["num_lesions"]:
        yield from (_row(told, metric, None, _no_box(told["finding"])) for metric in PRECISIONS)
        return
    intervals = average_precision_intervals(
        cohort.detections, cohort.truths, cohort.patients, seed=seed, **_resamples(section)
    )
    yield from (_row(told, metric, intervals[name]) for metric, name in PRECISIONS.items())


def _sensitivity_rows(
    told: Row, cohort: _Cohort, section: LocalizeSection, seed: int, *, by_size: bool = False
) -> Iterator[Row]:
    told = told | cohort.counts
    if not told["num_lesions"]:
        yield from (_row(told, metric, None, _no_box(told["finding"])) for metric in SENSITIVITIES)
        return
    sizes = cohort.sizes if by_size else None
    table = froc_table(
        cohort.detections,
        cohort.truths,
        cohort.patients,
        FROC_IOU,
        list(SENSITIVITIES.values()),
        sizes,
        seed=seed,
        **_resamples(section),
    )
    for metric, rate in SENSITIVITIES.items():
        for group in table.filter(false_positives_per_image=rate).iter_rows(named=True):
            size = None if group["group"] == ALL else group["group"]
            numbers = {name: group[name] for name in ("ci_low", "ci_high", "num_lesions", "reason")}
            yield {**told, "lesion_size": size, "metric": metric, "value": group["sensitivity"], **numbers}


def _mean_rows(told: Row, cohorts: list[_Cohort], section: LocalizeSection, seed: int) -> Iterator[Row]:
    counts = cohorts[0].counts | {"num_lesions": sum(each.counts["num_lesions"] for each in cohorts)}
    intervals: Mapping[str, Interval] = {}
    if counts["num_lesions"]:
        of_each = [(each.detections, each.truths) for each in cohorts]
        intervals = mean_average_precision_intervals(of_each, cohorts[0].patients, seed=seed, **_resamples(section))
    yield from (
        _row(told | counts, metric, intervals.get(name), "no tested image has a box of any finding")
        for metric, name in PRECISIONS.items()
    )


def _row(told: Row, metric: str, interval: Interval | None, reason: str | None = None) -> Row:
    """Return a row; where there is no value, ``reason`` says why."""
    known = interval is not None and not np.isnan(interval.value)
    numbers = (interval.value, interval.low, interval.high) if interval is not None and known else (None,) * 3
    value, low, high = (None if number is None or np.isnan(number) else number for number in numbers)
    return {
        **{**told, "lesion_size": None, "metric": metric, "value": value, "ci_low": low, "ci_high": high},
        "reason": None if known else reason,
    }


def _resamples(section: LocalizeSection) -> Row:
    return {"num_resamples": section.num_resamples, "confidence": section.confidence}


def _no_box(name: str) -> str:
    return f"no tested image has a box of {name}"
