"""Tables of the stages that prepare data: index, shard, tabulate."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from mammoclip.artifacts.storage import Column, Table
from mammoclip.config.data import FINDING_NAMES

REJECT_REASONS = {
    "not_dicom": "the file is not a DICOM file",
    "unreadable_header": "the DICOM header cannot be parsed",
    "no_pixel_data": "the DICOM file has no pixel data",
    "tomosynthesis": "a tomosynthesis or its projections; one 2D image was expected",
    "multi_frame": "several frames; one 2D image was expected",
    "too_large": "more pixels than any mammogram has",
    "not_mammography": "the modality is not MG",
    "missing_laterality": "no attribute says left or right",
    "missing_view": "no attribute names the view",
    "not_in_tables": "the data set's own tables do not list the file",
    "duplicate_image": "another file has the same image_id",
    "missing_file": "the data set's tables list a file that is not there",
    "undecodable": "the pixel data cannot be decoded",
    "constant_image": "all pixels are equal",
    "no_breast": "no breast was found",
    "unsafe_id": "an identifier holds characters that a file name may not",
    "worker_crashed": "the process that worked on the file died, twice",
    "time_limit": "the file took longer than the time limit, twice",
    "laterality_conflict": "the data set's tables and the DICOM header name different sides",
    "wrong_type": "a cell of a table is not what its column should hold",
    "unknown_finding": "a finding that is none of the ten",
    "unknown_image": "a row of a table speaks of an image that the data set does not list",
    "duplicate_row": "a row of a table repeats an earlier one",
    "contradictory_rows": "rows of the tables contradict each other",
    "bad_box": "the box of a finding is empty, inverted or outside the image",
    "box_outside_crop": "the box of a finding lies outside the crop of the breast",
    "empty_report": "a report without text",
    "report_without_image": "a report of an exam or breast without an image",
    "too_long_report": "a text longer than any report",
}


NO_FINDING = "no_finding"


IDS = {
    "dataset": Column(pl.String, "name of the data set in the configuration"),
    "patient_id": Column(pl.String, "the data set's own pseudonym of the patient"),
    "study_id": Column(pl.String, "exam"),
    "image_id": Column(pl.String, "image; unique within the data set"),
    "laterality": Column(pl.String, "L or R"),
    "view": Column(pl.String, "CC, MLO, ..."),
}

INDEX = Table(
    "index",
    4,
    {
        **IDS,
        "laterality_source": Column(pl.String, "DICOM keyword or table that named the side"),
        "view_source": Column(pl.String, "DICOM keyword or table that named the view"),
        "magnification": Column(pl.Boolean, "magnification view: part of the breast, enlarged"),
        "spot_compression": Column(pl.Boolean, "spot compression view: part of the breast"),
        "age_years": Column(pl.Int32, "PatientAge in whole years; 90 for everybody above 89", nullable=True),
        "implant": Column(pl.Boolean, "BreastImplantPresent", nullable=True),
        "implant_displaced": Column(pl.Boolean, "view with the implant pushed back (Eklund)"),
        "synthetic_2d": Column(pl.Boolean, "2D image computed from a tomosynthesis"),
        "path": Column(pl.String, "file, relative to the root of the data set"),
        "transfer_syntax": Column(pl.String, "TransferSyntaxUID"),
        "rows": Column(pl.Int32, "Rows, pixels"),
        "columns": Column(pl.Int32, "Columns, pixels"),
        "bits_stored": Column(pl.Int32, "BitsStored"),
        "photometric": Column(pl.String, "PhotometricInterpretation"),
        "manufacturer": Column(pl.String, "Manufacturer", nullable=True),
        "presentation_intent": Column(pl.String, "PresentationIntentType", nullable=True),
        "size_bytes": Column(pl.Int64, "file size"),
        "split": Column(pl.String, "split given by the data set: train, validation or test", nullable=True),
        "fold": Column(pl.Int32, "fold given by the data set", nullable=True),
    },
)

REJECTS = Table(
    "rejects",
    2,
    {
        "dataset": Column(pl.String, "name of the data set"),
        "stage": Column(pl.String, "stage that rejected the input"),
        "path": Column(pl.String, "file, relative to the root; of a table also the row (the header is row 1)"),
        "reason": Column(pl.Enum(sorted(REJECT_REASONS)), "one of artifacts.REJECT_REASONS"),
        "detail": Column(pl.String, "a sentence without patient identifiers"),
    },
)

MANIFEST = Table(
    "manifest",
    2,
    {
        "image_id": Column(pl.String, "image"),
        "shard": Column(pl.String, "file name of the tar that holds <image_id>.png (a dot of the id is written %2E)"),
        "offset": Column(pl.Int64, "first byte of the PNG in the tar"),
        "length": Column(pl.Int64, "bytes of the PNG"),
        "height_px": Column(pl.Int32, "height of the PNG"),
        "width_px": Column(pl.Int32, "width of the PNG"),
        "crop_top": Column(pl.Int32, "crop box, half-open, in stored pixels"),
        "crop_bottom": Column(pl.Int32, "crop box, half-open, in stored pixels"),
        "crop_left": Column(pl.Int32, "crop box, half-open, in stored pixels"),
        "crop_right": Column(pl.Int32, "crop box, half-open, in stored pixels"),
        "scale_x": Column(pl.Float64, "PNG pixels per stored pixel: x_png = (x - crop_left) * scale_x + pad_left"),
        "scale_y": Column(pl.Float64, "PNG pixels per stored pixel: y_png = (y - crop_top) * scale_y + pad_top"),
        "pad_left": Column(pl.Int32, "columns of background left of the crop, PNG pixels"),
        "pad_top": Column(pl.Int32, "rows of background above the crop, PNG pixels"),
        "grayscale": Column(pl.String, "grey-scale recipe: compat (as released) or strict (as the standard says)"),
        "crop": Column(pl.String, "breast crop: compat (as released) or strict (contour)"),
        "geometry": Column(pl.String, "stretch, or pad: one scale for both axes"),
        "bits": Column(pl.Int32, "bits of a PNG sample: 8 or 16"),
        "png_sha256": Column(pl.String, "SHA-256 of the PNG"),
    },
)

IMAGES = Table(
    "images",
    3,
    {
        **IDS,
        "split": Column(pl.String, "train, validation or test; one split per patient"),
        "fold": INDEX.columns["fold"],
        **{
            # Null where tables are made before any image is converted (mammoclip tabulate).
            name: replace(column, nullable=True)
            for name, column in MANIFEST.columns.items()
            if name != "image_id"
        },
    },
)

_BOX = {
    name: Column(
        pl.Float64, "box in pixels of the PNG (x right, y down, half-open); before conversion in stored pixels"
    )
    for name in ("x_min", "y_min", "x_max", "y_max")
}

FINDINGS = Table(
    "findings",
    1,
    {
        "dataset": IDS["dataset"],
        "image_id": IDS["image_id"],
        "finding": Column(pl.String, "mass, suspicious_calcification, ..."),
        "birads": Column(pl.Int32, "BI-RADS assessment of the finding", nullable=True),
        **_BOX,
    },
)

ATTRIBUTES = Table(
    "attributes",
    2,
    {
        "dataset": IDS["dataset"],
        "image_id": IDS["image_id"],
        "attribute": Column(pl.String, "mass, suspicious_calcification, ..., no_finding, density, birads, malignancy"),
        "value": Column(pl.Int32, "0 or 1 for a finding; density 0-3 for A-D; birads 0-6; age in years"),
        "source": Column(pl.String, "table, or report: read from the text where no table says it"),
    },
)

LABELS = Table(
    "labels",
    1,
    {
        **IDS,
        "split": IMAGES.columns["split"],
        "given_split": INDEX.columns["split"],
        "fold": INDEX.columns["fold"],
        **{
            name: Column(pl.Int32, "1 present, 0 absent, null unknown", nullable=True)
            for name in (*FINDING_NAMES, "no_finding", "malignancy", "biopsy", "invasive", "implant")
        },
        "density": Column(pl.Int32, "breast density, 0-3 for A-D", nullable=True),
        "birads": Column(pl.Int32, "BI-RADS assessment of the breast, 0-6", nullable=True),
        "finding_birads": Column(pl.Int32, "compat: assessment of the row's finding", nullable=True),
        **{
            name: replace(column, nullable=True, meaning=f"compat: the row's {column.meaning}")
            for name, column in _BOX.items()
        },
    },
)

REPORTS = Table(
    "reports",
    1,
    {
        "dataset": IDS["dataset"],
        "patient_id": IDS["patient_id"],
        "study_id": IDS["study_id"],
        "laterality": Column(pl.String, "side that the text speaks of"),
        "section": Column(pl.String, "FINDINGS or IMPRESSION"),
        "sentences": Column(pl.List(pl.String), "cleaned sentences, in the order of the report"),
    },
)

BREASTS = Table(
    "breasts",
    2,
    {
        "dataset": IDS["dataset"],
        "patient_id": IDS["patient_id"],
        "laterality": IDS["laterality"],
        "split": IMAGES.columns["split"],
        "cc_image_ids": Column(pl.List(pl.String), "CC images of the breast"),
        "mlo_image_ids": Column(pl.List(pl.String), "MLO images of the breast"),
        "texts": Column(
            pl.List(pl.List(pl.String)), "unique sections, findings first, each a list of sentences; empty: no report"
        ),
        **{
            f"{view}_{which}": Column(pl.List(pl.String), f"what a label calls {meaning} in the {view.upper()} images")
            for view in ("cc", "mlo")
            for which, meaning in (("positives", "present"), ("negatives", "absent"))
        },
        "density": Column(pl.Int32, "breast density, 0-3 for A-D", nullable=True),
        "birads": Column(pl.Int32, "BI-RADS assessment of the breast, 0-6", nullable=True),
    },
)

PARAPHRASES = Table(
    "paraphrases",
    1,
    {
        "text": Column(pl.String, "a cleaned sentence of a report"),
        "paraphrases": Column(pl.List(pl.String), "other sentences that say the same; may be empty"),
    },
)

TABULATED = (FINDINGS, ATTRIBUTES, LABELS, REPORTS, BREASTS, IMAGES)
"""What the stage ``tabulate`` writes for a data set, the images last."""
