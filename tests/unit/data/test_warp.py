import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from mammoclip.data.warp import Elastic, Matrix, WarpParameters, affine_matrix, apply_warp, warp_boxes, warp_points

HEIGHT, WIDTH = SIZE = (160, 120)
CENTRE = np.array([59.5, 79.5])
POINT = np.array([79.5, 67.5])  # 20 px to the right of the centre, 12 px above
STRONG = Elastic(seed=5, alpha_px=150, sigma_px=15)  # 1.6 px root mean square, up to about 5

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)))
angles = st.floats(-20, 20)
matrices = st.builds(
    affine_matrix, angles, st.tuples(st.floats(-12, 12), st.floats(-12, 12)), st.floats(0.8, 1.2), angles, st.just(SIZE)
)
elastics = st.builds(Elastic, st.integers(0, 99), st.just(STRONG.alpha_px), st.just(STRONG.sigma_px))
warps = st.builds(
    WarpParameters, st.booleans(), st.booleans(), st.one_of(st.none(), matrices), st.one_of(st.none(), elastics)
)


def spot(x: float, y: float) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.rint(255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8)).astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.array([(xs * image).sum(), (ys * image).sum()]) / image.sum(dtype=float)


def matrix(
    angle: float = 0, translation: tuple[float, float] = (0, 0), scale: float = 1, shear: float = 0
) -> WarpParameters:
    return WarpParameters(affine=affine_matrix(angle, translation, scale, shear, SIZE))


@pytest.mark.parametrize(
    ("warp", "target"),
    [
        (WarpParameters(), (20, -12)),
        (WarpParameters(flip_horizontal=True), (-20, -12)),
        (WarpParameters(flip_vertical=True), (20, 12)),
        (matrix(translation=(7.5, -3)), (20 + 7.5, -12 - 3)),
        (matrix(scale=1.25), (25, -15)),
        (matrix(angle=90), (12, 20)),  # clockwise: right goes down, up goes right
        (matrix(angle=30), (20 * np.sqrt(3) / 2 + 12 / 2, 20 / 2 - 12 * np.sqrt(3) / 2)),
        (matrix(shear=45), (20 + 12, -12)),  # x loses tan(shear) times y
        (WarpParameters(True, False, affine_matrix(90, (3, 4), 1, 0, SIZE)), (12 + 3, -20 + 4)),  # the flip comes first
    ],
)
def test_a_point_goes_where_the_formula_says_in_the_image_too(
    warp: WarpParameters, target: tuple[float, float]
) -> None:
    """Targets are given from the image centre."""
    target = CENTRE + target
    np.testing.assert_allclose(warp_points(POINT[None], warp, SIZE)[0], target, atol=1e-9)
    np.testing.assert_allclose(centroid(apply_warp(spot(*POINT), warp).astype(float)), target, atol=0.05)


@settings(deadline=None, max_examples=40)
@given(warps)
def test_points_go_where_the_image_goes(warp: WarpParameters) -> None:
    """A spot is small against the waves of the displacement: its centroid follows its centre."""
    found = centroid(apply_warp(spot(*POINT), warp).astype(float))
    np.testing.assert_allclose(warp_points(POINT[None], warp, SIZE)[0], found, atol=0.5)


@settings(deadline=None)
@given(images)
def test_flips_alone_copy_and_nothing_at_all_changes_nothing(image: np.ndarray) -> None:
    np.testing.assert_array_equal(apply_warp(image, WarpParameters()), image)
    for horizontal, vertical in ((True, False), (False, True), (True, True)):
        expected = image
        expected = expected[:, ::-1] if horizontal else expected
        expected = expected[::-1] if vertical else expected
        flipped = apply_warp(image, WarpParameters(horizontal, vertical))
        np.testing.assert_array_equal(flipped, expected)
        assert flipped.flags.c_contiguous


@settings(deadline=None)
@given(images, st.booleans(), st.booleans())
def test_resampling_at_whole_pixels_is_exact(image: np.ndarray, horizontal: bool, vertical: bool) -> None:
    """An affine map that does nothing and a displacement of 0 leave what flips alone give."""
    expected = apply_warp(image, WarpParameters(horizontal, vertical))
    still: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    for elastic in (None, Elastic(1, 0.0, 15.0)):
        np.testing.assert_array_equal(apply_warp(image, WarpParameters(horizontal, vertical, still, elastic)), expected)


@pytest.mark.parametrize("elastic", [None, Elastic(0, 0.0, 15.0)])
def test_what_comes_from_outside_is_black(elastic: Elastic | None) -> None:
    white = np.full(SIZE, 200, np.uint8)
    shifted = apply_warp(white, WarpParameters(affine=((1, 0, 30.5), (0, 1, -20)), elastic=elastic))
    assert (shifted[:, :30] == 0).all() and (shifted[-20:] == 0).all()
    assert (shifted[:-20, 30] == 100).all()  # half of it lies outside
    assert (shifted[:-20, 31:] == 200).all()


@pytest.mark.parametrize(("sigma", "pitch"), [(4.0, 1), (12.0, 4), (15.0, 5), (16.0, 5)])
def test_elastic_displacement_has_the_moments_of_smoothed_uniform_noise(sigma: float, pitch: int) -> None:
    """On a ramp the change of grey is the displacement; white noise of variance 1/3 keeps 1 / (4 pi sigma^2) of it."""
    ramp = np.tile(np.arange(250, dtype=np.uint8), (300, 1))
    alpha = 50 * sigma
    assert Elastic(0, alpha, sigma).pitch_px == pitch
    warped = [apply_warp(ramp, WarpParameters(elastic=Elastic(seed, alpha, sigma))) for seed in range(30)]
    field = (np.stack(warped).astype(float) - ramp)[:, 60:-60, 60:-60]
    expected = alpha * np.sqrt(1 / 3) / (2 * np.sqrt(np.pi) * sigma)
    assert field.std() == pytest.approx(expected, rel=0.1)
    assert field.mean() == pytest.approx(0, abs=0.2 * expected)
    # Correlation of white noise after a Gaussian: exp(-d^2 / (4 sigma^2)) at distance d.
    for distance in (int(sigma), int(2 * sigma)):
        expected = np.exp(-(distance**2) / (4 * sigma**2))
        for product in (
            field[:, :, distance:] * field[:, :, :-distance],
            field[:, distance:] * field[:, :-distance],
        ):
            assert product.mean() / field.var() == pytest.approx(expected, abs=0.1)


def test_displacements_along_x_and_y_are_independent_and_alike() -> None:
    ramp = np.tile(np.arange(250, dtype=np.uint8), (250, 1))
    fields = []
    for seed in range(20):
        warp = WarpParameters(elastic=Elastic(seed, 400, 8))
        along_x, along_y = (apply_warp(image, warp).astype(float) - image for image in (ramp, ramp.T.copy()))
        fields.append([along_x[60:-60, 60:-60], along_y[60:-60, 60:-60]])
    x, y = np.array(fields).swapaxes(0, 1).reshape(2, -1)
    assert x.std() == pytest.approx(y.std(), rel=0.1)
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(0, abs=0.1)


def test_interpolation_between_nodes_errs_by_a_fiftieth_of_the_displacement() -> None:
    """A field smoothed at every pixel, against itself known at the nodes alone: worst amid four nodes."""
    sigma = 18.0
    pitch = Elastic(0, 1, sigma).pitch_px
    field = ndimage.gaussian_filter(np.random.default_rng(0).uniform(-1, 1, (1600, 1600)), sigma, mode="wrap")
    nodes = field[::pitch, ::pitch]
    middle = (nodes[1:, 1:] + nodes[1:, :-1] + nodes[:-1, 1:] + nodes[:-1, :-1]) / 4
    error = middle - field[pitch // 2 :: pitch, pitch // 2 :: pitch][: len(middle), : len(middle)]
    assert error.std() / field.std() == pytest.approx(0.18 * (pitch / sigma) ** 2, rel=0.1)


def bright_outline(image: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((image > 127).any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@settings(deadline=None, max_examples=60)
@given(warps)
def test_a_box_bounds_the_bright_rectangle_in_the_image(warp: WarpParameters) -> None:
    image = np.zeros(SIZE, np.uint8)
    image[60:95, 45:75] = 255
    (box,), (empty,) = warp_boxes(np.array([[45.0, 60.0, 75.0, 95.0]]), warp, SIZE)
    assert not empty
    # A sheared corner is sharp: its outermost pixels are less than half covered.
    np.testing.assert_allclose(box, bright_outline(apply_warp(image, warp)), atol=1.6)


@settings(deadline=None)
@given(st.booleans(), st.booleans())
def test_boxes_are_flipped_exactly(horizontal: bool, vertical: bool) -> None:
    image = np.zeros(SIZE, np.uint8)
    image[0:30, 10:20] = 255
    warp = WarpParameters(horizontal, vertical)
    boxes, _ = warp_boxes(np.array([[10.0, 0.0, 20.0, 30.0]]), warp, SIZE)
    np.testing.assert_array_equal(boxes[0], bright_outline(apply_warp(image, warp)))


def test_boxes_are_cut_at_the_image_and_those_outside_are_empty() -> None:
    boxes = np.array([[0, 0, 120, 160], [110, 10, 118, 20], [5, 150, 15, 160], [100, 10, 112, 20]], float)
    moved, empty = warp_boxes(boxes, matrix(translation=(12, 0)), SIZE)
    assert moved.tolist() == [[12, 0, 120, 160], [120, 10, 120, 20], [17, 150, 27, 160], [112, 10, 120, 20]]
    assert empty.tolist() == [False, True, False, False]


def test_without_boxes_there_are_none() -> None:
    boxes, empty = warp_boxes(np.empty((0, 4)), WarpParameters(elastic=STRONG), SIZE)
    assert (boxes.shape, empty.shape) == ((0, 4), (0,))


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.float64, (4, 2), elements=st.floats(-50, 200)), elastics)
def test_points_solve_the_equation_of_the_displacement(points: np.ndarray, elastic: Elastic) -> None:
    """q + d(q) = p, d(q) being read off ramps at q: near the target, inside the image."""
    warp = WarpParameters(elastic=elastic)
    moved = warp_points(points, warp, SIZE)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    sampled = [apply_warp(plane, warp).astype(float) for plane in (xs, ys)]
    for point, target in zip(points, moved, strict=True):
        if not (10 < target[0] < WIDTH - 11 and 10 < target[1] < HEIGHT - 11):
            continue
        here = np.array([ndimage.map_coordinates(plane, target[::-1, None], order=1)[0] for plane in sampled])
        np.testing.assert_allclose(here, point, atol=0.55)  # grey values are whole numbers


@settings(deadline=None, max_examples=20)
@given(angles, st.tuples(st.floats(-12, 12), st.floats(-12, 12)), st.floats(0.8, 1.2), angles)
def test_compat_affine_maps_are_those_of_torchvision(
    angle: float, translation: tuple[float, float], scale: float, shear: float
) -> None:
    import torch

    from mammoclip.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    noise = np.random.default_rng(1).integers(0, 256, SIZE).astype(float)
    noise *= np.outer(np.hanning(HEIGHT), np.hanning(WIDTH))  # black borders: the edge of the image does not count
    image = np.rint(noise).astype(np.uint8)
    theirs = affine(
        torch.from_numpy(image)[None].float(),
        angle=angle,
        translate=list(translation),
        scale=scale,
        shear=[shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )[0].numpy()
    ours = apply_warp(image, matrix(angle, translation, scale, shear))
    assert np.abs(ours - theirs).max() < 0.6  # 0.5 of rounding, 0.1 of single precision on noise


def test_compat_elastic_displacements_are_those_of_torchvision_at_twice_its_alpha() -> None:
    """Ours, in pixels, off a ramp; theirs in units of half the image, of fields drawn at every pixel."""
    import torch

    from mammoclip.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    from torchvision.transforms.v2 import ElasticTransform

    torch.manual_seed(0)
    alpha, sigma = 300.0, 8.0
    theirs = ElasticTransform(alpha=2 * alpha, sigma=sigma)
    ramp = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
    ours_px, theirs_px = [], []
    for seed in range(6):
        ours_px.append(apply_warp(ramp, WarpParameters(elastic=Elastic(seed, alpha, sigma))).astype(float) - ramp)
        theirs_px.append(theirs.make_params([torch.zeros(1, 240, 240)])["displacement"][0, :, :, 0].numpy() * 240 / 2)
    middle = np.s_[:, 60:-60, 60:-60]
    assert np.stack(ours_px)[middle].std() == pytest.approx(np.stack(theirs_px)[middle].std(), rel=0.15)


@settings(deadline=None, max_examples=40)
@given(warps)
def test_sixteen_bits_are_warped_as_eight_are_and_stay_sixteen(warp: WarpParameters) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 1, SIZE), 2)
    eight = np.rint(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    deep = apply_warp(eight.astype(np.uint16) * 257, warp)
    assert (deep.dtype, deep.shape) == (np.uint16, SIZE)
    np.testing.assert_allclose(deep / 257, apply_warp(eight, warp), atol=0.52)  # 0.5 of rounding


def test_the_input_is_kept() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, SIZE, dtype=np.uint8), (0, 0), 2)
    before = image.copy()
    apply_warp(image, WarpParameters(True, True, matrix(angle=5).affine, STRONG))
    np.testing.assert_array_equal(image, before)
