"""Breasts: the images, texts and labels of a patient's left or right side, as training reads them."""

from __future__ import annotations

import polars as pl

from mammoclip.artifacts import BREASTS, FINDING_NAMES, NO_FINDING
from mammoclip.text import Mode

VIEWS = ("cc", "mlo")
_KEYS = ["dataset", "patient_id", "laterality", "split"]
_OTHERS = ("malignancy", "implant")
"""Labels beside the ten findings that prompts can speak of; the released code does not."""
_GRADES = ("density", "birads")


def make_breasts(
    images: pl.DataFrame, partial: pl.DataFrame, labels: pl.DataFrame, sections: pl.DataFrame, mode: Mode
) -> pl.DataFrame:
    """Return the table ``breasts``: one row per patient and side, over all exams.

    A finding is present in a view when a label calls it present in an image of the view, and absent when labels call it
    absent in all. "No finding" silences all that is absent (paper: attribute data). ``compat`` knows the ten findings;
    ``strict`` adds malignancy, implant, density and BI-RADS.

    Args:
        images: the table ``images``.
        partial: image_id of magnification and spot views, which are no half of a CC and MLO pair.
        labels: what tables say of the images, wide (``labels.Settled.table``).
        sections: the table ``reports``.
        mode: see above.
    """
    full_field = images.join(partial, on="image_id", how="anti", maintain_order="left")
    pairs = full_field.group_by(_KEYS).agg(
        pl.col("image_id").filter(pl.col("view") == view.upper()).sort().alias(f"{view}_image_ids") for view in VIEWS
    )
    # The names of the sections are in the order of a report; the order within each stays.
    texts = (
        sections.sort("section", maintain_order=True)
        .group_by("patient_id", "laterality", maintain_order=True)
        .agg(texts=pl.col("sentences").unique(maintain_order=True))
    )
    said = _view_labels(full_field, labels, mode)
    breasts = pairs.join(texts, on=["patient_id", "laterality"], how="left")
    for view in VIEWS:
        of_view = said.filter(view=view.upper()).select("patient_id", "laterality", "positives", "negatives")
        of_view = of_view.rename({name: f"{view}_{name}" for name in ("positives", "negatives")})
        breasts = breasts.join(of_view, on=["patient_id", "laterality"], how="left")
    breasts = breasts.join(_grades(full_field, labels, mode), on=["patient_id", "laterality"], how="left")
    lists = [name for name, dtype in BREASTS.schema.items() if isinstance(dtype, pl.List)]
    filled = breasts.with_columns(pl.col(name).fill_null(pl.lit([], BREASTS.schema[name])) for name in lists)
    return filled.select(list(BREASTS.columns)).sort("patient_id", "laterality")


def _view_labels(images: pl.DataFrame, labels: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """Return positives and negatives (lists of names) of each patient, side and view."""
    others = _OTHERS if mode == "strict" else ()
    names = [name for name in (*FINDING_NAMES, *others) if name in labels.columns]
    nothing = [NO_FINDING] if NO_FINDING in labels.columns else []
    keys = ["patient_id", "laterality", "view"]
    views = images.filter(pl.col("view").is_in([view.upper() for view in VIEWS])).select("image_id", *keys)
    known = views.join(labels.select("image_id", *names, *nothing), on="image_id")
    values = known.group_by(keys).agg(pl.col([*names, *nothing]).max())
    silent = pl.lit(False)
    if nothing:
        silent = (pl.col(NO_FINDING) == 1).fill_null(False) & ~pl.any_horizontal(pl.col(names) == 1).fill_null(False)
    return values.select(
        *keys,
        positives=pl.when(silent).then(pl.lit([NO_FINDING])).otherwise(_names_of(names, 1)),
        negatives=pl.when(silent).then(pl.lit([], pl.List(pl.String))).otherwise(_names_of(names, 0)),
    )


def _names_of(names: list[str], value: int) -> pl.Expr:
    """Return the list of those columns that hold ``value``."""
    if not names:
        return pl.lit([], pl.List(pl.String))
    return pl.concat_list(pl.when(pl.col(name) == value).then(pl.lit(name)) for name in names).list.drop_nulls()


def _grades(images: pl.DataFrame, labels: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """Return density and BI-RADS of each breast where its images agree."""
    keys = ["patient_id", "laterality"]
    known = images.select("image_id", *keys).join(labels, on="image_id")
    grades = [name for name in _GRADES if name in labels.columns and mode == "strict"]
    agreed = known.group_by(keys).agg(
        pl.when(pl.col(name).drop_nulls().n_unique() == 1).then(pl.col(name).max()).alias(name) for name in grades
    )
    return agreed.with_columns(pl.lit(None, pl.Int32).alias(name) for name in _GRADES if name not in grades)
