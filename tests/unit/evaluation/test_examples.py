from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.artifacts import ATTRIBUTES, FEATURES, LABELS, PREDICTIONS, read_table, write_table
from mammoclip.config import TaskSection
from mammoclip.errors import ArtifactError, ConfigError
from mammoclip.evaluation.examples import (
    check_checkpoint,
    labelled_images,
    num_classes,
    predictions_frame,
    take_fraction,
    to_array,
    with_features,
)

PLAIN = TaskSection()
SPLITS = ("train", "validation", "test")


def make_images(num: int, order: list[int] | None = None) -> pl.DataFrame:
    """Images i00, i01, ...: splits take turns, two images a patient."""
    rows = [(f"i{n:02d}", f"p{n // 6}-{n % 3}", SPLITS[n % 3]) for n in order or range(num)]
    return pl.DataFrame(rows, ["image_id", "patient_id", "split"], orient="row")


def make_attributes(values: dict[str, dict[int, int]], source: str = "table") -> pl.DataFrame:
    rows = [("d", f"i{n:02d}", name, value, source) for name, by in values.items() for n, value in by.items()]
    return pl.DataFrame(rows, schema=ATTRIBUTES.schema, orient="row")


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)))
def test_labelled_images_are_those_that_the_tables_label_in_an_order_of_their_own(order: list[int]) -> None:
    attributes = make_attributes({"mass": {n: n % 2 for n in order if n % 4}, "density": dict.fromkeys(order, 3)})
    rows = labelled_images(make_images(12, order), attributes, LABELS.empty(), PLAIN, "mass", "strict")
    wanted = [n for n in range(12) if n % 4]
    assert rows["image_id"].to_list() == [f"i{n:02d}" for n in wanted]
    assert rows["patient_id"].to_list() == [f"p{n // 6}-{n % 3}" for n in wanted]
    assert rows["split"].to_list() == [SPLITS[n % 3] for n in wanted]
    assert rows["label"].to_list() == [n % 2 for n in wanted]


def test_what_was_read_from_reports_is_no_ground_truth() -> None:
    attributes = pl.concat([make_attributes({"mass": {0: 1}}, "report"), make_attributes({"mass": {1: 1}})])
    rows = labelled_images(make_images(3), attributes, LABELS.empty(), PLAIN, "mass", "strict")
    assert rows["image_id"].to_list() == ["i01"]


def test_values_become_classes_in_their_order_and_others_are_left_out() -> None:
    task = TaskSection(attribute="birads", values=[2, 1, 4])
    attributes = make_attributes({"birads": {0: 1, 1: 2, 2: 3, 3: 4}})
    rows = labelled_images(make_images(4), attributes, LABELS.empty(), task, "assessment", "strict")
    assert rows.select("image_id", "label").rows() == [("i00", 1), ("i01", 0), ("i03", 2)]
    assert num_classes(task, "assessment") == 3


def test_the_number_of_classes_is_that_of_the_values_or_prompts_or_of_the_grammar() -> None:
    assert [num_classes(PLAIN, name) for name in ("mass", "density", "birads", "malignancy")] == [2, 4, 7, 2]
    assert num_classes(TaskSection(prompts=[["a"], ["b"], ["c"]]), "anything") == 3
    with pytest.raises(ConfigError, match="'anything'"):
        num_classes(PLAIN, "anything")


def test_a_task_without_any_label_is_a_sentence() -> None:
    attributes = make_attributes({"mass": {0: 7}})
    with pytest.raises(ArtifactError, match=r"no image has a label of 'mass' .*values \[0, 1\]"):
        labelled_images(make_images(3), attributes, LABELS.empty(), PLAIN, "mass", "strict")


def make_labels(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=LABELS.schema)


def test_compat_counts_an_image_once_a_row_and_knows_no_validation_part() -> None:
    labels = make_labels(
        [
            {"image_id": "a", "patient_id": "p", "split": "test", "given_split": "test", "mass": 1},
            {"image_id": "a", "patient_id": "p", "split": "test", "given_split": "test", "mass": 0},
            {"image_id": "b", "patient_id": "q", "split": "validation", "given_split": "train", "mass": 0},
        ]
    )
    rows = labelled_images(make_images(1), ATTRIBUTES.empty(), labels, PLAIN, "mass", "compat")
    assert rows.rows() == [("a", "p", "test", 0), ("a", "p", "test", 1), ("b", "q", "train", 0)]


def test_compat_trains_on_folds_1_and_2_tests_on_0_and_never_uses_3() -> None:
    labels = make_labels(
        [{"image_id": f"i{f}", "patient_id": f"p{f}", "split": "train", "fold": f, "mass": 1} for f in range(4)]
    )
    rows = labelled_images(make_images(1), ATTRIBUTES.empty(), labels, PLAIN, "mass", "compat")
    assert rows.select("image_id", "split").rows() == [("i0", "test"), ("i1", "train"), ("i2", "train")]


def test_compat_without_such_a_label_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no 'scar'"):
        labelled_images(make_images(1), ATTRIBUTES.empty(), LABELS.empty(), PLAIN, "scar", "compat")


def make_training(num_patients: int, num_positive: int) -> pl.DataFrame:
    rows = [(f"p{n:03d}", int(n < num_positive and view == 1)) for n in range(num_patients) for view in range(2)]
    return pl.DataFrame(rows, {"patient_id": pl.String, "label": pl.Int32}, orient="row")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 5), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_of_patients_holds_the_smaller_one(num_positive: int, seed: int, one: float, two: float) -> None:
    rows = make_training(40, num_positive)
    small, large = (set(take_fraction(rows, share, seed)["patient_id"]) for share in sorted([one, two]))
    assert small <= large
    assert set(take_fraction(rows, 1.0, seed)["patient_id"]) == set(rows["patient_id"])


def test_a_share_is_of_whole_patients_of_every_class_whatever_the_order_of_rows() -> None:
    rows = make_training(200, 20)
    taken = take_fraction(rows, 0.1, 0)
    assert set(taken.group_by("patient_id").len()["len"]) == {2}
    assert taken.group_by("patient_id").agg(pl.col("label").max())["label"].value_counts(sort=True).rows() == [
        (0, 18),
        (1, 2),
    ]
    assert set(take_fraction(rows.reverse(), 0.1, 0)["patient_id"]) == set(taken["patient_id"])
    assert set(take_fraction(rows, 0.1, 1)["patient_id"]) != set(taken["patient_id"])


def test_one_per_cent_still_has_a_patient_of_every_class() -> None:
    taken = take_fraction(make_training(60, 3), 0.01, 0)
    assert sorted(set(taken["label"])) == [0, 1]


def make_features(num: int) -> pl.DataFrame:
    rows = [(f"i{n:02d}", "sha", [float(n), 0.5], [float(n), 1.0, 2.0]) for n in reversed(range(num))]
    return pl.DataFrame(rows, schema=FEATURES.schema, orient="row")


def test_features_are_joined_image_by_image_in_the_order_of_the_rows() -> None:
    rows = pl.DataFrame({"image_id": ["i02", "i00", "i02"], "patient_id": ["b", "a", "b"], "label": [1, 0, 0]})
    found = with_features(make_features(4), rows)
    assert found.image_ids == ["i02", "i00", "i02"]
    assert found.pooled.tolist() == [[2, 0.5], [0, 0.5], [2, 0.5]]
    assert found.embeddings[:, 0].tolist() == [2, 0, 2]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 0]
    unlabelled = rows.with_columns(label=pl.lit(None, pl.Int32))
    assert with_features(make_features(4), unlabelled).labels is None


def test_an_image_without_features_is_named() -> None:
    rows = pl.DataFrame({"image_id": ["i00", "i09"], "patient_id": ["a", "b"], "label": [0, 1]})
    with pytest.raises(ArtifactError, match=r"lack 1 of 2 images, such as 'i09'"):
        with_features(make_features(4), rows)


def test_features_of_another_checkpoint_are_refused() -> None:
    check_checkpoint(make_features(2), "sha", Path("features.parquet"))
    with pytest.raises(ArtifactError, match=r"features.parquet was computed by another checkpoint"):
        check_checkpoint(make_features(2), "other", Path("features.parquet"))


def test_numbers_that_are_not_finite_are_counted() -> None:
    with pytest.raises(ArtifactError, match="1 of 2 rows of 'pooled'"):
        to_array(pl.Series("pooled", [[1.0, 2.0], [float("nan"), 1.0]]))


def test_predictions_are_the_published_table(tmp_path: Path) -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.5]])
    options: dict[str, Any] = {"task": "mass", "protocol": "linear-probe", "fraction": 0.1, "seed": 3, "selected": 0.01}
    frame = predictions_frame(["a", "b"], ["p", "q"], "test", np.array([1, 0]), scores, **options)
    write_table(frame, PREDICTIONS, tmp_path / "p.parquet")
    row = read_table(PREDICTIONS, tmp_path / "p.parquet").row(0, named=True)
    assert row == {"image_id": "a", "patient_id": "p", "split": "test", "repeat": 0, "label": 1,
                   "scores": [0.25, 0.75], **options}  # fmt: skip
    without = predictions_frame(["a"], ["p"], "test", None, scores[:1], task="mass", protocol="zero-shot")
    assert without["label"].to_list() == [None]
