"""Small cohorts with features, for the tests of predictions and metrics."""

from __future__ import annotations

import numpy as np
import polars as pl

from mammoclip.evaluation.examples import Examples, predictions_frame


def make_examples(seed: int, num_patients: int = 30, shift: float = 0.0, num_classes: int = 2) -> Examples:
    """Two images a patient, with the label of the patient; the first feature moves by ``shift`` per class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_patients) % num_classes).repeat(2)
    pooled = rng.normal(size=(len(labels), 5))
    pooled[:, 0] += shift * labels
    embeddings = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    patients = [f"p{seed}-{n // 2}" for n in range(len(labels))]
    return Examples([f"i{seed}-{n}" for n in range(len(labels))], patients, pooled, embeddings, labels)


def make_parts(shift: float = 0.0, num_classes: int = 2, seed: int = 0, num_patients: int = 30) -> dict[str, Examples]:
    splits = ("train", "validation", "test")
    return {
        split: make_examples(10 * seed + number, num_patients, shift, num_classes)
        for number, split in enumerate(splits)
    }


def make_predictions(
    num_classes: int = 2, task: str = "mass", protocol: str = "linear-probe", skill: float = 1.0, num_patients: int = 30
) -> pl.DataFrame:
    """Predictions of validation and test images that lean towards the label by ``skill``."""
    tables = []
    for number, split in enumerate(("validation", "test")):
        part = make_examples(number, num_patients, num_classes=num_classes)
        logits = np.random.default_rng(number).normal(size=(len(part.image_ids), num_classes))
        logits[np.arange(len(logits)), part.labels] += skill
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        options = {"task": task, "protocol": protocol, "fraction": 1.0}
        tables.append(predictions_frame(part.image_ids, part.patients, split, part.labels, scores, **options))
    return pl.concat(tables)


def images_of(predictions: pl.DataFrame) -> pl.DataFrame:
    """What the table ``images`` says of the images: one exam a patient, a side each."""
    ids = predictions.unique("image_id").select("image_id", "patient_id")
    is_left = pl.col("image_id").str.contains("[02468]$")
    side = pl.when(is_left).then(pl.lit("L")).otherwise(pl.lit("R"))
    return ids.with_columns(study_id=pl.col("patient_id") + "-s", laterality=side)


def no_groups() -> pl.DataFrame:
    return pl.DataFrame(schema={"image_id": pl.String})
