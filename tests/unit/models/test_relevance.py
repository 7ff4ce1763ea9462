"""Maps of relevance against autograd through whole encoders and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mammoclip.errors import ModelError
from mammoclip.models import EfficientNet, MammoClip, TimmEncoder
from mammoclip.models.relevance import enlarge_map, gradient_map, last_maps, similarity_map


def texts_of(number: int, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(number, dim, generator=torch.Generator().manual_seed(1)), dim=1)


@pytest.fixture
def identity_model(tiny_text_encoder) -> MammoClip:
    """The embedding is the first four pooled features."""
    model = MammoClip(EfficientNet("efficientnet-lite0"), tiny_text_encoder, embedding_dim=4).eval()
    layer = model.image_projection.projection
    with torch.no_grad():
        layer.weight.copy_(torch.eye(*layer.weight.shape))
        layer.bias.zero_()
    return model


def maps_with(values: dict[tuple[int, int, int], float], size: tuple[int, int] = (2, 3)) -> Tensor:
    """One image's maps, 0 but for ``values`` at (channel, row, column)."""
    maps = torch.zeros(1, 1280, *size)
    for place, value in values.items():
        maps[(0, *place)] = value
    return maps


# Last maps


def test_the_last_maps_of_an_efficientnet_have_the_pooled_features_as_mean() -> None:
    encoder = EfficientNet("efficientnet-lite0").eval()
    images = torch.randn(2, 1, 64, 32)
    with torch.no_grad():
        maps = last_maps(encoder, images)
        assert maps.shape == (2, encoder.num_features, 2, 1)
        torch.testing.assert_close(maps.mean(dim=(2, 3)), encoder(images))


def test_the_last_maps_of_a_timm_model_are_its_last_inner_ones() -> None:
    encoder = TimmEncoder("test_vit", (32, 64)).eval()
    images = torch.randn(1, 1, 32, 64)
    with torch.no_grad():
        maps = last_maps(encoder, images)
        assert maps.shape == (1, encoder.num_features, 2, 4)
        assert torch.equal(maps, encoder.maps(images)[-1])


# Similarity map


def test_the_similarity_of_a_cell_is_the_cosine_of_its_features(identity_model: MammoClip) -> None:
    maps = maps_with({(0, 0, 0): 3.0, (1, 0, 0): 4.0, (0, 0, 1): -2.0, (2, 1, 2): 7.0})
    found = similarity_map(identity_model, maps, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([[[0.6, -1.0, 0.0], [0.0, 0.0, 0.0]]]))


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_maps_without_contrast_have_the_similarity_of_the_image_everywhere(tiny_text_encoder, projection) -> None:
    model = MammoClip(EfficientNet("efficientnet-lite0"), tiny_text_encoder, 8, projection).eval()
    features, text = torch.rand(3, 1280), texts_of(1)[0]
    found = similarity_map(model, features[:, :, None, None].expand(-1, -1, 2, 3), text)
    expected = (model.project_image(features) @ text)[:, None, None].expand(-1, 2, 3)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad


# Grad-CAM


def through_the_encoder(model: MammoClip, images: Tensor, text: Tensor) -> Tensor:
    """Grad-CAM as the paper has it, by a hook on the head's activation."""
    kept = []

    def keep(module: object, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = model.image_encoder._act.register_forward_hook(keep)
    (model.encode_image(images) @ text).sum().backward()
    hook.remove()
    maps = kept[-1]
    weights = maps.grad.mean(dim=(2, 3), keepdim=True)
    return (weights * maps).sum(dim=1).relu().detach()


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_grad_cam_is_that_of_autograd_through_the_whole_encoder(tiny_text_encoder, projection) -> None:
    model = MammoClip(EfficientNet("efficientnet-lite0"), tiny_text_encoder, 8, projection).eval()
    images, texts = torch.randn(2, 1, 96, 64), texts_of(3)
    expected = torch.stack([through_the_encoder(model, images, text) for text in texts], dim=1)
    model.zero_grad()
    maps = last_maps(model.image_encoder, images)
    found = gradient_map(model, maps, texts)
    assert found.shape == (2, 3, 3, 2)
    assert expected.max() > 1e-3 and (expected == 0).any()
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_grad_cam_needs_neither_the_encoder_nor_gradients_of_the_caller(tiny_model: MammoClip, context) -> None:
    tiny_model.eval()
    maps, texts = torch.rand(2, 1280, 3, 2).half(), texts_of(2)
    expected = gradient_map(tiny_model, maps.float(), texts)
    tiny_model.image_encoder.forward = None
    with context():
        found = gradient_map(tiny_model, maps.clone(), texts.clone())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        similarity_map(tiny_model, maps, texts[0]), similarity_map(tiny_model, maps.float(), texts[0])
    )


def test_a_channel_that_speaks_of_the_text_lights_up_where_it_is_active(identity_model: MammoClip) -> None:
    maps = maps_with({(0, 0, 1): 2.0, (1, 1, 2): 2.0})
    texts = torch.eye(4)[:3]
    found = gradient_map(identity_model, maps, texts)[0]
    for text, place in ((0, (0, 1)), (1, (1, 2))):
        assert np.unravel_index(int(found[text].argmax()), (2, 3)) == place
        assert (found[text] > 0).sum() == 1
    assert not found[2].any()
    # Pooled features p = (1/3, 1/3): the cosine's derivative by the first is 1 / (2 |p|), and a cell has a sixth of it.
    assert float(found[0].max()) == pytest.approx(2.0 * (3 / 2) / 2**0.5 / 6, rel=1e-5)


def test_models_of_half_precision_give_float32(tiny_model: MammoClip) -> None:
    tiny_model.eval().to(torch.bfloat16)
    maps, texts = torch.rand(1, 1280, 3, 2), texts_of(2)
    assert gradient_map(tiny_model, maps, texts).dtype == torch.float32
    assert similarity_map(tiny_model, maps, texts[0]).dtype == torch.float32


def test_maps_that_are_not_what_is_pooled_are_refused(tiny_text_encoder) -> None:
    """timm's EfficientNets widen their last maps before they pool them."""
    model = MammoClip(TimmEncoder("test_efficientnet"), tiny_text_encoder, embedding_dim=8).eval()
    maps = last_maps(model.image_encoder, torch.randn(1, 1, 64, 64))
    for call in (lambda: gradient_map(model, maps, texts_of(1)), lambda: similarity_map(model, maps, texts_of(1)[0])):
        with pytest.raises(
            ModelError, match=r"the last maps of timm:test_efficientnet have \d+ channels and its pooled"
        ):
            call()


# Size of the image


def test_an_enlarged_map_has_the_size_of_the_image_and_its_places() -> None:
    cells = torch.zeros(4, 3, dtype=torch.float16)
    cells[2, 1] = 5.0
    heat = enlarge_map(cells, (40, 60))
    assert heat.dtype == np.float32 and heat.shape == (40, 60)
    assert (heat.min(), heat.max()) == (0, 1)
    hottest = np.argwhere(heat > 0.9).mean(axis=0)
    np.testing.assert_allclose(hottest, (10 * 2.5 - 0.5, 20 * 1.5 - 0.5), atol=0.5)  # the middle of the cell


def test_every_map_is_stretched_by_itself_and_without_contrast_is_0() -> None:
    cells = torch.stack([torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.full((2, 2), 7.0)])[None]
    heat = enlarge_map(cells, (2, 2))
    np.testing.assert_allclose(heat, [[[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]])
