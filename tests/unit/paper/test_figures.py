from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.figure import Figure

from mammoclip.artifacts import PREDICTIONS, STEPS, read_table, write_table
from mammoclip.config import EvaluateSection, TaskSection
from mammoclip.paper.figures import draw_roc, draw_training
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.rendering import figure_style, render_figure
from mammoclip.paper.wording import format_number


def _labels(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]


def test_roc_has_one_panel_per_binary_task(inputs: Inputs, evaluate: EvaluateSection) -> None:
    titles = [axes.get_title() for axes in draw_roc(inputs, evaluate).axes]
    assert titles == ["Mass (cohort)", "Suspicious calcification (cohort)"]


def test_the_roc_legend_agrees_with_the_metrics(inputs: Inputs, evaluate: EvaluateSection) -> None:
    mass = inputs.main.metrics.filter(task="mass", metric="auroc", level="image", subgroup="all")
    values = dict(mass.filter(pl.col("fraction") != 0.5).select("protocol", "value").rows())
    labels = _labels(draw_roc(inputs, evaluate))[0]
    protocols = ("zero-shot", "linear-probe")
    assert labels[:2] == [f"main-run, {name}: {format_number(values[name])}" for name in protocols]
    assert labels[-1] == "chance: 0.50"
    assert len(labels) == 2 * 3 + 1


def test_the_whole_roc_legend_lies_in_the_figure(inputs: Inputs, evaluate: EvaluateSection) -> None:
    figure = draw_roc(inputs, evaluate)
    render_figure(figure, "png")
    figure.set_layout_engine("none")
    with figure_style():
        figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= 0 and legend.y1 < axes.get_window_extent().y0
        assert figure.bbox.contains(legend.x0, legend.y0) and figure.bbox.contains(legend.x1, legend.y1)


def test_a_curve_of_fewer_training_patients_says_so(
    results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection
) -> None:
    inputs = load()
    predictions = inputs.main.predictions["cohort"]
    fewer = {"cohort": predictions.filter(pl.col("fraction") < 1), "films": inputs.main.predictions["films"]}
    main = replace(inputs.main, predictions=fewer)
    labels = _labels(draw_roc(replace(inputs, runs=[main, *inputs.runs[1:]]), evaluate))[0]
    assert labels[1].startswith("main-run, linear-probe of 50 %: 0.")


def test_a_run_that_was_not_evaluated_has_no_curve(inputs: Inputs, evaluate: EvaluateSection) -> None:
    absent = {name: table.clear() for name, table in inputs.runs[1].predictions.items()}
    runs = [inputs.main, replace(inputs.runs[1], predictions=absent), inputs.runs[2]]
    labels = _labels(draw_roc(replace(inputs, runs=runs), evaluate))[0]
    assert len(labels) == 2 * 2 + 1
    assert not [label for label in labels if label.startswith("untrained")]


def test_a_task_that_one_data_set_lacks_leaves_its_panel_empty(inputs: Inputs, evaluate: EvaluateSection) -> None:
    runs = []
    for run in inputs.runs:
        cohort = run.predictions["cohort"]
        predictions = {"cohort": cohort, "second": cohort.filter(task="mass")}
        runs.append(replace(run, predictions=predictions))
    rows = [row.model_copy(update={"datasets": ["cohort", "second"]}) for row in evaluate.matrix]
    figure = draw_roc(replace(inputs, runs=runs), evaluate.model_copy(update={"matrix": rows}))
    assert [axes.get_title() for axes in figure.axes] == [
        "Mass (cohort)", "Suspicious calcification (cohort)", "Mass (second)", "",
    ]  # fmt: skip
    assert not figure.axes[3].axison


def test_a_curve_of_mode_compat_is_labelled(inputs: Inputs, evaluate: EvaluateSection) -> None:
    main = replace(inputs.main, metrics=inputs.main.metrics.with_columns(mode=pl.lit("compat")))
    figure = draw_roc(replace(inputs, runs=[main, *inputs.runs[1:]]), evaluate)
    assert figure.axes[0].get_title() == "Mass (cohort, compat)"


def test_curves_of_the_main_run_differ_in_colour_and_line_style(inputs: Inputs, evaluate: EvaluateSection) -> None:
    main = [line for line in draw_roc(inputs, evaluate).axes[0].lines if line.get_label().startswith("main-run")]
    assert len({line.get_color() for line in main}) == len({line.get_linestyle() for line in main}) == 2


def test_controls_are_thin_and_grey(inputs: Inputs, evaluate: EvaluateSection) -> None:
    lines = draw_roc(inputs, evaluate).axes[0].lines
    main = [line for line in lines if line.get_label().startswith("main-run")]
    controls = [line for line in lines if line.get_label().startswith(("untrained", "shuffled_reports"))]
    assert len(controls) == 4
    for line in controls:
        red, green, blue = mpl.colors.to_rgb(line.get_color())
        assert red == green == blue
        assert line.get_linewidth() < min(other.get_linewidth() for other in main)


def test_an_undefined_auroc_has_no_curve(results: Path, load: Callable[[], Inputs], evaluate: EvaluateSection) -> None:
    path = results / "evaluate" / "main-run" / "cohort" / "mass" / "zero-shot.parquet"
    write_table(read_table(PREDICTIONS, path).with_columns(label=pl.lit(0)), PREDICTIONS, path)
    lines = {line.get_label(): line for line in draw_roc(load(), evaluate).axes[0].lines}
    assert len(lines["main-run, zero-shot: n/a"].get_xdata()) == 0


def test_without_a_binary_task_the_figure_says_so(inputs: Inputs, evaluate: EvaluateSection) -> None:
    figure = draw_roc(inputs, evaluate.model_copy(update={"tasks": {"density": TaskSection()}}))
    assert [text.get_text() for text in figure.texts] == ["No binary task was evaluated."]


def test_training_shows_both_losses_of_every_trained_run(inputs: Inputs) -> None:
    loss, temperature = draw_training(inputs).axes
    curves = {line.get_label(): len(line.get_xdata()) for line in loss.lines}
    assert curves == {
        "main-run, training": 40,
        "main-run, validation": 4,
        "shuffled_reports, training": 40,
        "shuffled_reports, validation": 4,
    }
    assert len(temperature.lines) == 2


def test_without_a_trained_run_the_figure_says_so(results: Path, load: Callable[[], Inputs]) -> None:
    for run in ("main-run", "shuffled_reports"):
        write_table(STEPS.empty(), STEPS, results / "pretrain" / run / "metrics.parquet")
    assert [text.get_text() for text in draw_training(load()).texts] == ["No run was trained."]


def test_steps_may_be_unsorted(results: Path, load: Callable[[], Inputs]) -> None:
    plain = render_figure(draw_training(load()), "png")
    path = results / "pretrain" / "main-run" / "metrics.parquet"
    steps = read_table(STEPS, path)
    write_table(pl.concat([steps[20:], steps[:20]]), STEPS, path)
    assert render_figure(draw_training(load()), "png") == plain
