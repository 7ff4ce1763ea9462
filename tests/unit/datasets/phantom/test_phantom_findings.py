from itertools import pairwise

import numpy as np
import pytest

from mammoclip.datasets.phantom.acquisition import expose
from mammoclip.datasets.phantom.anatomy import render_tissue
from mammoclip.datasets.phantom.exam import Exam, draw_exam, render_image
from mammoclip.datasets.phantom.findings import Lesion, add_lesion, add_scattered_specks

ROWS, COLUMNS = 400, 256
MASS = Lesion("Mass", "irregular", "spiculated", 0.5, 0.3, 0.3, 0.1, 5)
CALCIFICATION = Lesion("Suspicious Calcification", "fine pleomorphic", "", 0.5, 0.3, 0.3, 0.1, 4)


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return [draw_exam(3, index, rows_px=ROWS, columns_px=COLUMNS) for index in range(2000)]


def grey(exam: Exam, pixels: np.ndarray) -> np.ndarray:
    white = 2**exam.acquisition.bits_stored - 1
    return (white - pixels if exam.acquisition.monochrome1 else pixels) / white


@pytest.mark.parametrize("lesion", [MASS, CALCIFICATION], ids=lambda lesion: lesion.kind)
@pytest.mark.parametrize("centre", [(120.0, 200.0), (3.0, 200.0), (120.0, 396.0), (250.0, 5.0)])
def test_a_box_is_exactly_what_was_drawn(lesion: Lesion, centre: tuple[float, float]) -> None:
    image = np.zeros((ROWS, COLUMNS), np.float32)
    xmin, ymin, xmax, ymax = add_lesion(np.random.default_rng(5), image, lesion, centre, ROWS)
    rows, columns = np.nonzero(image)
    assert (xmin, ymin, xmax, ymax) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_findings_are_large_enough_to_survive_a_model_input_of_256_rows() -> None:
    rng = np.random.default_rng(0)
    for lesion in (MASS, CALCIFICATION):
        for _ in range(20):
            image = np.zeros((800, 512), np.float32)
            xmin, ymin, xmax, ymax = add_lesion(rng, image, lesion, (250.0, 400.0), 800)
            assert 14 * 800 / 256 < max(xmax - xmin, ymax - ymin) < 0.16 * 800


def test_a_cluster_has_12_to_30_specks() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)
    for _ in range(20):
        image = np.zeros((800, 512), np.float32)
        add_lesion(rng, image, CALCIFICATION, (250.0, 400.0), 800)
        assert 12 <= ndimage.label(image > 0.5 * image.max())[1] <= 30


def test_scattered_specks_stay_apart_so_that_they_make_no_cluster() -> None:
    from scipy import ndimage

    shape = draw_exam(0, 0, rows_px=ROWS, columns_px=COLUMNS).images[0].shape
    for seed in range(20):
        image = np.zeros((ROWS, COLUMNS), np.float32)
        add_scattered_specks(np.random.default_rng(seed), image, shape, np.ones_like(image), ROWS)
        labels, count = ndimage.label(image)
        centres = np.array(ndimage.center_of_mass(image, labels, range(1, count + 1))).reshape(-1, 2)
        distances = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))[np.triu_indices(count, 1)]
        assert count <= 30
        assert np.all(distances > 0.06 * ROWS)


def test_both_kinds_occur_in_about_35_percent_of_breasts_and_independently(exams: list[Exam]) -> None:
    kinds = [{lesion.kind for lesion in exam.lesions[side]} for exam in exams for side in ("L", "R")]
    mass = np.array(["Mass" in kind for kind in kinds])
    calcification = np.array(["Suspicious Calcification" in kind for kind in kinds])
    tolerance = 4 * np.sqrt(0.35 * 0.65 / len(kinds))
    assert mass.mean() == pytest.approx(0.35, abs=tolerance)
    assert calcification.mean() == pytest.approx(0.35, abs=tolerance)
    assert abs(np.corrcoef(mass, calcification)[0, 1]) < 4 / np.sqrt(len(kinds))


def test_every_quadrant_and_every_depth_occurs(exams: list[Exam]) -> None:
    lesions = [lesion for exam in exams for side in exam.lesions.values() for lesion in side]
    positions = {lesion.position for lesion in lesions}
    assert positions == {(v, h) for v in ("upper", "lower") for h in ("inner", "outer")}
    for word in ("posterior", "middle", "anterior"):
        assert np.mean([lesion.depth_word == word for lesion in lesions]) > 0.1


def test_words_agree_with_pixels_upper_from_mlo_and_outer_from_cc(exams: list[Exam]) -> None:
    for exam in exams[:300]:
        for image in exam.images:
            nipple_row = image.shape.nipple_px[1]
            for lesion in exam.lesions[image.traits.laterality]:
                vertical, horizontal = lesion.position
                offset = lesion.outer if image.traits.view == "CC" else lesion.upper
                row = image.shape.to_pixel(lesion.depth, offset)[1]
                expected = horizontal == "outer" if image.traits.view == "CC" else vertical == "upper"
                # In CC the outer side is on top (PatientOrientation runs down to the other side of the body).
                line = image.shape.to_pixel(lesion.depth, 0)[1] if image.traits.view == "CC" else nipple_row
                assert (row < line) == expected


def test_cc_and_mlo_show_the_same_lesion_at_the_same_depth(exams: list[Exam]) -> None:
    for exam in [exam for exam in exams[:60] if any(exam.lesions.values())][:12]:
        for side, (first, second) in (("L", (0, 1)), ("R", (2, 3))):
            views = []
            for number in (first, second):
                _, boxes = render_image(3, exam, number, ROWS)
                columns = exam.images[number].traits.columns_px
                nipple = exam.images[number].shape.nipple_px
                centres = [
                    ((x0 + x1) / 2 if side == "L" else columns - (x0 + x1) / 2, (y0 + y1) / 2)
                    for _, (x0, y0, x1, y1) in boxes
                ]
                tilt = exam.images[number].shape.tilt_rad
                to_nipple = [(nipple[0] - x) * np.cos(tilt) + (nipple[1] - y) * np.sin(tilt) for x, y in centres]
                views.append((to_nipple, [lesion for lesion, _ in boxes]))
            assert views[0][1] == views[1][1]
            np.testing.assert_allclose(views[0][0], views[1][0], atol=0.03 * ROWS)


def test_every_box_is_brighter_inside_than_around(exams: list[Exam]) -> None:
    compared = 0
    for exam in exams[:20]:
        for number in range(4):
            pixels, boxes = render_image(3, exam, number, ROWS)
            image = grey(exam, pixels)
            for lesion, (x0, y0, x1, y1) in boxes:
                assert 0 <= x0 < x1 <= image.shape[1]
                assert 0 <= y0 < y1 <= image.shape[0]
                pad = (x1 - x0) // 2
                around = image[max(0, y0 - pad) : y1 + pad, max(0, x0 - pad) : x1 + pad].copy()
                around[y0 - max(0, y0 - pad) :, x0 - max(0, x0 - pad) :][: y1 - y0, : x1 - x0] = np.nan
                core = image[(3 * y0 + y1) // 4 : (y0 + 3 * y1) // 4, (3 * x0 + x1) // 4 : (x0 + 3 * x1) // 4]
                quantile = 0.5 if lesion.kind == "Mass" else 0.95
                assert np.quantile(core, quantile) > np.nanmedian(around) + 0.05, (exam.patient_index, number)
                compared += 1
    assert compared > 30


def test_lesions_do_not_shift_what_is_drawn_elsewhere_in_the_image() -> None:
    """The random stream of the noise is the image's own: the grey levels of air carry no trace of the findings."""
    exam = draw_exam(3, 0, rows_px=ROWS, columns_px=COLUMNS)
    image = exam.images[0]
    tissue, mask = render_tissue(np.random.default_rng(0), image.shape, "B", ROWS, COLUMNS)
    plain = expose(np.random.default_rng(1), tissue, mask, exam.acquisition, image.traits)
    box = add_lesion(np.random.default_rng(2), tissue, MASS, (100.0, 200.0), ROWS)
    with_mass = expose(np.random.default_rng(1), tissue, mask, exam.acquisition, image.traits)
    changed_rows, changed_columns = np.nonzero(plain != with_mass)
    assert (changed_columns.min(), changed_rows.min()) >= box[:2]
    assert changed_columns.max() < box[2]
    assert changed_rows.max() < box[3]


def test_two_lesions_of_one_breast_rarely_meet(exams: list[Exam]) -> None:
    pairs = [(exam, side) for exam in exams for side in ("L", "R") if len(exam.lesions[side]) == 2]
    same_place = [
        any(first.depth == second.depth for first, second in pairwise(exam.lesions[side])) for exam, side in pairs
    ]
    assert len(pairs) > 200
    assert np.mean(same_place) < 0.02
