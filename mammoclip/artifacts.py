"""Every on-disk table: name, version, columns with type and meaning; read, write (atomic) and validate.

The prose specification is ``docs/formats.md``. A table is a Parquet file whose key-value metadata hold
``mammoclip.table`` and ``mammoclip.version``; a reader gets exactly the columns below or an error that says
which file, which column, what was expected and what was found.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from mammoclip.errors import ArtifactError

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


FINDING_NAMES = (
    "mass",
    "suspicious_calcification",
    "architectural_distortion",
    "asymmetry",
    "focal_asymmetry",
    "global_asymmetry",
    "suspicious_lymph_node",
    "nipple_retraction",
    "skin_retraction",
    "skin_thickening",
)
"""The ten findings of the paper, as all tables spell them."""
NO_FINDING = "no_finding"


@dataclass(frozen=True)
class Column:
    """A column: its type, what it means, and whether it may be null."""

    dtype: pl.DataType | type[pl.DataType]
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A published table format; ``version`` grows when a reader of the old one would be wrong."""

    name: str
    version: int
    columns: Mapping[str, Column]

    @property
    def schema(self) -> pl.Schema:
        """The polars schema."""
        return pl.Schema({name: column.dtype for name, column in self.columns.items()})

    def empty(self) -> pl.DataFrame:
        """Return a table with no row."""
        return pl.DataFrame(schema=self.schema)


_IDS = {
    "dataset": Column(pl.String, "name of the data set in the configuration"),
    "patient_id": Column(pl.String, "the data set's own pseudonym of the patient"),
    "study_id": Column(pl.String, "exam"),
    "image_id": Column(pl.String, "image; unique within the data set"),
    "laterality": Column(pl.String, "L or R"),
    "view": Column(pl.String, "CC, MLO, ..."),
}

INDEX = Table(
    "index",
    3,
    {
        **_IDS,
        "laterality_source": Column(pl.String, "DICOM keyword or table that named the side"),
        "view_source": Column(pl.String, "DICOM keyword or table that named the view"),
        "magnification": Column(pl.Boolean, "magnification view: part of the breast, enlarged"),
        "spot_compression": Column(pl.Boolean, "spot compression view: part of the breast"),
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
        **_IDS,
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
        "dataset": _IDS["dataset"],
        "image_id": _IDS["image_id"],
        "finding": Column(pl.String, "mass, suspicious_calcification, ..."),
        "birads": Column(pl.Int32, "BI-RADS assessment of the finding", nullable=True),
        **_BOX,
    },
)

ATTRIBUTES = Table(
    "attributes",
    2,
    {
        "dataset": _IDS["dataset"],
        "image_id": _IDS["image_id"],
        "attribute": Column(pl.String, "mass, suspicious_calcification, ..., no_finding, density, birads, malignancy"),
        "value": Column(pl.Int32, "0 or 1 for a finding; density 0-3 for A-D; birads 0-6; age in years"),
        "source": Column(pl.String, "table, or report: read from the text where no table says it"),
    },
)

LABELS = Table(
    "labels",
    1,
    {
        **_IDS,
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
        "dataset": _IDS["dataset"],
        "patient_id": _IDS["patient_id"],
        "study_id": _IDS["study_id"],
        "laterality": Column(pl.String, "side that the text speaks of"),
        "section": Column(pl.String, "FINDINGS or IMPRESSION"),
        "sentences": Column(pl.List(pl.String), "cleaned sentences, in the order of the report"),
    },
)

BREASTS = Table(
    "breasts",
    2,
    {
        "dataset": _IDS["dataset"],
        "patient_id": _IDS["patient_id"],
        "laterality": _IDS["laterality"],
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

STEPS = Table(
    "steps",
    1,
    {
        "split": Column(pl.String, "train (one row per step) or validation (one row per epoch)"),
        "epoch": Column(pl.Int32, "epoch, from 0"),
        "step": Column(pl.Int32, "optimiser steps done"),
        "loss": Column(pl.Float64, "weighted sum of the terms"),
        "image_text": Column(pl.Float64, "mean of image-to-text and text-to-image"),
        "image_image": Column(pl.Float64, "image-to-image term"),
        "text_text": Column(pl.Float64, "text-to-text term"),
        "learning_rate": Column(pl.Float64, "of the step", nullable=True),
        "temperature": Column(pl.Float64, "1 / exp(logit_scale)"),
    },
)

VALIDATION = Table(
    "validation",
    1,
    {
        "epoch": STEPS.columns["epoch"],
        "step": STEPS.columns["step"],
        "metric": Column(
            pl.String,
            "zero_shot_auroc_<finding>, zero_shot_macro_auroc_density, image_to_text_ or text_to_image_ followed by "
            "recall_at_<1, 5, 10> or median_rank, and chance_recall_at_<1, 5, 10>, that of a random ranking",
        ),
        "value": Column(pl.Float64, "over the validation breasts: from 0 to 1; a median rank from 1, best"),
    },
)

FEATURES = Table(
    "features",
    1,
    {
        "image_id": _IDS["image_id"],
        "pooled": Column(pl.List(pl.Float32), "pooled output of the image encoder"),
        "embedding": Column(pl.List(pl.Float32), "L2-normalised projection into the joint space"),
    },
)

PROMPTS = Table(
    "prompts",
    1,
    {
        "task": Column(pl.String, "mass, suspicious_calcification or density"),
        "class_index": Column(pl.Int32, "class that the prompt names: 0 negative, 1 positive; density 0-3 for A-D"),
        "prompt": Column(pl.String, "one sentence of the class; zero-shot averages the embeddings of all of them"),
        "embedding": FEATURES.columns["embedding"],
    },
)

PREDICTIONS = Table(
    "predictions",
    1,
    {
        "image_id": _IDS["image_id"],
        "patient_id": _IDS["patient_id"],
        "task": Column(pl.String, "mass, suspicious_calcification or density"),
        "protocol": Column(pl.String, "zero-shot, probe, probe-shuffled (labels permuted over training patients)"),
        "repeat": Column(pl.Int32, "0, 1, ... over the permutations of probe-shuffled; else 0"),
        "label": Column(pl.Int32, "ground truth", nullable=True),
        "scores": Column(pl.List(pl.Float64), "one score per class, summing to 1"),
    },
)

METRICS = Table(
    "metrics",
    1,
    {
        "run": Column(pl.String, "pretraining run"),
        "dataset": _IDS["dataset"],
        "task": PREDICTIONS.columns["task"],
        "protocol": Column(pl.String, "as in predictions, or zero-shot-random (random vectors in place of prompts)"),
        "metric": Column(
            pl.String, "auroc, auprc; for density macro_auroc, accuracy, balanced_accuracy, kappa (quadratic)"
        ),
        "value": Column(pl.Float64, "point estimate; of the repeated controls, the mean over the repeats"),
        "ci_low": Column(
            pl.Float64,
            "lower end of the patient-clustered bootstrap interval, or of the quantiles over the repeats",
        ),
        "ci_high": Column(pl.Float64, "upper end"),
        "n": Column(pl.Int32, "test images"),
        "n_positive": Column(pl.Int32, "positive test images; null for several classes", nullable=True),
        "num_patients": Column(pl.Int32, "clusters"),
        "level": Column(pl.String, "image"),
        "mode": Column(pl.String, "compat or strict"),
    },
)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name, so that what a killed process left behind is overwritten by the next.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with told_when_full(path):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def told_when_full(path: Path) -> Iterator[None]:
    """Turn whatever a full disk makes of writing ``path`` into one sentence, an ``ArtifactError``."""
    try:
        yield
    except Exception as error:
        if _of_full_disk(error):
            raise ArtifactError(f"{path} cannot be written: the disk is full; make room and rerun") from None
        raise


def _of_full_disk(error: BaseException | None) -> bool:
    """torch raises something else out of the operating system's error, safetensors has it in words alone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__context__
    return False


def write_table(frame: pl.DataFrame, table: Table, path: Path) -> None:
    """Validate ``frame`` against ``table`` and write it atomically, columns in the published order.

    Raises:
        ArtifactError: if a column is missing, has another type, or holds nulls where none may be, or a patient is in
            several splits.
    """
    missing = [name for name in table.columns if name not in frame.columns]
    if missing:
        raise ArtifactError(f"{path}: table {table.name!r} lacks the column {missing[0]!r}")
    frame = pl.DataFrame([_cast(frame[name], dtype, path) for name, dtype in table.schema.items()])
    _check_values(frame, table, path)
    with atomic_path(path) as temporary:
        metadata = {"mammoclip.table": table.name, "mammoclip.version": str(table.version)}
        frame.write_parquet(temporary, metadata=metadata, compression="zstd")


def read_table(table: Table, path: Path) -> pl.DataFrame:
    """Read ``path`` as ``table``.

    Raises:
        ArtifactError: names the file, the column, what was expected and what was found.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; run the stage that writes the {table.name!r} table first")
    try:
        metadata = pl.read_parquet_metadata(path)
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{path} is not a readable Parquet file ({error}); delete it and rerun its stage") from None
    found = (metadata.get("mammoclip.table"), metadata.get("mammoclip.version"))
    if found != (table.name, str(table.version)):
        raise ArtifactError(
            f"{path}: expected table {table.name!r} version {table.version}, found {found[0]!r} version {found[1]}; "
            "delete it and rerun its stage"
        )
    for name, dtype in table.schema.items():
        if name not in frame.columns:
            raise ArtifactError(f"{path}: column {name!r} is missing; delete the file and rerun its stage")
        if frame.schema[name] != dtype:
            raise ArtifactError(f"{path}: column {name!r} should be {dtype}, found {frame.schema[name]}")
    _check_values(frame, table, path)
    return frame.select(list(table.columns))


def _cast(column: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    """Return ``column`` as ``dtype``, where every value survives it."""
    try:
        cast = column.cast(dtype)
        if column.dtype.is_float() and dtype.is_integer() and not cast.cast(column.dtype).equals(column):
            raise pl.exceptions.InvalidOperationError("fractions would be cut off")
        return cast
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(
            f"{path}: column {column.name!r} should be {dtype}, found {column.dtype} ({str(error).splitlines()[0]})"
        ) from None


def _check_values(frame: pl.DataFrame, table: Table, path: Path) -> None:
    for name, column in table.columns.items():
        if not column.nullable and frame[name].null_count():
            raise ArtifactError(f"{path}: column {name!r} holds {frame[name].null_count()} nulls, none may be")
    if {"patient_id", "split"} <= set(table.columns) and not table.columns["split"].nullable:
        splits = frame.lazy().group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
        if crossing := splits.collect().height:
            raise ArtifactError(
                f"{path}: {crossing} patients are in several splits; what is learned of a patient in training would be "
                "tested on the same patient. Give each patient one split and rerun the tabulate stage"
            )


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
