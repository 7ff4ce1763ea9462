"""EMBED, open subset: ``tables/EMBED_OpenData_metadata.csv``, ``tables/EMBED_OpenData_clinical.csv`` and ``images/``.

The metadata have a row per image: empi_anon (patient), acc_anon (exam), anon_dicom_path, FinalImageType,
ImageLateralityFinal, ViewPosition, ROI_coords, and where present Rows, Columns and BreastImplantPresent. Images of the
types ``2D`` and ``cview`` (computed from a tomosynthesis) are mammograms; a file below ``images/`` belongs to the row
whose anon_dicom_path has its name. The clinical table has a row per finding: acc_anon, side (L, R, B or empty), asses
(N, B, P, S, M, A, K; X: no assessment), tissueden (1-4), path_severity (0 invasive ... 4 benign) and bside, the side of
the biopsy (L, R, B), massshape, calcfind, calcdistri, age_at_study.

- BI-RADS of a breast is its most urgent assessment; N alone (negative) is "no finding". A pathology of 0 or 1 is a
  malignancy, 4 alone is none, all others say nothing. It is of the side of the biopsy, else of the finding's one side.
- massshape G, R, O, X is a mass, A an architectural distortion, F a focal, B a global, S or V (developing) an
  asymmetry; Q (questioned), N and Y (lymph nodes) and T say nothing. calcfind and calcdistri are of a calcification,
  not always a suspicious one.
- ROI_coords are (y_min, x_min, y_max, x_max) and name no finding: they are boxes where all findings of the breast are
  of one kind, and rejects elsewhere. They are known to refer to a mirrored image at times (EMBED_Open_Data, issues 5,
  9), which nothing in the tables tells.

Get it from the AWS registry after signing the agreement, whose clause 5 forbids to release weights trained on EMBED.
Source: Jeong et al., Radiology: Artificial Intelligence 2023.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_ASSESSMENTS = {"A": 0, "N": 1, "B": 2, "P": 3, "S": 4, "M": 5, "K": 6}
_SHAPES = {
    **dict.fromkeys("GROX", "mass"),
    **dict.fromkeys("SV", "asymmetry"),
    "A": "architectural_distortion",
    "F": "focal_asymmetry",
    "B": "global_asymmetry",
}
_OPTIONAL = ("path_severity", "bside", "massshape", "calcfind", "calcdistri", "age_at_study")
_MAMMOGRAMS = ("2D", "cview")
_HAS_CALCIFICATION = pl.any_horizontal(pl.col("calcfind", "calcdistri").str.strip_chars().str.len_chars() > 0)
_KEYS = ["patient_id", "study_id", "laterality"]
_ROI = r"[(\[]\s*\d+(?:\s*,\s*\d+){3}\s*[)\]]"  # the tables use both kinds of brackets


class Embed(base.Adapter):
    """Adapter of the open EMBED data."""

    source = base.Source(
        title="EMBED open data",
        kind="real digital mammograms of EMBED",
        licence="EMBED data use agreement, non-commercial; clause 5 forbids to release weights trained on it",
        url="https://registry.opendata.aws/emory-breast-imaging-dataset-embed",
        citation="Jeong JJ et al. The EMory BrEast imaging Dataset (EMBED): A Racially Diverse, Granular Dataset of "
        "3.4 Million Screening and Diagnostic Mammographic Images. Radiology: Artificial Intelligence 5 (2023).",
        doi="10.1148/ryai.220047",
        images="about 480,000 of 22,000 patients, 2D and synthetic 2D; DICOM",
        boxes="regions of interest, without a name",
        labels="BI-RADS, density, mass, asymmetries, distortion, calcification, malignancy by pathology, implant, age",
        weights_may_be_released=False,
    )
    layout = "images/cohort_<n>/<patient>/<study>/<series>/<image>.dcm"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the metadata by the name of the file; other types than mammograms are left out."""
        sheet = self._metadata(root)
        columns: dict[str, str] = {name: name.lower() for name in ("Rows", "Columns") if name in sheet.frame.columns}
        sheet.read_integers(*columns, low=1)
        table = sheet.frame.rename({"ViewPosition": "view", **columns})
        files = base.join_by_stem(root / "images", root, table)
        others = table.filter(~pl.col("FinalImageType").is_in(_MAMMOGRAMS))["image_id"]
        return files.filter(~pl.col("image_id").is_in(others.implode()).fill_null(False))

    def annotations(self, root: Path) -> base.Annotations:
        """Return what pathology and radiologists say of each breast, implants, and regions of interest."""
        sheet = Sheet(
            root, "tables/EMBED_OpenData_clinical.csv", ["empi_anon", "acc_anon", "side", "asses", "tissueden"]
        )
        absent = [name for name in _OPTIONAL if name not in sheet.frame.columns]
        sheet.frame = sheet.frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
        sheet.frame = sheet.frame.with_columns(
            pl.col("asses").str.strip_chars().replace({"X": None}),
            pl.col("side", "bside", "massshape").str.strip_chars().str.to_uppercase().replace({"": None}),
        )
        sheet.read_values("asses", _ASSESSMENTS)
        sheet.read_integers("tissueden", low=1, high=5)  # 5: male
        sheet.read_integers("path_severity", low=0, high=6)
        sheet.read_numbers("age_at_study")
        odd = ~pl.col("side").is_in(["L", "R", "B"])
        sheet.drop(odd, "wrong_type", "side should be L, R, B or empty; the row is left out")
        findings = _find_by_breast(sheet.frame)
        metadata = self._metadata(root)
        boxes = _regions(metadata, findings)
        images = metadata.frame
        if "BreastImplantPresent" in images.columns:
            metadata.read_values("BreastImplantPresent", {"YES": 1, "NO": 0})
            implants = base.to_attributes(metadata.frame.select("image_id", implant="BreastImplantPresent"))
        else:
            implants = pl.DataFrame(schema=base.ATTRIBUTES)
        return base.Annotations(
            findings=boxes,
            attributes=implants,
            breast_attributes=pl.concat(
                base.to_breast_attributes(labels) for labels in (_label_breasts(findings), _label_biopsies(sheet))
            ),
            rejected=pl.concat([sheet.rejected, metadata.rejected]),
        )

    def _metadata(self, root: Path) -> Sheet:
        named = {"empi_anon": "patient_id", "acc_anon": "study_id", "ImageLateralityFinal": "laterality"}
        required = [*named, "anon_dicom_path", "FinalImageType", "ViewPosition"]
        sheet = Sheet(root, "tables/EMBED_OpenData_metadata.csv", required)
        name = pl.col("anon_dicom_path").str.split("/").list.last().str.replace(r"^(.+)\.[^.]+$", "$1")
        sheet.frame = sheet.frame.rename(named).with_columns(image_id=name)
        return sheet


def _find_by_breast(clinical: pl.DataFrame) -> pl.DataFrame:
    """Return the findings of each breast, and ``kind``; one of both sides, or of none, is one of each.

    A kind is a finding, "calcification" or "another"; null: the row describes nothing.
    """
    kind = (
        pl.when(pl.col("massshape").is_not_null())
        .then(pl.col("massshape").replace_strict(_SHAPES, default="another", return_dtype=pl.String))
        .when(_HAS_CALCIFICATION)
        .then(pl.lit("calcification"))
    )
    return _spread(clinical.with_columns(kind=kind), pl.col("side").fill_null("B"))


def _spread(clinical: pl.DataFrame, side: pl.Expr) -> pl.DataFrame:
    """Return the rows with patient_id, study_id and laterality; those of side B are one of L and one of R."""
    sides = pl.when(side == "B").then(pl.lit(["L", "R"])).otherwise(pl.concat_list(side))
    named = clinical.rename({"empi_anon": "patient_id", "acc_anon": "study_id"})
    return named.with_columns(laterality=sides).explode("laterality")


def _label_breasts(findings: pl.DataFrame) -> pl.DataFrame:
    kinds = sorted(set(_SHAPES.values()))
    present = pl.lit(1, pl.Int32)
    return findings.group_by(_KEYS, maintain_order=True).agg(
        *(pl.when((pl.col("kind") == kind).any()).then(present).alias(kind) for kind in kinds),
        no_finding=pl.when((pl.col("asses") == 1).all(ignore_nulls=False)).then(present),
        calcification=pl.when(_HAS_CALCIFICATION.any()).then(present),
        birads=base.most_urgent(pl.col("asses")),
        density=pl.col("tissueden").replace({5: None}).max() - 1,
        age=pl.col("age_at_study").floor().cast(pl.Int32).max(),
    )


def _label_biopsies(sheet: Sheet) -> pl.DataFrame:
    """Return malignancy by pathology, of the breast that was biopsied."""
    one_side = pl.when(pl.col("side") != "B").then("side")
    side = pl.coalesce(pl.when(pl.col("bside").is_in(["L", "R", "B"])).then("bside"), one_side)
    biopsied, severity = pl.col("path_severity").is_not_null(), pl.col("path_severity")
    sheet.drop(biopsied & side.is_null(), "wrong_type", "no column names the side of the pathology; it is left out")
    return (
        _spread(sheet.frame.filter(biopsied), side)
        .group_by(_KEYS, maintain_order=True)
        .agg(
            malignancy=pl.when(severity.is_in([0, 1]).any()).then(1).when((severity == 4).all()).then(0).cast(pl.Int32)
        )
    )


def _regions(metadata: Sheet, findings: pl.DataFrame) -> pl.DataFrame:
    """Return the regions of interest of the breasts whose findings are of one kind; ``FINDINGS``."""
    if "ROI_coords" not in metadata.frame.columns:
        return pl.DataFrame(schema=base.FINDINGS)
    kinds = findings.drop_nulls("kind").group_by(_KEYS).agg(pl.col("kind").unique())
    metadata.frame = metadata.frame.join(kinds, on=_KEYS, how="left", maintain_order="left").with_columns(
        roi=pl.col("ROI_coords").str.extract_all(_ROI)
    )
    rest = pl.col("ROI_coords").str.replace_all(_ROI, "")
    metadata.note(
        rest.str.contains(r"[^\s,()\[\]]"),
        "bad_box",
        "ROI_coords should be lists of four whole numbers; what is not is left out",
    )
    has = pl.col("roi").list.len() > 0
    one = (pl.col("kind").list.len() == 1) & pl.col("kind").list.first().is_in(base.FINDING_NAMES)
    named = one.fill_null(False)
    metadata.note(
        has & ~named,
        "unknown_finding",
        "the region of interest names no finding, and those of the breast are not of one kind; it is left out",
    )
    rows = metadata.frame.filter(has & named).with_columns(finding=pl.col("kind").list.first(), source=metadata.source)
    corners = pl.col("roi").str.extract_all(r"\d+").list
    boxes = rows.explode("roi").with_columns(
        corners.get(place).cast(pl.Float64).alias(name)
        for place, name in enumerate(("y_min", "x_min", "y_max", "x_max"))
    )
    return boxes.with_columns(birads=pl.lit(None, pl.Int32)).select(
        pl.col(name).cast(dtype) for name, dtype in base.FINDINGS.items()
    )
