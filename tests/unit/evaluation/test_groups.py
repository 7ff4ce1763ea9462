from __future__ import annotations

import polars as pl

from mammoclip.artifacts import ATTRIBUTES, FINDINGS
from mammoclip.evaluation.groups import LESION_SIZE, subgroups_of

IMAGES = pl.DataFrame({"image_id": ["a", "b", "c"], "view": ["CC", "MLO", "CC"], "height_px": [1000, 1000, 1000]})
INDEX = pl.DataFrame(
    {
        "image_id": ["b", "a"],
        "manufacturer": ["Hologic", "Siemens"],
        "age_years": pl.Series([None, None], dtype=pl.Int32),
        "implant": pl.Series([None, None], dtype=pl.Boolean),
    }
)


def attributes(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    full = [("d", image, name, value, "table") for image, name, value in rows]
    return pl.DataFrame(full, schema=ATTRIBUTES.schema, orient="row")


def findings(rows: list[tuple[str, str, tuple[float, float, float, float]]]) -> pl.DataFrame:
    full = [("d", image, name, None, *box) for image, name, box in rows]
    return pl.DataFrame(full, schema=FINDINGS.schema, orient="row")


def test_every_image_has_the_groups_that_are_known_of_it() -> None:
    known = attributes([("a", "density", 3), ("b", "age", 47), ("c", "age", 250), ("a", "implant", 0)])
    boxes = findings([("b", "mass", (0, 0, 30, 40)), ("b", "mass", (0, 0, 60, 10)), ("a", "asymmetry", (0, 0, 9, 9))])
    groups = subgroups_of(IMAGES, INDEX, known, boxes, "mass")
    assert groups["image_id"].to_list() == ["a", "b", "c"]
    assert groups["density"].to_list() == ["D", None, None]
    assert groups["age"].to_list() == [None, "40-49", None]
    assert groups["manufacturer"].to_list() == ["Siemens", "Hologic", None]
    assert groups["view"].to_list() == ["CC", "MLO", "CC"]
    assert groups["implant"].to_list() == ["no", None, None]
    assert groups[LESION_SIZE].to_list() == [None, "0.05 to < 0.1", None]


def test_age_and_implant_are_of_the_tables_or_else_of_the_headers() -> None:
    headers = INDEX.with_columns(age_years=pl.Series([61, 72], dtype=pl.Int32), implant=pl.Series([True, True]))
    known = attributes([("b", "age", 47), ("a", "age", 999), ("a", "implant", 0)])
    groups = subgroups_of(IMAGES, headers, known, findings([]), "mass")
    assert groups["age"].to_list() == ["70-79", "40-49", None]
    assert groups["implant"].to_list() == ["no", "yes", None]


def test_what_does_not_divide_the_images_is_no_subgroup() -> None:
    one_view = IMAGES.with_columns(view=pl.lit("CC"))
    groups = subgroups_of(one_view, INDEX, attributes([]), findings([]), "mass")
    assert groups.columns == ["image_id", "manufacturer"]
