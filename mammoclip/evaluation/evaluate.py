"""Stage ``evaluate``: predictions of every task and protocol, and their metrics with intervals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.artifacts import METRICS, PREDICTIONS
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.evaluation import metrics
from mammoclip.evaluation.classify import LinearProbe, permute_by_patient, zero_shot_scores
from mammoclip.evaluation.statistics import Interval, Metric, clustered_bootstrap

log = logging.getLogger(__name__)

NUM_CLASSES = {"mass": 2, "suspicious_calcification": 2, "density": 4}
_NUM_DIRECTIONS = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """Images of one split in one order: ids, patients, pooled features (N x F), embeddings (N x D), labels or None."""

    image_ids: list[str]
    patients: list[str]
    pooled: Floats
    embeddings: Floats
    labels: npt.NDArray[np.int64] | None


def select_examples(
    features: pl.DataFrame, images: pl.DataFrame, attributes: pl.DataFrame | None, task: str, split: str
) -> Examples:
    """Join features, images and labels of one task and split; without ``attributes`` the labels are None.

    What was read from reports is no ground truth: only labels of the data set's tables are used.

    Raises:
        ArtifactError: if an image has no features.
    """
    wanted = images.filter(pl.col("split") == split).select("image_id", "patient_id")
    chosen = wanted.join(features, on="image_id")
    if len(chosen) < len(wanted):
        raise ArtifactError(
            f"the features lack {len(wanted) - len(chosen)} of {len(wanted)} {split} images; "
            "delete features.parquet and rerun the evaluate stage"
        )
    if attributes is not None:
        stated = (pl.col("attribute") == task) & (pl.col("source") == "table")
        labels = attributes.filter(stated).select("image_id", "value")
        chosen = chosen.join(labels, on="image_id", how="inner")
    chosen = chosen.sort("image_id")
    return Examples(
        chosen["image_id"].to_list(),
        chosen["patient_id"].to_list(),
        np.array(chosen["pooled"].to_list(), np.float64),
        np.array(chosen["embedding"].to_list(), np.float64),
        None if attributes is None else chosen["value"].to_numpy().astype(np.int64),
    )


def predict_zero_shot(test: Examples, task: str, prompt_embeddings: Floats) -> pl.DataFrame:
    """Return the zero-shot rows of the ``predictions`` table.

    Raises:
        ArtifactError: if there is no image.
    """
    if not test.image_ids:
        raise ArtifactError(f"no test image can be scored for {task!r}; remove the task or check the tabulate stage")
    return _predictions(test, task, "zero-shot", zero_shot_scores(test.embeddings, prompt_embeddings))


def predict_zero_shot_random(test: Examples, task: str, *, seed: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of zero-shot's control: random unit vectors in place of the embeddings of the prompts.

    They show what chance is for these image embeddings. Where a finding stands out in them, any direction ranks the
    images by it a little, one way or the other, so a single value varies widely around 1/2; a model that has not
    connected images with text is such a direction.
    """
    rng = np.random.default_rng([seed, 5])
    for repeat in range(_NUM_DIRECTIONS):
        directions = rng.normal(size=(NUM_CLASSES[task], test.embeddings.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        yield _predictions(test, task, "zero-shot-random", zero_shot_scores(test.embeddings, directions), repeat)


def predict_probe(
    train: Examples, validation: Examples, test: Examples, task: str, section: EvaluateSection, *, seed: int
) -> Iterator[pl.DataFrame]:
    """Yield the rows of the linear probe, then of its control: fits on labels permuted over training patients.

    A single permutation says little: where the labels are easy to read from the features, its value varies widely
    around chance. So there are ``num_permutations`` of them, each with the strength that the probe itself chose.

    Raises:
        ArtifactError: if training and validation images do not share two classes at least.
    """
    if train.labels is None or validation.labels is None:
        raise ArtifactError(f"the probe of {task!r} needs labels; put the data set under evaluate.showcase instead")
    if len(set(train.labels) & set(validation.labels)) < 2:
        raise ArtifactError(
            f"the probe of {task!r} needs two classes at least that training and validation both have; "
            f"found {sorted(set(train.labels.tolist()))} and {sorted(set(validation.labels.tolist()))}"
        )
    held_out = (validation.pooled, validation.labels)
    probe = LinearProbe(section.probe_strengths).fit(train.pooled, train.labels, *held_out)
    yield _predictions(test, task, "probe", probe.scores(test.pooled, NUM_CLASSES[task]))
    for repeat in range(section.num_permutations):
        permuted = permute_by_patient(train.labels, train.patients, [seed, repeat])
        control = LinearProbe([probe.strength]).fit(train.pooled, permuted, *held_out)
        scores = control.scores(test.pooled, NUM_CLASSES[task])
        yield _predictions(test, task, "probe-shuffled", scores, repeat)


def compute_metrics(
    predictions: pl.DataFrame, run: str, dataset: str, section: EvaluateSection, seed: int
) -> pl.DataFrame:
    """Return the ``metrics`` table: every metric of each task and protocol, with intervals.

    Intervals are patient-clustered bootstrap intervals; of the controls that are repeated (zero-shot-random,
    probe-shuffled), mean and quantiles over the repeats.
    """
    rows: list[dict[str, object]] = []
    for (task, protocol), group in predictions.group_by("task", "protocol", maintain_order=True):
        repeats = [repeat for _, repeat in group.group_by("repeat", maintain_order=True)]
        labels = repeats[0]["label"].to_numpy().astype(np.int64)
        binary = NUM_CLASSES[str(task)] == 2
        for name, metric in (_BINARY if binary else _MULTICLASS).items():
            interval = _interval(metric, repeats, binary, section, seed)
            rows.append(
                {
                    "run": run,
                    "dataset": dataset,
                    "task": task,
                    "protocol": protocol,
                    "metric": name,
                    "value": interval.value,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "n": len(labels),
                    "n_positive": int(labels.sum()) if binary else None,
                    "num_patients": interval.num_clusters,
                    "level": "image",
                    "mode": "strict",
                }
            )
            log.info("evaluate %s/%s: %s %s %s %.3f", run, dataset, task, protocol, name, interval.value)
    return pl.DataFrame(rows, schema=METRICS.schema)


def _interval(
    metric: Metric, repeats: list[pl.DataFrame], binary: bool, section: EvaluateSection, seed: int
) -> Interval:
    """Return the bootstrap interval of one fit, or mean and quantiles over repeated fits; NaN where undefined."""
    labels = [repeat["label"].to_numpy().astype(np.int64) for repeat in repeats]
    scores = [np.array(repeat["scores"].to_list(), np.float64) for repeat in repeats]
    if binary:
        scores = [table[:, 1] for table in scores]
    patients = repeats[0]["patient_id"].to_numpy()
    if len(repeats) == 1:
        return clustered_bootstrap(
            metric,
            labels[0],
            scores[0],
            patients,
            num_resamples=section.num_resamples,
            confidence=section.confidence,
            seed=seed,
        )
    values = np.array(list(map(metric, labels, scores)))
    tail = (1 - section.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(np.unique(patients)))


def _predictions(test: Examples, task: str, protocol: str, scores: Floats, repeat: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": test.image_ids,
            "patient_id": test.patients,
            "task": [task] * len(test.image_ids),
            "protocol": [protocol] * len(test.image_ids),
            "repeat": [repeat] * len(test.image_ids),
            "label": [None] * len(test.image_ids) if test.labels is None else test.labels.tolist(),
            "scores": scores.tolist(),
        },
        schema=PREDICTIONS.schema,
    )


_BINARY: dict[str, Metric] = {"auroc": metrics.auroc, "auprc": metrics.auprc}
_MULTICLASS: dict[str, Metric] = {
    "macro_auroc": metrics.macro_auroc,
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "kappa": partial(metrics.cohen_kappa, quadratic=True),
}
