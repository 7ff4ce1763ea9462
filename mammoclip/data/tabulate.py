"""Stage ``tabulate``: reports, labels, boxes and image-text pairs as the common tables."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from mammoclip.artifacts import ATTRIBUTES, FINDINGS, IMAGES, MANIFEST, REJECTS, REPORTS
from mammoclip.data.boxes import check_boxes, place_boxes
from mammoclip.data.breasts import make_breasts
from mammoclip.data.labels import make_labels, settle_attributes, spread_over_images
from mammoclip.data.report_texts import read_reports
from mammoclip.data.splits import SplitFractions, assign_splits, patient_strata
from mammoclip.datasets.base import BOX, NO_FINDING, Annotations
from mammoclip.text import Mode


@dataclass(frozen=True)
class Tabulated:
    """The tables images, findings, attributes, labels, reports and breasts by name, and what was left out."""

    tables: dict[str, pl.DataFrame]
    rejects: pl.DataFrame

    @property
    def summary(self) -> str:
        """How many rows each table has, and how many inputs were rejected for which reason."""
        rows = ", ".join(f"{len(table):,} {name}" for name, table in self.tables.items())
        reasons = ", ".join(
            f"{count:,} {reason}" for reason, count in self.rejects["reason"].value_counts(sort=True).rows()
        )
        return f"{rows}; rejected: {reasons or 'nothing'}"


def tabulate_dataset(
    index: pl.DataFrame,
    manifest: pl.DataFrame | None,
    annotations: Annotations,
    dataset: str,
    mode: Mode,
    fractions: SplitFractions,
    *,
    stratify_by: str | None = None,
    processes: int = 1,
) -> Tabulated:
    """Return the common tables of one data set.

    Args:
        index: the table ``index``, or what ``index.list_dataset`` makes of the data set's tables alone.
        manifest: the table ``manifest``; the images are those that were written. None: no image was converted yet, all
            indexed images are there, and boxes stay in stored pixels.
        annotations: what the data set's tables say.
        dataset: its name in the configuration.
        mode: ``strict``, or ``compat``: tables as the released code has them.
        fractions: splits where the data set gives none, and the validation part.
        stratify_by: an attribute whose values the splits keep in proportion.
        processes: worker processes; the result does not depend on it.

    Raises:
        DatasetError: if the data set puts a patient into several splits.
    """
    placed = (
        index.join(manifest, on="image_id")
        if manifest is not None
        else index.with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in MANIFEST.schema.items() if name != "image_id"
        )
    )
    strata = None if stratify_by is None else patient_strata(index, annotations, stratify_by)
    splits = assign_splits(index, fractions, strata)
    images = placed.drop("split").join(splits, on="patient_id").select(list(IMAGES.columns)).sort("image_id")
    sizes = index.select("image_id", "rows", "columns")
    given = index.select("image_id", given_split="split")
    findings, box_rejects = _place(annotations.findings, images.join(sizes, on="image_id"), mode)
    reports = read_reports(annotations.reports, images, mode, processes)
    of_breasts = spread_over_images(annotations.breast_attributes, images)
    stated = pl.concat([annotations.attributes, of_breasts])
    settled = settle_attributes(stated, reports.facts, images, annotations.searched)
    boxes = findings.filter(pl.col("finding") != NO_FINDING).drop_nulls(BOX)
    # A magnification or spot view shows part of a breast: it is an image, but no CC or MLO of a pair.
    partial = index.filter(pl.col("magnification") | pl.col("spot_compression"))
    named = {"dataset": pl.lit(dataset)}
    tables = {
        "images": images,
        "findings": boxes.with_columns(**named).select(list(FINDINGS.columns)).sort("image_id", "finding", *BOX),
        "attributes": settled.attributes.with_columns(**named).select(list(ATTRIBUTES.columns)),
        "labels": make_labels(images.join(given, on="image_id"), findings, settled.labels, mode),
        "reports": reports.sections.with_columns(**named).select(list(REPORTS.columns)),
        "breasts": make_breasts(images, partial, settled.table, reports.sections, mode),
    }
    if mode == "strict":
        tables["findings"] = tables["findings"].unique(maintain_order=True)
    rejects = pl.concat([annotations.rejected, box_rejects, reports.rejects, settled.rejects])
    rejects = rejects.with_columns(**named, stage=pl.lit("tabulate")).sort("path", "reason", maintain_order=True)
    return Tabulated(tables, rejects.select(pl.col(name).cast(dtype) for name, dtype in REJECTS.schema.items()))


def _place(findings: pl.DataFrame, images: pl.DataFrame, mode: Mode) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return all findings of the images in the order of their source, those with a box moved into the PNG.

    A box that cannot be used is null: the finding stays as a label.
    """
    columns = findings.columns
    here = findings.with_row_index("order").join(images, on="image_id", maintain_order="left")
    has_box = pl.all_horizontal(pl.col(BOX).is_not_null())
    boxed, impossible = check_boxes(here.filter(has_box), mode)
    moved, outside = place_boxes(boxed, mode)
    lost = here.join(moved.select("order"), on="order", how="anti").with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in BOX
    )
    return pl.concat([moved, lost]).sort("order").select(columns), pl.concat([impossible, outside])
