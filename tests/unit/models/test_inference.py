import math

import numpy as np
import pytest
import torch

from mammoclip.errors import ModelError
from mammoclip.models import LoadedModel, normalise
from mammoclip.models.relevance import gradient_map, last_maps


@pytest.fixture
def loaded(tiny_model, tokenizer) -> LoadedModel:
    return LoadedModel(tiny_model.eval(), tokenizer, image_size_px=(64, 32), metadata={})


def test_zero_shot_is_the_softmax_of_the_cosines(loaded):
    images, prompts = torch.randn(3, 1, 64, 32), ["no mass", "mass"]
    scores = loaded.zero_shot(images, prompts)
    for i, image in enumerate(loaded.encode_image(images).tolist()):
        cosines = [
            sum(a * b for a, b in zip(image, text, strict=True)) for text in loaded.encode_text(prompts).tolist()
        ]
        expected = [math.exp(c) / sum(math.exp(d) for d in cosines) for c in cosines]
        assert scores[i].tolist() == pytest.approx(expected, abs=1e-5)


def test_one_sentence_is_a_batch_of_one(loaded):
    assert torch.equal(loaded.encode_text("a mass"), loaded.encode_text(["a mass"]))


def test_images_of_the_models_size_are_only_normalised(loaded):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 32), dtype=np.uint8)
    assert torch.equal(loaded.preprocess(list(images)), normalise(torch.from_numpy(images)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_other_sizes_are_resized(loaded, dtype):
    ramp = np.tile(np.arange(128).astype(dtype), (256, 1))
    prepared = loaded.preprocess([ramp, ramp[:100, :100]])
    assert prepared.shape == (2, 1, 64, 32)
    assert (prepared[0, 0].diff(dim=1) > 0).all()


def test_colour_images_are_refused(loaded):
    with pytest.raises(ModelError, match="height x width"):
        loaded.preprocess([np.zeros((64, 32, 3), dtype=np.uint8)])


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 64, 32, dtype=torch.uint8), torch.zeros(64, 32)])
def test_images_that_were_not_preprocessed_are_refused(loaded, images):
    with pytest.raises(ModelError, match="preprocess"):
        loaded.encode_image(images)


def test_a_sentence_is_explained_by_grad_cam_at_the_size_of_the_input(loaded):
    images = torch.randn(2, 1, 64, 64)
    heat = loaded.explain(images, "a mass")
    assert heat.dtype == np.float32 and heat.shape == (2, 64, 64)
    cells = gradient_map(loaded.model, last_maps(loaded.model.image_encoder, images), loaded.encode_text("a mass"))[
        :, 0
    ]
    for image, of_image in zip(heat, cells, strict=True):
        assert bool(of_image.any()) == bool(image.any())
        if image.any():
            assert (image.min(), image.max()) == (0, 1)
            row, column = np.unravel_index(int(of_image.argmax()), (2, 2))
            assert image[63 * row, 63 * column] == 1
    assert heat.any()
    np.testing.assert_array_equal(loaded.explain(images.expand(-1, 3, -1, -1), "a mass"), heat)
    with pytest.raises(ModelError, match="call preprocess first"):
        loaded.explain(images[0], "a mass")


def test_half_precision_models_return_float32(loaded):
    loaded.model.to(torch.bfloat16)
    assert loaded.explain(torch.randn(1, 1, 64, 32), "mass").dtype == np.float32
    assert loaded.encode_image(torch.randn(1, 1, 64, 32)).dtype == torch.float32
    assert loaded.encode_text("mass").dtype == torch.float32


def test_logit_scale_is_the_logarithm(loaded):
    assert loaded.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)
