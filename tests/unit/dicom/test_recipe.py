import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from mammoclip.dicom import Mammogram, Recipe, convert
from mammoclip.dicom.recipe import encode_png

STRICT = Recipe("strict", "strict", "stretch", 90, 60)


@pytest.fixture
def breast(make_mammogram: Callable[..., Mammogram]) -> Mammogram:
    """A half disc with a pattern of integers, the same on every machine."""
    y, x = np.mgrid[:300, :220]
    inside = (2 * (y - 150)) ** 2 + (3 * x) ** 2 < 240**2
    pixels = np.where(inside, 900 + (y * x) % 1700 + 5 * x, (y + x) % 7).astype(np.uint16)
    return make_mammogram(pixels, BitsStored=12)


@pytest.mark.parametrize(
    ("recipe", "sha256"),
    [
        (Recipe("compat", "compat", "stretch", 152, 91), "0b2ddd34df00a6a4"),
        (Recipe("strict", "strict", "pad", 152, 91), "01dff29a0583743e"),
        (Recipe("strict", "strict", "stretch", 152, 91, bits=16), "ed359e799ce50993"),
    ],
)
def test_the_bytes_are_the_same_on_every_machine(breast: Mammogram, recipe: Recipe, sha256: str) -> None:
    """Another value means that shards of two machines, or of two versions of the shard stage (its tag), differ."""
    png = encode_png(convert(breast, recipe)[0])
    assert hashlib.sha256(png).hexdigest()[:16] == sha256


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_holds_its_image(dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 41), dtype=dtype, endpoint=True)
    decoded = cv2.imdecode(np.frombuffer(encode_png(image), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, image)


def test_sixteen_bits_are_the_eight_with_more_behind_them(breast: Mammogram) -> None:
    eight, placement = convert(breast, STRICT)
    sixteen, same = convert(breast, replace(STRICT, bits=16))
    assert same == placement
    np.testing.assert_allclose(sixteen / 257, eight, atol=1.01)


@pytest.mark.parametrize("grayscale", ["compat", "strict"])
@pytest.mark.parametrize("crop", ["compat", "strict"])
@pytest.mark.parametrize("geometry", ["stretch", "pad"])
def test_grey_scale_crop_and_geometry_are_chosen_alone(
    breast: Mammogram, grayscale: str, crop: str, geometry: str
) -> None:
    image, placement = convert(breast, Recipe(grayscale, crop, geometry, 90, 60))
    assert image.shape == (90, 60)
    whole, same_crop = convert(breast, Recipe(grayscale, crop, "stretch", 90, 60))
    assert placement.crop == same_crop.crop
    if geometry == "pad":
        assert placement.scale_x == pytest.approx(placement.scale_y, rel=0.03)
        assert image.mean() < whole.mean()
    else:
        np.testing.assert_array_equal(image, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grayscale": "loose"}, "grayscale is 'loose'; expected 'compat' or 'strict'"),
        ({"crop": ""}, "crop is ''; expected"),
        ({"geometry": "fit"}, "geometry is 'fit'; expected 'stretch' or 'pad'"),
        ({"bits": 12}, "bits is 12; expected 8 or 16"),
        ({"grayscale": "compat", "bits": 16}, "bits is 16; expected 8"),
        ({"decoder": "fpga"}, "decoder is 'fpga'; expected 'cpu' or 'gpu'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STRICT, **change)
