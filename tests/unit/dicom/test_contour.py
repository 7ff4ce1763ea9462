"""The ``strict`` crop on images whose breast, findings and labels are known."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from mammoclip.dicom import Mammogram, Recipe, convert, find_breast, read_mammogram, to_png_array
from mammoclip.errors import RejectedInput

Box = tuple[int, int, int, int]  # top, bottom, left, right; half-open

# Drawn by hand on the film mammograms, in pixels: the breast without the nipple's tip, and the lead letters.
REAL_BOXES: dict[str, tuple[Box, Box]] = {
    "1-130.dcm": ((650, 3900, 0, 1350), (430, 890, 1980, 2400)),
    "1-131.dcm": ((0, 3980, 0, 1440), (500, 1130, 2060, 2600)),
    "1-132.dcm": ((950, 4000, 1710, 2864), (430, 760, 0, 480)),
    "1-133.dcm": ((0, 3690, 1440, 2920), (200, 770, 20, 650)),
    "1-280.dcm": ((640, 4250, 0, 1560), (320, 700, 2310, 2624)),
    "1-281.dcm": ((60, 3900, 0, 1640), (330, 680, 2270, 2576)),
    "1-282.dcm": ((510, 4170, 1160, 2592), (560, 1000, 0, 270)),
    "1-283.dcm": ((60, 4050, 1080, 2632), (430, 950, 0, 440)),
}


def shared_area(one: Box, other: Box) -> int:
    height = min(one[1], other[1]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[2], other[2])
    return max(0, height) * max(0, width)


def area(box: Box) -> int:
    return shared_area(box, box)


def half_ellipse(height: int = 600, width: int = 400, noise: float = 0.0) -> tuple[np.ndarray, Box]:
    """A breast at the left edge on black, and its box."""
    y, x = np.mgrid[:height, :width]
    distance = ((y - height / 2) / (0.35 * height)) ** 2 + (x / (0.6 * width)) ** 2
    image = np.where(distance < 1, 60 + 120 * np.sqrt(np.maximum(0, 1 - distance)), 0)
    ys, xs = np.nonzero(distance < 1)
    image += np.random.default_rng(0).normal(0, 1, image.shape) * noise
    box = (int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1)
    return np.clip(image, 0, 255).astype(np.uint8), box


def test_the_box_is_that_of_the_breast() -> None:
    image, box = half_ellipse()
    np.testing.assert_allclose(find_breast(image, "strict"), box, atol=6)


def test_the_box_contains_the_breast_and_lies_in_the_image() -> None:
    image, (top, bottom, left, right) = half_ellipse(noise=3)
    found = find_breast(image, "strict")
    assert 0 <= found[0] <= top and bottom <= found[1] <= image.shape[0]
    assert 0 <= found[2] <= left and right <= found[3] <= image.shape[1]


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("text", ["L CC", "RMLO"])
def test_a_label_does_not_move_the_box(text: str, flipped: bool) -> None:
    image, _ = half_ellipse()
    labelled = image.copy()
    cv2.putText(labelled, text, (280, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 255, 3)
    cv2.rectangle(labelled, (300, 540), (390, 590), 255, -1)
    if flipped:
        image, labelled = image[:, ::-1].copy(), labelled[:, ::-1].copy()
    assert (labelled != image).sum() > 4000
    np.testing.assert_allclose(find_breast(labelled, "strict"), find_breast(image, "strict"), atol=3)


def test_a_thin_bright_frame_does_not_move_the_box() -> None:
    image, box = half_ellipse()
    framed = image.copy()
    cv2.rectangle(framed, (0, 0), (399, 599), 250, 8)
    top, bottom, _, right = find_breast(framed, "strict")
    np.testing.assert_allclose((top, bottom, right), (box[0], box[1], box[3]), atol=8)


def test_a_mirrored_image_has_the_mirrored_box() -> None:
    image, _ = half_ellipse(noise=2)
    top, bottom, left, right = find_breast(image, "strict")
    mirrored = find_breast(image[:, ::-1].copy(), "strict")
    np.testing.assert_allclose(mirrored, (top, bottom, 400 - right, 400 - left), atol=3)


def test_every_finding_of_a_phantom_lies_inside_the_crop(phantom_images: list) -> None:
    boxes = 0
    for phantom in phantom_images:
        _, crop = to_png_array(phantom.mammogram, "strict")
        for x_min, y_min, x_max, y_max in phantom.boxes:
            assert crop.left <= x_min < x_max <= crop.right
            assert crop.top <= y_min < y_max <= crop.bottom
            boxes += 1
    assert boxes > 20


def test_the_crop_of_a_phantom_keeps_the_breast_and_little_else(phantom_images: list) -> None:
    overlaps = []
    for phantom in phantom_images:
        _, crop = to_png_array(phantom.mammogram, "strict")
        rows, columns = phantom.pixels.shape
        top, bottom, left, right = phantom.breast_box()
        breast = (max(top, 5), min(bottom, rows - 5), max(left, 5), min(right, columns - 5))
        assert shared_area(crop, breast) > 0.95 * area(breast)  # its outermost rim is as dark as air
        overlaps.append(shared_area(crop, breast) / (area(crop) + area(breast) - shared_area(crop, breast)))
    assert np.median(overlaps) > 0.9


def test_a_burnt_in_label_does_not_move_the_crop_of_a_phantom(phantom_images: list) -> None:
    dropped = 0
    for phantom in phantom_images:
        image = phantom.exam.images[phantom.number]
        rows, columns = phantom.pixels.shape
        band = slice(0, rows // 12) if image.traits.label.at_top else slice(rows - rows // 12, rows)
        right = phantom.breast_box()[3] if image.traits.laterality == "L" else phantom.breast_box()[2]
        beyond = slice(right + 12, columns) if image.traits.laterality == "L" else slice(0, max(0, right - 12))
        if phantom.exam.acquisition.frame or phantom.pixels[band, beyond].shape[1] < columns // 8:
            continue
        without = phantom.pixels.copy()
        without[band, beyond] = without.max() if phantom.exam.acquisition.monochrome1 else 0
        _, crop = to_png_array(phantom.mammogram, "strict")
        cleaned = type(phantom)(phantom.exam, phantom.number, without, phantom.boxes).mammogram
        np.testing.assert_allclose(crop, to_png_array(cleaned, "strict")[1], atol=6)
        dropped += 1
    assert dropped > 10


def test_the_crop_of_real_films_keeps_the_breast_and_drops_the_letters(real_files: list) -> None:
    for path in real_files:
        breast, letters = REAL_BOXES[path.name]
        _, crop = to_png_array(read_mammogram(path), "strict")
        assert shared_area(crop, breast) > 0.985 * area(breast), path.name
        assert shared_area(crop, letters) == 0, path.name


def overlap(one: Box, other: Box) -> float:
    shared = shared_area(one, other)
    return shared / (area(one) + area(other) - shared)


def test_the_crop_of_real_films_is_better_than_the_released_one(real_files: list) -> None:
    gains = []
    for path in real_files:
        breast, _ = REAL_BOXES[path.name]
        mammogram = read_mammogram(path)
        strict, compat = (to_png_array(mammogram, mode)[1] for mode in ("strict", "compat"))
        assert shared_area(strict, breast) > shared_area(compat, breast), path.name
        gains.append(overlap(strict, breast) - overlap(compat, breast))
    assert min(gains) > 0
    assert np.mean(gains) > 0.04


def add_label(grey: np.ndarray, chest_left: bool) -> None:
    height, width = grey.shape
    place = (int(0.68 * width) if chest_left else 2, int(0.1 * height))
    cv2.putText(grey, "R-MLO", place, cv2.FONT_HERSHEY_SIMPLEX, height / 800, 255, 2)


def add_plates(grey: np.ndarray, chest_left: bool) -> None:
    height, width = grey.shape
    far = slice(int(0.75 * width), width) if chest_left else slice(0, int(0.25 * width))
    grey[int(0.02 * height) : int(0.14 * height), far] = 240
    grey[int(0.9 * height) : int(0.97 * height), far] = 180


def add_white_border(grey: np.ndarray, chest_left: bool) -> None:
    del chest_left
    thick = int(0.025 * len(grey))
    grey[:thick], grey[-thick:], grey[:, :thick], grey[:, -thick:] = 255, 255, 255, 255


def add_film_edge(grey: np.ndarray, chest_left: bool) -> None:
    thin, far = max(2, len(grey) // 150), -1 if chest_left else 0
    grey[:thin], grey[-thin:], grey[:, far] = 200, 230, 180
    glow = np.linspace(60, 0, grey.shape[1] // 12).astype(np.uint8)
    side = grey[:, -len(glow) :] if chest_left else grey[:, : len(glow)]
    np.maximum(side, glow[::-1] if chest_left else glow, out=side)


def add_noise_rows(grey: np.ndarray, chest_left: bool) -> None:
    del chest_left
    band = grey[-max(2, len(grey) // 60) :]
    band[:] = np.random.default_rng(0).integers(0, 230, band.shape)


@pytest.mark.parametrize(
    "disturb",
    [None, add_label, add_plates, add_white_border, add_film_edge, add_noise_rows],
    ids=lambda d: d and d.__name__,
)
def test_the_crop_of_a_phantom_is_never_worse_than_the_released_one(phantom_images: list, disturb: Any) -> None:
    """The released crop drops the nipple and the skin; ours keeps both, whatever else is in the picture."""
    differences = []
    for phantom in phantom_images:
        if phantom.exam.acquisition.frame:
            continue
        grey = to_grey(phantom.mammogram)
        if disturb:
            disturb(grey, phantom.exam.images[phantom.number].traits.laterality == "L")
        strict, compat = find_breast(grey, "strict"), find_breast(grey, "compat")
        breast = phantom.breast_box()
        assert shared_area(strict, breast) >= 0.995 * shared_area(compat, breast)
        differences.append(overlap(strict, breast) - overlap(compat, breast))
    assert min(differences) > -0.03  # a nipple, which the breast's box is without
    assert np.mean(differences) > 0


def to_grey(mammogram: Mammogram) -> np.ndarray:
    low, high = int(mammogram.pixels.min()), int(mammogram.pixels.max())
    grey = ((mammogram.pixels.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    return 255 - grey if mammogram.photometric == "MONOCHROME1" else grey


def test_noise_below_a_breast_that_reaches_the_lower_edge_does_not_move_the_box(real_files: list) -> None:
    grey = to_grey(read_mammogram(real_files[5]))[:3600].copy()
    clean = find_breast(grey, "strict")
    grey[-60:] = np.random.default_rng(0).integers(0, 230, grey[-60:].shape)
    np.testing.assert_allclose(find_breast(grey, "strict"), clean, atol=90)


def test_the_crop_hardly_depends_on_resolution(real_mammograms: dict[str, Mammogram], real_files: list) -> None:
    coarse = to_png_array(real_mammograms[real_files[4].name], "strict")[1]
    fine = to_png_array(read_mammogram(real_files[4]), "strict")[1]
    np.testing.assert_allclose(np.array(coarse) * 4, fine, atol=60)


def test_the_png_is_the_crop_of_the_grey_image(make_mammogram: Callable[..., Mammogram]) -> None:
    image, _ = half_ellipse()
    plain, crop = to_png_array(make_mammogram(image), "strict")
    assert plain.shape == (crop.height, crop.width)
    inside = image[5:-5, 5:-5].astype(float)
    grey = np.rint(255 * (inside - inside.min()) / np.ptp(inside))
    np.testing.assert_array_equal(plain, grey[crop.top - 5 : crop.bottom - 5, crop.left - 5 : crop.right - 5])
    resized, placement = convert(make_mammogram(image), Recipe("strict", "strict", "stretch", 152, 91))
    assert placement.crop == crop
    np.testing.assert_array_equal(resized, cv2.resize(plain, (91, 152), interpolation=cv2.INTER_AREA))


def test_an_image_of_one_grey_has_no_breast() -> None:
    with pytest.raises(RejectedInput, match="no_breast"):
        find_breast(np.full((60, 50), 90, np.uint8), "strict")


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (3, 3), (700, 12)])
def test_images_of_any_shape_give_a_box_inside_or_a_reason(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    try:
        top, bottom, left, right = find_breast(image, "strict")
    except RejectedInput as error:
        assert error.reason == "no_breast"
    else:
        assert 0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]


def test_another_mode_is_an_error(make_mammogram: Callable[..., Mammogram]) -> None:
    image, _ = half_ellipse()
    with pytest.raises(ValueError, match="'Compat'; expected 'compat' or 'strict'"):
        find_breast(image, "Compat")
    with pytest.raises(ValueError, match="expected 'compat' or 'strict'"):
        to_png_array(make_mammogram(image), "")
