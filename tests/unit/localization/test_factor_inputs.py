"""What Mammo-FActOR is trained on: attributes of images and sentences of attributes."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from mammoclip.artifacts import ATTRIBUTES, IMAGES, LABELS
from mammoclip.config import FactorSection
from mammoclip.errors import ConfigError
from mammoclip.localization.factor_inputs import attribute_sentences, attributed_images

NAMES = ["mass", "asymmetry"]


def images(*rows: tuple[str, str]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, {"image_id": pl.String, "split": pl.String}, orient="row")
    return frame.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in IMAGES.schema.items() if name not in frame.columns
    )


def attributes(*rows: tuple[str, str, int, str]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, ["image_id", "attribute", "value", "source"], orient="row")
    return frame.with_columns(pl.lit("vindr").alias("dataset")).select(
        pl.col(name).cast(dtype) for name, dtype in ATTRIBUTES.schema.items()
    )


def labels(**columns: list[Any]) -> pl.DataFrame:
    frame = pl.DataFrame(columns)
    return frame.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in LABELS.schema.items() if name not in frame.columns
    )


def test_an_attribute_is_present_absent_or_unknown() -> None:
    told = attributes(("b", "mass", 1, "table"), ("a", "mass", 0, "table"), ("a", "asymmetry", 1, "table"))
    parts = attributed_images(
        images(("b", "train"), ("a", "train"), ("c", "test")), told, LABELS.empty(), NAMES, "strict"
    )
    assert parts["train"].image_ids == ["a", "b"]
    assert parts["train"].labels.tolist() == [[0, 1], [1, -1]]
    assert (parts["test"].image_ids, parts["test"].labels.tolist()) == (["c"], [[-1, -1]])
    assert parts["validation"].labels.shape == (0, 2)


def test_of_several_rows_of_an_image_one_that_says_present_wins() -> None:
    told = attributes(("a", "mass", 1, "table"), ("a", "mass", 0, "table"))
    parts = attributed_images(images(("a", "train")), told, LABELS.empty(), ["mass"], "strict")
    assert parts["train"].labels.tolist() == [[1]]


def test_what_a_report_says_is_no_ground_truth() -> None:
    told = attributes(("a", "mass", 1, "report"))
    parts = attributed_images(images(("a", "train")), told, LABELS.empty(), ["mass"], "strict")
    assert parts["train"].labels.tolist() == [[-1]]


def test_compat_trains_on_the_data_set_s_own_training_part_whole() -> None:
    told = attributes(*((name, "mass", 1, "table") for name in "abc"))
    rows = labels(image_id=["a", "a", "b", "c"], split=["train", "train", "validation", "test"],
                  given_split=["train", "train", "train", "test"])  # fmt: skip
    chosen = images(("a", "train"), ("b", "validation"), ("c", "test"))
    parts = attributed_images(chosen, told, rows, ["mass"], "compat")
    assert {split: part.image_ids for split, part in parts.items()} == {
        "train": ["a", "b"],
        "validation": [],
        "test": ["c"],
    }


REPORTED = ["a mass in the left breast .", "no mass is seen .", "there is an irregular mass .", "fatty breasts ."]


def test_sentences_are_one_s_own_before_those_of_the_grammar() -> None:
    section = FactorSection(attributes=NAMES, prompts={"asymmetry": ["an asymmetry"]}, sentences_per_attribute=1)
    assert attribute_sentences(section, [], seed=0) == [["mass"], ["an asymmetry"]]


def test_sentences_of_reports_are_those_that_say_that_it_is_there() -> None:
    section = FactorSection(attributes=["mass"], sentences="reports")
    assert set(attribute_sentences(section, REPORTED, seed=0)[0]) == {REPORTED[0], REPORTED[2]}
    reversed_order = attribute_sentences(section, REPORTED[::-1], seed=0)
    assert reversed_order == attribute_sentences(section, REPORTED, seed=0)
    few = FactorSection(attributes=["mass"], sentences="reports", sentences_per_attribute=1)
    assert attribute_sentences(few, REPORTED, seed=0) == [reversed_order[0][:1]]


def test_an_attribute_that_nothing_speaks_of_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"localize.factor: no report of a training patient says 'asymmetry'; give"):
        attribute_sentences(FactorSection(attributes=NAMES, sentences="reports"), REPORTED, seed=0)
    with pytest.raises(ConfigError, match=r"localize.factor: .*'colour'.* Or give its prompts"):
        attribute_sentences(FactorSection(attributes=["colour"]), [], seed=0)
