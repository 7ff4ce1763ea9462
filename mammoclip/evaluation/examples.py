"""What a task is evaluated on: labelled images of each split, samples of the training patients, and predictions.

N images, F pooled features, D embedding dimensions, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.artifacts import LABELS, PREDICTIONS
from mammoclip.config import Mode, TaskSection
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.text import zero_shot_prompts

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """Images of one split in one order: ids, patients, pooled features (N x F), embeddings (N x D), labels or None."""

    image_ids: list[str]
    patients: list[str]
    pooled: Floats
    embeddings: Floats
    labels: Labels | None


def num_classes(task: TaskSection, name: str) -> int:
    """Return K of the task called ``name``.

    Raises:
        ConfigError: neither the configuration nor the prompt grammar says.
    """
    for given in (task.values, task.prompts):
        if given is not None:
            return len(given)
    return len(zero_shot_prompts(task.attribute or name))


def labelled_images(
    images: pl.DataFrame, attributes: pl.DataFrame, labels: pl.DataFrame, task: TaskSection, name: str, mode: Mode
) -> pl.DataFrame:
    """Return the images with a label of the task: image_id, patient_id, split, label (the class, from 0).

    Strict: one row per image, labelled by the data set's tables; what was read from reports is no ground truth. Compat:
    a row per row of ``labels``, so that an image with several findings counts several times, and the data set's own
    split, or fold 0 tested and folds 1 and 2 trained on; no image is for validation.

    Args:
        images: table of this name.
        attributes: table of this name, strict.
        labels: table of this name, compat.
        task: its attribute and values.
        name: of the task, for errors, and as the attribute if the task names none.
        mode: strict or compat.

    Raises:
        ConfigError: compat has no such label.
        ArtifactError: no image has a label.
    """
    attribute = task.attribute or name
    if mode == "strict":
        stated = (pl.col("attribute") == attribute) & (pl.col("source") == "table")
        rows = images.select("image_id", "patient_id", "split").join(
            attributes.filter(stated).select("image_id", "value"), on="image_id"
        )
    else:
        if attribute not in LABELS.columns:
            raise ConfigError(f"evaluate.tasks.{name}: the table of labels has no {attribute!r}, which compat wants")
        rows = labels.select("image_id", "patient_id", split=released_split(), value=attribute).drop_nulls()
    values = task.values or list(range(num_classes(task, name)))
    classes = dict(zip(values, range(len(values)), strict=True))
    label = pl.col("value").replace_strict(classes, default=None, return_dtype=pl.Int32)
    rows = rows.select("image_id", "patient_id", "split", label=label).drop_nulls("label")
    if rows.is_empty():
        raise ArtifactError(
            f"no image has a label of {name!r} (attribute {attribute!r}, values {values}); correct evaluate.tasks, or "
            "leave the task out of the matrix for this data set"
        )
    return rows.sort("image_id", "label", maintain_order=True)


def released_split() -> pl.Expr:
    """Return the released split of the rows of the table ``labels``; null for what takes no part.

    It is the data set's own, else by its folds: 0 is tested, 1 and 2 are trained on. Where it has neither, our split,
    whose validation images are trained on.
    """
    by_fold = pl.col("fold").replace_strict({0: "test", 1: "train", 2: "train"}, default=None)
    own = pl.when(pl.col("fold").is_null()).then(pl.col("split").replace("validation", "train")).otherwise(by_fold)
    return pl.coalesce("given_split", own)


def take_fraction(rows: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """Return the rows of a share of the patients, a larger share holding every smaller one of the same seed.

    Of the patients of every class (the highest of their images) the same share is taken, rounded up: also 1 % has each.
    The choice hashes seed and patient, so it does not depend on the order of rows.

    Args:
        rows: columns patient_id and label.
        fraction: above 0, up to 1.
        seed: of the choice.
    """
    patients = rows.group_by("patient_id").agg(pl.col("label").max()).sort("patient_id")
    keys = [hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest() for patient in patients["patient_id"]]
    place = pl.col("key").rank("ordinal").over("label")
    taken = patients.with_columns(key=pl.Series(keys, dtype=pl.String)).filter(
        place <= (fraction * pl.len().over("label") - 1e-9).ceil()
    )
    return rows.filter(pl.col("patient_id").is_in(taken["patient_id"].implode()))


def with_features(features: pl.DataFrame, rows: pl.DataFrame) -> Examples:
    """Join rows of images (image_id, patient_id, label) with their features, in the order of the rows.

    Raises:
        ArtifactError: an image has no features, or a feature is not finite.
    """
    chosen = rows.join(features, on="image_id", how="left", maintain_order="left")
    if missing := chosen["pooled"].null_count():
        raise ArtifactError(
            f"the features lack {missing} of {len(chosen)} images, such as "
            f"{chosen.filter(pl.col('pooled').is_null())['image_id'][0]!r}; delete features.parquet and rerun the "
            "evaluate stage"
        )
    labels = chosen["label"]
    return Examples(
        chosen["image_id"].to_list(),
        chosen["patient_id"].to_list(),
        to_array(chosen["pooled"]),
        to_array(chosen["embedding"]),
        None if labels.null_count() else labels.to_numpy().astype(np.int64),
    )


def check_checkpoint(table: pl.DataFrame, model_sha256: str, path: Path) -> None:
    """Check that ``table``, read from ``path``, was computed by the checkpoint with these weights.

    Raises:
        ArtifactError: it has rows of another one.
    """
    if others := sorted(set(table["model_sha256"]) - {model_sha256}):
        raise ArtifactError(
            f"{path} was computed by another checkpoint (SHA-256 {others[0][:12]}..., the model's is "
            f"{model_sha256[:12]}...); delete it and rerun its stage"
        )


def to_array(lists: pl.Series) -> Floats:
    """Return a column of lists of one length as an array, rows x length.

    Raises:
        ArtifactError: a number is NaN or infinite.
    """
    width = int(lists.list.len()[0]) if len(lists) else 0
    array = lists.explode().drop_nulls().to_numpy().astype(np.float64).reshape(len(lists), width)
    if num_bad := int((~np.isfinite(array)).any(axis=1).sum()):
        raise ArtifactError(f"{num_bad} of {len(array)} rows of {lists.name!r} are NaN or infinite; did it diverge?")
    return array


def predictions_frame(
    image_ids: Sequence[str],
    patients: Sequence[str],
    split: str,
    labels: Labels | None,
    scores: Floats,
    *,
    task: str,
    protocol: str,
    fraction: float = 0.0,
    seed: int = 0,
    repeat: int = 0,
    selected: float | None = None,
) -> pl.DataFrame:
    """Return rows of the table ``predictions``; ``scores`` are probabilities, N x K."""
    of_all = {
        "split": split,
        "task": task,
        "protocol": protocol,
        "fraction": fraction,
        "seed": seed,
        "repeat": repeat,
        "selected": selected,
    }
    return pl.DataFrame(
        {
            "image_id": list(image_ids),
            "patient_id": list(patients),
            "label": [None] * len(image_ids) if labels is None else labels.tolist(),
            "scores": scores.tolist(),
        },
        schema_overrides=dict(PREDICTIONS.schema),
    ).select(
        pl.lit(of_all[name], dtype).alias(name) if name in of_all else pl.col(name).cast(dtype)
        for name, dtype in PREDICTIONS.schema.items()
    )
