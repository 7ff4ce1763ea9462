"""VinDr-Mammo 1.0: ``images/<study_id>/<image_id>.dicom`` and two annotation tables.

Source: Nguyen et al., Scientific Data 2023. VinDr publishes no patient ids; one exam is one patient. It has no reports:
training text comes from prompts about its labels.
"""

from __future__ import annotations

import ast
from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.errors import DatasetError

FINDING_NAMES = {
    "Mass": "mass",
    "Suspicious Calcification": "suspicious_calcification",
    "Architectural Distortion": "architectural_distortion",
    "Asymmetry": "asymmetry",
    "Focal Asymmetry": "focal_asymmetry",
    "Global Asymmetry": "global_asymmetry",
    "Suspicious Lymph Node": "suspicious_lymph_node",
    "Nipple Retraction": "nipple_retraction",
    "Skin Retraction": "skin_retraction",
    "Skin Thickening": "skin_thickening",
}
_DENSITY = {"DENSITY A": 0, "DENSITY B": 1, "DENSITY C": 2, "DENSITY D": 3}
_SPLITS = {"training": "train"}
_IMAGE_COLUMNS = ["study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density", "split"]
_BOX = ["xmin", "ymin", "xmax", "ymax"]


class VinDr(base.Adapter):
    """Adapter of VinDr-Mammo."""

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the breast-level table by image id."""
        listed = self._images(root).with_columns(view=pl.col("view_position"), split=pl.col("split").replace(_SPLITS))
        return base.join_by_stem(root / "images", root, listed)

    def findings(self, root: Path) -> pl.DataFrame:
        """Return one row per finding category of each annotated box."""
        path = root / "finding_annotations.csv"
        frame = base.read_csv(path, ["image_id", "finding_categories", "finding_birads", *_BOX])
        return (
            frame.with_columns(
                *(_numbers(frame[name], path) for name in _BOX),
                finding=_parse_categories(frame["finding_categories"], path),
            )
            .explode("finding")
            .filter(pl.col("finding") != "No Finding")
            .select(
                "image_id",
                finding=_named(pl.col("finding")),
                birads=_birads(pl.col("finding_birads")),
                **dict(zip(list(base.FINDINGS)[3:], _BOX, strict=True)),
            )
            .cast(dict(base.FINDINGS.items()))
        )

    def attributes(self, root: Path) -> pl.DataFrame:
        """Return the ten findings (the union over an image's boxes), density (0-3) and BI-RADS per image."""
        images = self._images(root)
        positive = self.findings(root).select("image_id", "finding").unique()
        wide = images.select(
            "image_id",
            *(
                pl.col("image_id").is_in(positive.filter(pl.col("finding") == name)["image_id"].implode()).alias(name)
                for name in FINDING_NAMES.values()
            ),
            density=pl.col("breast_density").str.to_uppercase().replace_strict(_DENSITY, default=None),
            birads=_birads(pl.col("breast_birads")),
        )
        return (
            wide.with_columns(pl.exclude("image_id").cast(pl.Int32))
            .unpivot(index="image_id", variable_name="attribute", value_name="value")
            .drop_nulls("value")
            .cast(dict(base.ATTRIBUTES.items()))
        )

    def _images(self, root: Path) -> pl.DataFrame:
        frame = base.read_csv(root / "breast-level_annotations.csv", _IMAGE_COLUMNS)
        if "patient_id" not in frame.columns:
            frame = frame.with_columns(patient_id=pl.col("study_id"))
        return frame


def _birads(column: pl.Expr) -> pl.Expr:
    return column.str.extract(r"(\d)").cast(pl.Int32)


def _named(column: pl.Expr) -> pl.Expr:
    unknown = column.str.to_lowercase().str.replace_all(r"[^a-z0-9]+", "_")
    return column.replace_strict(FINDING_NAMES, default=unknown)


def _numbers(column: pl.Series, path: Path) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    wrong = column.filter(numbers.is_null() & column.is_not_null())
    if len(wrong):
        raise DatasetError(f"{path}: column {column.name!r} should hold numbers, found {wrong[0]!r}")
    return numbers


def _parse_categories(column: pl.Series, path: Path) -> pl.Series:
    rows: list[list[str]] = []
    for row, text in enumerate(column):
        try:
            value = ast.literal_eval(text or "[]")
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DatasetError(f"{path} row {row + 2}: finding_categories should be a list of names, found {text!r}")
        rows.append(value)
    return pl.Series("finding", rows, dtype=pl.List(pl.String))
