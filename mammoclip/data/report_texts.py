"""Reports as cleaned sentences of each breast, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from mammoclip.artifacts import REPORTS
from mammoclip.data.progress import report_progress
from mammoclip.data.workers import map_ordered
from mammoclip.errors import RejectedInput
from mammoclip.text import Mode, clean_sentences, normalise_birads, side_facts, side_text, split_report

SECTIONS = ("FINDINGS", "IMPRESSION")
MAX_CHARACTERS = 50_000
"""The longest reports of a large hospital have some 20,000 characters; more is a file in the wrong place."""

_KEYS = ["patient_id", "study_id", "laterality"]
_CHUNK = 256
_PARALLEL = 20_000
"""Distinct documents from which worker processes are worth their start."""
_TIME_LIMIT_S = 60.0

Document = tuple[str | None, tuple[tuple[str, str], ...]]
"""Side (None: both), and the sections (name, text) of a report."""


@dataclass(frozen=True)
class ReadReports:
    """What reports say.

    ``sections`` has the columns of the table ``reports`` but dataset; ``facts`` has study_id, patient_id, laterality,
    attribute, value, source; ``rejects`` has path, reason, detail.
    """

    sections: pl.DataFrame
    facts: pl.DataFrame
    rejects: pl.DataFrame


def read_reports(reports: pl.DataFrame, images: pl.DataFrame, mode: Mode, processes: int) -> ReadReports:
    """Cut reports into sections, sides and cleaned sentences, and read what they say of each breast.

    Each distinct report is worked on once. Sections of which nothing is left are left out. In ``strict`` mode sentences
    that speak of the other breast alone are left out of a report that belongs to one breast, too.

    Args:
        reports: columns of ``datasets.base.REPORTS``.
        images: columns patient_id, study_id, laterality of the images that the reports may speak of.
        mode: how text is cleaned; facts are read in ``strict`` mode only.
        processes: worker processes for many reports; the result does not depend on it.
    """
    usable, rejects = _usable(reports, images)
    documents = (
        usable.group_by(*_KEYS, maintain_order=True)
        .agg(pl.struct("section", "text").alias("sections"), pl.col("source").first())
        .sort("study_id", "laterality", maintain_order=True)
    )
    distinct = documents.select("laterality", "sections").unique(maintain_order=True).with_row_index("document")
    work: list[Document] = [
        (side, tuple((section["section"], section["text"]) for section in sections))
        for _, side, sections in distinct.rows()
    ]
    read = partial(_read, mode)
    alone = len(work) < _PARALLEL or processes == 1
    outcomes = map(read, work) if alone else map_ordered(read, work, processes, _TIME_LIMIT_S, _CHUNK)
    results: list[Any] = list(report_progress(outcomes, len(work), "tabulate: distinct reports"))
    failed = [
        (number, result.reason, result.detail)
        for number, result in enumerate(results)
        if isinstance(result, RejectedInput)
    ]
    spoken = [row for number, (sections, _) in _good(results) for row in _numbered(number, sections)]
    stated = [row for number, (_, facts) in _good(results) for row in _numbered(number, facts)]
    keyed = documents.join(distinct, on=["laterality", "sections"], how="left", nulls_equal=True, maintain_order="left")
    keyed = keyed.select("patient_id", "study_id", "source", "document")
    schema = {"document": pl.UInt32, "laterality": pl.String}
    texts = pl.DataFrame(spoken, schema={**schema, "section": pl.String, "sentences": pl.List(pl.String)}, orient="row")
    facts = pl.DataFrame(stated, schema={**schema, "attribute": pl.String, "value": pl.Int32}, orient="row")
    unread = pl.DataFrame(
        failed, schema={"document": pl.UInt32, "reason": pl.String, "detail": pl.String}, orient="row"
    )
    slow = (
        keyed.join(unread, on="document").select("reason", "detail", path="source").select("path", "reason", "detail")
    )
    columns = [name for name in REPORTS.columns if name != "dataset"]
    return ReadReports(
        sections=keyed.join(texts, on="document", maintain_order="left_right").select(columns),
        facts=keyed.join(facts, on="document", maintain_order="left_right").drop("document"),
        rejects=pl.concat([rejects, slow]),
    )


def _usable(reports: pl.DataFrame, images: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Put aside reports without text, that are too long, or of exams and breasts without an image."""
    exams = images.select("patient_id", "study_id").unique().with_columns(exam=True)
    breasts = images.select(_KEYS).unique().with_columns(breast=True)
    joined = reports.join(exams, on=["patient_id", "study_id"], how="left", maintain_order="left").join(
        breasts, on=_KEYS, how="left", maintain_order="left"
    )
    here = pl.when(pl.col("laterality").is_null()).then(pl.col("exam")).otherwise(pl.col("breast"))
    text = pl.col("text").fill_null("").str.strip_chars()
    # A section that one exam leaves empty is no fault; a report of which every section is empty is one.
    silent = (text.str.len_chars() == 0).all().over(_KEYS) & pl.struct(_KEYS).is_first_distinct()
    checks = [
        (~here.fill_null(False), "report_without_image", "a report of an exam or breast without an image"),
        (text.str.len_chars() > MAX_CHARACTERS, "too_long_report", f"more than {MAX_CHARACTERS:,} characters"),
        (silent, "empty_report", "no section has text"),
    ]
    checked = joined.with_columns(
        reason=pl.coalesce(pl.when(wrong).then(pl.lit(reason)) for wrong, reason, _ in checks),
        detail=pl.coalesce(pl.when(wrong).then(pl.lit(detail)) for wrong, _, detail in checks),
    )
    rejects = checked.drop_nulls("reason").select("reason", "detail", path="source")
    usable = checked.filter(pl.col("reason").is_null() & (text.str.len_chars() > 0))
    return usable.select(reports.columns), rejects.select("path", "reason", "detail").unique(maintain_order=True)


def _read(mode: Mode, document: Document) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the rows (laterality, section, sentences), and the facts (laterality, attribute, value)."""
    side, texts = document
    parts = [
        part for name, text in texts for part in (split_report(text).items() if name == "REPORT" else [(name, text)])
    ]
    sides: Sequence[Any] = ("L", "R") if side is None else (side,)
    rows: list[tuple[Any, ...]] = []
    for name, text in sorted((part for part in parts if part[0] in SECTIONS), key=lambda part: part[0]):
        whole = normalise_birads(text, mode) if name == "IMPRESSION" else text
        for laterality in sides:
            own = whole if side is not None and mode == "compat" else side_text(whole, laterality)
            if sentences := clean_sentences(own, mode):
                rows.append((laterality, name, sentences))
    return rows, _facts(parts, sides) if mode == "strict" else []


def _facts(parts: Sequence[tuple[str, str]], sides: Sequence[Any]) -> list[tuple[Any, ...]]:
    sections: dict[str, str] = {}
    for name, text in parts:
        sections[name] = f"{sections[name]}\n\n{text}" if name in sections else text
    return [(side, name, value) for side in sides for name, value in sorted(side_facts(sections, side).items())]


def _good(results: Sequence[Any]) -> list[tuple[int, Any]]:
    return [(number, result) for number, result in enumerate(results) if not isinstance(result, RejectedInput)]


def _numbered(number: int, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(number, *row) for row in rows]
