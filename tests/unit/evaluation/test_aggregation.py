from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.artifacts import PREDICTIONS
from mammoclip.errors import MammoClipError
from mammoclip.evaluation.aggregation import KEYS, Level, Pooling, aggregate


def predictions(rows: list[tuple[str, str, str, int | None, list[float]]], **columns: Any) -> pl.DataFrame:
    """Rows of patient, study, side, label and scores as the table of predictions has them, joined with images."""
    names = ["patient_id", "study_id", "laterality", "label", "scores"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_row_index("image_id")
    constants = {"task": "mass", "protocol": "probe", "repeat": 0} | columns
    frame = frame.with_columns(**{name: pl.lit(value) for name, value in constants.items()})
    return frame.cast({name: dtype for name, dtype in PREDICTIONS.schema.items() if name in frame.columns})


def two(positive: float) -> list[float]:
    return [1 - positive, positive]


IMAGES = predictions(
    [
        ("p", "s", "L", 1, two(0.875)),
        ("p", "s", "L", 0, two(0.125)),
        ("p", "s", "R", 0, two(0.25)),
        ("p", "s", "R", 0, two(0.25)),
        ("p", "s", "R", 0, two(0.75)),
        ("p", "later", "L", 0, two(0.5)),
        ("q", "s", "L", 0, two(0.0)),
    ]
)


def test_a_breast_is_a_side_of_a_patient_in_one_exam() -> None:
    assert aggregate(IMAGES, "breast", "mean").drop("task", "protocol", "repeat").rows() == [
        ("p", "later", "L", 0, two(0.5)),
        ("p", "s", "L", 1, two(0.5)),
        ("p", "s", "R", 0, [pytest.approx(1 - 1.25 / 3), pytest.approx(1.25 / 3)]),
        ("q", "s", "L", 0, two(0.0)),
    ]


def test_an_exam_is_positive_if_any_image_is_and_its_maximum_is_the_highest_score() -> None:
    assert aggregate(IMAGES, "exam", "max").drop("task", "protocol", "repeat").rows() == [
        ("p", "later", 0, two(0.5)),
        ("p", "s", 1, two(0.875)),
        ("q", "s", 0, two(0.0)),
    ]


def test_an_exam_of_breasts_counts_each_breast_once_however_many_images_it_has() -> None:
    breasts = aggregate(IMAGES, "breast", "mean")
    of_breasts = aggregate(breasts, "exam", "mean").filter(study_id="s", patient_id="p")["scores"][0][1]
    of_images = aggregate(IMAGES, "exam", "mean").filter(study_id="s", patient_id="p")["scores"][0][1]
    assert of_breasts == pytest.approx((0.5 + 1.25 / 3) / 2)
    assert of_images == pytest.approx((1 + 1.25) / 5)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([None, 0], None), ([None, 1], 1), ([None, None], None), ([0, 0], 0), ([0, 1], 1)],
)
def test_an_unknown_label_is_not_taken_for_a_negative_one(labels: list[int | None], expected: int | None) -> None:
    images = predictions([("p", "s", "L", label, two(0.5)) for label in labels])
    result = aggregate(images, "breast", "mean")
    assert result["label"].to_list() == [expected]
    assert result["label"].dtype == PREDICTIONS.schema["label"]


@pytest.mark.parametrize(("labels", "expected"), [([1, 2], 2), ([1, None], None), ([3, None], 3)])
def test_density_is_the_highest_of_its_images_unless_an_unknown_one_could_be_higher(
    labels: list[int | None], expected: int | None
) -> None:
    images = predictions([("p", "s", "L", label, [0.25] * 4) for label in labels])
    assert aggregate(images, "exam", "mean")["label"].to_list() == [expected]


def test_tasks_protocols_and_repeats_stay_apart() -> None:
    parts = [IMAGES.with_columns(protocol=pl.lit(name), repeat=number) for name in "ab" for number in (0, 1)]
    together = aggregate(pl.concat([part.cast({"repeat": pl.Int32}) for part in parts]), "exam", "mean")
    assert together.height == 4 * aggregate(IMAGES, "exam", "mean").height
    for part in parts:
        alone = aggregate(part.cast({"repeat": pl.Int32}), "exam", "mean")
        assert together.join(alone, on=["protocol", "repeat"], how="semi").equals(alone)


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(KEYS)), st.sampled_from(["mean", "max"]))
def test_aggregation_is_that_of_a_loop_whatever_the_order_of_the_images(
    seed: int, level: Level, pooling: Pooling
) -> None:
    rng = np.random.default_rng(seed)
    drawn = [(str(p), str(s), "LR"[side], int(y)) for p, s, side, y in rng.integers(0, 2, (20, 4))]
    images = predictions([(*row, two(score)) for row, score in zip(drawn, rng.random(20), strict=True)])
    found = aggregate(images.sample(fraction=1, shuffle=True, seed=0), level, pooling)
    assert found.select(KEYS[level]).is_unique().all()
    for row in found.iter_rows(named=True):
        members = [m for m in images.iter_rows(named=True) if all(m[key] == row[key] for key in KEYS[level])]
        scores = [m["scores"][1] for m in members]
        assert row["scores"][1] == pytest.approx(np.mean(scores) if pooling == "mean" else max(scores))
        assert sum(row["scores"]) == pytest.approx(1)
        assert row["label"] == max(m["label"] for m in members)


@given(st.integers(1, 5))
def test_images_that_are_alike_are_as_their_breast(num: int) -> None:
    images = predictions([("p", "s", "L", 1, two(0.25))] * num)
    for pooling in ("mean", "max"):
        assert aggregate(images, "breast", pooling)["scores"].to_list() == [two(0.25)]


@pytest.mark.parametrize(
    ("frame", "level", "pooling", "message"),
    [
        (IMAGES.drop("laterality"), "breast", "mean", "lack the column 'laterality'"),
        (
            IMAGES.with_columns(study_id=pl.lit(None, pl.String)),
            "exam",
            "mean",
            "7 of 7 predictions have no",
        ),
        (IMAGES.clear(), "exam", "mean", "at least one"),
        (predictions([("p", "s", "L", 0, [0.2, 0.3, 0.5])]), "exam", "max", "for two classes, and there are 3"),
        (predictions([("p", "s", "L", 0, [math.nan, 0.5])]), "exam", "mean", "1 of 2 scores are NaN"),
        (
            pl.concat([IMAGES, predictions([("p", "s", "L", 0, [0.25] * 4)])]),
            "exam",
            "mean",
            "of one number of classes",
        ),
    ],
)
def test_what_cannot_be_aggregated_is_refused(
    frame: pl.DataFrame, level: Level, pooling: Pooling, message: str
) -> None:
    with pytest.raises(MammoClipError, match=message):
        aggregate(frame, level, pooling)


def test_a_breast_level_needs_no_laterality_for_exams() -> None:
    assert aggregate(IMAGES.drop("laterality"), "exam", "mean").height == 3
