import base64
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from mammoclip.config import EvaluateSection
from mammoclip.paper.figures import draw_roc, draw_training
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.rendering import render_figure, save_as_pdf_and_png, save_figure, webp_uri


@pytest.mark.parametrize("suffix", ["pdf", "png"])
def test_the_same_numbers_give_the_same_bytes_without_dates(
    inputs: Inputs, evaluate: EvaluateSection, tmp_path: Path, suffix: str
) -> None:
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        save_figure(draw_roc(inputs, evaluate), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"Date" not in first
    assert first.startswith({"pdf": b"%PDF", "png": b"\x89PNG"}[suffix])


def test_the_inlined_picture_is_the_written_one(inputs: Inputs, tmp_path: Path) -> None:
    save_figure(draw_training(inputs), tmp_path / "training.png")
    assert render_figure(draw_training(inputs), "png") == (tmp_path / "training.png").read_bytes()


def test_the_style_of_the_caller_neither_counts_nor_changes(inputs: Inputs) -> None:
    plain = render_figure(draw_training(inputs), "png")
    with mpl.rc_context({"font.size": 20.0, "lines.linewidth": 9.0}):
        assert render_figure(draw_training(inputs), "png") == plain
        assert mpl.rcParams["font.size"] == 20.0


def test_another_process_saves_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    here = save_as_pdf_and_png(draw_training(inputs), tmp_path / "here")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(save_as_pdf_and_png, draw_training(inputs), tmp_path / "there").result()
    assert there == here
    for suffix in (".pdf", ".png"):
        assert (tmp_path / f"there{suffix}").read_bytes() == (tmp_path / f"here{suffix}").read_bytes()


def test_raster_and_vector_have_one_layout(inputs: Inputs, evaluate: EvaluateSection, tmp_path: Path) -> None:
    figure = draw_roc(inputs, evaluate)
    render_figure(figure, "png")
    places = [axes.get_position().bounds for axes in figure.axes]
    save_as_pdf_and_png(figure := draw_roc(inputs, evaluate), tmp_path / "roc")
    assert [axes.get_position().bounds for axes in figure.axes] == places


def _content(uri: str) -> bytes:
    media_type, content = uri.split(",")
    assert media_type == "data:image/webp;base64"
    return base64.b64decode(content)


def _decoded(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_a_page_s_pictures_are_smaller_and_the_same(inputs: Inputs) -> None:
    png = render_figure(draw_training(inputs), "png")
    webp = _content(webp_uri(png))
    assert np.array_equal(_decoded(webp), _decoded(png))
    assert len(webp) < len(png)
    assert _content(webp_uri(png)) == webp


def test_photographs_are_nearly_the_same_and_much_smaller() -> None:
    figure = Figure(figsize=(2, 2))
    tissue = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(320, 320)), (0, 0), 3)
    figure.add_axes((0.0, 0.0, 1.0, 1.0)).imshow(tissue, cmap="gray")
    png = render_figure(figure, "png")
    webp = _content(webp_uri(png, is_photograph=True))
    assert np.abs(_decoded(webp).astype(int) - _decoded(png)).mean() < 4
    assert len(webp) < len(png) / 4
