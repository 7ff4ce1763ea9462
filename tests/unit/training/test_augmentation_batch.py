import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mammoclip.data.augmentation import AugmentationStrength, draw_warp
from mammoclip.data.warp import Elastic, WarpParameters, affine_matrix, apply_warp, sampling_nodes
from mammoclip.training.augmentation_batch import augment_batch

SIZE = (90, 61)
AFFINE = affine_matrix(13, (4.5, -6.25), 0.9, -17, SIZE)
PAPER = AugmentationStrength(0.5, True, 20, 0.1, (0.8, 1.2), 20, 10, 15)


def smooth_images(num: int, highest: int = 255) -> np.ndarray:
    noise = np.random.default_rng(3).uniform(0, 1, (num, *SIZE))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2))
    return np.rint(highest * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8 if highest < 256 else np.uint16)


def one_by_one(images: np.ndarray, warps: list[WarpParameters]) -> np.ndarray:
    return np.stack([apply_warp(image, warp) for image, warp in zip(images, warps, strict=True)])


def as_batch(images: torch.Tensor, warps: list[WarpParameters]) -> torch.Tensor:
    return augment_batch(images, [sampling_nodes(warp, SIZE) for warp in warps])


def assert_agree(images: np.ndarray, warps: list[WarpParameters]) -> None:
    batch = as_batch(torch.from_numpy(images), warps)
    assert (batch.dtype, batch.shape) == (torch.uint8, images.shape)
    difference = batch.numpy().astype(int) - one_by_one(images, warps)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


@pytest.mark.parametrize("elastic", [None, Elastic(4, 300, 15), Elastic(4, 40, 2)])
@pytest.mark.parametrize("affine", [None, AFFINE])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_a_batch_is_what_opencv_makes_of_each_image(flips, affine, elastic) -> None:
    assert_agree(smooth_images(1), [WarpParameters(*flips, affine, elastic)])


def test_every_image_has_parameters_of_its_own() -> None:
    warps = [
        WarpParameters(),
        WarpParameters(elastic=Elastic(1, 300, 15)),
        WarpParameters(affine=AFFINE),
        WarpParameters(True, True, AFFINE, Elastic(2, 60, 3)),
    ]
    assert_agree(smooth_images(4), warps)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_batch_of_drawn_warps_agrees_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_agree(smooth_images(3), [draw_warp(rng, PAPER, SIZE) for _ in range(3)])


def test_flips_and_nothing_at_all_are_exact_on_noise() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *SIZE), dtype=np.uint8)
    warps = [WarpParameters(horizontal, vertical) for horizontal in (False, True) for vertical in (False, True)]
    np.testing.assert_array_equal(as_batch(torch.from_numpy(images), warps).numpy(), one_by_one(images, warps))


@pytest.mark.parametrize("elastic", [None, Elastic(4, 300, 15)])
def test_sixteen_bits_agree_to_a_ten_thousandth_of_white_and_keep_their_type(elastic: Elastic | None) -> None:
    """In int32, as a batch has them; positions of single precision cost more grey levels where there are more."""
    images, warps = smooth_images(2, 65535), [WarpParameters(flip, False, AFFINE, elastic) for flip in (False, True)]
    batch = as_batch(torch.from_numpy(images.astype(np.int32)), warps)
    assert batch.dtype == torch.int32
    assert np.abs(batch.numpy() - one_by_one(images, warps)).max() <= 6


def test_every_image_needs_a_warp_of_its_own() -> None:
    with pytest.raises(ValueError, match="shorter"):
        as_batch(torch.zeros((2, *SIZE), dtype=torch.uint8), [WarpParameters()])
