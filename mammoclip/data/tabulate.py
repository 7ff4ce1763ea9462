"""Stage ``tabulate``: reports, labels, boxes and image-text pairs as the common tables."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mammoclip.artifacts import ATTRIBUTES, BREASTS, FINDINGS, IMAGES, REPORTS
from mammoclip.dicom import CropBox, Placement
from mammoclip.errors import DatasetError
from mammoclip.text import Mode, PromptGrammar, clean_sentences, normalise_birads, side_text, split_report

log = logging.getLogger(__name__)

SECTIONS = ("FINDINGS", "IMPRESSION")
_BOX = ["x_min", "y_min", "x_max", "y_max"]


@dataclass(frozen=True)
class RawTables:
    """What the adapter and the earlier stages give (see ``datasets.base`` and ``artifacts``)."""

    index: pl.DataFrame
    manifest: pl.DataFrame
    findings: pl.DataFrame
    attributes: pl.DataFrame
    reports: pl.DataFrame


@dataclass(frozen=True)
class SplitFractions:
    """Fractions of patients; used only where the data set does not give the split itself."""

    validation: float
    test: float
    seed: int


def tabulate_dataset(raw: RawTables, dataset: str, mode: Mode, fractions: SplitFractions) -> dict[str, pl.DataFrame]:
    """Return the tables images, findings, attributes, reports and breasts of one data set.

    Raises:
        DatasetError: if the data set puts a patient into several splits.
    """
    images = _images(raw, fractions)
    here = images.select("image_id")
    attributes = raw.attributes.join(here, on="image_id", how="semi").sort("image_id", "attribute")
    findings = _findings(raw, images, mode)
    reports = _reports(raw.reports.join(images.select("study_id").unique(), on="study_id", how="semi"), mode)
    tables = {
        "images": images,
        "findings": findings.with_columns(dataset=pl.lit(dataset)).select(list(FINDINGS.columns)),
        "attributes": attributes.with_columns(dataset=pl.lit(dataset)).select(list(ATTRIBUTES.columns)),
        "reports": reports.with_columns(dataset=pl.lit(dataset)).select(list(REPORTS.columns)),
    }
    # The sections' names are in the order of a report; the order within each stays.
    texts = reports.sort("section", maintain_order=True)
    # A magnification or spot view shows part of a breast: it is an image, but no CC or MLO of a pair.
    partial = raw.index.filter(pl.col("magnification") | pl.col("spot_compression"))
    full_field = images.join(partial, on="image_id", how="anti")
    tables["breasts"] = _breasts(full_field, texts if len(texts) else prompt_texts(images, attributes, fractions.seed))
    return tables


def assign_split(given: str | None, patient_id: str, fractions: SplitFractions) -> str:
    """Return the split of a patient: a given test stays test, training patients lend some to validation.

    The choice hashes the patient's id, so it does not change when patients are added.

    Raises:
        DatasetError: if ``given`` is none of train, validation, test and None.
    """
    if given not in ("train", "validation", "test", None):
        raise DatasetError(f"the data set's table has the split {given!r}; expected train, validation, test or nothing")
    digest = hashlib.sha256(f"{fractions.seed}/{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if given in ("test", "validation"):
        return given
    if given is None:
        if position < fractions.test:
            return "test"
        position = (position - fractions.test) / (1.0 - fractions.test)
    return "validation" if position < fractions.validation else "train"


def _images(raw: RawTables, fractions: SplitFractions) -> pl.DataFrame:
    mixed = raw.index.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    if len(mixed):
        raise DatasetError(
            f"the data set's table puts {len(mixed)} patients into several splits, such as "
            f"{mixed['patient_id'].sort()[0]!r}; correct it: a patient belongs to one split"
        )
    splits = [
        assign_split(given, patient, fractions) for given, patient in raw.index.select("split", "patient_id").rows()
    ]
    index = raw.index.with_columns(split=pl.Series(splits, dtype=pl.String))
    return index.join(raw.manifest, on="image_id", how="inner").select(list(IMAGES.columns)).sort("image_id")


def _findings(raw: RawTables, images: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """Move the boxes from stored pixels to pixels of the PNG; boxes outside the crop are dropped in strict mode."""
    sizes = raw.index.select("image_id", "rows", "columns")
    boxes = raw.findings.drop_nulls(_BOX).join(images, on="image_id", how="inner").join(sizes, on="image_id")
    rows: list[dict[str, Any]] = []
    for row in boxes.sort("image_id", "finding", *_BOX).iter_rows(named=True):
        crop = CropBox(row["crop_top"], row["crop_bottom"], row["crop_left"], row["crop_right"])
        placement = Placement(crop, row["scale_x"], row["scale_y"], row["pad_left"], row["pad_top"])
        box = np.array([[row[name] for name in _BOX]], np.float64)
        if mode == "compat":
            moved = placement.boxes_to_png_compat(box, (row["rows"], row["columns"]))
        else:
            moved, kept = placement.boxes_to_png(box)
            if not kept.any():
                continue
        coordinates = dict(zip(_BOX, moved[0].tolist(), strict=True))
        rows.append({"image_id": row["image_id"], "finding": row["finding"], "birads": row["birads"], **coordinates})
    if len(rows) < len(boxes):
        log.info("tabulate: %d of %d boxes lie outside the crop and are left out", len(boxes) - len(rows), len(boxes))
    schema = {name: dtype for name, dtype in FINDINGS.schema.items() if name != "dataset"}
    return pl.DataFrame(rows, schema=schema)


def _reports(raw: pl.DataFrame, mode: Mode) -> pl.DataFrame:
    """Cut reports into sections, sides and cleaned sentences; empty ones are left out."""
    rows: list[tuple[str, str, str, str, list[str]]] = []
    for patient_id, study_id, side, section, text in raw.sort(
        "study_id", "laterality", "section", maintain_order=True
    ).rows():
        sections = split_report(text) if section == "REPORT" else {section: text}
        for name in SECTIONS:
            if name not in sections:
                continue
            whole = normalise_birads(sections[name], mode) if name == "IMPRESSION" else sections[name]
            for laterality in ("L", "R") if side is None else (side,):
                sentences = clean_sentences(side_text(whole, laterality) if side is None else whole, mode)
                if sentences:
                    rows.append((patient_id, study_id, laterality, name, sentences))
    schema = {name: dtype for name, dtype in REPORTS.schema.items() if name != "dataset"}
    return pl.DataFrame(rows, schema=schema, orient="row")


def prompt_texts(images: pl.DataFrame, attributes: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Describe each breast of a data set without reports by one drawn sentence per labelled finding and view."""
    grammar = PromptGrammar()
    labelled = attributes.join(images, on="image_id", how="inner")
    rows: list[tuple[str, str, list[str]]] = []
    keys = ["patient_id", "laterality", "view"]
    for (patient_id, laterality, view), group in labelled.sort(*keys, "image_id", "attribute").group_by(
        keys, maintain_order=True
    ):
        digest = hashlib.sha256(f"{patient_id}/{laterality}/{view}".encode()).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
        values = group.group_by("attribute", maintain_order=True).agg(pl.col("value").max())
        sentences = [
            grammar.draw(rng, finding, positive=value > 0, laterality="L" if laterality == "L" else "R")
            for finding, value in values.rows()
            if finding.replace("_", " ") in grammar.findings
        ]
        if sentences:
            rows.append((str(patient_id), str(laterality), sentences))
    schema = {name: REPORTS.schema[name] for name in ("patient_id", "laterality", "sentences")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _breasts(images: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    keys = ["dataset", "patient_id", "laterality", "split"]
    pairs = images.group_by(keys).agg(
        cc_image_ids=pl.col("image_id").filter(pl.col("view") == "CC").sort(),
        mlo_image_ids=pl.col("image_id").filter(pl.col("view") == "MLO").sort(),
    )
    grouped = texts.group_by("patient_id", "laterality", maintain_order=True).agg(
        texts=pl.col("sentences").unique(maintain_order=True)
    )
    joined = pairs.join(grouped, on=["patient_id", "laterality"], how="left")
    return (
        joined.with_columns(pl.col("texts").fill_null(pl.lit([], BREASTS.schema["texts"])))
        .select(list(BREASTS.columns))
        .sort("patient_id", "laterality")
    )
