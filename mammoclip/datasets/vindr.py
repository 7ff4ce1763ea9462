"""VinDr-Mammo 1.0: ``images/<study_id>/<image_id>.dicom`` and two annotation tables.

``breast-level_annotations.csv`` (study_id, series_id, image_id, laterality, view_position, height, width,
breast_birads, breast_density, split) has a row per image, ``finding_annotations.csv`` (the same, and finding_categories
as a list of names, finding_birads, xmin, ymin, xmax, ymax) a row per annotated finding or image without one. VinDr
publishes no patient ids; one exam is one patient. It has no reports: training text comes from prompts about its labels.

Source: Nguyen et al., Scientific Data 2023.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import Sheet

_NAMES = {
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
    "No Finding": base.NO_FINDING,
}
_DENSITY = {"DENSITY A": 0, "DENSITY B": 1, "DENSITY C": 2, "DENSITY D": 3}
_BIRADS = {f"BI-RADS {category}": category for category in range(7)}
_IMAGE_COLUMNS = ["study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density", "split"]
_BOX = ["xmin", "ymin", "xmax", "ymax"]


class VinDr(base.Adapter):
    """Adapter of VinDr-Mammo."""

    source = base.Source(
        title="VinDr-Mammo 1.0",
        kind="real digital mammograms of VinDr-Mammo",
        licence="PhysioNet Restricted Health Data License 1.5.0",
        url="https://physionet.org/content/vindr-mammo/1.0.0",
        citation="Nguyen HT et al. VinDr-Mammo: A large-scale benchmark dataset for computer-aided diagnosis in "
        "full-field digital mammography. Scientific Data 10, 277 (2023).",
        doi="10.1038/s41597-023-02100-7",
        images="20,000 of 5,000 exams, four views each; DICOM",
        boxes="2,254, of ten findings",
        labels="ten findings, BI-RADS of finding and breast, density",
        splits="4,000 exams for training, 1,000 for testing",
    )
    layout = "images/<study_id>/<image_id>.dicom"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``images/`` and join the breast-level table by image id."""
        sheet = self._images(root)
        for name in ("height", "width"):
            if name in sheet.frame.columns:
                sheet.read_integers(name)
        split = pl.col("split").replace({"training": "train"})
        listed = sheet.frame.with_columns(split=split).rename({"view_position": "view"})
        listed = listed.rename({"height": "rows", "width": "columns"}, strict=False)
        return base.join_by_stem(root / "images", root, listed)

    def annotations(self, root: Path) -> base.Annotations:
        """Return a finding per category of a row, and the labels of each image: ten findings, density, BI-RADS."""
        images = self._images(root)
        images.read_values("breast_density", _DENSITY)
        images.read_values("breast_birads", _BIRADS)
        breast = images.frame.select("image_id", density="breast_density", birads="breast_birads")
        findings, rejected = self._findings(root, images.frame["image_id"])
        annotated = findings["image_id"].unique(maintain_order=True)
        return base.Annotations(
            findings=findings,
            attributes=pl.concat([base.present_findings(findings), base.to_attributes(breast)]),
            rejected=pl.concat([images.rejected, rejected]),
            searched=dict.fromkeys([*base.FINDING_NAMES, base.NO_FINDING], annotated),
        )

    def _images(self, root: Path) -> Sheet:
        sheet = Sheet(root, "breast-level_annotations.csv", _IMAGE_COLUMNS)
        if "patient_id" not in sheet.frame.columns:
            sheet.frame = sheet.frame.with_columns(patient_id=pl.col("study_id"))
        return sheet

    def _findings(self, root: Path, listed: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
        sheet = Sheet(root, "finding_annotations.csv", ["image_id", "finding_categories", "finding_birads", *_BOX])
        stranger = ~pl.col("image_id").is_in(listed.implode()).fill_null(False)
        sheet.drop(stranger, "unknown_image", "breast-level_annotations.csv does not list the image")
        sheet.read_numbers(*_BOX)
        sheet.read_values("finding_birads", _BIRADS)
        sheet.read_lists("finding_categories")
        # The findings of an image with a list that cannot be read are unknown: the others would be called absent.
        unreadable = sheet.frame.filter(pl.col("finding_categories").is_null())["image_id"]
        sheet.drop(
            pl.col("image_id").is_in(unreadable.implode()) & pl.col("finding_categories").is_not_null(),
            "wrong_type",
            "another row of the image has findings that cannot be read: all of them are left out",
        )
        sheet.frame = sheet.frame.drop_nulls("finding_categories").explode("finding_categories")
        finding = pl.col("finding_categories").str.strip_chars().replace_strict(_NAMES, default=None)
        sheet.frame = sheet.frame.with_columns(finding=finding)
        known = ", ".join(_NAMES)
        sheet.drop(pl.col("finding").is_null(), "unknown_finding", f"a finding is none of {known}; it is left out")
        boxes = dict(zip(base.BOX, _BOX, strict=True))
        frame = sheet.frame.select("image_id", "finding", birads="finding_birads", **boxes, source=sheet.source)
        return frame.cast(dict(base.FINDINGS.items())), sheet.rejected
