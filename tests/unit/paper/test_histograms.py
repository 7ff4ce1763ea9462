from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mammoclip.artifacts import CHOICES, PREDICTIONS
from mammoclip.paper.histograms import NUM_BINS, draw_histograms, find_choice
from mammoclip.paper.rendering import render_figure

EVALUATION = {"task": "mass", "protocol": "zero-shot", "fraction": 0.0, "seed": 0}


def _predictions(labels: Sequence[int], scores: Sequence[float], **changes: object) -> pl.DataFrame:
    told = {"split": "test", "repeat": 0, **EVALUATION, **changes}
    rows = [
        {"image_id": f"i{n}", "patient_id": f"p{n}", "label": label, "scores": [1 - score, score], **told}
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema)


def _choices(threshold: float | None, reason: str | None = None, **changes: object) -> pl.DataFrame:
    told = {"run": "r", "dataset": "cohort", **EVALUATION, **changes}
    rows = [{**told, "choice": "threshold", "value": threshold, "reason": reason}]
    return pl.DataFrame(rows, schema=CHOICES.schema)


ROWS = _predictions([0, 0, 0, 1, 1], [0.0, 0.1, 0.6, 0.4, 1.0])


def _draw(rows: pl.DataFrame, choices: pl.DataFrame) -> Figure:
    return draw_histograms(rows, choices, "mass", "cohort")


def test_the_steps_are_the_histograms_of_each_label() -> None:
    negative, positive = _draw(ROWS, _choices(0.5)).axes[0].patches
    for steps, scores in ((negative, [0.0, 0.1, 0.6]), (positive, [0.4, 1.0])):
        counts, edges, _ = steps.get_data()
        np.testing.assert_array_equal(counts, np.histogram(scores, edges)[0])
        np.testing.assert_allclose(edges, np.linspace(0, 1, NUM_BINS + 1))
    assert negative.get_hatch() != positive.get_hatch()
    assert [negative.get_label(), positive.get_label()] == ["negative", "positive"]


def test_the_threshold_is_a_line_and_in_the_title() -> None:
    axes = _draw(ROWS, _choices(0.45)).axes[0]
    assert axes.lines[0].get_xdata() == [0.45, 0.45]
    assert axes.get_title() == "zero-shot\nthreshold 0.450"


def test_without_a_threshold_the_title_says_why() -> None:
    axes = _draw(ROWS, _choices(None, "the validation images have one class only")).axes[0]
    assert not axes.lines
    title = " ".join(axes.get_title().split())
    assert title == "zero-shot no threshold: the validation images have one class only"


def test_every_protocol_has_a_panel_and_its_own_threshold() -> None:
    probe = {"protocol": "linear-probe", "fraction": 1.0}
    rows = pl.concat([_predictions([0, 1], [0.2, 0.9], **probe), ROWS])
    figure = _draw(rows, pl.concat([_choices(0.3), _choices(0.7, **probe)]))
    assert [axes.get_title() for axes in figure.axes] == [
        "zero-shot\nthreshold 0.300",
        "linear-probe\nthreshold 0.700",
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["negative", "positive", "validation threshold"]


@pytest.mark.parametrize(("num_negatives", "scale"), [(20, "linear"), (200, "log")])
def test_counts_are_logarithmic_where_classes_are_unbalanced(num_negatives: int, scale: str) -> None:
    rows = _predictions([0] * num_negatives + [1] * 4, [0.1] * num_negatives + [0.9] * 4)
    axes = _draw(rows, _choices(0.5)).axes[0]
    assert axes.get_yscale() == scale
    assert axes.get_ylim()[0] < 1


def test_equal_scores_can_be_drawn() -> None:
    axes = _draw(_predictions([0, 1], [0.5, 0.5]), _choices(0.5)).axes[0]
    assert [steps.get_data()[0].sum() for steps in axes.patches] == [1, 1]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (ROWS.filter(label=0), "no test image is positive"),
        (PREDICTIONS.empty(), "there are no test images with a label and a score"),
        (
            ROWS.with_columns(scores=pl.Series([[0.2, 0.3, 0.5]] * 5)),
            "the task has 3 classes, where two are needed",
        ),
    ],
)
def test_where_there_is_no_histogram_a_sentence_says_why(rows: pl.DataFrame, reason: str) -> None:
    figure = _draw(rows, _choices(0.5))
    assert not figure.axes
    text = " ".join(figure.texts[0].get_text().split())
    assert text == f"Mass (cohort): no histograms, because {reason}."


def test_a_choice_is_that_of_the_evaluation() -> None:
    other = {"protocol": "linear-probe", "fraction": 1.0}
    choices = pl.concat([_choices(0.1, **other), _choices(0.2), _choices(0.3, dataset="films")])
    assert find_choice(choices, "cohort", ROWS, "threshold")[0] == 0.2
    assert find_choice(choices, "cohort", ROWS, "temperature") == (None, "the table of choices has no temperature")
    assert find_choice(_choices(None, "It is so."), "cohort", ROWS, "threshold") == (None, "It is so")


def test_choices_of_several_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="one run"):
        find_choice(pl.concat([_choices(0.1), _choices(0.2, run="other")]), "cohort", ROWS, "threshold")


def test_the_same_scores_give_the_same_bytes() -> None:
    assert render_figure(_draw(ROWS, _choices(0.5)), "png") == render_figure(_draw(ROWS, _choices(0.5)), "png")
