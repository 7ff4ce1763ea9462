import math

import pytest
import torch

from mammoclip.errors import ModelError
from mammoclip.models import ImageEncoderSpec, MammoClip, TextEncoderSpec, build_model
from mammoclip.models.clip import Projection


def test_state_dict_reads_as_the_released_one(tiny_model):
    names = tiny_model.state_dict().keys()
    assert {"logit_scale", "image_projection.projection.weight", "image_projection.projection.bias"} <= names
    assert {"text_projection.projection.weight", "text_projection.projection.bias"} <= names
    prefixes = ("image_encoder._", "text_encoder.text_encoder.", "image_projection.", "text_projection.", "logit_scale")
    assert all(name.startswith(prefixes) for name in names)


def test_initial_temperature_is_007(tiny_model):
    assert tiny_model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert tiny_model.logit_scale.requires_grad


def test_embeddings_have_length_one(tiny_model):
    tiny_model.eval()
    images = tiny_model.encode_image(torch.randn(2, 1, 64, 32))
    texts = tiny_model.encode_text(torch.randint(5, 99, (3, 7)), torch.ones(3, 7, dtype=torch.int64))
    assert images.shape == (2, 8)
    assert texts.shape == (3, 8)
    torch.testing.assert_close(torch.cat([images, texts]).norm(dim=1), torch.ones(5))


def test_one_grey_channel_equals_three_equal_channels(tiny_model):
    tiny_model.eval()
    grey = torch.randn(2, 1, 64, 32)
    assert torch.equal(tiny_model.encode_image(grey), tiny_model.encode_image(grey.repeat(1, 3, 1, 1)))


def test_an_mlp_projects_through_a_hidden_layer_of_the_embedding_width():
    projection = Projection(5, 3, "mlp")
    shapes = {name: tuple(value.shape) for name, value in projection.state_dict().items()}
    assert shapes == {
        "projection.0.weight": (3, 5),
        "projection.0.bias": (3,),
        "projection.2.weight": (3, 3),
        "projection.2.bias": (3,),
    }
    features, state = torch.randn(2, 5), projection.state_dict()
    hidden = features @ state["projection.0.weight"].T + state["projection.0.bias"]
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    expected = hidden @ state["projection.2.weight"].T + state["projection.2.bias"]
    torch.testing.assert_close(projection(features), expected)


def test_an_unknown_projection_is_refused():
    with pytest.raises(ModelError, match="choose linear or mlp"):
        Projection(5, 3, "cubic")


def test_image_features_are_pooled_and_not_projected(tiny_model):
    tiny_model.eval()
    features = tiny_model.image_features(torch.randn(2, 1, 64, 32))
    assert features.shape == (2, 1280)
    assert (features.norm(dim=1) != 1).all()


def test_gradient_reaches_every_parameter(tiny_model: MammoClip):
    images = tiny_model.encode_image(torch.randn(4, 1, 64, 64))
    texts = tiny_model.encode_text(torch.randint(5, 99, (4, 6)), torch.ones(4, 6, dtype=torch.int64))
    logits = tiny_model.logit_scale.exp() * images @ texts.T
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    without = [name for name, p in tiny_model.named_parameters() if p.grad is None]
    assert without == []


def test_one_seed_gives_one_model_and_leaves_the_global_state_alone(minilm_folder):
    specs = ImageEncoderSpec("efficientnet-lite0"), TextEncoderSpec(minilm_folder)
    state = torch.random.get_rng_state()
    first, again, other = (build_model(*specs, embedding_dim=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    expected = first.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    for part in ("image_projection.projection.weight", "image_encoder._conv_stem.weight"):
        assert not torch.equal(other.state_dict()[part], expected[part])


def test_pretrained_weights_end_up_in_the_model(minilm_folder, lite0_weights):
    model = build_model(ImageEncoderSpec("efficientnet-lite0", lite0_weights), TextEncoderSpec(minilm_folder))
    released = torch.load(lite0_weights, weights_only=True)
    assert torch.equal(model.image_encoder._conv_head.weight, released["_conv_head.weight"])
    assert model.embedding_dim == 512
