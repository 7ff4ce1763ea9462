"""Which of the images that a data set lists can be used, and why the others cannot."""

from __future__ import annotations

import polars as pl

from mammoclip.datasets.base import SAFE_ID

_IDS = ("patient_id", "study_id", "image_id")
_REJECT = pl.Struct({"reason": pl.String, "detail": pl.String})


def check_listing(images: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut a list of images into those that can be used and the rejects (path, reason, detail), in the order given.

    Args:
        images: columns path, patient_id, study_id, image_id, laterality, view, and ``header_laterality``, the side that
            the DICOM header names (null: none, or not read). Without a path, the image_id stands for it.

    Rejected are images that the tables do not list, whose identifiers may not be part of a file name, without side or
    view, of which table and header name different sides, that the tables describe in contradictory ways, and further
    files of the same image.
    """
    described = pl.struct("image_id", "path")
    checks = [
        (pl.col("image_id").is_null(), "not_in_tables", "the data set's tables do not list this file"),
        *(
            (
                ~pl.col(key).str.contains(SAFE_ID).fill_null(False),
                "unsafe_id",
                f"{key} should be letters, digits and ._- only, and not empty",
            )
            for key in _IDS
        ),
        (
            pl.col("laterality").is_in(["L", "R"]) & (pl.col("laterality") != pl.col("header_laterality")),
            "laterality_conflict",
            "the tables name one side and the DICOM header the other; correct the one that is wrong",
        ),
        (
            ~pl.coalesce("laterality", "header_laterality").is_in(["L", "R"]).fill_null(False),
            "missing_laterality",
            "neither the tables nor the header say left or right",
        ),
        (
            pl.col("view").str.len_chars().fill_null(0) == 0,
            "missing_view",
            "neither the tables nor the header name the view",
        ),
        (
            described.is_duplicated() & pl.col("image_id").is_not_null(),
            "contradictory_rows",
            "rows of the tables with this image_id differ in patient, study, side, view, split or fold",
        ),
    ]
    reject = pl.coalesce(
        pl.when(wrong).then(pl.struct(reason=pl.lit(reason), detail=pl.lit(detail))) for wrong, reason, detail in checks
    )
    path = pl.coalesce("path", "image_id", pl.lit("an image without image_id"))
    checked = (
        images.unique(maintain_order=True)
        .with_columns(reject.cast(_REJECT).alias("reject"), shown=path)
        .with_row_index("order")
    )
    usable, rejected = checked.filter(pl.col("reject").is_null()), checked.filter(pl.col("reject").is_not_null())
    first = usable.with_columns(first=pl.col("shown").first().over("image_id"))
    again = first.filter(~pl.col("image_id").is_first_distinct())
    rejects = pl.concat(
        [
            rejected.select("order", path="shown", reason=_field("reason"), detail=_field("detail")).unique(
                ["path", "reason"], keep="first", maintain_order=True
            ),
            again.select(
                "order",
                path="shown",
                reason=pl.lit("duplicate_image"),
                detail=pl.format("the same image_id as {}", "first"),
            ),
        ]
    ).sort("order")
    kept = usable.filter(pl.col("image_id").is_first_distinct())
    return kept.drop("reject", "shown", "order"), rejects.drop("order")


def _field(name: str) -> pl.Expr:
    return pl.col("reject").struct.field(name)
