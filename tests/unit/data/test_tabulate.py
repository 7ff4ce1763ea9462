from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mammoclip.artifacts import FINDING_NAMES, INDEX, MANIFEST, REJECTS, TABULATED, write_table
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import Tabulated, tabulate_dataset
from mammoclip.datasets import base
from mammoclip.datasets.base import Annotations
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import DatasetError

FRACTIONS = SplitFractions(validation=0.25, test=0.2, seed=1)
SCHEMAS = {table.name: table.schema for table in TABULATED}

# The crop of every image: rows 10 to 110, columns 20 to 70, stored as 200 x 100 pixels, so that all doubles.
PLACE = {
    "shard": "00000.tar", "offset": 512, "length": 9, "height_px": 200, "width_px": 100, "crop_top": 10,
    "crop_bottom": 110, "crop_left": 20, "crop_right": 70, "scale_x": 2.0, "scale_y": 2.0, "pad_left": 0, "pad_top": 0,
    "grayscale": "strict", "crop": "strict", "geometry": "stretch", "bits": 8, "png_sha256": "0",
}  # fmt: skip


@dataclass(frozen=True)
class Raw:
    index: pl.DataFrame
    manifest: pl.DataFrame | None
    annotations: Annotations


def raw_tables(
    images: list[tuple[str, str, str, str]],
    *,
    splits: dict[str, str | None] | None = None,
    lost: tuple[str, ...] = (),
    findings: list[tuple[Any, ...]] = (),  # type: ignore[assignment]
    attributes: list[tuple[str, str, int]] = (),  # type: ignore[assignment]
    reports: list[tuple[str, str, str | None, str, str]] = (),  # type: ignore[assignment]
) -> Raw:
    """Raw tables of images (patient, study, side, view); an image's id is these four joined by blanks."""
    ids = [" ".join(image) for image in images]
    index = pl.DataFrame(
        [
            {
                **dict(zip(("patient_id", "study_id", "laterality", "view"), image, strict=True)),
                **{"image_id": image_id, "dataset": "d", "path": image_id, "rows": 120, "columns": 80},
                "split": (splits or {}).get(image_id, (splits or {}).get(image[0])),
            }
            for image, image_id in zip(images, ids, strict=True)
        ],
        schema_overrides={name: dtype for name, dtype in INDEX.schema.items() if name in ("split", "rows", "columns")},
    )
    index = index.with_columns(
        pl.lit(None, dtype).alias(n) for n, dtype in INDEX.schema.items() if n not in index.columns
    )
    manifest = pl.DataFrame([{"image_id": i, **PLACE} for i in ids if i not in lost], schema=MANIFEST.schema)
    annotations = Annotations(
        findings=pl.DataFrame([(*row, f"row {n}") for n, row in enumerate(findings)], base.FINDINGS, orient="row"),
        attributes=pl.DataFrame(list(attributes), schema=base.ATTRIBUTES, orient="row"),
        reports=pl.DataFrame([(*row, f"row {n}") for n, row in enumerate(reports)], base.REPORTS, orient="row"),
    )
    return Raw(index.select(list(INDEX.columns)), manifest, annotations)


def four_views(patient: str, study: str = "s") -> list[tuple[str, str, str, str]]:
    return [(patient, study, side, view) for side in "LR" for view in ("CC", "MLO")]


def tabulate(raw: Raw, mode: Any = "strict", **options: Any) -> Tabulated:
    done = tabulate_dataset(raw.index, raw.manifest, raw.annotations, "d", mode, FRACTIONS, **options)
    assert {name: frame.schema for name, frame in done.tables.items()} == SCHEMAS
    assert done.rejects.schema == REJECTS.schema
    return done


def tables(raw: Raw, mode: Any = "strict", **options: Any) -> dict[str, pl.DataFrame]:
    return tabulate(raw, mode, **options).tables


# --- splits -----------------------------------------------------------------------------------------------------------


def test_splits_stay_when_patients_are_added() -> None:
    few = tables(raw_tables([image for n in range(20) for image in four_views(f"p{n}")]))["images"]
    many = tables(raw_tables([image for n in reversed(range(60)) for image in four_views(f"p{n}")]))["images"]
    assert set(many["split"]) == {"train", "validation", "test"}
    assert_frame_equal(many.join(few.select("image_id"), on="image_id", how="semi"), few)


def test_patients_never_cross_splits() -> None:
    images = [image for n in range(40) for study in ("s1", "s2") for image in four_views(f"p{n}", f"{study}-{n}")]
    splits = {f"p{n}": ["train", "test", None][n % 3] for n in range(39)}
    del splits["p2"]
    found = tables(raw_tables(images, splits={k: v for k, v in splits.items() if v}))
    assert found["images"].group_by("patient_id").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 40
    of_breasts = dict(found["breasts"].select("patient_id", "split").rows())
    assert of_breasts == dict(found["images"].select("patient_id", "split").rows())
    assert all(of_breasts[patient] == "test" for patient, split in splits.items() if split == "test")
    assert not any(of_breasts[patient] == "test" for patient, split in splits.items() if split == "train")


@pytest.mark.parametrize("other", ["train", None])
def test_a_patient_in_two_splits_of_the_data_set_is_an_error(other: str | None) -> None:
    images = four_views("p1") + four_views("p2")
    splits = {"p1": "test", "p2": "test", "p2 s L CC": other}
    with pytest.raises(DatasetError, match="1 patients into several splits, such as 'p2'"):
        tabulate(raw_tables(images, splits=splits))


def test_splits_are_stratified_where_asked() -> None:
    images = [image for n in range(200) for image in four_views(f"p{n}")]
    attributes = [(f"p{n} s L CC", "malignancy", int(n % 20 == 0)) for n in range(200)]
    found = tables(raw_tables(images, attributes=attributes), stratify_by="malignancy")["labels"]
    positive = found.filter(malignancy=1).select("patient_id", "split").unique()
    assert dict(positive["split"].value_counts().rows()) == {"train": 6, "validation": 2, "test": 2}


# --- images and boxes -------------------------------------------------------------------------------------------------

IMAGE = "p s L CC"


def test_images_are_those_that_were_written() -> None:
    found = tables(
        raw_tables(
            four_views("p"),
            lost=("p s L CC",),
            attributes=[("p s L CC", "mass", 1), ("p s R CC", "mass", 0), ("elsewhere", "mass", 1)],
            findings=[("p s L CC", "mass", 4, 30, 30, 40, 40), ("elsewhere", "mass", 4, 30, 30, 40, 40)],
        )
    )
    assert found["images"]["image_id"].to_list() == ["p s L MLO", "p s R CC", "p s R MLO"]
    assert found["labels"]["image_id"].to_list() == ["p s L MLO", "p s R CC", "p s R MLO"]
    assert found["attributes"].rows() == [("d", "p s R CC", "mass", 0, "table")]
    assert len(found["findings"]) == 0
    left = found["breasts"].filter(laterality="L").row(0, named=True)
    assert (left["cc_image_ids"], left["mlo_image_ids"]) == ([], ["p s L MLO"])


def test_before_any_image_is_converted_all_are_there_and_boxes_stay_in_stored_pixels() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", 4, 30, 40, 50, 60), (IMAGE, "mass", 4, 70, 1, 99, 9)])
    found = tables(replace(raw, manifest=None))
    assert len(found["images"]) == 4 and found["images"]["shard"].null_count() == 4
    assert found["findings"].select("x_min", "y_min", "x_max", "y_max").rows() == [(30, 40, 50, 60), (70, 1, 80, 9)]


def test_boxes_follow_crop_scale_and_padding_and_a_bad_one_is_told_while_its_label_stays() -> None:
    boxes = [(IMAGE, "mass", 4, 30, 40, 50, 60), (IMAGE, "asymmetry", 3, 0, 0, 20, 10), (IMAGE, "mass", 4, 9, 9, 5, 5),
             (IMAGE, "skin_thickening", None, None, None, None, None)]  # fmt: skip
    done = tabulate(raw_tables(four_views("p"), findings=boxes, attributes=[(IMAGE, "asymmetry", 1)]))
    assert done.tables["findings"].rows() == [("d", IMAGE, "mass", 4, 20.0, 60.0, 60.0, 100.0)]
    assert sorted(done.rejects.select("path", "reason", "stage").rows()) == [
        ("row 1", "box_outside_crop", "tabulate"),
        ("row 2", "bad_box", "tabulate"),
    ]
    assert done.tables["labels"].filter(image_id=IMAGE)["asymmetry"].to_list() == [1]


def test_a_box_that_is_given_twice_is_one_in_strict() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", 4, 30, 40, 50, 60)] * 2)
    assert len(tables(raw)["findings"]) == 1
    assert len(tables(raw, "compat")["findings"]) == 2


def test_a_magnification_or_spot_view_is_an_image_but_no_half_of_a_pair() -> None:
    raw = raw_tables(four_views("p"))
    spot = pl.col("image_id") == raw.index["image_id"][0]
    for flag in ("magnification", "spot_compression"):
        found = tables(replace(raw, index=raw.index.with_columns(spot.alias(flag))))
        paired = [*found["breasts"]["cc_image_ids"].explode(), *found["breasts"]["mlo_image_ids"].explode()]
        assert set(found["images"]["image_id"]) - set(paired) == {raw.index["image_id"][0]}


# --- reports and labels -----------------------------------------------------------------------------------------------


def test_reports_become_texts_and_labels_of_their_breast_and_tables_come_first() -> None:
    report = "FINDINGS: The breasts are extremely dense. Left breast: a spiculated mass is seen. Right breast: no mass."
    raw = raw_tables(
        four_views("p"), attributes=[("p s R CC", "mass", 1)], reports=[("p", "s", None, "REPORT", report)]
    )
    done = tabulate(raw)
    texts = {row["laterality"]: row["texts"] for row in done.tables["breasts"].rows(named=True)}
    assert "spiculated" in str(texts["L"]) and "spiculated" not in str(texts["R"])
    said = {(row["image_id"], row["attribute"]): (row["value"], row["source"]) for row in
            done.tables["attributes"].rows(named=True)}  # fmt: skip
    assert said["p s L CC", "mass"] == said["p s L MLO", "mass"] == (1, "report")
    assert said["p s R CC", "mass"] == (1, "table")
    assert {said[image, "density"] for image, name in said if name == "density"} == {(3, "report")}
    assert done.rejects.select("path", "reason").rows() == [("row 0", "contradictory_rows")]


def test_what_the_adapter_left_out_is_told() -> None:
    raw = raw_tables(four_views("p"))
    told = pl.DataFrame(
        [("labels.csv row 3", "wrong_type", "why")], schema=raw.annotations.rejected.schema, orient="row"
    )
    raw = replace(raw, annotations=replace(raw.annotations, rejected=told))
    done = tabulate(raw)
    assert done.rejects.rows() == [("d", "tabulate", "labels.csv row 3", "wrong_type", "why")]
    assert done.summary.endswith("2 breasts; rejected: 1 wrong_type")


# --- a whole cohort ---------------------------------------------------------------------------------------------------


def test_the_phantom_cohort_from_folder_to_tables(cohort: Any, sharded: Any, tmp_path: Any) -> None:
    done = tabulate(Raw(cohort.index, sharded.manifest, Phantom().annotations(cohort.root)))
    found = done.tables
    for table in TABULATED:
        write_table(found[table.name], table, tmp_path / f"{table.name}.parquet")
    assert found["images"]["image_id"].to_list() == sorted(cohort.index["image_id"])
    assert len(found["breasts"]) == 12
    assert all(len(row) == 1 for column in ("cc_image_ids", "mlo_image_ids") for row in found["breasts"][column])
    assert all(1 <= len(texts) <= 2 for texts in found["breasts"]["texts"])
    in_files = pl.read_csv(cohort.root / "finding_annotations.csv").drop_nulls("xmin")
    assert len(found["findings"]) == len(in_files) > 0
    for row in found["findings"].iter_rows(named=True):
        assert 0 <= row["x_min"] < row["x_max"] <= 64 and 0 <= row["y_min"] < row["y_max"] <= 96
    masses = found["attributes"].filter(attribute="mass", value=1)["image_id"]
    assert set(masses) == set(in_files.filter(pl.col("finding_categories") == "['Mass']")["image_id"])
    with_mass = found["images"].join(masses.to_frame(), on="image_id", how="semi").select("patient_id", "laterality")
    texts = {(row["patient_id"], row["laterality"]): str(row["texts"]) for row in found["breasts"].rows(named=True)}
    for patient, side in with_mass.unique().rows():
        assert "mass" in texts[patient, side]
    # The reports say what the tables say: not one contradiction, and nothing that only a report knows.
    assert len(done.rejects) == 0
    assert set(found["attributes"]["source"]) == {"table"}
    wide = found["labels"]
    assert set(wide.select(FINDING_NAMES).unpivot()["value"]) == {0, 1}
