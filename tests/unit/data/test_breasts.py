from typing import Any

import polars as pl

from mammoclip.artifacts import BREASTS, FINDING_NAMES
from mammoclip.data.breasts import make_breasts
from mammoclip.data.labels import settle_attributes
from mammoclip.datasets import base

FACTS = {"patient_id": pl.String, "study_id": pl.String, "laterality": pl.String, "attribute": pl.String,
         "value": pl.Int32, "source": pl.String}  # fmt: skip
SECTIONS = {"patient_id": pl.String, "study_id": pl.String, "laterality": pl.String, "section": pl.String,
            "sentences": pl.List(pl.String)}  # fmt: skip


def image_rows(*images: str) -> pl.DataFrame:
    """Images "p s L CC": patient, study, side, view; the id is the whole."""
    rows = [("d", *image.split(), image, "train") for image in images]
    columns = ["dataset", "patient_id", "study_id", "laterality", "view", "image_id", "split"]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def breasts(
    images: pl.DataFrame,
    labels: list[tuple[Any, ...]] = [],  # noqa: B006
    sections: list[tuple[Any, ...]] = [],  # noqa: B006
    mode: Any = "strict",
    partial: list[str] = [],  # noqa: B006
) -> list[dict[str, Any]]:
    attributes = pl.DataFrame(labels, schema=base.ATTRIBUTES, orient="row")
    wide = settle_attributes(attributes, pl.DataFrame(schema=FACTS), images).table
    texts = pl.DataFrame(sections, schema=SECTIONS, orient="row")
    table = make_breasts(images, pl.DataFrame({"image_id": partial}, {"image_id": pl.String}), wide, texts, mode)
    assert table.schema == BREASTS.schema
    return table.rows(named=True)


def test_a_breast_is_a_patients_side_over_all_exams_with_its_views_apart() -> None:
    rows = breasts(image_rows("p 2 L CC", "p 1 L MLO", "p 1 L CC", "p 1 L XCCL", "q 3 R ML"))
    assert [(r["patient_id"], r["laterality"], r["cc_image_ids"], r["mlo_image_ids"]) for r in rows] == [
        ("p", "L", ["p 1 L CC", "p 2 L CC"], ["p 1 L MLO"]),
        ("q", "R", [], []),
    ]
    assert rows[0]["texts"] == rows[0]["cc_positives"] == rows[0]["mlo_negatives"] == []


def test_a_magnification_or_spot_view_is_no_half_of_a_pair() -> None:
    (row,) = breasts(image_rows("p 1 L CC", "p 2 L CC"), partial=["p 2 L CC"])
    assert row["cc_image_ids"] == ["p 1 L CC"]


def test_labels_are_told_per_view_in_the_order_of_the_findings() -> None:
    labels = [("p 1 L CC", name, int(name in ("mass", "skin_thickening"))) for name in reversed(FINDING_NAMES)]
    (row,) = breasts(image_rows("p 1 L CC", "p 1 L MLO"), [*labels, ("p 1 L MLO", "asymmetry", 0)])
    assert row["cc_positives"] == ["mass", "skin_thickening"]
    assert row["cc_negatives"] == [name for name in FINDING_NAMES if name not in row["cc_positives"]]
    assert (row["mlo_positives"], row["mlo_negatives"]) == ([], ["asymmetry"])


def test_a_finding_in_one_image_of_a_view_is_a_finding_of_the_view() -> None:
    (row,) = breasts(image_rows("p 1 L CC", "p 2 L CC"), [("p 1 L CC", "mass", 0), ("p 2 L CC", "mass", 1)])
    assert (row["cc_positives"], row["cc_negatives"]) == (["mass"], [])


def test_no_finding_silences_what_is_absent_and_a_finding_silences_no_finding() -> None:
    nothing = [("p 1 L CC", "mass", 0), ("p 1 L CC", "no_finding", 1)]
    (row,) = breasts(image_rows("p 1 L CC"), nothing)
    assert (row["cc_positives"], row["cc_negatives"]) == (["no_finding"], [])
    found = [*nothing, ("p 2 L CC", "asymmetry", 1), ("p 2 L CC", "no_finding", 0)]
    (row,) = breasts(image_rows("p 1 L CC", "p 2 L CC"), found)
    assert (row["cc_positives"], row["cc_negatives"]) == (["asymmetry"], ["mass"])


def test_strict_knows_more_labels_than_the_released_code() -> None:
    labels = [("p 1 L CC", "malignancy", 1), ("p 1 L CC", "implant", 0), ("p 1 L CC", "density", 2),
              ("p 1 L MLO", "density", 2), ("p 1 L CC", "birads", 4), ("p 1 L MLO", "birads", 5)]  # fmt: skip
    images = image_rows("p 1 L CC", "p 1 L MLO")
    (row,) = breasts(images, labels)
    assert (row["cc_positives"], row["cc_negatives"]) == (["malignancy"], ["implant"])
    assert (row["density"], row["birads"]) == (2, None)  # two assessments: unknown
    (row,) = breasts(images, labels, mode="compat")
    assert (row["cc_positives"], row["cc_negatives"], row["density"]) == ([], [], None)


def test_texts_are_unique_and_findings_come_before_impressions_over_all_exams() -> None:
    sections = [
        ("p", study, "L", section, [f"{section} {text}"])
        for study, text in (("1", "a mass"), ("2", "a cyst"), ("3", "a mass"))
        for section in ("IMPRESSION", "FINDINGS")
    ]
    (row,) = breasts(image_rows("p 1 L CC"), sections=sections)
    assert row["texts"] == [["FINDINGS a mass"], ["FINDINGS a cyst"], ["IMPRESSION a mass"], ["IMPRESSION a cyst"]]
