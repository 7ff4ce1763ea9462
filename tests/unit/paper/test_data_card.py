"""The data card of five images of two patients, every number of it counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mammoclip.artifacts import (
    ATTRIBUTES,
    BREASTS,
    FINDINGS,
    IMAGES,
    INDEX,
    LABELS,
    MANIFEST,
    REJECTS,
    REPORTS,
    Table,
)
from mammoclip.datasets.base import Source
from mammoclip.paper.counts import Counts
from mammoclip.paper.data_card import DataCard, describe_data
from mammoclip.paper.inputs import DatasetTables
from mammoclip.paper.page import load_page
from mammoclip.paper.report import DatasetCard, Thumbnails
from mammoclip.paper.texts import TextFacts
from tests.unit.paper.html_page import Page

SOURCE = Source(
    title="Clinic 1.0", kind="real mammograms of Clinic", licence="CC BY 4.0", url="", citation="Doe (2020)."
)


def _rows(table: Table, columns: str, *rows: Sequence[Any]) -> pl.DataFrame:
    """Rows of ``table`` of which only some columns matter; the others are null."""
    given = pl.DataFrame(rows, schema={name: table.schema[name] for name in columns.split()}, orient="row")
    others = [pl.lit(None, dtype).alias(name) for name, dtype in table.schema.items() if name not in given.columns]
    return given.with_columns(others).select(list(table.columns))


@pytest.fixture
def tables() -> DatasetTables:
    images = _rows(
        IMAGES, "image_id patient_id study_id laterality view split height_px width_px",
        ("a", "p1", "s1", "L", "CC", "train", 200, 100),
        ("b", "p1", "s1", "L", "MLO", "train", 200, 100),
        ("c", "p1", "s2", "R", "CC", "train", 200, 100),
        ("d", "p2", "s3", "L", "MLO", "test", 200, 100),
        ("e", "p2", "s3", "R", "CC", "test", 200, 100),
    )  # fmt: skip
    syntax = ["1.2.840.10008.1.2.1"] * 5
    return DatasetTables(
        name="clinic",
        source=SOURCE,
        shards=Path("none"),
        index=_rows(
            INDEX, "image_id manufacturer transfer_syntax", *zip("abcde", ["Maker"] * 4 + [None], syntax, strict=True)
        ),
        index_rejects=REJECTS.empty(),
        manifest=MANIFEST.empty(),
        shard_rejects=REJECTS.empty(),
        images=images,
        findings=_rows(
            FINDINGS, "image_id finding x_min y_min x_max y_max",
            ("a", "mass", 10.0, 20.0, 30.0, 60.0),  # 800 of 20,000 pixels
            ("a", "suspicious_calcification", 0.0, 0.0, 10.0, 10.0),
            ("d", "mass", 0.0, 0.0, 10.0, 20.0),
            ("d", "mass", 50.0, 0.0, 60.0, 20.0),
            ("d", "mass", 80.0, 0.0, 90.0, 20.0),
        ),
        attributes=_rows(
            ATTRIBUTES, "image_id attribute value source",
            ("a", "age", 61, "table"),
            ("a", "birads", 0, "table"),
            ("a", "density", 1, "table"),
            ("a", "mass", 1, "table"),
            ("b", "density", 1, "table"),
            ("b", "mass", 0, "table"),
            ("c", "no_finding", 1, "table"),
            ("d", "density", 3, "report"),
            ("d", "mass", 1, "report"),
        ),
        labels=LABELS.empty(),
        reports=_rows(
            REPORTS, "patient_id section sentences",
            ("p1", "FINDINGS", ["no mass."]),
            ("p1", "IMPRESSION", ["bi-rads 0."]),
            ("p2", "FINDINGS", ["a mass is seen."]),
        ),
        breasts=_rows(
            BREASTS, "patient_id laterality split cc_image_ids mlo_image_ids texts",
            ("p1", "L", "train", ["a"], ["b"], [["no mass."]]),
            ("p1", "R", "train", ["c"], [], []),
            ("p2", "L", "test", [], ["d"], [["a mass is seen."]]),
            ("p2", "R", "test", ["e"], [], []),
        ),
        tabulate_rejects=_rows(
            REJECTS, "stage path reason detail",
            ("tabulate", "a", "contradictory_rows", "density has several values; it is left out"),
            ("tabulate", "b", "contradictory_rows", "density has several values; it is left out"),
            ("tabulate", "reports.csv row 2", "contradictory_rows", "the report says another mass than the tables"),
            ("tabulate", "reports.csv row 3", "empty_report", "no section has text"),
        ),
    )  # fmt: skip


@pytest.fixture
def bare(tables: DatasetTables) -> DatasetTables:
    """The same images without reports, boxes, labels and rejects."""
    return replace(
        tables,
        findings=FINDINGS.empty(),
        attributes=ATTRIBUTES.empty(),
        reports=REPORTS.empty(),
        breasts=tables.breasts.with_columns(texts=pl.lit([], BREASTS.schema["texts"])),
        tabulate_rejects=REJECTS.empty(),
    )


def _images_by(card: DataCard, header: str) -> Sequence[tuple[str, Sequence[int]]]:
    (counts,) = (counts for counts in card.images if counts.header == header)
    assert counts.columns == ["Train", "Test", "All"]
    return counts.rows


def _render(tables: DatasetTables) -> str:
    sample = Thumbnails(num_images=len(tables.images), num_sampled=0, pictures=[], colours={})
    return load_page("data_card.html").render(card=DatasetCard(describe_data(tables), "data:,", sample))


# The numbers.


def test_the_size_of_each_split_is_counted(tables: DatasetTables) -> None:
    sizes = describe_data(tables).sizes
    assert sizes.columns == ["Images", "Breasts", "Exams", "Patients"]
    assert sizes.rows == [("train", [3, 2, 2, 1]), ("test", [2, 2, 1, 1]), ("all", [5, 4, 3, 2])]


def test_images_are_counted_by_what_they_are(tables: DatasetTables) -> None:
    card = describe_data(tables)
    assert _images_by(card, "View") == [("CC", [2, 1, 3]), ("MLO", [1, 1, 2])]
    assert _images_by(card, "Laterality") == [("L", [2, 1, 3]), ("R", [1, 1, 2])]
    assert _images_by(card, "Manufacturer") == [("Maker", [3, 1, 4]), ("not stated", [0, 1, 1])]
    assert _images_by(card, "Transfer syntax") == [("Explicit VR Little Endian", [3, 2, 5])]


def test_density_and_birads_are_counted_in_their_order_with_the_unknown(tables: DatasetTables) -> None:
    card = describe_data(tables)
    assert _images_by(card, "Breast density") == [("B", [2, 0, 2]), ("D", [0, 1, 1]), ("unknown", [1, 1, 2])]
    assert _images_by(card, "BI-RADS") == [("0", [1, 0, 1]), ("unknown", [2, 2, 4])]


def test_findings_are_present_absent_or_unknown_in_each_split(tables: DatasetTables) -> None:
    labels = describe_data(tables).labels
    assert labels.groups == ["Train", "Test"]
    assert labels.columns == ["Present", "Absent", "Unknown"] * 2
    assert labels.rows == [("mass", [1, 1, 1, 1, 0, 1]), ("no finding", [1, 0, 2, 0, 0, 2])]


def test_labels_read_from_reports_are_counted_apart(tables: DatasetTables) -> None:
    read = describe_data(tables).read_labels
    assert read.caption == "Labels read from reports by finding"
    assert (read.columns, read.rows) == (["Test", "All"], [("mass", [1, 1])])


def test_findings_stand_in_the_order_of_the_paper_and_other_labels_follow(tables: DatasetTables) -> None:
    names = ["biopsy", "skin_thickening", "mass", "no_finding"]
    labels = _rows(ATTRIBUTES, "image_id attribute value source", *(("a", name, 1, "table") for name in names))
    rows = describe_data(replace(tables, attributes=labels)).labels.rows
    assert [name for name, _ in rows] == ["mass", "skin thickening", "biopsy", "no finding"]


def test_what_is_missing_is_counted(tables: DatasetTables) -> None:
    missing = describe_data(tables).missing
    assert missing.columns == ["Number", "Of"]
    assert missing.rows == [
        ("images without any label", [1, 5]),
        ("images without density", [2, 5]),
        ("images without BI-RADS", [4, 5]),
        ("breasts without text", [2, 4]),
        ("breasts without a CC image", [1, 4]),
        ("breasts without an MLO image", [2, 4]),
    ]


def test_contradictions_are_counted_by_kind_and_other_rejects_are_not(tables: DatasetTables) -> None:
    assert describe_data(tables).conflicts.rows == [
        ("density has several values; it is left out", [2]),
        ("the report says another mass than the tables", [1]),
    ]


def test_texts_are_described_in_numbers(tables: DatasetTables) -> None:
    assert describe_data(tables).texts == [
        TextFacts("FINDINGS", num_texts=2, num_distinct=2, commonest=0.5, words=(2, 3.0, 4)),
        TextFacts("IMPRESSION", num_texts=1, num_distinct=1, commonest=1.0, words=(2, 2.0, 2)),
    ]


def test_boxes_are_counted_by_image_and_by_finding(tables: DatasetTables) -> None:
    boxes = describe_data(tables).boxes
    assert boxes.num_boxes == 5
    assert boxes.per_image.caption == "Images by number of boxes"
    assert boxes.per_image.rows == [("0", [2, 1, 3]), ("2", [1, 0, 1]), ("3 or more", [0, 1, 1])]
    assert boxes.per_finding.caption == "Boxes by finding"
    assert boxes.per_finding.rows == [("mass", [1, 3, 4]), ("suspicious calcification", [1, 0, 1])]


def test_boxes_are_measured_against_the_cropped_image(tables: DatasetTables) -> None:
    assert describe_data(tables).boxes.areas == pytest.approx((0.005, 0.01, 0.04))


def test_boxes_of_images_that_are_not_converted_have_no_share(tables: DatasetTables) -> None:
    unplaced = tables.images.with_columns(pl.lit(None, pl.Int32).alias(name) for name in ("height_px", "width_px"))
    boxes = describe_data(replace(tables, images=unplaced)).boxes
    assert (boxes.num_boxes, boxes.areas) == (5, None)


def test_the_order_of_the_rows_does_not_matter(tables: DatasetTables) -> None:
    frames = {name: value.reverse() for name, value in vars(tables).items() if isinstance(value, pl.DataFrame)}
    assert describe_data(replace(tables, **frames)) == describe_data(tables)


def test_a_bare_data_set_has_a_card(bare: DatasetTables) -> None:
    card = describe_data(bare)
    assert (card.labels.rows, card.read_labels.rows, card.texts, card.conflicts.rows) == ([], [], [], [])
    assert (card.boxes.num_boxes, card.boxes.areas) == (0, None)
    assert card.boxes.per_image.rows == [("0", [3, 2, 5])]
    assert _images_by(card, "Breast density") == [("unknown", [3, 2, 5])]
    assert ("images without any label", [5, 5]) in card.missing.rows
    assert ("breasts without text", [4, 4]) in card.missing.rows


def test_a_data_set_without_an_image_has_a_card(bare: DatasetTables) -> None:
    card = describe_data(replace(bare, images=IMAGES.empty(), breasts=BREASTS.empty(), index=INDEX.empty()))
    assert card.sizes.rows == [("all", [0, 0, 0, 0])]
    assert dict(card.missing.rows)["images without any label"] == [0, 0]
    assert all(not counts.rows for counts in card.images)


# The page.


def test_every_number_of_the_card_is_on_the_page(tables: DatasetTables) -> None:
    card = describe_data(tables)
    page = Page(_render(tables))
    shown: list[Counts] = [
        card.sizes, *card.images, card.labels, card.read_labels, card.missing, card.conflicts, card.boxes.per_image,
        card.boxes.per_finding,
    ]  # fmt: skip
    for counts in shown:
        for name, numbers in counts.rows:
            assert page.has_row(name, *map(str, numbers)), name
    assert page.has_row("FINDINGS", "2", "2", "50.0 %", "2", "3", "4")


def test_the_areas_of_the_boxes_are_told_in_a_sentence(tables: DatasetTables) -> None:
    text = Page(f"<body>{_render(tables)}</body>").text()
    assert "The median box covers 1.0 % of its cropped image, the smallest 0.5 %, the largest 4.0 %." in text


def test_what_a_bare_data_set_lacks_is_said(bare: DatasetTables) -> None:
    page = Page(f"<body>{_render(bare)}</body>")
    for sentence in (
        "No image has a label of a finding.",
        "No label contradicts another.",
        "This data set has no report texts.",
        "This data set has no boxes.",
    ):
        assert sentence in page.text()
    assert not page.find("img")


def test_the_source_is_named_with_its_licence_and_citation(tables: DatasetTables) -> None:
    text = Page(f"<body>{_render(tables)}</body>").text()
    for words in ("Clinic 1.0", "real mammograms of Clinic", "CC BY 4.0", "Doe (2020)."):
        assert words in text
    assert "does not forbid releasing them" in text


def test_a_licence_that_forbids_to_release_weights_is_a_warning(tables: DatasetTables) -> None:
    page = Page(_render(replace(tables, source=replace(SOURCE, weights_may_be_released=False))))
    (warning,) = (text for _, attributes, text in page.find("p") if attributes.get("class") == "warning")
    assert "do not release the weights" in warning
    assert "does not forbid" not in _render(replace(tables, source=replace(SOURCE, weights_may_be_released=False)))


def test_a_data_set_of_an_unknown_source_credits_nobody(tables: DatasetTables) -> None:
    assert not Page(_render(replace(tables, source=None))).find("dl")


def test_a_hostile_contradiction_stays_text(tables: DatasetTables) -> None:
    hostile = tables.tabulate_rejects.with_columns(detail=pl.lit("<script>alert('x')</script>"))
    assert "<script" not in _render(replace(tables, tabulate_rejects=hostile))
