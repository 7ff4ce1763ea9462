"""Predictions of breasts and exams from those of their images.

A frame of predictions has the columns of the table ``predictions`` (``patient_id``, ``task``, ``protocol``, ``repeat``,
``label`` or null, ``scores`` as a list of one number per class) and, joined from ``images`` by ``image_id``, what the
level needs: ``study_id`` and, for breasts, ``laterality``. It holds tasks of one number of classes.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from mammoclip.errors import MammoClipError

Level = Literal["breast", "exam"]
"""A breast is one side of a patient in one exam; where a patient has one exam, as in VinDr-Mammo and RSNA, that is
patient x laterality. An exam is a study of a patient."""

Pooling = Literal["mean", "max"]

KEYS: dict[Level, tuple[str, ...]] = {
    "breast": ("patient_id", "study_id", "laterality"),
    "exam": ("patient_id", "study_id"),
}
"""The columns that name a breast or an exam."""

_APART = ("task", "protocol", "repeat")


def aggregate(predictions: pl.DataFrame, level: Level, pooling: Pooling) -> pl.DataFrame:
    """Return one row per breast or exam, task, protocol and repeat, sorted by these.

    The result is a frame of predictions too: breasts may be aggregated to exams, whose mean is then one of breasts,
    each counting once, however many images it has.

    ``mean`` averages the scores of each class, as RSNA's protocol does with the images of a breast. ``max`` takes the
    highest score of the positive class, the other being the rest to 1; it has no meaning for more than two classes.

    The label is the highest: a breast is positive if any of its images is. A missing label stays missing: where one is
    null the whole is, unless another already has the highest class, since the unknown one could be higher.

    Args:
        predictions: columns as the module says; others are dropped.
        level: what a row becomes.
        pooling: how scores are brought together.

    Returns:
        The columns of ``KEYS[level]``, ``task``, ``protocol``, ``repeat``, ``label`` and ``scores``.

    Raises:
        MammoClipError: a column is missing; a key is null; scores are not of one length, null or not finite; ``max``
            for more than two classes.

    Worked example: the left breast of two images, one of them positive.

    >>> images = pl.DataFrame({
    ...     "patient_id": ["p"] * 2, "study_id": ["s"] * 2, "laterality": ["L"] * 2, "task": ["mass"] * 2,
    ...     "protocol": ["probe"] * 2, "repeat": [0, 0], "label": [0, 1], "scores": [[0.75, 0.25], [0.25, 0.75]],
    ... })
    >>> aggregate(images, "breast", "mean").select("laterality", "label", "scores").row(0)
    ('L', 1, [0.5, 0.5])
    >>> aggregate(images, "exam", "max").select("label", "scores").row(0)
    (1, [0.25, 0.75])
    """
    keys = (*KEYS[level], *_APART)
    num_classes = _check(predictions, keys)
    if pooling == "max" and num_classes != 2:
        raise MammoClipError(
            f"The maximum of scores is for two classes, and there are {num_classes}; aggregate them by their mean."
        )
    highest = pl.col("label").max()
    unknown = pl.col("label").has_nulls() & (highest < num_classes - 1)
    classes = [f"class {number}" for number in range(num_classes)]
    pooled = [getattr(pl.col("scores").list.get(number), pooling)().alias(name) for number, name in enumerate(classes)]
    groups = predictions.group_by(keys).agg(pl.when(~unknown).then(highest).alias("label"), *pooled)
    if pooling == "max":
        groups = groups.with_columns((1 - pl.col("class 1")).alias("class 0"))
    return groups.select(*keys, "label", pl.concat_list(classes).alias("scores")).sort(keys)


def _check(predictions: pl.DataFrame, keys: tuple[str, ...]) -> int:
    """Return the number of classes, or raise."""
    for name in (*keys, "label", "scores"):
        if name not in predictions.columns:
            raise MammoClipError(f"The predictions lack the column {name!r}; join them with the table images.")
        if name != "label" and (num_null := predictions[name].null_count()):
            raise MammoClipError(f"{num_null} of {len(predictions)} predictions have no {name!r}.")
    lengths = predictions["scores"].list.len().unique().to_list()
    if len(lengths) != 1:
        raise MammoClipError(
            f"The predictions must be at least one, of one number of classes; found {lengths}: take one task at a time."
        )
    scores = predictions["scores"].explode()
    if num_bad := len(scores) - int(scores.is_finite().sum()):
        raise MammoClipError(f"{num_bad} of {len(scores)} scores are NaN, infinite or null; did the model diverge?")
    return int(lengths[0])
