"""Precision-recall and FROC of detectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mammoclip.localization.detection_metrics import Detections, average_precision
from mammoclip.localization.froc import RATES, sensitivity_at_false_positives
from mammoclip.paper.localization.curves import (
    IOU,
    Detected,
    draw_detection_curves,
    froc_steps,
    interpolated_precision,
)
from mammoclip.paper.localization.tested_images import ImagesTested
from mammoclip.paper.rendering import render_figure
from mammoclip.paper.wording import format_number


def _tested(num_images: int = 40, num_boxed: int = 20) -> ImagesTested:
    names = [f"i{number:02}" for number in range(num_images)]
    rows = pl.DataFrame(
        {
            "image_id": names,
            "patient_id": [f"p{number // 2}" for number in range(num_images)],
            "label": [number < num_boxed for number in range(num_images)],
        }
    ).with_row_index("number")
    corners = {"x_min": 0.0, "y_min": 0.0, "x_max": 10.0, "y_max": 10.0}
    boxes = rows.head(num_boxed).select("image_id", **{name: pl.lit(value) for name, value in corners.items()})
    return ImagesTested(rows, boxes)


def _detections(seed: int = 0) -> Detections:
    """Hits of most boxes, repeats and false positives, many of equal score."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, 150)
    places = np.where(rng.random(150) < 0.4, 1.0, 30.0)[:, None]
    boxes = np.hstack([np.zeros((150, 2)), np.full((150, 2), 10.0)]) + places * np.array([1, 0, 1, 0])
    return Detections.of(images, boxes, rng.integers(0, 30, 150) / 30)


def _curve(name: str = "detection-frozen", *, is_control: bool = False, seed: int = 0) -> Detected:
    style = {"color": "#555555" if is_control else "#0072B2", "ls": "-", "lw": 1.0}
    return Detected(name, _tested(), _detections(seed), style, is_control)


def _texts(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]


def test_the_area_under_the_steps_is_the_average_precision() -> None:
    recall, precision = interpolated_precision(_detections(), _tested())
    assert recall[0] == 0
    assert (np.diff(precision) <= 0).all()
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(average_precision(_detections(), _tested().truths, IOU))


def test_froc_steps_pass_through_the_sensitivities_of_the_table() -> None:
    false_positives, sensitivity = froc_steps(_detections(), _tested())
    assert (np.diff(false_positives) >= 0).all()
    assert (np.diff(sensitivity) >= 0).all()
    assert false_positives[-1] == RATES[-1]
    at = np.searchsorted(false_positives, RATES, side="right") - 1
    expected = sensitivity_at_false_positives(_detections(), _tested().truths, IOU)
    np.testing.assert_array_equal(sensitivity[at], expected)


def test_without_a_detection_nothing_is_found() -> None:
    nothing = Detections.of(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    recall, precision = interpolated_precision(nothing, _tested())
    assert (recall.tolist(), precision.tolist()) == ([0], [0])
    false_positives, sensitivity = froc_steps(nothing, _tested())
    assert (false_positives.tolist(), sensitivity.tolist()) == ([0, 2], [0, 0])


def test_legends_state_average_precision_and_sensitivity_controls_last() -> None:
    curves = [_curve("untrained, detection-frozen", is_control=True, seed=1), _curve()]
    figure = draw_detection_curves(curves, "mass", "cohort")
    truths = _tested().truths
    areas = [format_number(average_precision(_detections(seed), truths, IOU)) for seed in (0, 1)]
    found = [sensitivity_at_false_positives(_detections(seed), truths, IOU, [1.0])[0] for seed in (0, 1)]
    assert _texts(figure) == [
        [f"detection-frozen: {areas[0]}", f"untrained, detection-frozen: {areas[1]}"],
        [f"detection-frozen: {found[0]:.2f}", f"untrained, detection-frozen: {found[1]:.2f}"],
    ]


def test_the_title_counts_and_froc_is_marked_at_the_rates_of_the_table() -> None:
    figure = draw_detection_curves([_curve()], "mass", "cohort")
    assert figure.get_suptitle().splitlines()[0] == "Mass (cohort): 40 test images of 20 patients, 20 lesions"
    froc = figure.axes[1]
    assert [label.get_text() for label in froc.get_xticklabels()] == ["1/4", "1/2", "1", "2"]
    marks = [line for line in froc.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in marks] == [list(RATES)]


def test_a_detector_of_other_images_states_how_many() -> None:
    smaller = Detected(
        "detection-frozen (all findings)", _tested(30), _detections().at(np.zeros(150, bool)), _curve().style, False
    )
    figure = draw_detection_curves([_curve(), smaller], "mass", "cohort")
    assert _texts(figure)[0][1] == "detection-frozen (all findings): 0.00 (30 images)"


def test_without_a_true_box_a_sentence_says_so() -> None:
    curve = Detected("detection-frozen", _tested(4, 0), _detections(), {}, is_control=False)
    figure = draw_detection_curves([curve], "mass", "cohort")
    assert not figure.axes
    assert " ".join(figure.texts[0].get_text().split()) == ("Mass (cohort): no curve, because no test image has a box.")


def test_the_same_detections_give_the_same_bytes_in_any_order() -> None:
    backwards = _detections().at(np.arange(150)[::-1])
    curves = [[_curve()], [Detected("detection-frozen", _tested(), backwards, _curve().style, is_control=False)]]
    first, second = (render_figure(draw_detection_curves(each, "mass", "cohort"), "png") for each in curves)
    assert first == second
