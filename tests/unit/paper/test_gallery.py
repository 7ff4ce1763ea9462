import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mammoclip.artifacts import CHOICES, FINDINGS, PREDICTIONS
from mammoclip.paper.gallery import KINDS, choose_confident, draw_gallery
from mammoclip.paper.rendering import render_figure

EVALUATION = {"task": "mass", "protocol": "zero-shot", "fraction": 0.0, "seed": 0}
# image, patient, label, score; the threshold is 0.5
IMAGES = [
    ("a", "P1", 1, 0.90), ("b", "P1", 1, 0.99), ("c", "P2", 1, 0.80),
    ("d", "P3", 1, 0.10), ("e", "P4", 1, 0.30),
    ("f", "P5", 0, 0.70), ("g", "P6", 0, 0.95),
    ("h", "P7", 0, 0.05), ("i", "P8", 0, 0.05), ("j", "P9", 0, 0.20),
    ("k", "P3", 0, 0.01),
]  # fmt: skip
BOXES = pl.DataFrame(
    [
        ("cohort", "b", "mass", 4, 10.0, 20.0, 30.0, 50.0),
        ("cohort", "b", "asymmetry", 4, 0.0, 0.0, 5.0, 5.0),
        ("cohort", "d", "mass", 5, 1.0, 2.0, 3.0, 4.0),
    ],
    schema=FINDINGS.schema,
    orient="row",
)


def _predictions(images: list[tuple[str, str, int, float]]) -> pl.DataFrame:
    told = {"split": "test", "repeat": 0, **EVALUATION}
    rows = [
        {"image_id": image_id, "patient_id": patient, "label": label, "scores": [1 - score, score], **told}
        for image_id, patient, label, score in images
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema)


def _choices(threshold: float | None, reason: str | None = None) -> pl.DataFrame:
    rows = [
        {"run": "r", "dataset": "cohort", **EVALUATION, "choice": "threshold", "value": threshold, "reason": reason}
    ]
    return pl.DataFrame(rows, schema=CHOICES.schema)


def _crop(image_id: str) -> np.ndarray:
    return np.full((96, 64), ord(image_id), np.uint8)


def _draw(rows: pl.DataFrame, choices: pl.DataFrame | None = None, num_per_kind: int = 2) -> Figure:
    given = _choices(0.5) if choices is None else choices
    return draw_gallery(rows, given, BOXES, _crop, "mass", "cohort", "zero-shot", num_per_kind)


def _chosen(num_per_kind: int, threshold: float = 0.5) -> dict[str, list[str]]:
    chosen = choose_confident(_predictions(IMAGES), threshold, num_per_kind)
    return {kind: chosen.filter(kind=kind)["image_id"].to_list() for kind in KINDS}


def test_the_surest_of_each_kind_are_chosen_one_per_patient() -> None:
    assert _chosen(2) == {
        "true positive": ["b", "c"],
        "false negative": ["d", "e"],
        "false positive": ["g", "f"],
        "true negative": ["h", "i"],
    }


def test_a_patient_whose_error_is_shown_has_no_hit_beside_it() -> None:
    assert _chosen(9)["true negative"] == ["h", "i", "j"]


def test_a_score_at_the_threshold_is_called_positive() -> None:
    assert _chosen(9, 0.7)["false positive"] == ["g", "f"]


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = _predictions(IMAGES)
    assert choose_confident(rows.reverse(), 0.5, 2).equals(choose_confident(rows, 0.5, 2))


def test_crops_scores_and_labels_are_those_of_the_images() -> None:
    figure = _draw(_predictions(IMAGES))
    shown = [axes for axes in figure.axes if axes.images]
    assert [chr(axes.images[0].get_array()[0, 0]) for axes in shown] == list("bcdegfhi")
    assert [axes.get_title() for axes in shown[1:5]] == [
        "score 0.800\nmass",
        "score 0.100\nmass",
        "score 0.300\nmass",
        "score 0.950\nno mass",
    ]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [f"{kind}s" for kind in KINDS]
    assert figure.get_suptitle() == "Mass (cohort), zero-shot\nthreshold 0.500"


def test_boxes_of_the_finding_lie_where_the_table_says() -> None:
    boxes = [[patch.get_bbox().extents.tolist() for patch in axes.patches] for axes in _draw(_predictions(IMAGES)).axes]
    assert boxes == [[[10, 20, 30, 50]], [], [[1, 2, 3, 4]], [], [], [], [], []]


def test_boxes_of_another_finding_can_be_asked_for() -> None:
    figure = draw_gallery(
        _predictions(IMAGES), _choices(0.5), BOXES, _crop, "mass", "cohort", "zero-shot", 2, finding="asymmetry"
    )
    assert [len(axes.patches) for axes in figure.axes] == [1, 0, 0, 0, 0, 0, 0, 0]


def test_a_large_crop_is_drawn_small_in_its_own_coordinates() -> None:
    rows = _predictions(IMAGES[:1])
    figure = draw_gallery(
        rows, _choices(0.5), BOXES, lambda _: np.zeros((1520, 912), np.uint8), "mass", "cohort", "zero-shot", 1
    )
    image = figure.axes[0].images[0]
    assert image.get_array().shape[1] < 300
    assert image.get_extent() == [0, 912, 1520, 0]


def test_no_patient_and_no_image_is_named() -> None:
    images = [(f"P{n}-LEFT", f"P{n}", label, score) for n, (_, _, label, score) in enumerate(IMAGES)]
    figure = draw_gallery(
        _predictions(images), _choices(0.5), BOXES, lambda _: _crop("a"), "mass", "cohort", "zero-shot", 2
    )
    texts = [text.get_text() for axes in figure.axes for text in (axes.title, axes.yaxis.label, *axes.texts)]
    assert not [
        text for text in [*texts, figure.get_suptitle()] if "LEFT" in text or any(p in text for _, p, *_ in images)
    ]
    assert b"LEFT" not in render_figure(figure, "pdf")


def test_a_kind_without_an_image_says_none() -> None:
    figure = _draw(_predictions(IMAGES[:3]))
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        [], [], ["none"], [], ["none"], [], ["none"], [],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "choices", "reason"),
    [
        (PREDICTIONS.empty(), _choices(0.5), "there are no test images with a label and a score"),
        (_predictions(IMAGES), _choices(None, "there are no validation images"),
         "there is no threshold: there are no validation images"),
    ],
)  # fmt: skip
def test_where_there_is_no_gallery_a_sentence_says_why(rows: pl.DataFrame, choices: pl.DataFrame, reason: str) -> None:
    figure = _draw(rows, choices)
    assert not figure.axes
    text = " ".join(figure.texts[0].get_text().split())
    assert text == f"Mass (cohort), zero-shot: no gallery, because {reason}."


def test_the_same_images_give_the_same_bytes() -> None:
    rows = _predictions(IMAGES)
    assert render_figure(_draw(rows), "png") == render_figure(_draw(rows.reverse()), "png")
