"""INbreast: ``AllDICOMs/<file>_<patient>_MG_<L|R>_<CC|ML>_ANON.dcm``, ``INbreast.csv`` and ``AllXML/<file>.xml``.

The table is separated by semicolons: Patient ID ("removed": the patient is in the file name), Patient age, Laterality,
View, Acquisition date, File Name, ACR (1-4), Bi-Rads (1 to 6, 4a to 4c). ``AllXML/`` has the outlines of the findings
of an image as an OsiriX property list; an image without one has none. Mass, asymmetry and distortion become boxes;
calcifications and clusters of them are not always suspicious and become the label ``calcification``; other outlines
(spiculated region, pectoral muscle) say nothing. No reports, no split.

On request from the Breast Research Group, INESC Porto, for research. Source: Moreira et al., Academic Radiology 2012.
"""

from __future__ import annotations

import plistlib
import re
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import polars as pl

from mammoclip.datasets import base
from mammoclip.datasets.sheet import REJECTED, Sheet

_COLUMNS = ["Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads"]
_FILE = r"^.*/(\w+)_(\w+)_MG_[LR]_\w+_ANON\.dcm$"
_OUTLINES = {
    "mass": "mass",
    "asymmetry": "asymmetry",
    "assymetry": "asymmetry",  # as the files spell it
    "distortion": "architectural_distortion",
    "calcification": "calcification",
    "calcifications": "calcification",
    "cluster": "calcification",
}
_LABELS = sorted(set(_OUTLINES.values()))
_BIRADS = {str(n): n for n in range(7)} | {f"4{letter}": 4 for letter in "abc"}


class InBreast(base.Adapter):
    """Adapter of INbreast."""

    source = base.Source(
        title="INbreast",
        kind="real digital mammograms of INbreast",
        licence="on request, for research only",
        url="https://doi.org/10.1016/j.acra.2011.09.014",
        citation="Moreira IC et al. INbreast: toward a full-field digital mammographic database. Academic Radiology 19 "
        "(2012).",
        doi="10.1016/j.acra.2011.09.014",
        images="410 of 115 patients; DICOM",
        boxes="of outlines: masses, asymmetries, distortions",
        labels="mass, asymmetry, architectural distortion, calcification, BI-RADS, density",
    )
    layout = "AllDICOMs/<file>_<patient>_MG_<L|R>_<CC|ML>_ANON.dcm"

    def files(self, root: Path) -> pl.DataFrame:
        """List ``AllDICOMs/`` and join the table by the number in front of the file name."""
        paths = [path for path in base.find_images(root / "AllDICOMs", root) if path.endswith(".dcm")]
        found = pl.DataFrame({"path": paths}, schema={"path": pl.String}).with_columns(
            key=pl.col("path").str.extract(_FILE, 1), patient_id=pl.col("path").str.extract(_FILE, 2)
        )
        listed = self._sheet(root).frame.select(
            "image_id",
            key="image_id",
            laterality="Laterality",
            view=pl.col("View").str.to_uppercase().replace("ML", "MLO"),
            date="Acquisition date",
        )
        joined = found.join(listed.unique(maintain_order=True), on="key", how="full", coalesce=True)
        return base.to_files(joined.with_columns(study_id=pl.format("{}-{}", "patient_id", "date")))

    def annotations(self, root: Path) -> base.Annotations:
        """Return the outlined findings with their boxes, and the labels of each image."""
        sheet = self._sheet(root)
        sheet.read_integers("ACR", low=1, high=4)
        sheet.read_values("Bi-Rads", _BIRADS)
        grades = sheet.frame.select("image_id", density=pl.col("ACR") - 1, birads="Bi-Rads")
        outlines, rejected = _read_outlines(root)
        unread = rejected["path"].str.extract(r"^AllXML/(.*)\.xml$", 1)
        annotated = sheet.frame.filter(~pl.col("image_id").is_in(unread.implode()))["image_id"]
        return base.Annotations(
            findings=outlines.filter(pl.col("finding").is_in(base.FINDING_NAMES)),
            attributes=pl.concat([base.present_findings(outlines), base.to_attributes(grades)]),
            rejected=pl.concat([sheet.rejected, rejected]),
            searched=dict.fromkeys(_LABELS, annotated) if (root / "AllXML").is_dir() else {},
        )

    def _sheet(self, root: Path) -> Sheet:
        sheet = Sheet(root, "INbreast.csv", _COLUMNS, separator=";")
        sheet.frame = sheet.frame.with_columns(image_id="File Name")
        return sheet


def _read_outlines(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows: list[tuple[Any, ...]] = []
    rejected: list[tuple[str, str, str]] = []
    for path in base.find_images(root / "AllXML", root):
        if not path.endswith(".xml"):
            continue
        try:
            with (root / path).open("rb") as file:
                # Refuses entities, which could grow without end; the binary form can claim any length.
                images = plistlib.load(file, fmt=plistlib.FMT_XML)["Images"]
            rows += [
                (Path(path).stem, _OUTLINES[name], None, *_bounding_box(roi["Point_px"]), path)
                for image in images
                for roi in image["ROIs"]
                if (name := str(roi["Name"]).strip().lower()) in _OUTLINES
            ]
        except (ExpatError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            detail = f"not a list of outlines ({type(error).__name__}): the findings of the image are unknown"
            rejected.append((path, "wrong_type", detail))
    findings = pl.DataFrame(rows, schema=base.FINDINGS, orient="row")
    return findings, pl.DataFrame(rejected, schema=REJECTED, orient="row")


def _bounding_box(points: list[str]) -> tuple[float, float, float, float]:
    """Return x_min, y_min, x_max, y_max of points written as "(x, y)"; a pixel is one wide."""
    numbers = [[float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", point)] for point in points]
    xs, ys = zip(*((x, y) for x, y in numbers), strict=True)
    return min(xs), min(ys), max(xs) + 1.0, max(ys) + 1.0
