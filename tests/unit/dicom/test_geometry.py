import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.dicom import CropBox, Placement
from mammoclip.dicom.geometry import pad, stretch

Size = tuple[int, int]


@st.composite
def placements(draw: st.DrawFn) -> tuple[Placement, Size]:
    """A crop stretched or padded into a PNG of some size, and the size of what of the PNG shows the crop."""
    top, left = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    crop = CropBox(top, top + draw(st.integers(20, 4000)), left, left + draw(st.integers(20, 3000)))
    height, width = draw(st.integers(10, 1600)), draw(st.integers(10, 1000))
    pad_left, pad_top = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    return Placement(crop, width / crop.width, height / crop.height, pad_left, pad_top), (height, width)


fractions = st.tuples(*[st.floats(0, 1) for _ in range(4)])


def box_inside(crop: CropBox, places: tuple[float, ...]) -> np.ndarray:
    (x0, x1), (y0, y1) = sorted(places[:2]), sorted(places[2:])
    left, top = crop.left + x0 * (crop.width - 2), crop.top + y0 * (crop.height - 2)
    right, bottom = crop.left + 2 + x1 * (crop.width - 2), crop.top + 2 + y1 * (crop.height - 2)
    return np.array([[left, top, right, bottom]])


@settings(deadline=None)
@given(placements(), fractions)
def test_a_box_inside_the_crop_comes_back(placed: tuple[Placement, Size], places: tuple[float, ...]) -> None:
    placement, _ = placed
    box = box_inside(placement.crop, places)
    moved, kept = placement.boxes_to_png(box)
    assert kept.all()
    np.testing.assert_allclose(placement.boxes_to_stored(moved), box, atol=1e-6)


@settings(deadline=None)
@given(placements(), fractions)
def test_a_box_of_the_png_comes_back(placed: tuple[Placement, Size], places: tuple[float, ...]) -> None:
    placement, (height, width) = placed
    shown = CropBox(placement.pad_top, placement.pad_top + height, placement.pad_left, placement.pad_left + width)
    box = box_inside(shown, places)
    back, _ = placement.boxes_to_png(placement.boxes_to_stored(box))
    np.testing.assert_allclose(back, box, atol=1e-6)


@settings(deadline=None)
@given(placements(), st.lists(st.tuples(*[st.floats(-1000, 6000)] * 4), max_size=5))
def test_boxes_are_cut_at_the_crop_and_marked_when_nothing_is_left(
    placed: tuple[Placement, Size], corners: list[tuple[float, ...]]
) -> None:
    placement, (height, width) = placed
    crop, left, top = placement.crop, placement.pad_left, placement.pad_top
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]).reshape(-1, 4)
    moved, kept = placement.boxes_to_png(boxes)
    assert moved.shape == boxes.shape
    for (x0, y0, x1, y1), (u0, v0, u1, v1), keep in zip(boxes, moved, kept, strict=True):
        overlap_x = min(x1, crop.right) - max(x0, crop.left)
        overlap_y = min(y1, crop.bottom) - max(y0, crop.top)
        assert keep == (overlap_x > 0 and overlap_y > 0)
        if keep:
            assert left - 1e-9 <= u0 < u1 <= left + width * (1 + 1e-12)
            assert top - 1e-9 <= v0 < v1 <= top + height * (1 + 1e-12)
            np.testing.assert_allclose(
                [u1 - u0, v1 - v0], [overlap_x * width / crop.width, overlap_y * height / crop.height], atol=1e-6
            )


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(2, 20)] * 4),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([(60, 50), (180, 150), (120, 200), (240, 100), (150, 150)]),
    st.sampled_from([stretch, pad]),
)
def test_a_box_follows_its_pixels(sides: tuple[int, ...], top: int, left: int, size_px: Size, fit: object) -> None:
    gap_y, gap_x, height, width = sides
    crop = CropBox(top, top + 60, left, left + 50)
    box = (crop.left + gap_x, crop.top + gap_y, crop.left + gap_x + width, crop.top + gap_y + height)
    image = np.zeros((120, 110), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    fitted, placement = fit(image[crop.top : crop.bottom, crop.left : crop.right], crop, size_px)  # type: ignore[operator]
    assert fitted.shape == size_px
    ys, xs = np.nonzero(fitted > 127)
    moved, _ = placement.boxes_to_png(np.array([box], float))
    np.testing.assert_allclose(moved, [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], atol=1.01)


def test_stretch_is_opencvs_area_interpolation() -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 40), dtype=np.uint8)
    fitted, placement = stretch(image, CropBox(3, 73, 7, 47), (30, 35))
    np.testing.assert_array_equal(fitted, cv2.resize(image, (35, 30), interpolation=cv2.INTER_AREA))
    assert placement == ((3, 73, 7, 47), 35 / 40, 30 / 70, 0, 0)


@pytest.mark.parametrize(("shape", "inside"), [((100, 30), (0, 50, 10, 25)), ((30, 100), (20, 30, 0, 35))])
def test_pad_keeps_the_aspect_ratio_and_centres_on_black(shape: Size, inside: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = inside
    fitted, placement = pad(np.full(shape, 7, np.uint16), CropBox(0, shape[0], 0, shape[1]), (50, 35))
    assert fitted.dtype == np.uint16
    assert (fitted[top:bottom, left:right] == 7).all() and (fitted == 7).sum() == (bottom - top) * (right - left)
    assert (placement.pad_top, placement.pad_left) == (top, left)
    assert placement.scale_x == pytest.approx(placement.scale_y, rel=0.05)


def test_the_scale_is_that_of_the_columns_kept_where_runs_were_glued() -> None:
    _, placement = stretch(np.zeros((50, 20), np.uint8), CropBox(0, 50, 0, 30), (50, 60))
    assert placement.scale_x == 3


def stretched(crop: CropBox, size_px: Size) -> Placement:
    return Placement(crop, size_px[1] / crop.width, size_px[0] / crop.height, 0, 0)


def test_compat_boxes_are_those_of_strict_when_no_clamp_applies() -> None:
    crop = CropBox(100, 3100, 50, 1850)
    boxes = np.array([[200.0, 400.0, 900.0, 1500.0], [51.0, 101.0, 60.0, 3099.0]])
    placement = stretched(crop, (1520, 912))
    strict, _ = placement.boxes_to_png(boxes)
    np.testing.assert_allclose(placement.boxes_to_png_compat(boxes, (3518, 3518)), strict)


def test_compat_clamps_x_to_the_height_and_y_to_the_width() -> None:
    crop = CropBox(5, 3005, 5, 2005)  # 3000 x 2000 inside the border of 3010 x 2010
    low = np.array([[100.0, 2500.0, 300.0, 2900.0]])
    placement = stretched(crop, (3000, 2000))
    moved = placement.boxes_to_png_compat(low, (3010, 2010))
    np.testing.assert_array_equal(moved, [[95, 2495, 295, 2000]])  # y_max cut at the width: above y_min
    strict, kept = placement.boxes_to_png(low)
    np.testing.assert_array_equal(strict, [[95, 2495, 295, 2895]])
    assert kept.all()


def test_compat_clamps_the_lower_corner_at_the_border() -> None:
    crop = CropBox(5, 105, 5, 105)
    moved = stretched(crop, (100, 100)).boxes_to_png_compat(np.array([[0.0, 3.0, 50.0, 60.0]]), (110, 110))
    np.testing.assert_array_equal(moved, [[0, 0, 45, 55]])


def test_compat_does_not_cut_boxes_at_the_crop() -> None:
    crop = CropBox(55, 105, 55, 105)
    moved = stretched(crop, (100, 100)).boxes_to_png_compat(np.array([[15.0, 25.0, 75.0, 85.0]]), (200, 200))
    np.testing.assert_array_equal(moved, [[-80, -60, 40, 60]])


def test_the_boxes_given_are_left_alone() -> None:
    boxes = np.array([[0.0, 0.0, 500.0, 500.0]])
    placement = stretched(CropBox(5, 105, 5, 105), (100, 100))
    placement.boxes_to_png_compat(boxes, (110, 110))
    placement.boxes_to_png(boxes)
    assert boxes.tolist() == [[0, 0, 500, 500]]
