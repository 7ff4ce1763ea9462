"""``strict`` grey scale against the formulas of DICOM PS3.3 C.11.1 and C.11.2, written value by value."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian

from mammoclip.dicom import Mammogram, read_mammogram, to_png_array
from mammoclip.dicom.grayscale import drop_border, strict_grey_scale
from mammoclip.errors import RejectedInput

Make = Callable[..., Mammogram]

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def strict_grey(mammogram: Mammogram, bits: int = 8) -> np.ndarray:
    pixels = drop_border(mammogram.pixels)
    return strict_grey_scale(mammogram, int(pixels.min()), int(pixels.max()), bits)(pixels)


def framed(pixels: np.ndarray) -> np.ndarray:
    """``pixels`` inside a border that is dropped, whatever it holds."""
    return np.pad(pixels, 5, constant_values=int(pixels.max()) * 7 % 60000)


def linear(x: float, center: float, width: float) -> float:
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5


def linear_exact(x: float, center: float, width: float) -> float:
    if x <= center - width / 2:
        return 0.0
    if x > center + width / 2:
        return 1.0
    return (x - center) / width + 0.5


def sigmoid(x: float, center: float, width: float) -> float:
    exponent = -4 * (x - center) / width
    return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0


def look_up(x: float, first: int, table: list[int]) -> int:
    return table[min(max(int(x) - first, 0), len(table) - 1)]


def assert_grey(grey: np.ndarray, values: list[float], low: float | None = None, high: float | None = None) -> None:
    """``grey`` is 0..255 rounded (0..65535 of 16 bits) of ``values`` from ``low`` to ``high`` (their own)."""
    low, high = min(values) if low is None else low, max(values) if high is None else high
    expected = np.iinfo(grey.dtype).max * (np.array(values) - low) / (high - low)
    np.testing.assert_allclose(grey.ravel(), expected, atol=0.501)


def lut(first: int, table: list[int], bits: int = 16, explanation: str = "") -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(table) % 65536, first, bits]
    item.LUTData = table
    item.LUTExplanation = explanation
    return item


def test_without_lut_or_window_the_stored_values_are_scaled_to_their_range(make_mammogram: Make) -> None:
    assert_grey(strict_grey(make_mammogram(framed(RAMP + 17))), RAMP.ravel().tolist())


@pytest.mark.parametrize(
    ("function", "formula"), [("LINEAR", linear), (None, linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid)]
)
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (3000.5, 800.25), (10, 1.5), (2048, 1)])
def test_windows(
    make_mammogram: Make, function: str | None, formula: Callable[..., float], center: float, width: float
) -> None:
    window: dict[str, Any] = {"WindowCenter": center, "WindowWidth": width}
    if function:
        window["VOILUTFunction"] = function
    grey = strict_grey(make_mammogram(framed(RAMP), **window))
    assert_grey(grey, [formula(x, center, width) for x in range(4096)], 0, 1)


@settings(max_examples=60, deadline=None)
@given(
    center=st.integers(-500, 5000),
    width=st.integers(2, 6000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    rescale=st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.integers(-1000, 1000)),
)
def test_windows_after_a_rescale_agree_with_pydicom(
    make_mammogram: Make, center: int, width: int, function: str, rescale: tuple[float, int]
) -> None:
    slope, intercept = rescale
    mammogram = make_mammogram(
        framed(RAMP),
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        BitsStored=12,
        PixelRepresentation=0,
    )
    with np.errstate(over="ignore"):
        values = apply_voi_lut(apply_modality_lut(RAMP, mammogram.dataset), mammogram.dataset)
    assume(np.ptp(values) > 4096 * slope / 200)  # a window that leaves one value rejects the image
    assert_grey(strict_grey(mammogram), values.ravel().tolist(), intercept, 4095 * slope + intercept)


def test_the_first_of_several_windows_is_used(make_mammogram: Make) -> None:
    several = make_mammogram(framed(RAMP), WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert_grey(strict_grey(several), [linear(x, 1000, 500) for x in range(4096)], 0, 1)


def test_the_window_follows_the_rescale(make_mammogram: Make) -> None:
    header = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1500, "WindowWidth": 800}
    grey = strict_grey(make_mammogram(framed(RAMP), **header))
    assert_grey(grey, [linear(2 * x - 1000, 1500, 800) for x in range(4096)], 0, 1)


def test_the_window_follows_the_modality_lut(make_mammogram: Make) -> None:
    table = [min(65535, x * x // 100) for x in range(3000)]
    header = {"ModalityLUTSequence": [lut(500, table)], "WindowCenter": 20000, "WindowWidth": 30000}
    grey = strict_grey(make_mammogram(framed(RAMP), **header))
    assert_grey(grey, [linear(look_up(x, 500, table), 20000, 30000) for x in range(4096)], 0, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_voi_luts_of_every_depth(make_mammogram: Make, bits: int) -> None:
    top = 2**bits - 1
    table = [round(top * (x / 2999) ** 2) for x in range(3000)]
    grey = strict_grey(make_mammogram(framed(RAMP), VOILUTSequence=[lut(800, table, bits)]))
    assert_grey(grey, [look_up(x, 800, table) for x in range(4096)], min(table), max(table))


def test_a_voi_lut_may_start_below_zero_after_a_rescale(make_mammogram: Make) -> None:
    table = list(range(0, 9000, 3))
    header = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": [lut(-200, table)]}
    grey = strict_grey(make_mammogram(framed(RAMP), **header))
    assert_grey(grey, [look_up(x - 1024, -200, table) for x in range(4096)], min(table), max(table))


def test_a_lut_of_65536_entries_says_so_with_zero(make_mammogram: Make) -> None:
    table = [min(65535, 2 * x) for x in range(65536)]
    item = lut(0, table)
    assert item.LUTDescriptor[0] == 0
    wide = RAMP * np.uint16(16)
    grey = strict_grey(make_mammogram(framed(wide), VOILUTSequence=[item]))
    assert_grey(grey, [look_up(x, 0, table) for x in wide.ravel().tolist()], min(table), max(table))


def test_the_voi_lut_is_preferred_to_the_window(make_mammogram: Make) -> None:
    table = list(range(4096, 0, -1))
    header = {"VOILUTSequence": [lut(0, table)], "WindowCenter": 100, "WindowWidth": 10}
    assert_grey(
        strict_grey(make_mammogram(framed(RAMP), **header)),
        [look_up(x, 0, table) for x in range(4096)],
        min(table),
        max(table),
    )


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_voi_lut_from_a_file(write_file: Callable[..., Any], vr: str, big_endian: bool) -> None:
    table = [round(4095 * (x / 4095) ** 3) for x in range(4096)]

    def add_lut(dataset: pydicom.Dataset) -> None:
        item = pydicom.Dataset()
        item.add_new("LUTDescriptor", "US", [4096, 0, 12])
        item.add_new("LUTData", vr, np.array(table, ">u2" if big_endian else "<u2").tobytes() if vr == "OW" else table)
        dataset.VOILUTSequence = [item]

    written = write_file(change=add_lut)
    if big_endian:
        little = pydicom.dcmread(written.path)
        pixels = little.pixel_array.astype(">u2").tobytes()
        big = pydicom.Dataset()
        big.file_meta = little.file_meta
        big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        for element in little:
            if element.keyword != "VOILUTSequence":
                big.add(element)
        big.PixelData = pixels
        add_lut(big)
        big.save_as(written.path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    grey = strict_grey(read_mammogram(written.path))
    assert_grey(grey, [table[x] for x in written.pixels[5:-5, 5:-5].ravel().tolist()], min(table), max(table))


@pytest.mark.parametrize(
    "header",
    [
        {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": None},
        {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "", "RescaleSlope": "", "RescaleIntercept": ""},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 12, "WindowWidth": ""},
        {"VOILUTSequence": [], "ModalityLUTSequence": []},
        {"RescaleSlope": 2},
    ],
)
def test_an_empty_attribute_is_as_good_as_none(make_mammogram: Make, header: dict[str, Any]) -> None:
    grey = strict_grey(make_mammogram(framed(RAMP), **header))
    np.testing.assert_allclose(grey.ravel(), np.arange(4096) / 4095 * 255, atol=0.6)


def test_monochrome1_is_inverted_after_the_window(make_mammogram: Make) -> None:
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    plain = strict_grey(make_mammogram(framed(RAMP), **window))
    inverted = strict_grey(make_mammogram(framed(RAMP), PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted, 255 - plain)
    # The window is in stored values: inverted first, 1000 would lie in the upper half and little would be black.
    assert (plain == 255).mean() > 0.5


@pytest.mark.parametrize(
    "header",
    [
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": 0.5},
        {"WindowCenter": 100, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "CUBIC"},
        {"WindowCenter": "NaN", "WindowWidth": 50},
        {"RescaleSlope": "inf", "RescaleIntercept": 0},
        {"RescaleSlope": "1e308", "RescaleIntercept": 0},
        {
            "RescaleSlope": "1e308",
            "RescaleIntercept": 0,
            "VOILUTFunction": "SIGMOID",
            "WindowCenter": 1,
            "WindowWidth": 9,
        },
        {"VOILUTSequence": [pydicom.Dataset()]},
        {"ModalityLUTSequence": [pydicom.Dataset()]},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_a_lut_or_window_without_sense_rejects_the_image(make_mammogram: Make, header: dict[str, Any]) -> None:
    with pytest.raises(RejectedInput, match="undecodable"):
        strict_grey(make_mammogram(framed(RAMP), **header))


def test_a_lut_shorter_than_its_descriptor_says_rejects_the_image(make_mammogram: Make) -> None:
    item = lut(0, [5, 6, 7])
    item.LUTDescriptor = [4096, 0, 16]
    with pytest.raises(RejectedInput, match="undecodable"):
        strict_grey(make_mammogram(framed(RAMP), VOILUTSequence=[item]))


def test_sixteen_bits_keep_what_eight_round_away(make_mammogram: Make) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "SIGMOID"}
    grey = strict_grey(make_mammogram(framed(RAMP), **window), bits=16)
    assert grey.dtype == np.uint16
    assert_grey(grey, [sigmoid(x, 2048, 4096) for x in range(4096)], 0, 1)
    assert len(np.unique(grey)) == 4096


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("header", [{}, {"WindowCenter": 1000, "WindowWidth": 500}])
@pytest.mark.parametrize(
    ("padding", "is_padding"),
    [
        ({"PixelPaddingValue": 0}, RAMP == 0),
        ({"PixelPaddingValue": 4095}, RAMP == 4095),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, RAMP >= 4000),
        ({"PixelPaddingValue": 50, "PixelPaddingRangeLimit": 0}, RAMP <= 50),
        ({"PixelPaddingValue": 2000}, RAMP == 2000),
        ({"PixelPaddingValue": 9000}, RAMP < 0),
    ],
)
def test_padding_is_black_and_has_no_part_in_the_range(
    make_mammogram: Make, photometric: str, header: dict[str, Any], padding: dict[str, int], is_padding: np.ndarray
) -> None:
    attributes = {"PhotometricInterpretation": photometric, **header, **padding}
    image = np.pad(RAMP, 5, constant_values=1500)
    grey = strict_grey(make_mammogram(image, **attributes))
    assert (grey[is_padding] == 0).all()
    values = RAMP[~is_padding].tolist()
    shown = [linear(x, 1000, 500) for x in values] if header else [(x - min(values)) / np.ptp(values) for x in values]
    if photometric == "MONOCHROME1":
        shown = [1 - value for value in shown]
    assert_grey(grey[~is_padding], shown, 0, 1)


def test_an_image_of_padding_alone_is_rejected(make_mammogram: Make) -> None:
    with pytest.raises(RejectedInput, match="constant_image"):
        strict_grey(make_mammogram(framed(RAMP), PixelPaddingValue=0, PixelPaddingRangeLimit=4095))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_every_stored_type(make_mammogram: Make, dtype: type) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (30, 30), dtype=dtype, endpoint=True)
    inside = drop_border(pixels)
    center, width = (int(limits.max) + int(limits.min)) / 2, (int(limits.max) - int(limits.min)) / 2
    grey = strict_grey(make_mammogram(pixels, WindowCenter=center, WindowWidth=width, VOILUTFunction="LINEAR_EXACT"))
    assert_grey(grey, [linear_exact(x, center, width) for x in inside.ravel().tolist()], 0, 1)
    grey = strict_grey(make_mammogram(pixels))
    assert_grey(grey, inside.ravel().tolist())


def test_the_header_is_left_as_it_was(make_mammogram: Make) -> None:
    mammogram = make_mammogram(framed(RAMP), WindowCenter=[10, 20], WindowWidth=["", ""], VOILUTFunction="")
    before = str(mammogram.dataset)
    pixels = mammogram.pixels.copy()
    strict_grey(mammogram)
    assert str(mammogram.dataset) == before
    np.testing.assert_array_equal(mammogram.pixels, pixels)


@pytest.mark.parametrize("mode", ["compat", "strict"])
def test_an_image_of_one_value_is_rejected(make_mammogram: Make, mode: str) -> None:
    with pytest.raises(RejectedInput, match="constant_image"):
        to_png_array(make_mammogram(framed(np.full((30, 20), 9, np.uint16))), mode)


@pytest.mark.parametrize("mode", ["compat", "strict"])
@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1)])
def test_an_image_that_is_all_border_is_rejected(make_mammogram: Make, mode: str, shape: tuple[int, int]) -> None:
    with pytest.raises(RejectedInput, match="constant_image"):
        to_png_array(make_mammogram(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)), mode)


def test_a_window_that_leaves_one_value_rejects_the_image_in_strict_only(make_mammogram: Make) -> None:
    mammogram = make_mammogram(framed(RAMP), WindowCenter=20000, WindowWidth=10)
    with pytest.raises(RejectedInput, match="constant_image"):
        strict_grey(mammogram)
    assert to_png_array(mammogram, "compat")[0].max() == 255
