from typing import Any

import polars as pl

from mammoclip.artifacts import FINDING_NAMES, LABELS
from mammoclip.data.labels import make_labels, settle_attributes, spread_over_images
from mammoclip.datasets import base

IMAGES = pl.DataFrame(
    [(f"{p}{side}{view}", p, f"s{p}", side, view) for p in "pq" for side in "LR" for view in ("CC", "MLO")],
    schema=["image_id", "patient_id", "study_id", "laterality", "view"],
    orient="row",
)
FACTS = {"patient_id": pl.String, "study_id": pl.String, "source": pl.String, "laterality": pl.String,
         "attribute": pl.String, "value": pl.Int32}  # fmt: skip


def settle(attributes: list[tuple[str, str, int]], facts: list[tuple[Any, ...]] = []) -> Any:  # noqa: B006
    return settle_attributes(
        pl.DataFrame(attributes, schema=base.ATTRIBUTES, orient="row"),
        pl.DataFrame(facts, schema=FACTS, orient="row"),
        IMAGES,
    )


def test_one_value_stays_and_equal_values_are_one() -> None:
    settled = settle([("pLCC", "mass", 1), ("pLCC", "mass", 1), ("pLCC", "density", 2), ("elsewhere", "mass", 1)])
    assert settled.attributes.rows() == [("pLCC", "density", 2, "table"), ("pLCC", "mass", 1, "table")]
    assert len(settled.rejects) == 0


def test_findings_are_the_union_of_their_rows_and_the_contradiction_is_told() -> None:
    settled = settle([("pLCC", "mass", 0), ("pLCC", "mass", 1)])
    assert settled.attributes.rows() == [("pLCC", "mass", 1, "table")]
    assert settled.rejects.rows() == [
        ("pLCC", "contradictory_rows", "mass is 1 in one row and 0 in another; 1 is used")
    ]


def test_another_label_with_two_values_is_unknown() -> None:
    settled = settle([("pLCC", "density", 0), ("pLCC", "density", 3), ("pLCC", "birads", 2)])
    assert settled.attributes.rows() == [("pLCC", "birads", 2, "table")]
    assert settled.rejects.rows() == [("pLCC", "contradictory_rows", "density has several values; it is left out")]


def test_no_finding_beside_a_finding_is_wrong() -> None:
    settled = settle([("pLCC", "no_finding", 1), ("pLCC", "mass", 1), ("pRCC", "no_finding", 1), ("pRCC", "mass", 0)])
    assert settled.attributes.rows() == [
        ("pLCC", "mass", 1, "table"),
        ("pRCC", "mass", 0, "table"),
        ("pLCC", "no_finding", 0, "table"),
        ("pRCC", "no_finding", 1, "table"),
    ]
    assert settled.rejects.select("path", "detail").rows() == [
        ("pLCC", "no_finding beside a finding; the finding holds")
    ]


def test_what_was_looked_for_and_is_not_stated_is_absent() -> None:
    said = pl.DataFrame([("pLCC", "mass", 1)], schema=base.ATTRIBUTES, orient="row")
    looked = pl.Series(["pLCC", "pLMLO"])
    searched = {"mass": looked, "asymmetry": looked, "implant": pl.Series(["qRCC"])}
    settled = settle_attributes(said, pl.DataFrame(schema=FACTS), IMAGES, searched)
    assert settled.attributes.drop("source").rows() == [
        ("pLCC", "mass", 1),
        ("pLMLO", "mass", 0),
        ("pLCC", "asymmetry", 0),
        ("pLMLO", "asymmetry", 0),
        ("qRCC", "implant", 0),
    ]


def test_what_a_report_says_of_a_breast_holds_for_its_images_where_no_table_speaks() -> None:
    facts = [("p", "sp", "reports.csv row 2", "L", "mass", 1), ("p", "sp", "reports.csv row 2", "L", "density", 1)]
    settled = settle([("pLCC", "density", 1)], facts)
    assert settled.attributes.rows() == [
        ("pLCC", "density", 1, "table"),
        ("pLMLO", "density", 1, "report"),
        ("pLCC", "mass", 1, "report"),
        ("pLMLO", "mass", 1, "report"),
    ]
    assert len(settled.rejects) == 0


def test_a_report_that_contradicts_the_tables_is_told_once() -> None:
    facts = [("p", "sp", "reports.csv row 2", "L", "mass", 1)]
    settled = settle([("pLCC", "mass", 0), ("pLMLO", "mass", 0)], facts)
    assert set(settled.attributes["value"]) == {0}
    assert settled.rejects.rows() == [
        ("reports.csv row 2", "contradictory_rows", "the report says another mass than the tables; the tables hold")
    ]


def test_labels_of_a_breast_are_those_of_its_images() -> None:
    rows = [("p", "sp", "L", "birads", 4), ("p", None, None, "age", 50), ("q", "other", "L", "birads", 1)]
    spread = spread_over_images(pl.DataFrame(rows, schema=base.BREAST_ATTRIBUTES, orient="row"), IMAGES)
    assert sorted(spread.rows()) == [
        ("pLCC", "age", 50),
        ("pLCC", "birads", 4),
        ("pLMLO", "age", 50),
        ("pLMLO", "birads", 4),
        ("pRCC", "age", 50),
        ("pRMLO", "age", 50),
    ]


# --- the wide table ---------------------------------------------------------------------------------------------------


def table_images() -> pl.DataFrame:
    return IMAGES.with_columns(dataset=pl.lit("d"), split=pl.lit("train"), fold=pl.lit(1, pl.Int32)).sort("image_id")


def test_strict_labels_are_one_row_per_image() -> None:
    attributes = settle([("pLCC", "mass", 1), ("pLCC", "density", 2), ("qRMLO", "implant", 0), ("qRMLO", "odd", 1)])
    labels = make_labels(table_images(), pl.DataFrame(schema=base.FINDINGS), attributes.labels, "strict")
    assert labels.schema == LABELS.schema
    assert labels["image_id"].to_list() == sorted(IMAGES["image_id"])
    found = {row["image_id"]: {k: v for k, v in row.items() if v is not None} for row in labels.rows(named=True)}
    ids = {"dataset": "d", "patient_id": "p", "study_id": "sp", "image_id": "pLCC", "laterality": "L", "view": "CC"}
    assert found["pLCC"] == {**ids, "split": "train", "fold": 1, "mass": 1, "density": 2}
    assert found["qRMLO"]["implant"] == 0 and "odd" not in found["qRMLO"]


def test_compat_labels_are_one_row_per_row_of_findings() -> None:
    rows = [
        ("pLCC", "mass", 4, 1.0, 2.0, 3.0, 4.0, "f.csv row 2"),
        ("pLCC", "skin_retraction", 4, 1.0, 2.0, 3.0, 4.0, "f.csv row 2"),
        ("pLCC", "asymmetry", 3, 5.0, 6.0, 7.0, 8.0, "f.csv row 3"),
        ("pLCC", "no_finding", None, None, None, None, None, "f.csv row 4"),
    ]
    findings = pl.DataFrame(rows, schema=base.FINDINGS, orient="row")
    attributes = settle([("pLCC", "mass", 1), ("pLCC", "density", 2), ("qLCC", "density", 1)]).labels
    labels = make_labels(table_images(), findings, attributes, "compat")
    assert labels.schema == LABELS.schema
    assert labels["image_id"].to_list() == ["pLCC"] * 3
    present = [{name for name in FINDING_NAMES if row[name]} for row in labels.rows(named=True)]
    assert present == [{"mass", "skin_retraction"}, {"asymmetry"}, set()]
    assert labels.select("no_finding", "density", "finding_birads", "x_min", "y_max").rows() == [
        (0, 2, 4, 1.0, 4.0),
        (0, 2, 3, 5.0, 8.0),
        (1, 2, None, None, None),
    ]
