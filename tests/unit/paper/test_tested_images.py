"""Which images are shown: drawn at random or along a ranking, one of each patient."""

from __future__ import annotations

import polars as pl
import pytest

from mammoclip.paper.inputs import Inputs
from mammoclip.paper.localization.tested_images import (
    choose_along_ranking,
    find_tested_images,
    one_of_each_patient,
    sample_with_and_without,
)
from tests.unit.paper.localized import FINDING

RANKED = pl.DataFrame(
    {
        "image_id": [f"i{number}" for number in range(10)],
        "patient_id": [f"p{number // 2}" for number in range(10)],
        "energy": [number / 10 for number in range(10)],
    }
)


def test_tested_are_test_images_with_a_box_and_those_known_to_be_without(inputs: Inputs) -> None:
    tables = inputs.datasets["cohort"]
    tested = find_tested_images(tables, FINDING, FINDING, "strict")
    boxed = set(tables.findings["image_id"])
    absent = set(tables.attributes.filter(attribute=FINDING, value=0)["image_id"])
    assert set(tested.rows["image_id"]) == boxed | absent
    assert set(tested.rows.filter("label")["image_id"]) == boxed
    assert tested.truths.num_images == len(tested.rows)
    assert tested.truths.boxes.tolist() == [[10, 20, 30, 50]] * len(boxed)
    assert tested.boxes_of(min(boxed)) == [(10, 20, 30, 50)]


def test_detections_in_other_images_are_left_out(inputs: Inputs) -> None:
    tested = find_tested_images(inputs.datasets["cohort"], FINDING, FINDING, "strict")
    first = tested.rows["image_id"][1]
    corners = {"x_min": 1.0, "y_min": 2.0, "x_max": 3.0, "y_max": 4.0}
    found = tested.detections(pl.DataFrame([{"image_id": name, "score": 0.5, **corners} for name in (first, "x")]))
    assert (found.images.tolist(), found.boxes.tolist(), found.scores.tolist()) == ([1], [[1, 2, 3, 4]], [0.5])


def test_a_patient_has_one_image_the_same_whatever_the_order_of_rows() -> None:
    chosen = one_of_each_patient(RANKED, 3)
    assert sorted(chosen["patient_id"]) == [f"p{number}" for number in range(5)]
    assert chosen.equals(one_of_each_patient(RANKED.reverse(), 3))
    assert any(not chosen.equals(one_of_each_patient(RANKED, seed)) for seed in range(4, 8))


def test_samples_with_and_without_share_no_patient(inputs: Inputs) -> None:
    tested = find_tested_images(inputs.datasets["cohort"], FINDING, FINDING, "strict")
    chosen = sample_with_and_without(tested, 4, 2, 0)
    assert chosen["label"].to_list() == [True] * 4 + [False] * 2
    assert chosen["patient_id"].n_unique() == 6
    assert sample_with_and_without(tested, 6, 2, 0)["label"].to_list() == [True] * 6


@pytest.mark.parametrize(
    ("num_images", "places"),
    [
        (1, ["best"]),
        (2, ["best", "worst"]),
        (3, ["best", "median", "worst"]),
        (9, ["best", "rank 2", "median", "rank 4", "worst"]),
    ],
)
def test_places_lie_evenly_along_the_ranking(num_images: int, places: list[str]) -> None:
    chosen = choose_along_ranking(RANKED, "energy", num_images, 0)
    assert [place for place, _ in chosen] == places
    energies = [RANKED.filter(image_id=image_id)["energy"][0] for _, image_id in chosen]
    assert energies == sorted(energies, reverse=True)
    assert chosen[0][1] in ("i8", "i9")


def test_one_image_is_the_best() -> None:
    assert choose_along_ranking(RANKED.head(1), "energy", 3, 0) == [("best", "i0")]
