import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.dicom import CropBox, boxes_to_crop, boxes_to_crop_compat, boxes_to_image

Sides = tuple[float, float]


@st.composite
def crops(draw: st.DrawFn) -> CropBox:
    top, left = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    return CropBox(top, top + draw(st.integers(20, 4000)), left, left + draw(st.integers(20, 3000)))


sizes = st.tuples(st.integers(10, 1600), st.integers(10, 1000))
fractions = st.tuples(*[st.floats(0, 1) for _ in range(4)])


def box_inside(crop: CropBox, places: tuple[float, ...]) -> np.ndarray:
    (x0, x1), (y0, y1) = sorted(places[:2]), sorted(places[2:])
    left, top = crop.left + x0 * (crop.width - 2), crop.top + y0 * (crop.height - 2)
    right, bottom = crop.left + 2 + x1 * (crop.width - 2), crop.top + 2 + y1 * (crop.height - 2)
    return np.array([[left, top, right, bottom]])


@settings(deadline=None)
@given(crops(), sizes, fractions)
def test_a_box_inside_the_crop_comes_back(crop: CropBox, size_px: tuple[int, int], places: tuple[float, ...]) -> None:
    box = box_inside(crop, places)
    moved, kept = boxes_to_crop(box, crop, size_px)
    assert kept.all()
    np.testing.assert_allclose(boxes_to_image(moved, crop, size_px), box, atol=1e-6)


@settings(deadline=None)
@given(crops(), sizes, fractions)
def test_a_box_of_the_crop_comes_back(crop: CropBox, size_px: tuple[int, int], places: tuple[float, ...]) -> None:
    box = box_inside(CropBox(0, size_px[0], 0, size_px[1]), places)
    back, _ = boxes_to_crop(boxes_to_image(box, crop, size_px), crop, size_px)
    np.testing.assert_allclose(back, box, atol=1e-6)


@settings(deadline=None)
@given(crops(), sizes, st.lists(st.tuples(*[st.floats(-1000, 6000)] * 4), max_size=5))
def test_boxes_are_cut_at_the_crop_and_marked_when_nothing_is_left(
    crop: CropBox, size_px: tuple[int, int], corners: list[tuple[float, ...]]
) -> None:
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]).reshape(-1, 4)
    moved, kept = boxes_to_crop(boxes, crop, size_px)
    assert moved.shape == boxes.shape
    height, width = size_px
    for (x0, y0, x1, y1), (u0, v0, u1, v1), keep in zip(boxes, moved, kept, strict=True):
        overlap_x = min(x1, crop.right) - max(x0, crop.left)
        overlap_y = min(y1, crop.bottom) - max(y0, crop.top)
        assert keep == (overlap_x > 0 and overlap_y > 0)
        if keep:
            assert -1e-9 <= u0 < u1 <= width * (1 + 1e-12) and -1e-9 <= v0 < v1 <= height * (1 + 1e-12)
            np.testing.assert_allclose(
                [u1 - u0, v1 - v0], [overlap_x * width / crop.width, overlap_y * height / crop.height], atol=1e-6
            )


@settings(deadline=None)
@given(
    st.tuples(st.integers(2, 20), st.integers(2, 20), st.integers(2, 20), st.integers(2, 20)),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([1, 2, 3]),
)
def test_a_box_follows_its_pixels(sides: tuple[int, ...], top: int, left: int, enlargement: int) -> None:
    gap_y, gap_x, height, width = sides
    crop = CropBox(top, top + 60, left, left + 50)
    box = (crop.left + gap_x, crop.top + gap_y, crop.left + gap_x + width, crop.top + gap_y + height)
    image = np.zeros((120, 110), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    size_px = (60 * enlargement, 50 * enlargement)
    resized = cv2.resize(
        image[crop.top : crop.bottom, crop.left : crop.right], size_px[::-1], None, 0, 0, cv2.INTER_AREA
    )
    ys, xs = np.nonzero(resized > 127)
    moved, _ = boxes_to_crop(np.array([box], float), crop, size_px)
    np.testing.assert_allclose(moved, [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])


def test_compat_boxes_are_those_of_strict_when_no_clamp_applies() -> None:
    crop = CropBox(100, 3100, 50, 1850)
    boxes = np.array([[200.0, 400.0, 900.0, 1500.0], [51.0, 101.0, 60.0, 3099.0]])
    strict, _ = boxes_to_crop(boxes, crop, (1520, 912))
    np.testing.assert_allclose(boxes_to_crop_compat(boxes, (3518, 3518), crop, (1520, 912)), strict)


def test_compat_clamps_x_to_the_height_and_y_to_the_width() -> None:
    crop = CropBox(5, 3005, 5, 2005)  # 3000 x 2000 inside the border of 3010 x 2010
    low = np.array([[100.0, 2500.0, 300.0, 2900.0]])
    moved = boxes_to_crop_compat(low, (3010, 2010), crop, (3000, 2000))
    np.testing.assert_array_equal(moved, [[95, 2495, 295, 2000]])  # y_max cut at the width: above y_min
    strict, kept = boxes_to_crop(low, crop, (3000, 2000))
    np.testing.assert_array_equal(strict, [[95, 2495, 295, 2895]])
    assert kept.all()


def test_compat_clamps_the_lower_corner_at_the_border() -> None:
    crop = CropBox(5, 105, 5, 105)
    moved = boxes_to_crop_compat(np.array([[0.0, 3.0, 50.0, 60.0]]), (110, 110), crop, (100, 100))
    np.testing.assert_array_equal(moved, [[0, 0, 45, 55]])


def test_compat_does_not_cut_boxes_at_the_crop() -> None:
    crop = CropBox(55, 105, 55, 105)
    moved = boxes_to_crop_compat(np.array([[15.0, 25.0, 75.0, 85.0]]), (200, 200), crop, (100, 100))
    np.testing.assert_array_equal(moved, [[-80, -60, 40, 60]])


def test_the_boxes_given_are_left_alone() -> None:
    boxes = np.array([[0.0, 0.0, 500.0, 500.0]])
    boxes_to_crop_compat(boxes, (110, 110), CropBox(5, 105, 5, 105), (100, 100))
    boxes_to_crop(boxes, CropBox(5, 105, 5, 105), (100, 100))
    assert boxes.tolist() == [[0, 0, 500, 500]]
