"""Predictions on frozen features: zero-shot, linear probe, and the control of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from mammoclip.errors import ArtifactError
from mammoclip.evaluation.classify import LinearProbe, mean_direction, permute_by_patient, zero_shot_scores
from mammoclip.evaluation.examples import Examples, Floats, Labels, predictions_frame, to_array

_NUM_DIRECTIONS = 100


def prompt_directions(prompts: pl.DataFrame, task: str) -> Floats:
    """Return the direction of each class, K x D: the mean of its prompts in the table ``prompts``.

    Raises:
        ArtifactError: the table has no such task, or two classes have the same direction.
    """
    of_task = prompts.filter(pl.col("task") == task).sort("class_index")
    classes = of_task.group_by("class_index", maintain_order=True)
    directions = np.array([mean_direction(to_array(rows["embedding"])) for _, rows in classes])
    if len(directions) < 2:
        raise ArtifactError(
            f"prompts.parquet has no prompts of the task {task!r}; delete it and rerun the evaluate stage"
        )
    if len(np.unique(directions, axis=0)) < len(directions):
        raise ArtifactError(f"two classes of {task!r} have the same embedding, so no image can tell them apart")
    return directions


def predict_zero_shot(
    parts: Mapping[str, Examples], task: str, directions: Floats, logit_scale: float = 1.0
) -> pl.DataFrame:
    """Return the zero-shot rows of the table ``predictions`` for the examples of each split.

    Raises:
        ArtifactError: there is no test image.
    """
    if not parts["test"].image_ids:
        raise ArtifactError(f"no test image can be scored for {task!r}; remove the task or check the tabulate stage")
    return pl.concat(
        _rows(part, split, zero_shot_scores(part.embeddings, directions, logit_scale), task, "zero-shot")
        for split, part in parts.items()
        if part.image_ids
    )


def random_zero_shot(test: Examples, num_classes: int, seed: int) -> Iterator[Floats]:
    """Yield the scores of zero-shot's control: random unit vectors in place of the directions of the classes.

    They show what chance is for these image embeddings. Where a finding stands out in them, any direction ranks the
    images by it a little, one way or the other, so a single value varies widely around 1/2; a model that has not
    connected images with text is such a direction.
    """
    rng = np.random.default_rng([seed, 5])
    for _ in range(_NUM_DIRECTIONS):
        directions = rng.normal(size=(num_classes, test.embeddings.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        yield zero_shot_scores(test.embeddings, directions)


def predict_probe(
    parts: Mapping[str, Examples],
    task: str,
    num_classes: int,
    strengths: Sequence[float],
    *,
    fraction: float,
    seed: int,
    num_permutations: int,
) -> pl.DataFrame:
    """Return the rows of the linear probe, and of its control: fits on labels permuted over training patients.

    A single permutation says little: where the labels are easy to read from the features, its value varies widely
    around chance. So there are ``num_permutations`` of them, each with the strength that the probe itself chose, tested
    on the test images alone.

    Args:
        parts: train, validation and test examples.
        task: name of the task.
        num_classes: K.
        strengths: inverse L2 strengths to choose from on validation.
        fraction: share of the training patients, for the table.
        seed: of the permutations, and for the table.
        num_permutations: fits of the control.

    Raises:
        ArtifactError: there are no labels, or training and validation images do not share two classes at least.
    """
    train, validation = parts["train"], parts["validation"]
    train_labels, held_out = _labels(train, task), (validation.pooled, _labels(validation, task))
    if len(set(train_labels) & set(held_out[1])) < 2:
        raise ArtifactError(
            f"the probe of {task!r} needs two classes at least that training and validation both have; "
            f"found {sorted(set(train_labels.tolist()))} and {sorted(set(held_out[1].tolist()))}"
        )
    probe = LinearProbe(strengths).fit(train.pooled, train_labels, *held_out)
    told = {"fraction": fraction, "seed": seed, "selected": probe.strength}
    rows = [
        _rows(parts[split], split, probe.scores(parts[split].pooled, num_classes), task, "linear-probe", **told)
        for split in ("validation", "test")
    ]
    for repeat in range(num_permutations):
        permuted = permute_by_patient(train_labels, train.patients, [seed, repeat])
        scores = (
            LinearProbe([probe.strength])
            .fit(train.pooled, permuted, *held_out)
            .scores(parts["test"].pooled, num_classes)
        )
        rows.append(_rows(parts["test"], "test", scores, task, "linear-probe-shuffled", repeat=repeat, **told))
    return pl.concat(rows)


def _labels(examples: Examples, task: str) -> Labels:
    if examples.labels is None:
        raise ArtifactError(f"the probe of {task!r} needs labels; put the data set under evaluate.showcase instead")
    return examples.labels


def _rows(part: Examples, split: str, scores: Floats, task: str, protocol: str, **told: Any) -> pl.DataFrame:
    return predictions_frame(
        part.image_ids, part.patients, split, part.labels, scores, task=task, protocol=protocol, **told
    )
