"""From predictions to metrics: of images, breasts and exams, of subgroups and of controls, each with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.config import EvaluateSection
from mammoclip.evaluation import calibration, metrics
from mammoclip.evaluation.aggregation import Level, Pooling, aggregate
from mammoclip.evaluation.choices import Choices, choose
from mammoclip.evaluation.examples import Floats, to_array
from mammoclip.evaluation.groups import LESION_SIZE
from mammoclip.evaluation.statistics import Interval, Metric, clustered_bootstraps
from mammoclip.evaluation.subgroups import subgroup_metrics

Row = dict[str, Any]

BINARY: Mapping[str, Metric] = {
    "auroc": metrics.auroc,
    "auprc": metrics.auprc,
    "sensitivity_at_90_specificity": partial(metrics.sensitivity_at_specificity, specificity=0.9),
    "sensitivity_at_95_specificity": partial(metrics.sensitivity_at_specificity, specificity=0.95),
    "specificity_at_90_sensitivity": partial(metrics.specificity_at_sensitivity, sensitivity=0.9),
    "specificity_at_95_sensitivity": partial(metrics.specificity_at_sensitivity, sensitivity=0.95),
}
"""Metrics of the order of two classes' scores."""
MULTICLASS: Mapping[str, Metric] = {
    "macro_auroc": metrics.macro_auroc,
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "kappa": partial(metrics.cohen_kappa, quadratic=True),
}
"""Metrics of more than two classes."""
_PROBABILITIES: Mapping[str, Metric] = {
    "brier": calibration.brier_score,
    "ece": calibration.expected_calibration_error,
}
_LEVELS: tuple[tuple[Level, Pooling], ...] = (
    ("breast", "mean"),
    ("breast", "max"),
    ("exam", "mean"),
    ("exam", "max"),
)


@dataclass(frozen=True)
class Cases:
    """Test images, breasts or exams: labels (N,), probabilities (N x K) and patients (N,)."""

    labels: npt.NDArray[np.int64]
    probabilities: Floats
    patients: npt.NDArray[np.str_]

    @property
    def scores(self) -> Floats:
        """What metrics take: of two classes the positive one's (N,), of more all (N x K)."""
        return self.probabilities[:, 1] if self.probabilities.shape[1] == 2 else self.probabilities


def cases_of(predictions: pl.DataFrame) -> Cases:
    """Return the cases of labelled rows of one protocol and repeat."""
    return Cases(
        predictions["label"].to_numpy().astype(np.int64),
        to_array(predictions["scores"]),
        np.asarray(predictions["patient_id"].to_list()),
    )


def choices_of(predictions: pl.DataFrame) -> Choices:
    """Return what the validation rows of one evaluation choose; no other row is looked at."""
    validation = cases_of(predictions.filter(split="validation", repeat=0))
    return choose(validation.labels, validation.probabilities)


def summarise(
    predictions: pl.DataFrame, images: pl.DataFrame, groups: pl.DataFrame, section: EvaluateSection, seed: int
) -> Iterator[Row]:
    """Yield the rows of the table ``metrics``, without run and data set, of one evaluation's predictions.

    Args:
        predictions: rows of the table of this name, of one task, protocol, fraction and seed and of its control.
        images: table of this name, for the exam and the side of an image.
        groups: as of ``groups.subgroups_of``.
        section: resamples, confidence and mode.
        seed: of the resamples.
    """
    test = predictions.filter(split="test")
    for (protocol,), rows in test.group_by("protocol", maintain_order=True):
        told = {**rows.select("task", "protocol", "fraction", "seed").row(0, named=True), **of_images(section)}
        if rows["repeat"].n_unique() > 1:
            repeats = [cases_of(repeat) for _, repeat in rows.group_by("repeat", maintain_order=True)]
            first = repeats[0]
            yield from control_rows(told, first, (repeat.probabilities for repeat in repeats), section)
            continue
        choices = choices_of(predictions.filter(protocol=protocol))
        yield from _case_rows(told, cases_of(rows), choices, section, seed)
        placed = rows.join(images.select("image_id", "study_id", "laterality"), on="image_id")
        num_classes = len(rows["scores"][0])
        for level, pooling in _LEVELS:
            if pooling == "max" and num_classes > 2:
                continue
            cases = cases_of(aggregate(placed, level, pooling))
            yield from _case_rows({**told, "level": level, "pooling": pooling}, cases, choices, section, seed)
        if num_classes == 2:
            yield from _subgroup_rows(told, rows, groups, section, seed)


def of_images(section: EvaluateSection) -> Row:
    """Return the columns of ``metrics`` that say: all images, in the mode of the section."""
    return {"mode": section.mode, "level": "image", "pooling": "none", "subgroup": "all", "group": None}


def control_rows(told: Row, cases: Cases, repeats: Iterable[Floats], section: EvaluateSection) -> Iterator[Row]:
    """Yield the metrics of a control: mean and quantiles over its repeats, each N x K scores of the same cases."""
    tail = (1 - section.confidence) / 2
    scores = [Cases(cases.labels, repeat, cases.patients).scores for repeat in repeats]
    num_patients = len(np.unique(cases.patients))
    for name, metric in (BINARY if cases.probabilities.shape[1] == 2 else MULTICLASS).items():
        values = np.array([metric(cases.labels, repeat) for repeat in scores])
        low, high = np.quantile(values, [tail, 1 - tail])
        yield _row(told, name, Interval(float(values.mean()), float(low), float(high), num_patients), cases)


def majority_rows(told: Row, cases: Cases, section: EvaluateSection, seed: int) -> Iterator[Row]:
    """Yield the metrics of the majority baseline, for more than two classes."""
    baseline = metrics.majority_scores(cases.labels, cases.probabilities.shape[1])
    yield from _bootstrap(told, MULTICLASS, cases, baseline, section, seed)


def _case_rows(told: Row, cases: Cases, choices: Choices, section: EvaluateSection, seed: int) -> Iterator[Row]:
    two = cases.probabilities.shape[1] == 2
    yield from _bootstrap(told, BINARY if two else MULTICLASS, cases, cases.scores, section, seed)
    probabilities = {"": cases.probabilities, "_calibrated": choices.calibrate(cases.probabilities)}
    wanted = {**_PROBABILITIES, **({"pf1": metrics.probabilistic_f1} if two else {})}
    for suffix, values in probabilities.items():
        named = {name + suffix: metric for name, metric in wanted.items()}
        if values is None:
            yield from (_missing(told, name, cases, f"no temperature: {choices.why_no_temperature}") for name in named)
            continue
        scores = values[:, 1] if two else values
        yield from _bootstrap(told, named, cases, scores, section, seed)
    if two and choices.threshold is not None:
        called = (cases.scores >= choices.threshold).astype(np.int64)
        yield from _bootstrap(told, {"balanced_accuracy": metrics.balanced_accuracy}, cases, called, section, seed)
    elif two:
        yield _missing(told, "balanced_accuracy", cases, f"no threshold: {choices.why_no_threshold}")


def _subgroup_rows(
    told: Row, rows: pl.DataFrame, groups: pl.DataFrame, section: EvaluateSection, seed: int
) -> Iterator[Row]:
    cases = cases_of(rows)
    member = rows.select("image_id").join(groups, on="image_id", how="left", maintain_order="left")
    for subgroup in member.columns[1:]:
        table = subgroup_metrics(
            metrics.auroc,
            cases.labels,
            cases.scores,
            member[subgroup],
            cases.patients,
            all_negatives=subgroup == LESION_SIZE,
            num_resamples=section.num_resamples,
            confidence=section.confidence,
            seed=seed,
        )
        for group in table.iter_rows(named=True):
            yield {
                **told,
                "subgroup": subgroup,
                "group": group["group"],
                "metric": "auroc",
                **{name: group[name] for name in ("value", "ci_low", "ci_high", "n_positive", "reason")},
                "n": group["n_positive"] + group["n_negative"],
                "num_patients": group["num_clusters"],
            }


def _bootstrap(
    told: Row, wanted: Mapping[str, Metric], cases: Cases, scores: npt.NDArray[Any], section: EvaluateSection, seed: int
) -> Iterator[Row]:
    intervals = clustered_bootstraps(
        wanted,
        cases.labels,
        scores,
        cases.patients,
        num_resamples=section.num_resamples,
        confidence=section.confidence,
        seed=seed,
    )
    yield from (_row(told, name, interval, cases) for name, interval in intervals.items())


def _row(told: Row, metric: str, interval: Interval, cases: Cases) -> Row:
    if np.isnan(interval.value):
        present = set(cases.labels.tolist())
        absent = [str(number) for number in range(cases.probabilities.shape[1]) if number not in present]
        why = (
            f"no {told['level']} of class {' and '.join(absent)} is tested"
            if absent
            else "not defined for these scores"
        )
        return _missing(told, metric, cases, why)
    bounds = {"ci_low": interval.low, "ci_high": interval.high}
    return {
        **_missing(told, metric, cases, ""),
        "value": interval.value,
        **{name: None if np.isnan(bound) else bound for name, bound in bounds.items()},
        "reason": None,
    }


def _missing(told: Row, metric: str, cases: Cases, reason: str) -> Row:
    two = cases.probabilities.shape[1] == 2
    return {
        **told,
        "metric": metric,
        "value": None,
        "ci_low": None,
        "ci_high": None,
        "n": len(cases.labels),
        "n_positive": int(cases.labels.sum()) if two else None,
        "num_patients": len(np.unique(cases.patients)),
        "reason": reason,
    }
