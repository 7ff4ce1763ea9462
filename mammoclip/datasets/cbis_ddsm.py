"""CBIS-DDSM, film mammograms of DDSM: the download of TCIA with its tables, or exams without any table.

With tables, as downloaded: ``{mass,calc}_case_description_{train,test}_set.csv`` with a row per abnormality
(patient_id, breast_density or breast density (1-4), left or right breast, image view, abnormality id, assessment,
pathology, image file path, ...), and ``CBIS-DDSM/<set>_<patient>_<side>_<view>/<uid>/<uid>/<file>.dcm`` with the
mammograms; the same names with ``_<abnormality id>`` behind hold crop and mask. Only the first folder of a path in the
tables is to be relied on: the UIDs are often others. The box of an abnormality is that of its mask, the larger image of
the two.

- A mass is the finding ``mass``; calcifications are the label ``calcification``, and the finding
  ``suspicious_calcification`` where they are assessed as BI-RADS 4 or 5, which is what suspicious means there.
- ``malignancy`` is 1 where an abnormality of the image is MALIGNANT, 0 where all are benign; BI-RADS the most urgent
  assessment.
- Some patients are in the test set of one abnormality and the training set of the other: they are tested.

Without tables: ``<exam>/<image>.dcm``; side and view come from the DICOM header: Laterality (0020,0060) and
PatientOrientation (0020,0020). The folder names the patient, because the DICOM PatientID of CBIS-DDSM is different for
every image.

Get it at TCIA (CC BY 3.0). Source: Sawyer-Lee et al., TCIA 2016; Lee et al., Scientific Data 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pydicom

from mammoclip.datasets import base
from mammoclip.datasets.sheet import REJECTED, Sheet

_TABLES = [(kind, part) for kind in ("mass", "calc") for part in ("train", "test")]
_COLUMNS = ["patient_id", "left or right breast", "image view", "abnormality id", "assessment", "pathology"]
_PATHOLOGY = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
_SUSPICIOUS = (4, 5)


class CbisDdsm(base.Adapter):
    """Adapter of CBIS-DDSM."""

    source = base.Source(
        title="CBIS-DDSM",
        kind="real film mammograms of CBIS-DDSM, cropped and resized",
        licence="CC BY 3.0",
        url="https://www.cancerimagingarchive.net/collection/cbis-ddsm",
        citation="Sawyer-Lee R, Gimenez F, Hoogi A, Rubin D (2016). Curated Breast Imaging Subset of Digital Database "
        "for Screening Mammography (CBIS-DDSM) [Data set]. The Cancer Imaging Archive.",
        doi="10.7937/K9/TCIA.2016.7O02S9CY",
        images="3,103 film mammograms of 1,566 patients; DICOM",
        boxes="of masks: masses, suspicious calcifications",
        labels="mass, calcification, suspicious calcification, malignancy, BI-RADS, density",
        splits="train and test; a patient in both is tested",
    )
    layout = "CBIS-DDSM/<set>_<patient>_<side>_<view>/**/<file>.dcm, or <exam>/<image>.dcm without tables"

    def files(self, root: Path) -> pl.DataFrame:
        """List the mammograms; without tables, exam folder and file name make the ids."""
        if not _has_tables(root):
            return _list_exams(root)
        table, _ = _read_tables(root)
        tested = pl.col("split").eq("test").any().over("patient_id")
        images = table.group_by("image_id", maintain_order=True).agg(
            pl.col("patient_id", "laterality", "view", "split").first()
        )
        listed = images.with_columns(
            split=pl.when(tested).then(pl.lit("test")).otherwise(pl.lit("train")), study_id="patient_id"
        )
        paths = pl.DataFrame({"path": base.find_images(root / "CBIS-DDSM", root)}, schema={"path": pl.String})
        found = paths.filter(pl.col("path").str.ends_with(".dcm")).with_columns(
            image_id=pl.col("path").str.split("/").list.get(1)
        )
        # Crops and masks of the abnormalities are no images of their own.
        details = pl.col("image_id").str.contains(r"_(?:CC|MLO)_\d+$")
        joined = found.filter(~details).join(listed, on="image_id", how="full", coalesce=True)
        unlisted = joined.with_columns(image_id=pl.when(pl.col("patient_id").is_not_null()).then("image_id"))
        return base.to_files(unlisted)

    def annotations(self, root: Path) -> base.Annotations:
        """Return the abnormalities with the boxes of their masks, and the labels of each image."""
        if not _has_tables(root):
            return base.Annotations()
        table, rejected = _read_tables(root)
        present = pl.lit(1, pl.Int32)
        suspicious = (pl.col("kind") == "calc") & pl.col("assessment").is_in(_SUSPICIOUS)
        labels = table.group_by("image_id", maintain_order=True).agg(
            mass=pl.when((pl.col("kind") == "mass").any()).then(present),
            calcification=pl.when((pl.col("kind") == "calc").any()).then(present),
            suspicious_calcification=pl.when(suspicious.any()).then(present),
            malignancy=pl.when((pl.col("pathology") == 1).any())
            .then(present)
            .when(pl.col("pathology").null_count() == 0)
            .then(pl.lit(0, pl.Int32)),
            birads=base.most_urgent(pl.col("assessment")),
        )
        densities = table.select("image_id", density=pl.col("density") - 1)
        name = (
            pl.when(pl.col("kind") == "mass")
            .then(pl.lit("mass"))
            .when(suspicious)
            .then(pl.lit("suspicious_calcification"))
        )
        findings, unread = _read_masks(root, table.with_columns(finding=name).drop_nulls("finding"))
        return base.Annotations(
            findings=findings,
            attributes=pl.concat([base.to_attributes(labels), base.to_attributes(densities)]),
            rejected=pl.concat([rejected, unread]),
        )


def _has_tables(root: Path) -> bool:
    return any((root / f"{kind}_case_description_{part}_set.csv").is_file() for kind, part in _TABLES)


def _list_exams(root: Path) -> pl.DataFrame:
    paths = [path for path in base.find_images(root, root) if path.endswith(".dcm")]
    folder = pl.col("path").str.replace(r"/?[^/]*$", "").str.replace_all("/", "-", literal=True)
    exam = pl.when(folder == "").then(pl.lit("exam")).otherwise(folder)
    stem = pl.col("path").str.split("/").list.last().str.replace(r"\.dcm$", "")
    listed = pl.DataFrame({"path": paths}, schema={"path": pl.String}).with_columns(patient_id=exam, study_id=exam)
    return base.to_files(listed.with_columns(image_id=pl.format("{}-{}", "patient_id", stem)))


def _read_tables(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of all four tables, and what was left out."""
    frames: list[pl.DataFrame] = []
    rejected: list[pl.DataFrame] = []
    for kind, part in _TABLES:
        sheet = Sheet(root, f"{kind}_case_description_{part}_set.csv", _COLUMNS)
        density = next((name for name in ("breast_density", "breast density") if name in sheet.frame.columns), None)
        sheet.frame = sheet.frame.with_columns(density=pl.lit(None, pl.String) if density is None else pl.col(density))
        sheet.read_integers("density", low=1, high=4)
        sheet.read_integers("assessment", low=0, high=5)
        sheet.read_integers("abnormality id", low=1)
        sheet.read_values("pathology", _PATHOLOGY)
        side, view = pl.col("left or right breast").str.to_uppercase(), pl.col("image view").str.to_uppercase()
        folder = f"{kind.title()}-{'Training' if part == 'train' else 'Test'}"
        frames.append(
            sheet.frame.select(
                "patient_id",
                "density",
                "assessment",
                "pathology",
                abnormality="abnormality id",
                kind=pl.lit(kind),
                split=pl.lit(part),
                laterality=side.str.slice(0, 1),
                view=view,
                image_id=pl.format(f"{folder}_{{}}_{{}}_{{}}", "patient_id", side, view),
                source=sheet.source,
            )
        )
        rejected.append(sheet.rejected)
    return pl.concat(frames), pl.concat(rejected)


def _read_masks(root: Path, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return ``FINDINGS`` with the boxes of the masks that are there, and what could not be read."""
    rows: list[tuple[object, ...]] = []
    rejected: list[tuple[str, str, str]] = []
    keys = table.select("image_id", "abnormality", "finding", "assessment", "source")
    for image_id, abnormality, finding, birads, source in keys.rows():
        folder = root / "CBIS-DDSM" / f"{image_id}_{abnormality}"
        box: tuple[float | None, ...] = (None,) * 4
        if base.is_safe_id(image_id) and folder.is_dir():
            try:
                box = _mask_box(folder)
            except Exception as error:  # a damaged DICOM file fails in many ways
                detail = f"the mask of the abnormality cannot be read ({type(error).__name__}); the label stays"
                rejected.append((source, "bad_box", detail))
        rows.append((image_id, finding, birads, *box, source))
    findings = pl.DataFrame(rows, schema=base.FINDINGS, orient="row")
    return findings, pl.DataFrame(rejected, schema=REJECTED, orient="row")


def _mask_box(folder: Path) -> tuple[float, float, float, float]:
    """Return x_min, y_min, x_max, y_max of what is not 0 in the mask: the larger of the images in the folder."""
    pixels = pydicom.dcmread(max(sorted(folder.rglob("*.dcm")), key=_num_pixels)).pixel_array
    mask = pixels != 0
    # Of a folder whose mask is missing, the larger image is the crop.
    if (mask & (pixels != pixels.max())).any():
        raise ValueError("not a mask")
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _num_pixels(path: Path) -> int:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return int(header.Rows) * int(header.Columns)
