import logging
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mammoclip import artifacts
from mammoclip.artifacts import INDEX, MANIFEST, Table, write_table
from mammoclip.data.tabulate import RawTables, SplitFractions, assign_split, tabulate_dataset
from mammoclip.datasets import base
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import DatasetError
from mammoclip.text import FINDINGS, PromptGrammar

FRACTIONS = SplitFractions(validation=0.25, test=0.2, seed=1)
TABLES = {table.name: table for table in vars(artifacts).values() if isinstance(table, Table)}

# The crop of every image: rows 10 to 110, columns 20 to 70, stored as 200 x 100 pixels, so that all doubles.
PLACE = {
    "shard": "00000.tar", "offset": 512, "length": 9, "height_px": 200, "width_px": 100, "crop_top": 10,
    "crop_bottom": 110, "crop_left": 20, "crop_right": 70, "scale_x": 2.0, "scale_y": 2.0, "pad_left": 0, "pad_top": 0,
    "grayscale": "strict", "crop": "strict", "geometry": "stretch", "bits": 8, "png_sha256": "0",
}  # fmt: skip


def raw_tables(
    images: list[tuple[str, str, str, str]],
    *,
    splits: dict[str, str | None] | None = None,
    lost: tuple[str, ...] = (),
    findings: list[tuple[Any, ...]] = (),  # type: ignore[assignment]
    attributes: list[tuple[str, str, int]] = (),  # type: ignore[assignment]
    reports: list[tuple[str, str, str | None, str, str]] = (),  # type: ignore[assignment]
) -> RawTables:
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
    return RawTables(
        index=index.select(list(INDEX.columns)),
        manifest=manifest,
        findings=pl.DataFrame(list(findings), schema=base.FINDINGS, orient="row"),
        attributes=pl.DataFrame(list(attributes), schema=base.ATTRIBUTES, orient="row"),
        reports=pl.DataFrame(list(reports), schema=base.REPORTS, orient="row"),
    )


def four_views(patient: str, study: str = "s") -> list[tuple[str, str, str, str]]:
    return [(patient, study, side, view) for side in "LR" for view in ("CC", "MLO")]


def tabulate(raw: RawTables, mode: Any = "strict", fractions: SplitFractions = FRACTIONS) -> dict[str, pl.DataFrame]:
    tables = tabulate_dataset(raw, "d", mode, fractions)
    assert set(tables) == {"images", "findings", "attributes", "reports", "breasts"}
    for name, frame in tables.items():
        assert frame.schema == TABLES[name].schema
        assert all(c.nullable or not frame[n].null_count() for n, c in TABLES[name].columns.items())
    return tables


def texts_of(tables: dict[str, pl.DataFrame], patient: str, side: str) -> list[list[str]]:
    row = tables["breasts"].filter(patient_id=patient, laterality=side)
    return row["texts"].to_list()[0]


# --- splits -----------------------------------------------------------------------------------------------------------

fractions_st = st.builds(SplitFractions, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))


@settings(deadline=None)
@given(st.text(), fractions_st)
def test_a_given_test_or_validation_patient_stays_there(patient: str, fractions: SplitFractions) -> None:
    assert assign_split("test", patient, fractions) == "test"
    assert assign_split("validation", patient, fractions) == "validation"


@settings(deadline=None)
@given(st.text(), fractions_st)
def test_a_given_training_patient_is_never_tested(patient: str, fractions: SplitFractions) -> None:
    assert assign_split("train", patient, fractions) in ("train", "validation")


@settings(deadline=None)
@given(st.sampled_from(["train", None]), st.text())
def test_fractions_of_nothing_and_all(given_split: str | None, patient: str) -> None:
    assert assign_split(given_split, patient, SplitFractions(0, 0, 1)) == "train"
    assert assign_split(given_split, patient, SplitFractions(1, 0, 1)) == "validation"
    assert assign_split(None, patient, SplitFractions(0.5, 1, 1)) == "test"


def test_the_fractions_are_those_of_the_patients() -> None:
    patients = [f"patient {number}" for number in range(8000)]
    free = [assign_split(None, patient, FRACTIONS) for patient in patients]
    assert free.count("test") / 8000 == pytest.approx(0.2, abs=0.02)
    assert free.count("validation") / 8000 == pytest.approx(0.8 * 0.25, abs=0.02)
    trained = [assign_split("train", patient, FRACTIONS) for patient in patients]
    assert trained.count("validation") / 8000 == pytest.approx(0.25, abs=0.02)
    other = [assign_split(None, patient, SplitFractions(0.25, 0.2, 2)) for patient in patients]
    assert sum(a != b for a, b in zip(free, other, strict=True)) > 2000


@pytest.mark.parametrize("given_split", ["Test", "training", "val", ""])
def test_a_split_that_is_spelled_otherwise_is_an_error_and_not_training(given_split: str) -> None:
    with pytest.raises(DatasetError, match=f"split {given_split!r}; expected train, validation, test"):
        assign_split(given_split, "p", FRACTIONS)


def test_splits_stay_when_patients_are_added() -> None:
    few = tabulate(raw_tables([image for n in range(20) for image in four_views(f"p{n}")]))["images"]
    many = tabulate(raw_tables([image for n in reversed(range(60)) for image in four_views(f"p{n}")]))["images"]
    assert set(many["split"]) == {"train", "validation", "test"}
    assert_frame_equal(many.join(few.select("image_id"), on="image_id", how="semi"), few)


def test_patients_never_cross_splits() -> None:
    images = [image for n in range(40) for study in ("s1", "s2") for image in four_views(f"p{n}", f"{study}-{n}")]
    splits = {f"p{n}": ["train", "test", None][n % 3] for n in range(39)}
    del splits["p2"]
    tables = tabulate(raw_tables(images, splits={k: v for k, v in splits.items() if v}))
    assert tables["images"].group_by("patient_id").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 40
    found = dict(tables["breasts"].select("patient_id", "split").rows())
    assert found == dict(tables["images"].select("patient_id", "split").rows())
    assert all(found[patient] == "test" for patient, split in splits.items() if split == "test")
    assert not any(found[patient] == "test" for patient, split in splits.items() if split == "train")


@pytest.mark.parametrize("other", ["train", None])
def test_a_patient_in_two_splits_of_the_data_set_is_an_error(other: str | None) -> None:
    images = four_views("p1") + four_views("p2")
    splits = {"p1": "test", "p2": "test", "p2 s L CC": other}
    with pytest.raises(DatasetError, match="1 patients into several splits, such as 'p2'"):
        tabulate(raw_tables(images, splits=splits))


# --- images and breasts -----------------------------------------------------------------------------------------------


def test_images_are_those_that_were_written() -> None:
    tables = tabulate(
        raw_tables(
            four_views("p"),
            lost=("p s L CC",),
            attributes=[("p s L CC", "mass", 1), ("p s R CC", "mass", 0), ("elsewhere", "mass", 1)],
            findings=[("p s L CC", "mass", 4, 30, 30, 40, 40), ("elsewhere", "mass", 4, 30, 30, 40, 40)],
        )
    )
    assert tables["images"]["image_id"].to_list() == ["p s L MLO", "p s R CC", "p s R MLO"]
    assert tables["attributes"].rows() == [("d", "p s R CC", "mass", 0)]
    assert len(tables["findings"]) == 0
    left = tables["breasts"].filter(laterality="L").row(0, named=True)
    assert (left["cc_image_ids"], left["mlo_image_ids"]) == ([], ["p s L MLO"])


def test_a_breast_is_a_patients_side_over_all_exams_with_its_views_apart() -> None:
    images = [*four_views("p", "s2"), *four_views("p", "s1"), ("p", "s1", "L", "XCCL"), ("q", "s3", "R", "ML")]
    breasts = tabulate(raw_tables(images))["breasts"]
    assert breasts.select("patient_id", "laterality", "cc_image_ids", "mlo_image_ids").rows() == [
        ("p", "L", ["p s1 L CC", "p s2 L CC"], ["p s1 L MLO", "p s2 L MLO"]),
        ("p", "R", ["p s1 R CC", "p s2 R CC"], ["p s1 R MLO", "p s2 R MLO"]),
        ("q", "R", [], []),
    ]
    assert breasts["texts"].to_list() == [[], [], []]


# --- boxes ------------------------------------------------------------------------------------------------------------

IMAGE = "p s L CC"


def boxes(raw: RawTables, mode: Any = "strict") -> list[tuple[Any, ...]]:
    return tabulate(raw, mode)["findings"].drop("dataset").rows()


def test_boxes_move_from_stored_pixels_to_pixels_of_the_png() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", 4, 30, 40, 50, 60)])
    assert boxes(raw) == [(IMAGE, "mass", 4, 20.0, 60.0, 60.0, 100.0)]
    assert boxes(raw, "compat") == boxes(raw)


def test_boxes_follow_scale_and_padding() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", 4, 30, 40, 50, 60)])
    padded = {"scale_x": 0.5, "scale_y": 0.25, "pad_left": 7, "pad_top": 11, "geometry": "pad"}
    raw = replace(raw, manifest=raw.manifest.with_columns(**{name: pl.lit(value) for name, value in padded.items()}))
    assert boxes(raw) == [(IMAGE, "mass", 4, 12.0, 18.5, 22.0, 23.5)]
    assert boxes(raw, "compat") == boxes(raw)


def test_a_magnification_or_spot_view_is_an_image_but_no_half_of_a_pair() -> None:
    raw = raw_tables(four_views("p"))
    spot = pl.col("image_id") == raw.index["image_id"][0]
    for flag in ("magnification", "spot_compression"):
        tables = tabulate_dataset(
            replace(raw, index=raw.index.with_columns(spot.alias(flag))), "d", "strict", FRACTIONS
        )
        paired = [*tables["breasts"]["cc_image_ids"].explode(), *tables["breasts"]["mlo_image_ids"].explode()]
        assert set(tables["images"]["image_id"]) - set(paired) == {raw.index["image_id"][0]}


def test_a_box_across_the_edge_of_the_crop_is_cut() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", None, 0, 100, 30, 120)])
    assert boxes(raw) == [(IMAGE, "mass", None, 0.0, 180.0, 20.0, 200.0)]


def test_a_box_outside_the_crop_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    outside = [(IMAGE, "mass", 4, 0, 0, 20, 10), (IMAGE, "mass", 4, 75, 40, 79, 50)]
    raw = raw_tables(four_views("p"), findings=[*outside, (IMAGE, "asymmetry", 3, 30, 40, 50, 60)])
    with caplog.at_level(logging.INFO, "mammoclip"):
        assert [row[1] for row in boxes(raw)] == ["asymmetry"]
    assert "2 of 3 boxes lie outside the crop" in caplog.text


def test_compat_drops_no_box() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "mass", 4, 5, 5, 15, 9)])
    assert boxes(raw, "compat") == [(IMAGE, "mass", 4, -30.0, -10.0, -10.0, -2.0)]


def test_a_finding_without_a_box_has_no_row() -> None:
    raw = raw_tables(four_views("p"), findings=[(IMAGE, "skin_thickening", 4, None, None, None, None)])
    assert boxes(raw) == []


# --- reports ----------------------------------------------------------------------------------------------------------

REPORT = """EXAM: Mammogram.
FINDINGS:
The breasts are heterogeneously dense.
Right breast: No mass is seen.
Left breast: Spiculated mass of 1.5 cm in the upper outer quadrant. Suspicious calcifications are seen.
IMPRESSION:
Right breast: BI-RADS 1, negative.
Left breast: BI-RADS 5, highly suggestive of malignancy.
"""


def test_a_report_is_cut_into_sections_and_sides() -> None:
    tables = tabulate(raw_tables(four_views("p"), reports=[("p", "s", None, "REPORT", REPORT)]))
    dense = "the breasts are heterogeneously dense"
    assert tables["reports"].select("laterality", "section", "sentences").rows() == [
        ("L", "FINDINGS", [dense, "left breast : spiculated mass of 1.5 cm in the upper outer quadrant",
                           "suspicious calcifications are seen"]),
        ("R", "FINDINGS", [dense, "right breast : no mass is seen"]),
        ("L", "IMPRESSION", ["left breast : birads 5 , highly suggestive of malignancy"]),
        ("R", "IMPRESSION", ["right breast : birads 1 , negative"]),
    ]  # fmt: skip
    assert len(texts_of(tables, "p", "L")) == len(texts_of(tables, "p", "R")) == 2
    assert "spiculated" not in str(texts_of(tables, "p", "R"))


def test_a_section_of_one_side_is_that_sides_text_whole() -> None:
    raw = raw_tables(
        four_views("p"),
        reports=[("p", "s", "L", "FINDINGS", "No mass. Both breasts are dense."), ("p", "s", "L", "IMPRESSION", " ")],
    )
    tables = tabulate(raw)
    assert tables["reports"].select("laterality", "section", "sentences").rows() == [
        ("L", "FINDINGS", ["both breasts are dense"])  # of two words or fewer nothing is left
    ]
    assert texts_of(tables, "p", "R") == []


def test_the_mode_decides_how_text_is_cleaned() -> None:
    raw = raw_tables(four_views("p"), reports=[("p", "s", "L", "FINDINGS", "A mass of 1.5 cm is seen.")])
    assert texts_of(tabulate(raw), "p", "L") == [["a mass of 1.5 cm is seen"]]
    assert texts_of(tabulate(raw, "compat"), "p", "L") == [["a mass of 1", "5 cm is seen"]]


def test_texts_are_unique_and_findings_come_before_impressions_over_all_exams() -> None:
    reports = [
        ("p", study, "L", section, f"{text} is seen here.")
        for study, text in (("s2", "a cyst"), ("s1", "a mass"), ("s3", "a mass"))
        for section, text in (("IMPRESSION", f"impression of {text}"), ("FINDINGS", text))
    ]
    raw = raw_tables([image for study in ("s1", "s2", "s3") for image in four_views("p", study)], reports=reports)
    assert texts_of(tabulate(raw), "p", "L") == [
        ["a mass is seen here"],
        ["a cyst is seen here"],
        ["impression of a mass is seen here"],
        ["impression of a cyst is seen here"],
    ]


def test_reports_of_exams_without_an_image_are_left_out() -> None:
    raw = raw_tables(
        four_views("p"),
        reports=[
            ("p", "s", "L", "FINDINGS", "a mass is seen"),
            ("p", "gone", "L", "FINDINGS", "another mass is seen"),
            ("q", "other", "L", "FINDINGS", "a third mass is seen"),
        ],
    )
    tables = tabulate(raw)
    assert tables["reports"]["study_id"].to_list() == ["s"]
    assert texts_of(tables, "p", "L") == [["a mass is seen"]]


def test_the_order_of_equal_sections_is_that_of_the_data_set() -> None:
    reports = [("p", "s", "L", "FINDINGS", f"text number {number:03d} of many") for number in range(200)]
    texts = texts_of(tabulate(raw_tables(four_views("p"), reports=reports)), "p", "L")
    assert texts == [[f"text number {number:03d} of many"] for number in range(200)]


# --- prompts ----------------------------------------------------------------------------------------------------------


def labels(image: str, positive: tuple[str, ...] = ()) -> list[tuple[str, str, int]]:
    names = [finding.replace(" ", "_") for finding in FINDINGS]
    assert set(positive) <= set(names)
    return [(image, name, int(name in positive)) for name in names] + [(image, "density", 2), (image, "birads", 4)]


def test_without_reports_every_labelled_finding_gets_a_sentence_per_view() -> None:
    positive = ("mass", "suspicious_calcification", "skin_thickening")
    attributes = labels("p s L CC", positive) + labels("p s L MLO")
    texts = texts_of(tabulate(raw_tables(four_views("p"), attributes=attributes)), "p", "L")
    assert [len(section) for section in texts] == [10, 10]
    grammar = PromptGrammar()
    for finding in FINDINGS:
        stated = set(grammar.sentences(finding, positive=True, laterality="L"))
        negated = set(grammar.sentences(finding, positive=False, laterality="L"))
        expected = stated if finding.replace(" ", "_") in positive else negated
        assert len(expected & set(texts[0])) >= 1, finding
        assert len(negated & set(texts[1])) >= 1, finding
    assert not any("right" in sentence or "dense" in sentence for section in texts for sentence in section)


def test_a_finding_in_one_image_of_a_view_is_a_finding_of_the_view() -> None:
    images = [*four_views("p", "s1"), *four_views("p", "s2")]
    attributes = [("p s1 L CC", "mass", 0), ("p s2 L CC", "mass", 1)]
    [[sentence]] = texts_of(tabulate(raw_tables(images, attributes=attributes)), "p", "L")
    assert sentence in PromptGrammar().sentences("mass", positive=True, laterality="L")


def test_prompts_name_their_own_side() -> None:
    attributes = [label for side in "LR" for label in labels(f"p s {side} CC", ("mass", "asymmetry"))]
    tables = tabulate(raw_tables(four_views("p"), attributes=attributes))
    assert "right breast" in str(texts_of(tables, "p", "R"))
    assert "left" not in str(texts_of(tables, "p", "R"))


def test_a_finding_that_is_not_labelled_is_not_spoken_of() -> None:
    texts = texts_of(tabulate(raw_tables(four_views("p"), attributes=[(IMAGE, "mass", 1)])), "p", "L")
    assert len(texts) == 1 and len(texts[0]) == 1
    assert "mass" in texts[0][0]


def test_prompts_of_a_patient_do_not_change_when_others_are_added() -> None:
    few = tabulate(raw_tables(four_views("p"), attributes=labels(IMAGE, ("mass",))))
    images = [image for patient in ("a", "p", "z") for image in four_views(patient)]
    attributes = [label for patient in "zap" for label in labels(f"{patient} s L CC", ("mass",))]
    many = tabulate(raw_tables(images, attributes=attributes))
    assert texts_of(many, "p", "L") == texts_of(few, "p", "L") != []
    assert texts_of(many, "a", "L") != texts_of(many, "p", "L")


def test_the_seed_decides_the_prompts() -> None:
    raw = raw_tables(four_views("p"), attributes=labels(IMAGE, ("mass",)))
    once, again, other = (tabulate(raw, fractions=SplitFractions(0.1, 0.2, seed)) for seed in (1, 1, 2))
    assert texts_of(once, "p", "L") == texts_of(again, "p", "L") != texts_of(other, "p", "L")


def test_reports_are_preferred_to_prompts() -> None:
    raw = raw_tables(
        four_views("p"), attributes=labels(IMAGE, ("mass",)), reports=[("p", "s", "R", "FINDINGS", "all is well here")]
    )
    tables = tabulate(raw)
    assert texts_of(tables, "p", "R") == [["all is well here"]]
    assert texts_of(tables, "p", "L") == []


# --- a whole cohort ---------------------------------------------------------------------------------------------------


def test_the_phantom_cohort_from_folder_to_tables(cohort: Any, sharded: Any, tmp_path: Any) -> None:
    adapter = Phantom()
    raw = RawTables(
        cohort.index,
        sharded.manifest,
        *(getattr(adapter, n)(cohort.root) for n in ("findings", "attributes", "reports")),
    )
    tables = tabulate(raw)
    for name, frame in tables.items():
        write_table(frame, TABLES[name], tmp_path / f"{name}.parquet")
    assert tables["images"]["image_id"].to_list() == sorted(cohort.index["image_id"])
    assert len(tables["breasts"]) == 12
    assert all(len(row) == 1 for column in ("cc_image_ids", "mlo_image_ids") for row in tables["breasts"][column])
    assert all(1 <= len(texts) <= 2 for texts in tables["breasts"]["texts"])
    in_files = pl.read_csv(cohort.root / "finding_annotations.csv").drop_nulls("xmin")
    assert len(tables["findings"]) == len(in_files) > 0
    for row in tables["findings"].iter_rows(named=True):
        assert 0 <= row["x_min"] < row["x_max"] <= 64 and 0 <= row["y_min"] < row["y_max"] <= 96
    masses = tables["attributes"].filter(attribute="mass", value=1)["image_id"]
    assert set(masses) == set(in_files.filter(pl.col("finding_categories") == "['Mass']")["image_id"])
    with_mass = tables["images"].join(masses.to_frame(), on="image_id", how="semi").select("patient_id", "laterality")
    for patient, side in with_mass.unique().rows():
        assert "mass" in " ".join(" ".join(section) for section in texts_of(tables, patient, side))
