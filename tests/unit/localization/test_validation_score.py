"""What chooses the epoch of a detector."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mammoclip.localization.boxes import BoxedImages, ImageDetections
from mammoclip.localization.validation_score import mean_average_precision

BOX, OTHER = [0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 30.0, 30.0]


def part(*of_images: list[tuple[list[float], int]]) -> BoxedImages:
    boxes = [np.array([box for box, _ in each], float).reshape(-1, 4) for each in of_images]
    labels = [np.array([label for _, label in each], np.int64) for each in of_images]
    return BoxedImages([str(number) for number in range(len(of_images))], boxes, labels)


def found(*rows: tuple[list[float], float, int]) -> ImageDetections:
    boxes = np.array([box for box, _, _ in rows], float).reshape(-1, 4)
    return ImageDetections(boxes, np.array([s for _, s, _ in rows]), np.array([k for _, _, k in rows], np.int64))


def test_it_is_the_mean_over_the_classes_that_have_a_box() -> None:
    truths = part([(BOX, 0), (OTHER, 2)], [])
    # Of class 0 all is found; of class 2 nothing; a box of class 1, which no image has, changes nothing.
    assert mean_average_precision(truths, [found((BOX, 0.9, 0), (BOX, 0.8, 2), (BOX, 0.7, 1)), found()]) == 0.5


def test_a_surer_box_in_an_image_without_the_finding_lowers_it() -> None:
    truths = part([(BOX, 0)], [])
    assert mean_average_precision(truths, [found((BOX, 0.5, 0)), found((OTHER, 0.9, 0))]) == pytest.approx(0.5)


def test_without_any_true_box_it_has_no_value() -> None:
    assert math.isnan(mean_average_precision(part([], []), [found(), found((BOX, 0.5, 0))]))
    assert math.isnan(mean_average_precision(part(), []))


def test_nothing_found_scores_nothing() -> None:
    assert mean_average_precision(part([(BOX, 0)]), [found()]) == 0.0
