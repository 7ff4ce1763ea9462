import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mammoclip.models.preprocess import normalise


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))))
def test_matches_the_formula_image_by_image(images):
    expected = []
    for image in images.astype(np.float64):
        shifted = image - image.min()
        scaled = shifted / shifted.max() if shifted.max() > 0 else shifted
        expected.append((scaled - 0.3089279) / 0.25053555408335154)
    actual = normalise(torch.from_numpy(images))
    assert actual.dtype == torch.float32
    assert actual.shape == (images.shape[0], 1, *images.shape[1:])
    np.testing.assert_allclose(actual[:, 0].numpy(), np.stack(expected), atol=1e-5)


def test_a_constant_image_becomes_the_value_of_black():
    torch.testing.assert_close(normalise(torch.full((1, 2, 2), 77, dtype=torch.uint8))[0, 0, 0, 0].item(), -1.2330701)


def test_brightness_and_contrast_do_not_matter():
    image = torch.tensor([[[0, 3], [5, 10]]], dtype=torch.uint8)
    torch.testing.assert_close(normalise(image * 20 + 7), normalise(image))


def test_values_looked_up_are_those_computed_to_the_bit() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(3, 250, (2, 40, 30), np.uint8))
    assert torch.equal(normalise(images), normalise(images.to(torch.int32)))


def test_16_bits_are_normalised_too() -> None:
    images = torch.from_numpy(np.array([[[1000, 1000], [66_000 - 1000, 33_000]]], np.uint16))
    shifted = np.array([[0, 0], [1, 0.5]])
    expected = (shifted - 0.3089279) / 0.25053555408335154
    np.testing.assert_allclose(normalise(images)[0, 0], expected, atol=1e-6)
