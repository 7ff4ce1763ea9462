"""Pictures of what was found where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mammoclip.config import LocalizeSection
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.localization.images import MAX_BOXES, Shown, draw_heat_maps
from mammoclip.paper.localization.pictures import draw_localization
from mammoclip.paper.pictures import Picture
from mammoclip.paper.rendering import render_figure
from tests.unit.paper.localized import FINDING


@pytest.fixture
def pictures(inputs: Inputs, localize: LocalizeSection) -> dict[str, Picture]:
    return _draw(inputs, localize)


def _draw(inputs: Inputs, localize: LocalizeSection, seed: int = 0) -> dict[str, Picture]:
    return {picture.name: picture for picture in draw_localization(inputs, localize, seed)}


def _titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_pictures_are_of_findings_with_a_true_box_in_order(pictures: dict[str, Picture]) -> None:
    assert list(pictures) == [
        "heat_maps.cohort", f"detections.cohort.{FINDING}", f"detection_curves.cohort.{FINDING}",
    ]  # fmt: skip
    assert {picture.run for picture in pictures.values()} == {"main-run"}
    assert [picture.is_photograph for picture in pictures.values()] == [True, True, False]


def test_heat_maps_are_of_the_best_the_median_and_the_worst_image(pictures: dict[str, Picture], inputs: Inputs) -> None:
    figure = pictures["heat_maps.cohort"].figure
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["Suspicious calcification", "best of 6", "median of 6", "worst of 6", _heat_title()]
    titles = _titles(figure)
    assert titles[::3] == ["true box"] * 3
    assert [title.splitlines()[0] for title in titles[1::3]] == ["mammo-factor"] * 3
    assert [title.splitlines()[0] for title in titles[2::3]] == ["grad-cam"] * 3
    energies = [float(title.splitlines()[1].removeprefix("energy ")) for title in titles[1::3]]
    assert energies == sorted(energies, reverse=True)
    measured = inputs.main.attributions["cohort"].filter(protocol="mammo-factor")
    assert set(energies) <= {round(value, 2) for value in measured["energy_inside"]}


def _heat_title() -> str:
    return "Heat maps of test images (cohort)"


def test_true_boxes_are_on_every_panel_and_found_ones_thinner_on_the_first_map(pictures: dict[str, Picture]) -> None:
    panels = pictures["heat_maps.cohort"].figure.axes
    for image, mapped, compared in zip(panels[::3], panels[1::3], panels[2::3], strict=True):
        for axes in (image, mapped, compared):
            assert axes.patches[0].get_bbox().extents.tolist() == [10, 20, 30, 50]
        assert len(image.patches) == len(compared.patches) == 1
        assert 1 <= len(mapped.patches) <= 1 + MAX_BOXES
        assert all(box.get_linewidth() < image.patches[0].get_linewidth() for box in mapped.patches[1:])


def test_a_method_without_a_map_says_so() -> None:
    shown = Shown("the only one", "a", [(1, 2, 3, 4)], [], {"mammo-factor": (np.ones((2, 2), np.float32), "energy 1")})
    figure = draw_heat_maps(
        {"mass": [shown]}, ("mammo-factor", "grad-cam"), lambda _: np.zeros((9, 6), np.uint8), "cohort"
    )
    assert _titles(figure) == ["true box", "mammo-factor\nenergy 1", "grad-cam\nno map"]


def test_every_detector_has_a_row_of_the_same_images(pictures: dict[str, Picture]) -> None:
    figure = pictures[f"detections.cohort.{FINDING}"].figure
    assert _titles(figure) == (["with lesion"] * 4 + ["without"] * 2) * 3
    rows = [text.get_text() for text in figure.texts][:3]
    assert [row.split(":")[0] for row in rows] == [
        "detection-frozen", "detection-fine-tune", "detection-frozen (all findings)",
    ]  # fmt: skip
    assert all("(at most 1 false positive per image)" in row for row in rows)
    images = [[axes.images[0].get_array().tobytes() for axes in figure.axes[row : row + 6]] for row in (0, 6, 12)]
    assert images[0] == images[1] == images[2]


def test_boxes_found_are_the_surest_above_the_threshold_with_their_scores(pictures: dict[str, Picture]) -> None:
    figure = pictures[f"detections.cohort.{FINDING}"].figure
    threshold = float(figure.texts[0].get_text().split("scoring ")[1].split(" ")[0])
    for number, axes in enumerate(figure.axes[:6]):
        dashed = [box for box in axes.patches if box.get_linestyle() != "-" and box.get_linestyle() != "solid"]
        assert len(axes.patches) - len(dashed) == (1 if number < 4 else 0)
        assert len(dashed) <= MAX_BOXES
        scores = [float(text.get_text()) for text in axes.texts]
        assert len(scores) == len(dashed)
        assert scores == sorted(scores, reverse=True)
        assert all(score >= threshold - 0.01 for score in scores)


def test_curves_are_of_the_largest_share_with_controls_in_grey(pictures: dict[str, Picture]) -> None:
    axes = pictures[f"detection_curves.cohort.{FINDING}"].figure.axes[0]
    names = [text.get_text().rsplit(":", 1)[0] for text in axes.get_legend().get_texts()]
    assert names == [
        "detection-frozen", "detection-fine-tune", "detection-frozen (all findings)", "mammo-factor",
        "untrained, detection-frozen", "untrained, detection-fine-tune",
        "shuffled_reports, detection-frozen", "shuffled_reports, detection-fine-tune",
    ]  # fmt: skip
    grey = [line for line in axes.lines if line.get_color() in ("#555555", "#8c8c8c")]
    assert len(grey) == 4
    assert len({(line.get_color(), str(line.get_linestyle())) for line in axes.lines[:4]}) == 4


def test_a_detector_that_found_nothing_has_a_curve(inputs: Inputs, localize: LocalizeSection) -> None:
    found = inputs.main.detections["cohort"].filter(pl.col("protocol") != "detection-frozen")
    emptied = replace(inputs, runs=[replace(inputs.main, detections={"cohort": found}), *inputs.runs[1:]])
    axes = _draw(emptied, localize)[f"detection_curves.cohort.{FINDING}"].figure.axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "detection-frozen: 0.00"


def test_without_localisation_there_is_no_picture(inputs: Inputs) -> None:
    assert _draw(inputs, LocalizeSection()) == {}


def test_without_mammo_factor_there_are_detectors_alone(inputs: Inputs, localize: LocalizeSection) -> None:
    without = localize.model_copy(update={"factor": LocalizeSection().factor})
    names = list(_draw(inputs, without))
    assert names == [f"detections.cohort.{FINDING}", f"detection_curves.cohort.{FINDING}"]


def test_no_patient_and_no_image_is_named(pictures: dict[str, Picture]) -> None:
    for picture in pictures.values():
        content = render_figure(picture.figure, "pdf")
        assert b"patient-" not in content
        assert b"cohort-p" not in content


def test_the_same_tables_give_the_same_bytes(
    pictures: dict[str, Picture], inputs: Inputs, localize: LocalizeSection
) -> None:
    found = {name: table.reverse() for name, table in inputs.main.detections.items()}
    again = _draw(replace(inputs, runs=[replace(inputs.main, detections=found), *inputs.runs[1:]]), localize)
    for name, picture in pictures.items():
        assert render_figure(again[name].figure, "png") == render_figure(picture.figure, "png"), name
