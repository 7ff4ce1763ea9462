from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from mammoclip.artifacts import PREDICTIONS
from mammoclip.evaluation import metrics
from mammoclip.evaluation.resampling import Draws
from mammoclip.paper.curves import (
    GRID,
    curve_bands,
    draw_curves,
    precision_steps,
    select_evaluation,
)
from mammoclip.paper.figures import PROTOCOL_STYLES, draw_note
from mammoclip.paper.rendering import render_figure

LABELS = [1, 0, 1, 0, 0, 1]
SCORES = [0.9, 0.8, 0.8, 0.3, 0.2, 0.1]


def _predictions(labels: Sequence[int | None], scores: Sequence[float], **changes: object) -> pl.DataFrame:
    told = {
        "split": "test",
        "task": "mass",
        "protocol": "zero-shot",
        "fraction": 0.0,
        "seed": 0,
        "repeat": 0,
        **changes,
    }
    rows = [
        {"image_id": f"i{n}", "patient_id": f"p{n}", "label": label, "scores": [1 - score, score], **told}
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema)


def _many(num_patients: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    labels = np.arange(num_patients) % 3 == 0
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    return _predictions(labels.astype(int).tolist(), scores.tolist())


def _draw(predictions: pl.DataFrame) -> Figure:
    return draw_curves(predictions, "mass", "cohort", 50, 0.95, 0)


def _note(figure: Figure) -> str:
    assert not figure.axes
    return " ".join(figure.texts[0].get_text().split())


def _width(predictions: pl.DataFrame) -> float:
    labels, scores = predictions["label"].to_numpy(), predictions["scores"].list.get(1).to_numpy()
    draws = Draws.of(predictions["patient_id"].to_numpy(), 200, 0)
    return float(np.mean([np.mean(band.high - band.low) for band in curve_bands(labels, scores, draws, 0.95)]))


def test_the_roc_line_is_the_roc_curve() -> None:
    chance, line = _draw(_predictions(LABELS, SCORES)).axes[0].lines
    fpr, tpr, _ = metrics.roc_curve(LABELS, SCORES)
    np.testing.assert_array_equal(line.get_xdata(), fpr)
    np.testing.assert_array_equal(line.get_ydata(), tpr)
    assert list(chance.get_ydata()) == [0, 1]


def test_the_area_under_the_precision_steps_is_the_auprc() -> None:
    chance, line = _draw(_predictions(LABELS, SCORES)).axes[1].lines
    recall, precision = line.get_data()
    assert line.get_drawstyle() == "steps-pre"
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(metrics.auprc(LABELS, SCORES))
    assert list(chance.get_ydata()) == [0.5, 0.5]


def test_precision_steps_of_many_cases_with_ties() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 200), rng.integers(0, 12, 200) / 12
    recall, precision = precision_steps(labels, scores)
    assert (np.diff(recall[1:]) > 0).all()
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(metrics.auprc(labels, scores))


def test_the_legend_states_both_areas_and_chance() -> None:
    figure = _draw(_predictions(LABELS, SCORES))
    names = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    auroc, auprc = metrics.auroc(LABELS, SCORES), metrics.auprc(LABELS, SCORES)
    assert names == [
        [f"zero-shot: {auroc:.2f}", "chance: 0.50"],
        [f"zero-shot: {auprc:.2f}", "chance, the prevalence: 0.50"],
    ]


def test_the_title_counts_images_and_patients() -> None:
    rows = _predictions(LABELS, SCORES).with_columns(patient_id=pl.Series(["a", "a", "b", "b", "c", "c"]))
    title = "Mass (cohort): 6 test images, 3 positive, of 3 patients\nbands: 95 %, patients resampled"
    assert _draw(rows).get_suptitle() == title


def test_a_band_is_the_quantiles_of_the_curves_of_repeated_cases() -> None:
    rows = _many(40)
    labels, scores = rows["label"].to_numpy(), rows["scores"].list.get(1).to_numpy()
    draws = Draws.of(rows["patient_id"].to_numpy(), 30, 3)
    sensitivity, precision = [], []
    for resample in range(30):
        cases = draws.cases(resample)
        fpr, tpr, _ = metrics.roc_curve(labels[cases], scores[cases])
        sensitivity.append([tpr[np.flatnonzero(fpr <= rate)[-1]] for rate in GRID])
        hits = np.array([np.sum(labels[cases] * (scores[cases] >= at)) for at in np.unique(scores)[::-1]])
        calls = np.array([np.sum(scores[cases] >= at) for at in np.unique(scores)[::-1]])
        needed = np.maximum(np.ceil(GRID * labels[cases].sum() - 1e-9), 1)
        precision.append([(hits / np.maximum(calls, 1))[np.flatnonzero(hits >= number)[0]] for number in needed])
    bands = curve_bands(labels, scores, draws, 0.9)
    for band, curves in zip(bands, (sensitivity, precision), strict=True):
        low, high = np.quantile(curves, [0.05, 0.95], axis=0)
        np.testing.assert_allclose(band.low, low)
        np.testing.assert_allclose(band.high, high)


def test_bands_contain_the_curves() -> None:
    rows = _many(300)
    labels, scores = rows["label"].to_numpy(), rows["scores"].list.get(1).to_numpy()
    roc, precision = curve_bands(labels, scores, Draws.of(rows["patient_id"].to_numpy(), 300, 0), 0.95)
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    value = np.interp(GRID, fpr, tpr)
    assert ((roc.low <= value) & (value <= roc.high)).all()
    recall, steps = precision_steps(labels, scores)
    value = steps[np.searchsorted(recall, GRID - 1e-9)]
    assert ((precision.low <= value) & (value <= precision.high)).mean() > 0.98


def test_bands_widen_with_fewer_patients() -> None:
    rows = _many(300)
    of_few = rows.with_columns(patient_id=pl.Series([f"p{n // 10}" for n in range(300)]))
    assert _width(_many(75)) > 1.5 * _width(rows)
    assert _width(of_few) != _width(rows)


def test_resamples_without_a_class_are_left_out() -> None:
    labels, scores = np.array([1, 0, 0]), np.array([0.9, 0.5, 0.1])
    draws = Draws(np.arange(3), np.array([[0, 1], [3, 1], [0, 1]], np.int32))
    for band in curve_bands(labels, scores, draws, 0.95):
        np.testing.assert_array_equal(band.low, 1.0)
    without = Draws(np.arange(3), np.array([[0], [3], [0]], np.int32))
    assert all(np.isnan(band.low).all() for band in curve_bands(labels, scores, without, 0.95))


def test_one_patient_has_no_band_and_the_title_says_so() -> None:
    figure = _draw(_predictions(LABELS, SCORES).with_columns(patient_id=pl.lit("p")))
    assert all(not axes.collections for axes in figure.axes)
    assert figure.get_suptitle().endswith("no bands of one patient")


def test_every_protocol_has_its_colour_line_and_band() -> None:
    rows = pl.concat(
        _predictions(LABELS, SCORES, protocol=name, fraction=0.0 if name == "zero-shot" else 1.0)
        for name in PROTOCOL_STYLES
    )
    for axes in _draw(rows).axes:
        lines = axes.lines[1:]
        assert [line.get_label().split(":")[0] for line in lines] == list(PROTOCOL_STYLES)
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(axes.collections) == 3
        for line, band in zip(lines, axes.collections, strict=True):
            assert same_color(band.get_facecolor()[0][:3], line.get_color())


def test_of_the_trained_the_largest_fraction_and_of_its_seeds_the_lowest_is_shown() -> None:
    rows = pl.concat(
        _predictions([1], [score], protocol="linear-probe", fraction=fraction, seed=seed, repeat=repeat)
        for score, fraction, seed, repeat in ((0.1, 0.1, 0, 0), (0.2, 1.0, 2, 0), (0.3, 1.0, 1, 0), (0.4, 1.0, 1, 1))
    )
    assert select_evaluation(rows, "mass", "linear-probe")["scores"].to_list() == [[0.7, 0.3]]
    assert select_evaluation(rows, "mass", "fine-tune").is_empty()


def test_validation_images_and_unlabelled_ones_are_not_drawn() -> None:
    rows = _predictions(LABELS, SCORES)
    more = pl.concat([rows, _predictions([0], [1.0], split="validation"), _predictions([None], [1.0])])
    assert render_figure(_draw(more), "png") == render_figure(_draw(rows), "png")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (_predictions([0, 0], [0.1, 0.2]), "no test image is positive"),
        (_predictions([1, 1], [0.1, 0.2]), "no test image is negative"),
        (_predictions([None], [0.1]), "there are no test images with a label and a score"),
        (PREDICTIONS.empty(), "there are no test images with a label and a score"),
        (
            _predictions([0, 1], [0.1, 0.2]).with_columns(scores=pl.Series([[0.2, 0.3, 0.5]] * 2)),
            "the task has 3 classes, where two are needed",
        ),
    ],
)
def test_where_there_is_no_curve_a_sentence_says_why(rows: pl.DataFrame, reason: str) -> None:
    assert _note(_draw(rows)) == f"Mass (cohort): no ROC curve, because {reason}."


def test_a_note_keeps_numbers_and_their_per_cent_sign_together() -> None:
    lines = draw_note("x" * 55 + " 100 % of them").texts[0].get_text().splitlines()
    assert lines[1] == "100\N{NO-BREAK SPACE}% of them"


def test_the_same_predictions_give_the_same_bytes_in_any_order() -> None:
    rows = _many(60)
    first = render_figure(_draw(rows), "pdf")
    assert first == render_figure(_draw(rows), "pdf") == render_figure(_draw(rows.reverse()), "pdf")
