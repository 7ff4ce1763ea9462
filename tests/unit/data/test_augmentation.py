from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.data.augmentation import AugmentationStrength, augment, draw_warp
from mammoclip.data.warp import WarpParameters, apply_warp

PAPER = AugmentationStrength(
    probability=0.5,
    vertical_flip=True,
    rotation_deg=20,
    translation_fraction=0.1,
    scale_range=(0.8, 1.2),
    shear_deg=20,
    elastic_alpha_px=10,
    elastic_sigma_px=15,
)
NOTHING = AugmentationStrength(
    probability=1,
    vertical_flip=False,
    rotation_deg=0,
    translation_fraction=0,
    scale_range=(1, 1),
    shear_deg=0,
    elastic_alpha_px=0,
    elastic_sigma_px=15,
)
AFFINE = replace(PAPER, probability=1, vertical_flip=False, elastic_alpha_px=0)

HEIGHT, WIDTH = 120, 90
CENTRE = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
LANDMARKS = CENTRE + np.array([(-12.0, -14.0), (13.0, -9.0), (-8.0, 15.0), (10.0, 12.0)])

images = hnp.arrays(st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 20), st.integers(1, 20)))
seeds = st.integers(0, 2**32 - 1)


def spot(x: float, y: float) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.rint(255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 18)).astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(xs * image).sum(), (ys * image).sum()]) / image.sum(dtype=float)


def moved_landmarks(strength: AugmentationStrength, seed: int) -> np.ndarray:
    """Where each landmark lies after the transform of this seed: N x (x, y)."""
    return np.array(
        [centroid(augment(spot(x, y), strength, np.random.default_rng(seed)).astype(float)) for x, y in LANDMARKS]
    )


def decompose(matrix: np.ndarray) -> dict[str, float]:
    """Angle, scale and shear of ``rotation(angle) @ [[scale, -scale * tan(shear)], [0, scale]]``, in degrees.

    The first column is scale * (cos, sin) of the angle; the second, turned back by the angle, holds the shear.
    """
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    along_x = (matrix[0, 0] * matrix[0, 1] + matrix[1, 0] * matrix[1, 1]) / scale**2
    return {
        "rotation": float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))),
        "scale": float(scale),
        "shear": float(np.rad2deg(np.arctan(-along_x))),
    }


def parameters(strength: AugmentationStrength, seed: int) -> dict[str, float]:
    """Rotation, shear, scale and shift, recovered from where three landmarks went."""
    moved = moved_landmarks(strength, seed)
    design = np.column_stack([LANDMARKS[:3] - CENTRE, np.ones(3)])
    solution = np.linalg.solve(design, moved[:3] - CENTRE).T  # 2 x 3: out - centre = matrix @ (in - centre) + shift
    shift = {"shift_x": float(solution[0, 2]) / WIDTH, "shift_y": float(solution[1, 2]) / HEIGHT}
    return decompose(solution[:, :2]) | shift


def drawn_warps(strength: AugmentationStrength, num: int, size: tuple[int, int] = (1520, 912)) -> list[WarpParameters]:
    rng = np.random.default_rng(11)
    return [draw_warp(rng, strength, size) for _ in range(num)]


@settings(deadline=None)
@given(images, seeds)
def test_without_strength_the_image_stays(image: np.ndarray, seed: int) -> None:
    np.testing.assert_array_equal(augment(image, NOTHING, np.random.default_rng(seed)), image)


@settings(deadline=None)
@given(images, seeds)
def test_at_probability_zero_the_image_stays(image: np.ndarray, seed: int) -> None:
    np.testing.assert_array_equal(augment(image, replace(PAPER, probability=0), np.random.default_rng(seed)), image)


@settings(deadline=None)
@given(images, seeds)
def test_shape_and_type_stay_and_the_same_stream_gives_the_same_image(image: np.ndarray, seed: int) -> None:
    before = image.copy()
    first, second = (augment(image, PAPER, np.random.default_rng(seed)) for _ in range(2))
    assert (first.shape, first.dtype) == (image.shape, image.dtype)
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)


def test_other_streams_give_other_images() -> None:
    image = spot(30, 40)
    results = {augment(image, AFFINE, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(results) == 20


def test_a_vertical_flip_turns_top_to_bottom() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(4, 3)
    flip = replace(NOTHING, vertical_flip=True)
    assert augment(image, flip, np.random.default_rng(0)).tolist() == image.tolist()[::-1]


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_each_transform_has_the_given_probability(probability: float) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(4, 3)
    kinds = {
        "flip": replace(NOTHING, vertical_flip=True),
        "affine": replace(NOTHING, translation_fraction=1.0),
        "elastic": replace(NOTHING, elastic_alpha_px=500, elastic_sigma_px=1),
    }
    for name, strength in kinds.items():
        drawn = replace(strength, probability=probability)
        changed = [(augment(image, drawn, np.random.default_rng(seed)) != image).any() for seed in range(2000)]
        assert np.mean(changed) == pytest.approx(probability, abs=0.05), name


def test_a_landmark_moves_with_the_others() -> None:
    """Three landmarks fix the affine map; the fourth lies where it says."""
    for seed in range(40):
        moved = moved_landmarks(AFFINE, seed)
        weights = np.linalg.solve(np.vstack([LANDMARKS[:3].T, np.ones(3)]), [*LANDMARKS[3], 1.0])
        np.testing.assert_allclose(weights @ moved[:3], moved[3], atol=0.05)


def test_a_box_moves_where_its_corners_move() -> None:
    box = np.zeros((HEIGHT, WIDTH), np.uint8)
    box[50:70, 35:60] = 255
    for seed in range(10):
        moved = moved_landmarks(AFFINE, seed)
        weights = np.linalg.solve(np.vstack([LANDMARKS[:3].T, np.ones(3)]), [47.0, 59.5, 1.0])  # its centre
        found = augment(box, AFFINE, np.random.default_rng(seed)).astype(float)
        np.testing.assert_allclose(centroid(found), weights @ moved[:3], atol=0.1)
        area = found.sum() / 255
        assert area == pytest.approx(20 * 25 * parameters(AFFINE, seed)["scale"] ** 2, rel=0.01)


def test_affine_parameters_are_uniform_in_their_ranges_and_independent() -> None:
    """Section 2: rotation and shear +-20 degrees, translation 10 %, scale 0.8 to 1.2."""
    height, width = 1520, 912
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    rows = []
    for warp in drawn_warps(AFFINE, 4000):
        matrix = np.array(warp.affine)
        shift = matrix[:, :2] @ centre + matrix[:, 2] - centre
        rows.append(decompose(matrix) | {"shift_x": shift[0] / width, "shift_y": shift[1] / height})
    ranges = {"rotation": 20, "scale": 0.2, "shear": 20, "shift_x": 0.1, "shift_y": 0.1}
    values = np.array([[row[name] for name in ranges] for row in rows])
    unit = (values - [0, 1, 0, 0, 0]) / list(ranges.values())  # uniform in [-1, 1]
    assert (np.abs(unit) < 1 + 1e-9).all()
    # Moments of the uniform distribution, within 4 standard errors: mean 0, variance 1/3, fourth moment 1/5.
    for power, moment, variance in ((1, 0, 1 / 3), (2, 1 / 3, 1 / 5 - 1 / 9), (4, 1 / 5, 1 / 9 - 1 / 25)):
        error = np.sqrt(variance / len(unit))
        np.testing.assert_allclose((unit**power).mean(axis=0), moment, atol=4 * error)
    correlations = np.corrcoef(unit.T)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(correlations, 0, atol=4 / np.sqrt(len(unit)))


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_transforms_are_drawn_independently_of_each_other(probability: float) -> None:
    warps = drawn_warps(replace(PAPER, probability=probability), 4000)
    drawn = np.array([(warp.flip_vertical, warp.affine is not None, warp.elastic is not None) for warp in warps])
    for which in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        expected = probability ** len(which)
        error = np.sqrt(expected * (1 - expected) / len(warps))
        assert drawn[:, which].all(axis=1).mean() == pytest.approx(expected, abs=4 * error), which


def test_the_horizontal_flip_is_left_to_the_sampler() -> None:
    assert not any(warp.flip_horizontal for warp in drawn_warps(replace(PAPER, probability=1), 100))


def test_elastic_fields_have_the_strength_asked_for_and_a_seed_of_their_own() -> None:
    fields = [warp.elastic for warp in drawn_warps(replace(PAPER, probability=1), 100)]
    assert {(field.alpha_px, field.sigma_px) for field in fields if field} == {(10, 15)}
    assert len({field.seed for field in fields if field}) == 100


def test_whether_one_transform_is_drawn_does_not_change_another() -> None:
    every = drawn_warps(replace(PAPER, probability=1), 200)
    for warp, full in zip(drawn_warps(PAPER, 200), every, strict=True):
        assert warp.affine in (None, full.affine)
        assert warp.elastic in (None, full.elastic)


def test_the_image_is_that_of_the_parameters_drawn() -> None:
    """Same stream, same warp: what a sampler draws for the image also moves its boxes."""
    for seed in range(5):
        image, warp = spot(40, 50), draw_warp(np.random.default_rng(seed), PAPER, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(augment(image, PAPER, np.random.default_rng(seed)), apply_warp(image, warp))


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("rotation", replace(NOTHING, rotation_deg=30)),
        ("shear", replace(NOTHING, shear_deg=25)),
        ("scale", replace(NOTHING, scale_range=(1.1, 1.3))),
        ("shift_x", replace(NOTHING, translation_fraction=0.1)),
    ],
)
def test_each_affine_parameter_comes_from_its_own_range(name: str, strength: AugmentationStrength) -> None:
    still = {"rotation": 0, "shear": 0, "scale": 1, "shift_x": 0, "shift_y": 0}
    del still[name]
    if name == "shift_x":
        del still["shift_y"]
    for seed in range(10):
        found = parameters(strength, seed)
        assert found[name] != pytest.approx(0 if name != "scale" else 1, abs=1e-3)
        for other, value in still.items():
            assert found[other] == pytest.approx(value, abs=0.02 if other not in ("rotation", "shear") else 0.3), other


def test_what_comes_from_outside_is_black() -> None:
    white = np.full((40, 30), 200, np.uint8)
    shifted = augment(white, replace(NOTHING, scale_range=(0.5, 0.5)), np.random.default_rng(0))
    assert shifted[20, 15] == 200
    assert (shifted[:8] == 0).all() and (shifted[:, :6] == 0).all()


def test_elastic_and_affine_compose_in_one_resampling() -> None:
    """Far more affine than elastic: landmarks lie where the affine map alone puts them, up to the displacement."""
    both = replace(AFFINE, elastic_alpha_px=10, elastic_sigma_px=15)
    for seed in range(10):
        np.testing.assert_allclose(moved_landmarks(both, seed), moved_landmarks(AFFINE, seed), atol=1.0)
        assert not np.array_equal(
            augment(spot(40, 50), both, np.random.default_rng(seed)),
            augment(spot(40, 50), AFFINE, np.random.default_rng(seed)),
        )
