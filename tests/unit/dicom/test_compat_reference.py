"""``compat`` against a slow transcription of section 1 of the method's description: plain loops, one fact per line."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.dicom import Mammogram, Recipe, convert, find_breast, read_mammogram, to_png_array
from mammoclip.dicom.crop import column_extremes, compat_indices
from mammoclip.dicom.grayscale import compat_grey_scale, drop_border
from mammoclip.errors import RejectedInput


def reference_grey(pixels: np.ndarray, photometric: str) -> np.ndarray:
    x = pixels[5 : pixels.shape[0] - 5, 5 : pixels.shape[1] - 5].astype(np.float64)
    if photometric == "MONOCHROME1":
        x = x.max() - x
    x = (x - x.min()) / (x - x.min()).max()
    return np.uint8(255 * x)


def reference_counts(on: list[bool]) -> list[int]:
    counts = []
    for i in range(len(on)):
        left = 0
        for k in range(i, -1, -1):
            if not on[k]:
                left = k
                break
        right = len(on) - 1
        for k in range(i, len(on)):
            if not on[k]:
                right = k
                break
        counts.append(right - left - 1)
    return counts


def reference_longest(lines: list[bytes]) -> list[int]:
    """Positions of the lines whose count is the largest; a line is on when its values are not all equal."""
    counts = reference_counts([len(set(line)) > 1 for line in lines])
    largest = max(counts)
    return [i for i, count in enumerate(counts) if count == largest]


def reference_indices(grey: np.ndarray) -> tuple[list[int], list[int]]:
    work = grey.copy()
    work[work <= 40] = 0
    height, width = work.shape
    band = range(height // 2 - int(0.4 * height), height // 2 + int(0.4 * height))
    columns = reference_longest([work[band.start : band.stop, column].tobytes() for column in range(width)])
    kept = work[:, columns]
    width = len(columns)
    band = range(width // 2 - int(0.4 * width), width // 2 + int(0.4 * width))
    rows = reference_longest([kept[row, band.start : band.stop].tobytes() for row in range(height)])
    return rows, columns


def reference_png_array(mammogram: Mammogram, size: tuple[int, int] = (912, 1520)) -> np.ndarray:
    grey = reference_grey(mammogram.pixels, mammogram.photometric)
    rows, columns = reference_indices(grey)
    return cv2.resize(grey[rows][:, columns], size, interpolation=cv2.INTER_AREA)


COMPAT = Recipe("compat", "compat", "stretch", 1520, 912)


def compat_grey(mammogram: Mammogram) -> np.ndarray:
    pixels = drop_border(mammogram.pixels)
    return compat_grey_scale(mammogram, int(pixels.min()), int(pixels.max()))(pixels)


def assert_equal_indices(grey: np.ndarray) -> None:
    rows, columns = compat_indices(grey, lambda values: values, column_extremes(grey))
    assert (rows.tolist(), columns.tolist()) == reference_indices(grey)


# Few levels on both sides of the background's limit make equal lines, ties and runs at the edges common.
LEVELS = [0, 40, 41, 255]


@settings(max_examples=400, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from(LEVELS)))
def test_indices_of_small_images(grey: np.ndarray) -> None:
    assert_equal_indices(grey)


def test_indices_of_thousands_of_seeded_images() -> None:
    rng = np.random.default_rng(20)
    for _ in range(3000):
        height, width = rng.integers(1, 24, 2)
        grey = rng.choice(LEVELS, (height, width), p=rng.dirichlet([1, 1, 1, 0.3])).astype(np.uint8)
        grey[:, rng.random(width) < rng.random()] = 0
        grey[rng.random(height) < rng.random() ** 2] = 0
        assert_equal_indices(grey)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        np.uint16,
        st.tuples(st.integers(11, 20), st.integers(11, 20)),
        elements=st.sampled_from([0, 600, 657, 658, 4095]),
    ),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_small_images(make_mammogram: Callable[..., Mammogram], pixels: np.ndarray, photometric: str) -> None:
    mammogram = make_mammogram(pixels, PhotometricInterpretation=photometric)
    inside = pixels[5:-5, 5:-5]
    if inside.min() == inside.max():
        with pytest.raises(RejectedInput, match="constant_image"):
            compat_grey(mammogram)
    else:
        np.testing.assert_array_equal(compat_grey(mammogram), reference_grey(pixels, photometric))
        recipe = replace(COMPAT, height_px=9, width_px=7)
        np.testing.assert_array_equal(convert(mammogram, recipe)[0], reference_png_array(mammogram, (7, 9)))
        rows, columns = reference_indices(reference_grey(pixels, photometric))
        assert to_png_array(mammogram, "compat")[1] == (rows[0] + 5, rows[-1] + 6, columns[0] + 5, columns[-1] + 6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int32])
def test_grey_of_every_stored_type(make_mammogram: Callable[..., Mammogram], dtype: type) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (30, 30), dtype=dtype, endpoint=True)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        mammogram = make_mammogram(pixels, PhotometricInterpretation=photometric)
        np.testing.assert_array_equal(compat_grey(mammogram), reference_grey(pixels, photometric))
        np.testing.assert_array_equal(convert(mammogram, COMPAT)[0], reference_png_array(mammogram))


def test_grey_is_truncated_not_rounded(make_mammogram: Callable[..., Mammogram]) -> None:
    pixels = np.tile(np.arange(1001, dtype=np.uint16), (12, 1))
    grey = compat_grey(make_mammogram(pixels))
    assert (grey[0, 0], grey[0, -1], (grey == 255).sum()) == (0, 255, 2)  # one column per row reaches the top


def test_real_mammograms(real_mammograms: dict[str, Mammogram]) -> None:
    for name, mammogram in real_mammograms.items():
        image, placement = convert(mammogram, COMPAT)
        np.testing.assert_array_equal(image, reference_png_array(mammogram), err_msg=name)
        crop = placement.crop
        rows, columns = reference_indices(reference_grey(mammogram.pixels, mammogram.photometric))
        assert crop == (rows[0] + 5, rows[-1] + 6, columns[0] + 5, columns[-1] + 6)


@pytest.mark.parametrize("number", [1, 6])
def test_real_mammograms_at_full_size(real_files: list, number: int) -> None:
    mammogram = read_mammogram(real_files[number])
    assert min(mammogram.pixels.shape) > 2500
    image, _ = convert(mammogram, COMPAT)
    np.testing.assert_array_equal(image, reference_png_array(mammogram))


def test_phantom_images(phantom_images: list) -> None:
    photometrics = set()
    for phantom in phantom_images:
        image, _ = convert(phantom.mammogram, COMPAT)
        np.testing.assert_array_equal(image, reference_png_array(phantom.mammogram))
        photometrics.add(phantom.mammogram.photometric)
    assert photometrics == {"MONOCHROME1", "MONOCHROME2"}


def striped(on: list[int]) -> np.ndarray:
    """Columns that vary where ``on``, black elsewhere; ten rows, all of which vary."""
    grey = np.zeros((10, len(on)), np.uint8)
    grey[::2, np.flatnonzero(on)] = 200
    grey[1::2, np.flatnonzero(on)] = np.uint8(100) + np.arange(sum(on), dtype=np.uint8)
    return grey


@pytest.mark.parametrize(
    ("on", "kept"),
    [
        ([0, 1, 1, 1, 0, 1, 0], [1, 2, 3]),
        ([0, 1, 1, 0, 0, 1, 1, 0], [1, 2, 5, 6]),  # equal runs are glued together
        ([1, 1, 1, 0, 1, 1, 0], [0, 1, 2, 4, 5]),  # a run at the edge counts one less
        ([0, 1, 1, 0, 1, 1, 1], [1, 2, 4, 5, 6]),
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 0], [0, 1, 2]),  # nothing on: all is kept
        ([1, 0, 0, 0], [0]),
    ],
)
def test_columns_kept_by_the_published_counting(on: list[int], kept: list[int]) -> None:
    grey = striped(on)
    _, columns = compat_indices(grey, lambda values: values, column_extremes(grey))
    assert columns.tolist() == kept


def test_the_box_of_glued_runs_spans_what_lies_between_them(make_mammogram: Callable[..., Mammogram]) -> None:
    grey = striped([0, 1, 1, 0, 0, 1, 1, 0])
    _, _, left, right = find_breast(grey, "compat")
    assert (left, right) == (1, 7)
    framed = np.pad(grey, 5)
    image, crop = to_png_array(make_mammogram(framed), "compat")
    assert (crop.left, crop.right) == (6, 12)
    assert image.shape[1] == 4
