"""The pictures of the main run, and of the untrained control beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mammoclip.config import EvaluateSection, LocalizeSection, PaperSection, PretrainSection
from mammoclip.evaluation import metrics
from mammoclip.paper.inputs import Inputs, RunResults, load_inputs
from mammoclip.paper.pictures import Picture, draw_pictures
from mammoclip.paper.wording import format_number

BINARY = ("mass", "suspicious_calcification")
MAIN = [
    name
    for task in BINARY
    for name in (
        f"curves.cohort.{task}",
        f"histograms.cohort.{task}",
        f"efficiency.cohort.{task}",
        f"reliability.cohort.{task}.zero-shot",
        f"reliability.cohort.{task}.linear-probe",
        f"gallery.cohort.{task}",
    )
] + [
    "efficiency.cohort.density",
    "reliability.cohort.density.zero-shot",
    "reliability.cohort.density.linear-probe",
]


@pytest.fixture(scope="module")
def loaded(pristine_results: Path, paper: PaperSection, pretrain: PretrainSection, evaluate: EvaluateSection) -> Inputs:
    sections = {"paper": paper, "pretrain": pretrain, "evaluate": evaluate, "localize": LocalizeSection()}
    return load_inputs(pristine_results, ["cohort", "films"], {}, **sections)


@pytest.fixture(scope="module")
def drawn(loaded: Inputs, evaluate: EvaluateSection) -> list[Picture]:
    return list(draw_pictures(loaded, evaluate, 0))


def test_the_untrained_control_has_the_pictures_of_the_main_run_but_data_efficiency(drawn: list[Picture]) -> None:
    names = [picture.name for picture in drawn]
    assert names == [*MAIN, *(f"{name}.untrained" for name in MAIN if not name.startswith("efficiency"))]


def test_titles_captions_and_figures_name_their_run(drawn: list[Picture]) -> None:
    for picture in drawn:
        run = "untrained" if picture.name.endswith(".untrained") else "main-run"
        assert picture.run == run
        if picture.name.startswith("efficiency"):
            continue
        assert f" of {run}" in picture.title
        assert run in picture.caption
        told = [picture.figure.get_suptitle(), *(text.get_text() for text in picture.figure.texts)]
        assert any(f"(cohort), {run}" in " ".join(text.split()) for text in told)


def _curve_label(drawn: list[Picture], name: str) -> str:
    (picture,) = [picture for picture in drawn if picture.name == name]
    return next(line.get_label() for line in picture.figure.axes[0].lines if "zero-shot" in line.get_label())


def test_a_control_s_curves_are_of_its_own_scores(loaded: Inputs, drawn: list[Picture]) -> None:
    values = []
    for run, name in zip(loaded.runs[:2], ("curves.cohort.mass", "curves.cohort.mass.untrained"), strict=True):
        cases = run.predictions["cohort"].filter(task="mass", protocol="zero-shot", split="test")
        values.append(metrics.auroc(cases["label"], cases["scores"].list.get(1)))
        assert _curve_label(drawn, name) == f"zero-shot: {format_number(values[-1])}"
    assert abs(values[0] - values[1]) > 0.01


def test_a_control_s_threshold_is_its_own(loaded: Inputs, drawn: list[Picture]) -> None:
    chosen = []
    for run, name in zip(loaded.runs[:2], ("histograms.cohort.mass", "histograms.cohort.mass.untrained"), strict=True):
        choices = run.choices.filter(task="mass", protocol="linear-probe", choice="threshold", fraction=1.0)
        chosen.append(format_number(choices["value"][0], 3))
        (picture,) = [picture for picture in drawn if picture.name == name]
        assert f"linear-probe\nthreshold {chosen[-1]}" in [axes.get_title() for axes in picture.figure.axes]
    assert chosen[0] != chosen[1]


def test_only_galleries_are_photographs(drawn: list[Picture]) -> None:
    assert {picture.name.partition(".")[0] for picture in drawn if picture.is_photograph} == {"gallery"}


def _with_control(inputs: Inputs, control: RunResults) -> Inputs:
    return replace(inputs, runs=[inputs.main, control, *inputs.runs[2:]])


def test_a_control_that_was_not_evaluated_has_no_pictures(loaded: Inputs, evaluate: EvaluateSection) -> None:
    control = loaded.runs[1]
    absent = replace(control, predictions={name: table.clear() for name, table in control.predictions.items()})
    assert [picture.name for picture in draw_pictures(_with_control(loaded, absent), evaluate, 0)] == MAIN


def test_a_control_has_pictures_of_what_it_was_evaluated_on(loaded: Inputs, evaluate: EvaluateSection) -> None:
    control = loaded.runs[1]
    part = control.predictions["cohort"].filter(task="density", protocol="zero-shot")
    restricted = replace(control, predictions={**control.predictions, "cohort": part})
    names = [picture.name for picture in draw_pictures(_with_control(loaded, restricted), evaluate, 0)]
    assert names == [*MAIN, "reliability.cohort.density.zero-shot.untrained"]
