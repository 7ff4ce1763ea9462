import numpy as np
import polars as pl
import pytest
import scipy.stats
from matplotlib.figure import Figure

from mammoclip.artifacts import CHOICES, PREDICTIONS
from mammoclip.evaluation.calibration import (
    NUM_BINS,
    TemperatureScaling,
    expected_calibration_error,
    to_logits,
)
from mammoclip.paper.reliability import draw_reliability, reliability_bins
from mammoclip.paper.rendering import render_figure


def _predictions(labels: np.ndarray, probabilities: np.ndarray) -> pl.DataFrame:
    told = {"split": "test", "task": "mass", "protocol": "zero-shot", "fraction": 0.0, "seed": 0, "repeat": 0}
    rows = [
        {"image_id": f"i{n}", "patient_id": f"p{n}", "label": label, "scores": scores, **told}
        for n, (label, scores) in enumerate(zip(labels.tolist(), probabilities.tolist(), strict=True))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema)


def _choices(temperature: float | None, reason: str | None = None) -> pl.DataFrame:
    told = {"run": "r", "dataset": "cohort", "task": "mass", "protocol": "zero-shot", "fraction": 0.0, "seed": 0}
    rows = [{**told, "choice": "temperature", "value": temperature, "reason": reason}]
    return pl.DataFrame(rows, schema=CHOICES.schema)


def _calibrated(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.random(num_images)
    return (rng.random(num_images) < positive).astype(np.int64), np.stack([1 - positive, positive], axis=1)


def _draw(predictions: pl.DataFrame, choices: pl.DataFrame) -> Figure:
    return draw_reliability(predictions, choices, "mass", "cohort", "zero-shot", 0.95)


def _points(figure: Figure, panel: int) -> np.ndarray:
    return figure.axes[panel].containers[0].lines[0].get_xydata()


def test_bins_by_hand() -> None:
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.01, 0.03, 0.98, 0.5])
    bins = reliability_bins(labels, scores, np.arange(4), 0.95)
    assert bins.numbers.tolist() == [0, 7, 14]
    assert bins.counts.tolist() == [2, 1, 1]
    np.testing.assert_allclose(bins.confidence, [0.02, 0.5, 0.98])
    np.testing.assert_allclose(bins.frequency, [0.5, 0, 1])


def test_of_several_classes_the_likeliest_counts() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [0.05, 0.05, 0.9]])
    bins = reliability_bins(np.array([0, 2, 1]), probabilities, np.arange(3), 0.95)
    np.testing.assert_allclose(bins.confidence, [0.7, 0.9])
    np.testing.assert_allclose(bins.frequency, [1, 0.5])


def test_the_interval_of_one_image_per_patient_is_wilsons() -> None:
    labels = np.array([1] * 7 + [0] * 3)
    bins = reliability_bins(labels, np.full(10, 0.7), np.arange(10), 0.95)
    expected = scipy.stats.binomtest(7, 10).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([bins.low[0], bins.high[0]], [expected.low, expected.high])


def test_intervals_widen_with_fewer_patients_and_stay_within_0_and_1() -> None:
    labels = np.array([1] * 20)
    own = reliability_bins(labels, np.full(20, 0.7), np.arange(20), 0.95)
    shared = reliability_bins(labels, np.full(20, 0.7), np.arange(20) // 5, 0.95)
    assert 0 < shared.low[0] < own.low[0] < own.high[0] == shared.high[0] == 1


def test_calibrated_probabilities_lie_on_the_diagonal_within_the_intervals() -> None:
    labels, probabilities = _calibrated(6000)
    bins = reliability_bins(labels, probabilities[:, 1], np.arange(6000), 0.99)
    assert len(bins.numbers) == NUM_BINS
    assert ((bins.low <= bins.confidence) & (bins.confidence <= bins.high)).all()


def test_the_panels_hold_the_bins_before_and_after_scaling_and_their_errors() -> None:
    labels, probabilities = _calibrated(400)
    sharp = TemperatureScaling(0.25).probabilities(to_logits(probabilities))
    figure = _draw(_predictions(labels, sharp), _choices(4.0))
    for panel, values, name in ((0, sharp, "before scaling"), (1, probabilities, "at temperature 4.00")):
        bins = reliability_bins(labels, values[:, 1], np.arange(400), 0.95)
        np.testing.assert_allclose(_points(figure, panel), np.stack([bins.confidence, bins.frequency], axis=1))
        error = expected_calibration_error(labels, values[:, 1])
        assert figure.axes[panel].get_title() == f"{name}: ECE {error:.3f}"
        assert [bar.get_height() for bar in figure.axes[panel + 2].patches] == bins.counts.tolist()
        bars = np.array(figure.axes[panel].containers[0].lines[2][0].get_segments())
        np.testing.assert_allclose(bars[:, :, 1], np.stack([bins.low, bins.high], axis=1), atol=1e-12)


def test_the_area_between_bins_and_diagonal_is_the_calibration_error() -> None:
    labels, probabilities = _calibrated(300)
    bins = reliability_bins(labels, probabilities[:, 1], np.arange(300), 0.95)
    error = np.sum(bins.counts * np.abs(bins.confidence - bins.frequency)) / 300
    assert error == pytest.approx(expected_calibration_error(labels, probabilities[:, 1]))


def test_without_a_temperature_the_second_panel_says_why() -> None:
    figure = _draw(_predictions(*_calibrated(50)), _choices(None, "there are no validation images"))
    assert figure.axes[1].texts[0].get_text().replace("\n", " ") == "Not scaled: there are no validation images"
    assert not figure.axes[1].axison
    assert not figure.axes[3].axison
    assert len(_points(figure, 0))


def test_one_class_alone_can_be_drawn() -> None:
    figure = _draw(_predictions(np.zeros(3, np.int64), np.array([[0.9, 0.1]] * 3)), _choices(1.0))
    assert _points(figure, 0).round(6).tolist() == [[0.1, 0.0]]


def test_axes_say_what_the_score_is() -> None:
    three = np.array([[0.7, 0.2, 0.1]] * 4)
    of_three = _draw(_predictions(np.array([0, 1, 2, 0]), three), _choices(1.0))
    assert of_three.axes[2].get_xlabel() == "score of the likeliest class"
    assert _draw(_predictions(*_calibrated(20)), _choices(1.0)).axes[2].get_xlabel() == "score of the positive class"


def test_without_a_labelled_image_a_sentence_says_so() -> None:
    figure = _draw(PREDICTIONS.empty(), _choices(1.0))
    assert not figure.axes
    assert "no test images with a label" in " ".join(figure.texts[0].get_text().split())


def test_the_same_numbers_give_the_same_bytes() -> None:
    rows = _predictions(*_calibrated(80))
    first, second = (render_figure(_draw(rows, _choices(1.5)), "pdf") for _ in range(2))
    assert first == second
