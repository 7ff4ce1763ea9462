"""Labels of images: what the tables and the reports say, contradictions settled or told.

Inside, labels are wide: image_id and a column per attribute, null where it is unknown. A data set of a million images
has ten times as many labels, and one row each would take ten times the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mammoclip.artifacts import FINDING_NAMES, LABELS, NO_FINDING
from mammoclip.datasets.base import BOX
from mammoclip.text import Mode

_UNIONS = [*FINDING_NAMES, NO_FINDING]


@dataclass(frozen=True)
class Settled:
    """One value per image and attribute, and the rejects (path, reason, detail).

    ``table`` and ``report`` are wide: what tables say, and what only reports say.
    """

    table: pl.DataFrame
    report: pl.DataFrame
    rejects: pl.DataFrame

    @property
    def attributes(self) -> pl.DataFrame:
        """One row per label: image_id, attribute, value, source (table or report), by attribute and image."""
        parts = [(self.table, "table"), (self.report, "report")]
        return pl.concat(_to_long(wide).with_columns(source=pl.lit(source)) for wide, source in parts)

    @property
    def labels(self) -> pl.DataFrame:
        """Both together, wide."""
        columns = dict.fromkeys([*self.table.columns, *self.report.columns])
        joined = self.table.join(self.report, on="image_id", how="full", coalesce=True, suffix="_report")
        return joined.select(
            pl.coalesce(name, f"{name}_report") if f"{name}_report" in joined.columns else name for name in columns
        )


def spread_over_images(breast_attributes: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Return labels of breasts as labels of their images: columns of ``datasets.base.ATTRIBUTES``.

    Args:
        breast_attributes: columns of ``datasets.base.BREAST_ATTRIBUTES``.
        images: columns image_id, patient_id, study_id, laterality.
    """
    joined = images.join(breast_attributes, on="patient_id", suffix="_said", maintain_order="left_right")
    of_image = [(pl.col(f"{key}_said") == pl.col(key)).fill_null(True) for key in ("study_id", "laterality")]
    return joined.filter(of_image).select("image_id", "attribute", "value")


def settle_attributes(
    attributes: pl.DataFrame,
    facts: pl.DataFrame,
    images: pl.DataFrame,
    searched: Mapping[str, pl.Series] | None = None,
) -> Settled:
    """Return one value per image and attribute.

    A finding that one row calls present and another absent is present: the union. Another attribute with several values
    (two densities) is unknown. "No finding" beside a finding is wrong. What a report says holds where no table says it.
    Every contradiction is told.

    Args:
        attributes: columns of ``datasets.base.ATTRIBUTES``.
        facts: what reports say, as in ``report_texts.ReadReports``.
        images: columns image_id, patient_id, study_id, laterality of all images.
        searched: as in ``datasets.base.Annotations``.
    """
    table, torn = _to_wide(attributes, images)
    table = _with_absences(table, searched or {})
    rejects = [_told(torn.filter(attribute), "image_id", detail) for attribute, detail in (
        (pl.col("attribute").is_in(_UNIONS), "{} is 1 in one row and 0 in another; 1 is used"),
        (~pl.col("attribute").is_in(_UNIONS), "{} has several values; it is left out"),
    )]  # fmt: skip
    if NO_FINDING in table.columns:
        findings = [name for name in FINDING_NAMES if name in table.columns]
        both = (pl.col(NO_FINDING) == 1) & pl.any_horizontal(pl.col(findings) == 1)
        wrong = table.filter(both).select("image_id", attribute=pl.lit(NO_FINDING))
        rejects.append(_told(wrong, "image_id", "{} beside a finding; the finding holds"))
        table = table.with_columns(pl.when(both).then(pl.lit(0, pl.Int32)).otherwise(NO_FINDING).alias(NO_FINDING))
    told = facts.join(
        images.select("image_id", "patient_id", "study_id", "laterality"),
        on=["patient_id", "study_id", "laterality"],
        maintain_order="left_right",
    )
    report, _ = _to_wide(told, images)
    known = _to_long(table.join(told.select("image_id").unique(), on="image_id", how="semi", maintain_order="left"))
    compared = told.join(known, on=["image_id", "attribute"], suffix="_table", maintain_order="left")
    against = compared.filter(pl.col("value") != pl.col("value_table"))
    detail = "the report says another {} than the tables; the tables hold"
    rejects.append(_told(against, "source", detail).unique(maintain_order=True))
    return Settled(table, _without(report, table), pl.concat(rejects))


def make_labels(images: pl.DataFrame, findings: pl.DataFrame, labels: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """Return the table ``labels``: a row per image (``strict``), or per row of a table of findings (``compat``).

    A compat row's findings are 1, all others 0, also those that another row of the same image has; density and the
    other labels are the image's.

    Args:
        images: the table ``images`` with ``given_split``, the data set's own.
        findings: columns of ``datasets.base.FINDINGS``, boxes already in pixels of the PNG.
        labels: wide, as of ``Settled.labels``.
        mode: see above; a data set without a table of findings has a row per image in both.
    """
    if mode == "strict" or findings.is_empty():
        return _complete(images.join(labels, on="image_id", how="left", maintain_order="left"))
    rows = findings.group_by("source", maintain_order=True).agg(
        pl.col("image_id").first(),
        *((pl.col("finding") == name).any().cast(pl.Int32).alias(name) for name in _UNIONS),
        pl.col("birads").first().alias("finding_birads"),
        *(pl.col(name).first() for name in BOX),
    )
    others = labels.drop(name for name in _UNIONS if name in labels.columns)
    joined = rows.join(images, on="image_id", maintain_order="left")
    return _complete(joined.join(others, on="image_id", how="left", maintain_order="left"))


def _complete(labels: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in LABELS.schema.items() if name not in labels.columns]
    return labels.with_columns(absent).select(list(LABELS.columns))


def _to_wide(attributes: pl.DataFrame, images: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the labels of ``images``, in their order, and the contradictions (image_id, attribute).

    Of contradictory values findings take the largest, other attributes none.
    """
    names = attributes["attribute"].unique().sort().to_list()
    # Numbers in place of names: grouping and pivoting ten million strings takes a minute.
    numbered = images.select("image_id").with_row_index("image")
    coded = attributes.join(numbered, on="image_id").select("image", pl.col("attribute").cast(pl.Enum(names)), "value")
    grouped = coded.group_by("image", "attribute").agg(pl.col("value").max(), least=pl.col("value").min())
    torn = grouped.filter(pl.col("value") != pl.col("least"))
    union = pl.col("attribute").cast(pl.String).is_in(_UNIONS)
    grouped = grouped.filter((pl.col("value") == pl.col("least")) | union)
    wide = grouped.pivot(on="attribute", on_columns=names, index="image", values="value").sort("image")
    found = torn.join(numbered, on="image").select("image_id", pl.col("attribute").cast(pl.String))
    every = numbered.join(wide, on="image", how="left", maintain_order="left").drop("image")
    return every, found.sort("image_id", "attribute")


def _with_absences(wide: pl.DataFrame, searched: Mapping[str, pl.Series]) -> pl.DataFrame:
    """Return ``wide`` with 0 where an attribute was looked for and no label speaks of it."""
    names: dict[int, list[str]] = {}
    for name, image_ids in searched.items():
        names.setdefault(id(image_ids), []).append(name)
    for group in names.values():
        seen = wide["image_id"].is_in(searched[group[0]].implode())
        known = [pl.col(name) if name in wide.columns else pl.lit(None, pl.Int32) for name in group]
        wide = wide.with_columns(
            pl.when(value.is_null() & seen).then(pl.lit(0, pl.Int32)).otherwise(value).alias(name)
            for name, value in zip(group, known, strict=True)
        )
    return wide


def _to_long(wide: pl.DataFrame) -> pl.DataFrame:
    long = wide.unpivot(index="image_id", variable_name="attribute", value_name="value").drop_nulls("value")
    return long.cast({"attribute": pl.String, "value": pl.Int32})


def _without(wide: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Return ``wide`` with null where ``other`` has a value."""
    shared = [name for name in wide.columns if name in other.columns and name != "image_id"]
    joined = wide.join(other, on="image_id", how="left", suffix="_other", maintain_order="left")
    return joined.with_columns(
        pl.when(pl.col(f"{name}_other").is_null()).then(pl.col(name)).alias(name) for name in shared
    ).select(wide.columns)


def _told(rows: pl.DataFrame, path: str, detail: str) -> pl.DataFrame:
    return rows.select(
        pl.col(path).alias("path"),
        pl.lit("contradictory_rows").alias("reason"),
        pl.format(detail, "attribute").alias("detail"),
    )
