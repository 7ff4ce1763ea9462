from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from mammoclip.datasets.phantom.acquisition import SYNTAX_SHARES, burn_in
from mammoclip.datasets.phantom.dicom_file import stored_pixels
from mammoclip.datasets.phantom.exam import Exam, draw_exam

NUM_EXAMS = 3000


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return [draw_exam(11, index, rows_px=800, columns_px=512) for index in range(NUM_EXAMS)]


def labels(exams: list[Exam]) -> dict[str, np.ndarray]:
    """Exam-level answers a shortcut could aim at."""
    kinds = [{lesion.kind for side in exam.lesions.values() for lesion in side} for exam in exams]
    return {
        "mass": np.array(["Mass" in kind for kind in kinds]),
        "calcification": np.array(["Suspicious Calcification" in kind for kind in kinds]),
        "dense": np.array([exam.density in "CD" for exam in exams]),
        "test split": np.array([exam.split == "test" for exam in exams]),
    }


def test_categorical_traits_say_nothing_about_findings_density_or_split(exams: list[Exam]) -> None:
    traits = {
        "manufacturer": [exam.acquisition.manufacturer for exam in exams],
        "syntax": [exam.acquisition.syntax for exam in exams],
        "monochrome1": [exam.acquisition.monochrome1 for exam in exams],
        "bits_stored": [exam.acquisition.bits_stored for exam in exams],
        "sigmoid": [exam.acquisition.sigmoid for exam in exams],
        "view_code": [exam.acquisition.view_code for exam in exams],
        "frame": [exam.acquisition.frame for exam in exams],
        "label style": [exam.images[0].traits.label.style for exam in exams],
        "label font": [exam.images[0].traits.label.font for exam in exams],
        "label at top": [exam.images[0].traits.label.at_top for exam in exams],
    }
    p_values = [
        stats.chi2_contingency(stats.contingency.crosstab(np.array(trait), label)[1]).pvalue
        for trait in traits.values()
        for label in labels(exams).values()
    ]
    assert min(p_values) > 0.001 / len(p_values)


def test_numeric_traits_say_nothing_about_findings_density_or_split(exams: list[Exam]) -> None:
    images = [exam.images[0].traits for exam in exams]
    traits = np.array(
        [
            [
                *(i.rows_px, i.columns_px, i.noise, *i.tone, *i.tilt_light, i.label.height),
                *(*e.acquisition.tone, e.acquisition.pixel_spacing_mm, e.acquisition.birth_year),
            ]
            for e, i in zip(exams, images, strict=True)
        ]
    )
    p_values = [
        stats.mannwhitneyu(column[label], column[~label]).pvalue
        for column in traits.T
        for label in labels(exams).values()
    ]
    assert min(p_values) > 0.001 / len(p_values)


def test_a_classifier_on_all_traits_stays_at_chance(exams: list[Exam]) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    vendors = sorted({exam.acquisition.manufacturer for exam in exams})
    features = np.array(
        [
            (
                vendors.index(exam.acquisition.manufacturer),
                list(SYNTAX_SHARES).index(exam.acquisition.syntax),
                exam.acquisition.monochrome1,
                exam.acquisition.bits_stored,
                exam.acquisition.sigmoid,
                exam.images[0].traits.rows_px,
                exam.images[0].traits.noise,
                *exam.acquisition.tone,
            )
            for exam in exams
        ],
        dtype=float,
    )
    half = NUM_EXAMS // 2
    for name, label in labels(exams).items():
        model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(features[:half], label[:half])
        auroc = roc_auc_score(label[half:], model.predict_proba(features[half:])[:, 1])
        positives = label[half:].sum()
        # Standard error of a chance AUROC (Mann-Whitney); four of them cover all four labels.
        error = np.sqrt((half + 1) / (12 * positives * (half - positives)))
        assert abs(auroc - 0.5) < 4 * error, name


def test_every_transfer_syntax_has_about_its_share(exams: list[Exam]) -> None:
    syntaxes = [exam.acquisition.syntax for exam in exams]
    for syntax, share in SYNTAX_SHARES.items():
        assert syntaxes.count(syntax) / NUM_EXAMS == pytest.approx(share, abs=0.03)


def test_image_sizes_scatter_by_at_most_three_percent(exams: list[Exam]) -> None:
    traits = [image.traits for exam in exams for image in exam.images]
    assert 775 <= min(t.rows_px for t in traits) < max(t.rows_px for t in traits) <= 824
    assert 496 <= min(t.columns_px for t in traits) < max(t.columns_px for t in traits) <= 528


def test_the_label_is_burnt_in_opposite_the_chest_wall(exams: list[Exam]) -> None:
    for exam in exams[:100]:
        unframed = replace(exam.acquisition, frame=False)
        for image in exam.images:
            canvas = np.zeros((800, 512), np.float32)
            burn_in(canvas, unframed, image.traits)
            rows, columns = np.nonzero(canvas > 0.2)
            assert columns.size > 20
            assert columns.min() > 256 if image.traits.laterality == "L" else columns.max() < 256
            assert rows.max() < 120 if image.traits.label.at_top else rows.min() > 680


def test_a_framed_image_has_a_bright_rim(exams: list[Exam]) -> None:
    canvas = np.zeros((800, 512), np.float32)
    burn_in(canvas, replace(exams[0].acquisition, frame=True), exams[0].images[0].traits)
    rim = np.concatenate([canvas[:5].ravel(), canvas[-5:].ravel(), canvas[:, :5].ravel(), canvas[:, -5:].ravel()])
    assert rim.min() > 0.9


@given(
    grey=hnp.arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32)),
    bits=st.sampled_from([10, 12, 14]),
)
def test_stored_values_keep_the_grey_scale_and_monochrome1_inverts_it(grey: np.ndarray, bits: int) -> None:
    white = 2**bits - 1
    plain, inverted = (stored_pixels(grey, bits, monochrome1) for monochrome1 in (False, True))
    assert plain.dtype == inverted.dtype == np.uint16
    np.testing.assert_allclose(plain / white, grey, atol=0.51 / white)
    np.testing.assert_array_equal(plain + inverted, np.full_like(plain, white))
