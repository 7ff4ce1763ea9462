"""Which patients train, validate and test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from mammoclip.datasets.base import Annotations
from mammoclip.errors import DatasetError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitFractions:
    """Fractions of patients; ``test`` is used only where the data set gives neither split nor fold."""

    validation: float
    test: float
    seed: int


def assign_splits(images: pl.DataFrame, fractions: SplitFractions, strata: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the split of every patient: columns patient_id, split.

    A split that the data set gives stays, and a patient of its training part may become a validation patient. Where it
    gives folds instead, fold 0 is tested, as the paper does on RSNA, and the others train. The choice hashes seed and
    patient, so it does not depend on the order of patients, and adding patients moves no other.

    Args:
        images: columns patient_id, split (train, validation, test or null) and fold.
        fractions: how many patients to choose, and the seed.
        strata: columns patient_id and value; the fractions then hold within the patients of each value (null: unknown)
            to the patient. Adding patients may then move those whose hash lies nearest to the cut.

    Raises:
        DatasetError: the data set gives another split, or puts a patient into several.
    """
    known = pl.col("split").is_null() | pl.col("split").is_in(SPLITS)
    if len(odd := images.filter(~known)):
        raise DatasetError(
            f"the data set's table has the split {odd['split'][0]!r}; expected train, validation, test or nothing"
        )
    given = pl.coalesce(
        "split", pl.when(pl.col("fold") == 0).then(pl.lit("test")).when(pl.col("fold") > 0).then(pl.lit("train"))
    )
    patients = images.group_by("patient_id").agg(given=given.first(), num=given.n_unique()).sort("patient_id")
    mixed = patients.filter(pl.col("num") > 1)
    if len(mixed):
        raise DatasetError(
            f"the data set's table puts {len(mixed)} patients into several splits, such as "
            f"{mixed['patient_id'][0]!r}; correct it: a patient belongs to one split"
        )
    positions = [_position(patient, fractions.seed) for patient in patients["patient_id"]]
    patients = patients.with_columns(position=pl.Series(positions, dtype=pl.Float64))
    if strata is not None:
        patients = patients.join(strata, on="patient_id", how="left")
        rank = pl.col("position").rank("ordinal").over("given", "value")
        patients = patients.with_columns(position=(rank - 0.5) / pl.len().over("given", "value"))
    free = pl.col("given").is_null()
    tested = (pl.col("given") == "test") | (free & (pl.col("position") < fractions.test))
    left = pl.when(free).then((pl.col("position") - fractions.test) / max(1.0 - fractions.test, 1e-9))
    validated = (pl.col("given") == "validation") | (left.otherwise(pl.col("position")) < fractions.validation)
    split = (
        pl.when(tested.fill_null(False))
        .then(pl.lit("test"))
        .when(validated.fill_null(False))
        .then(pl.lit("validation"))
    )
    return patients.select("patient_id", split=split.otherwise(pl.lit("train")))


def patient_strata(images: pl.DataFrame, annotations: Annotations, attribute: str) -> pl.DataFrame:
    """Return each patient's largest value of an attribute: columns patient_id, value.

    Raises:
        DatasetError: no image and no breast has the attribute.
    """
    of_images = annotations.attributes.join(images, on="image_id").select("patient_id", "attribute", "value")
    of_breasts = annotations.breast_attributes.select("patient_id", "attribute", "value")
    values = pl.concat([of_images, of_breasts]).filter(pl.col("attribute") == attribute)
    if values.is_empty():
        raise DatasetError(f"tabulate.stratify_by is {attribute!r}, which no image has as an attribute")
    return values.group_by("patient_id").agg(pl.col("value").max())


def find_shared_patients(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the patients that several data sets name: columns patient_id, datasets, splits (lists, sorted).

    Args:
        tables: columns dataset, patient_id, split, of one data set each.
    """
    rows = pl.concat([table.select("dataset", "patient_id", "split").unique() for table in tables])
    grouped = rows.group_by("patient_id").agg(
        datasets=pl.col("dataset").unique().sort(), splits=pl.col("split").unique().sort()
    )
    return grouped.filter(pl.col("datasets").list.len() > 1).sort("patient_id")


def _position(patient_id: str, seed: int) -> float:
    """Return a number from 0 to 1 that is drawn once for a patient."""
    digest = hashlib.sha256(f"{seed}/{patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
