"""The data card of a data set: what it holds, what it lacks and where it contradicts itself, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mammoclip.artifacts import FINDING_NAMES
from mammoclip.datasets.base import Source
from mammoclip.paper.boxes import BoxFacts, describe_boxes
from mammoclip.paper.counts import ALL, Counts, count_values, cut_rows, name_headers, occurring_splits
from mammoclip.paper.inputs import DatasetTables
from mammoclip.paper.texts import TextFacts, describe_texts
from mammoclip.paper.wording import CLASSES, finding_name

CONTRADICTION = "contradictory_rows"
"""The reason of a reject that says that labels contradict each other."""
_GRADES: Mapping[str, Sequence[str]] = {
    "density": CLASSES["density"],
    "birads": [str(grade) for grade in range(7)],
}
"""Attributes that are no finding, and their values 0, 1, ... in words."""
_COUNTED = {
    "view": "view",
    "laterality": "laterality",
    "density": "breast density",
    "birads": "BI-RADS",
    "manufacturer": "manufacturer",
    "transfer_syntax": "transfer syntax",
}
_PLACES = {finding_name(name): place for place, name in enumerate(FINDING_NAMES)}


@dataclass(frozen=True)
class DataCard:
    """What one data set is; ``source`` is None when its adapter is not known.

    All count by split but ``missing`` (how many of how many lack something), ``conflicts`` (contradictions between
    labels by kind) and ``texts`` (an element per section). ``read_labels`` are those of ``labels`` that reports gave.
    """

    dataset: str
    source: Source | None
    sizes: Counts
    images: Sequence[Counts]
    labels: Counts
    read_labels: Counts
    missing: Counts
    conflicts: Counts
    texts: Sequence[TextFacts]
    boxes: BoxFacts


def describe_data(tables: DatasetTables) -> DataCard:
    """Compute the card of one data set; the images are those of the table ``images``."""
    labels = _select_labels(tables.images, tables.attributes)
    read = labels.filter(source="report")
    contradictions = tables.tabulate_rejects.filter(pl.col("reason") == CONTRADICTION)
    return DataCard(
        dataset=tables.name,
        source=tables.source,
        sizes=_count_sizes(tables),
        images=_count_images(tables),
        labels=_count_labels(tables.images, labels),
        read_labels=count_values("labels read from reports", "finding", read["name"], read["split"]),
        missing=_count_missing(tables),
        conflicts=count_values("contradictions", "kind", contradictions["detail"]),
        texts=describe_texts(tables.reports),
        boxes=describe_boxes(tables.findings, tables.images),
    )


def _count_sizes(tables: DatasetTables) -> Counts:
    images, breasts = tables.images, tables.breasts
    parts = {split: pl.col("split") == split for split in occurring_splits(images["split"])} | {ALL: pl.lit(True)}
    exams, patients = ["patient_id", "study_id"], ["patient_id"]
    rows = []
    for name, part in parts.items():
        here = images.filter(part)
        rows.append((name, [len(here), breasts.filter(part).height, here.n_unique(exams), here.n_unique(patients)]))
    return cut_rows("Size of each split", "split", ["images", "breasts", "exams", "patients"], rows)


def _count_images(tables: DatasetTables) -> list[Counts]:
    headers = name_headers(tables.index).select("image_id", "manufacturer", "transfer_syntax")
    images = tables.images.join(headers, on="image_id", how="left")
    value = pl.col("value")
    for attribute, words in _GRADES.items():
        in_words = value.replace_strict(dict(enumerate(words)), default=value.cast(pl.String), return_dtype=pl.String)
        known = tables.attributes.filter(attribute=attribute).select("image_id", in_words.alias(attribute))
        images = images.join(known, on="image_id", how="left")
    return [
        count_values("images", name, images[column], images["split"], scale=_GRADES.get(column, ()))
        for column, name in _COUNTED.items()
    ]


def _select_labels(images: pl.DataFrame, attributes: pl.DataFrame) -> pl.DataFrame:
    """Return the attributes that are present or absent, with the split of their image and their name as it is shown."""
    graded = pl.col("attribute").is_in(list(_GRADES))
    yes_or_no = pl.col("value").is_between(0, 1).all().over("attribute")
    labels = attributes.filter(~graded & yes_or_no).join(images.select("image_id", "split"), on="image_id")
    names = pl.Series([finding_name(name) for name in labels["attribute"]], dtype=pl.String)
    return labels.with_columns(name=names)


def _count_labels(images: pl.DataFrame, labels: pl.DataFrame) -> Counts:
    """Count for every finding the images of each split in which it is present, absent or unknown."""
    splits = occurring_splits(images["split"])
    num_images = dict(images.group_by("split").len().rows())
    counted = labels.group_by("name", "split").agg(present=pl.col("value").sum(), num=pl.len())
    known = {(name, split): (present, num) for name, split, present, num in counted.rows()}
    rows: list[tuple[str, list[int]]] = []
    for name in sorted(set(labels["name"]), key=lambda name: (_PLACES.get(name, len(_PLACES)), name)):
        row: list[int] = []
        for split in splits:
            present, num = known.get((name, split), (0, 0))
            row += [present, num - present, num_images[split] - num]
        rows.append((name, row))
    columns = ["present", "absent", "unknown"] * len(splits)
    return cut_rows("Images in which a finding is present, absent or unknown", "finding", columns, rows, splits)


def _count_missing(tables: DatasetTables) -> Counts:
    images, breasts = tables.images.select("image_id"), tables.breasts
    labelled = {
        "any label": tables.attributes,
        "density": tables.attributes.filter(attribute="density"),
        "BI-RADS": tables.attributes.filter(attribute="birads"),
    }
    lists = {"text": "texts", "a CC image": "cc_image_ids", "an MLO image": "mlo_image_ids"}
    rows = [
        (f"images without {name}", [images.join(labels, on="image_id", how="anti").height, len(images)])
        for name, labels in labelled.items()
    ] + [
        (f"breasts without {name}", [breasts.filter(pl.col(column).list.len() == 0).height, len(breasts)])
        for name, column in lists.items()
    ]
    return cut_rows("Missing values", "what is missing", ["number", "of"], rows)
