import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mammoclip.artifacts import METRICS
from mammoclip.paper.efficiency import draw_efficiency, efficiency_points
from mammoclip.paper.rendering import render_figure


def _row(value: float | None, **changes: object) -> dict[str, object]:
    told = {
        "run": "main", "dataset": "cohort", "task": "mass", "protocol": "linear-probe", "fraction": 1.0, "seed": 0,
        "mode": "strict", "level": "image", "pooling": "none", "subgroup": "all", "metric": "auroc", "n": 9,
        "num_patients": 5, "value": value, "ci_low": None if value is None else value - 0.05,
        "ci_high": None if value is None else value + 0.02,
    }  # fmt: skip
    return {**told, **changes}


def _metrics(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=METRICS.schema)


def _draw(metrics: pl.DataFrame) -> Figure:
    return draw_efficiency(metrics, "mass", "cohort", 0.95)


TWO = (_row(0.7, fraction=0.1), _row(0.8))
ZERO_SHOT = _row(0.65, protocol="zero-shot", fraction=0.0)


def test_a_line_holds_the_values_and_their_intervals() -> None:
    axes = _draw(_metrics(*reversed(TWO))).axes[0]
    line, _, (bars,) = axes.containers[0].lines
    assert line.get_xydata().tolist() == [[0.1, 0.7], [1.0, 0.8]]
    np.testing.assert_allclose([bar[:, 1] for bar in bars.get_segments()], [[0.65, 0.72], [0.75, 0.82]])
    assert axes.get_title() == "linear-probe\n95 % interval"


def test_of_several_seeds_it_is_the_mean_and_the_range() -> None:
    seeds = [_row(value, fraction=0.1, seed=seed) for seed, value in enumerate((0.6, 0.7, 0.71))]
    points = efficiency_points(_metrics(*seeds, _row(0.8)))
    assert points.select("fraction", "num_seeds").rows() == [(0.1, 3), (1.0, 1)]
    np.testing.assert_allclose(points.select("value", "low", "high").to_numpy(), [[0.67, 0.6, 0.71], [0.8, 0.75, 0.82]])
    title = _draw(_metrics(*seeds, _row(0.8))).axes[0].get_title()
    assert title == "linear-probe\nmean and range over 3 seeds, 95 % interval of one seed"


def test_the_axis_is_logarithmic_with_ticks_in_per_cent() -> None:
    rows = [_row(0.5 + fraction / 3, fraction=fraction) for fraction in (0.01, 0.1, 0.2, 1.0)]
    axes = _draw(_metrics(*rows)).axes[0]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1 %", "10 %", "20 %", "50 %", "100 %"]
    assert axes.get_ylabel() == "AUROC of test images"


def test_zero_shot_is_a_horizontal_line_in_the_colour_of_its_run() -> None:
    figure = _draw(_metrics(*TWO, ZERO_SHOT))
    axes = figure.axes[0]
    (across,) = [line for line in axes.lines if line.get_label().startswith("main, zero-shot")]
    assert list(across.get_ydata()) == [0.65, 0.65]
    assert across.get_color() == axes.containers[0].lines[0].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["main", "main, zero-shot: 0.65"]


def test_runs_differ_in_colour_line_and_marker() -> None:
    figure = _draw(_metrics(*TWO, *({**row, "run": "other"} for row in TWO)))
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [container.get_label() for container in figure.axes[0].containers] == ["main", "other"]
    for style in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, style)() for line in lines}) == 2
    assert lines[1].get_xdata()[0] > lines[0].get_xdata()[0]


def test_a_panel_per_protocol_with_several_fractions() -> None:
    tuned = [_row(0.8, protocol="fine-tune"), _row(0.7, protocol="fine-tune", fraction=0.1)]
    assert len(_draw(_metrics(*TWO, *tuned)).axes) == 2
    assert len(_draw(_metrics(*TWO, *tuned[:1])).axes) == 1


def test_controls_other_levels_subgroups_data_sets_and_tasks_are_not_drawn() -> None:
    others = [
        {"protocol": "linear-probe-shuffled"},
        {"level": "breast", "pooling": "mean"},
        {"subgroup": "density", "group": "A"},
        {"dataset": "films"},
        {"task": "density"},
        {"metric": "auprc"},
    ]
    figure = _draw(_metrics(*TWO, *(_row(0.1, **other) for other in others)))
    assert render_figure(figure, "png") == render_figure(_draw(_metrics(*TWO)), "png")


def test_of_several_classes_it_is_the_macro_auroc() -> None:
    rows = [{**row, "metric": "macro_auroc"} for row in TWO]
    assert _draw(_metrics(*rows)).axes[0].get_ylabel() == "macro AUROC of test images"


def test_a_missing_value_or_interval_is_not_drawn() -> None:
    rows = [*TWO, _row(None, fraction=0.5, reason="no image of class 1 is tested")]
    assert len(_draw(_metrics(*rows)).axes[0].containers[0].lines[0].get_xdata()) == 2
    (bars,) = _draw(_metrics(TWO[0], _row(0.8, ci_low=None, ci_high=None))).axes[0].containers[0].lines[2]
    np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars.get_segments()], [0.07, 0.0])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "nothing was trained on it"),
        ([ZERO_SHOT], "nothing was trained on it"),
        ([_row(0.8)], "only 100 % of the training patients was tried"),
        ([_row(None, fraction=f, reason="no image of class 1 is tested") for f in (0.1, 1.0)],
         "no image of class 1 is tested"),
    ],
)  # fmt: skip
def test_where_there_is_no_curve_a_sentence_says_why(rows: list[dict[str, object]], reason: str) -> None:
    figure = _draw(_metrics(*rows))
    assert not figure.axes
    text = " ".join(figure.texts[0].get_text().split())
    assert text == f"Mass (cohort): no curve of data efficiency, because {reason}."


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert render_figure(_draw(_metrics(*TWO)), "pdf") == render_figure(_draw(_metrics(*TWO)), "pdf")
