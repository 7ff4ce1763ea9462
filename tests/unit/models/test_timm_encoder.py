import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from mammoclip.errors import ModelError
from mammoclip.models import TimmEncoder, load_image_encoder
from mammoclip.models.timm_encoder import read_timm_weights

# Small ones of each family: residual, modern convolutional, plain transformer (DINO), its sequel, windowed transformer.
NAMES = [
    "resnet18",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_dinov3_qkvb",
    "swin_tiny_patch4_window7_224",
]
VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
SIZE = (96, 64)
FEATURES = {"resnet18": 512, "convnext_atto": 320, SWIN: 768}


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_give_what_three_equal_channels_give(name, tmp_path):
    """The reference is timm's three-channel model of the same size, whose file, with its classifier, is loaded."""
    size = {"img_size": SIZE} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    colour = timm.create_model(name, **size).eval()
    save_file(colour.state_dict(), tmp_path / "colour.safetensors")
    encoder = load_image_encoder(f"timm:{name}", tmp_path / "colour.safetensors", SIZE).eval()
    grey = torch.randn(2, 1, *SIZE)
    colour.reset_classifier(0)
    with torch.no_grad():
        features = encoder(grey)
        torch.testing.assert_close(features, colour(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    assert features.shape == (2, encoder.num_features)
    assert encoder.num_features == FEATURES.get(name, 192)


def test_files_of_one_channel_load_as_they_are(tmp_path):
    state = TimmEncoder("resnet18").backbone.state_dict()
    torch.save(state, tmp_path / "grey.pth")
    loaded = load_image_encoder("timm:resnet18", tmp_path / "grey.pth").backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_position_embeddings_are_resized_as_timm_does_and_constant_ones_stay_constant():
    state = timm.create_model(VIT, num_classes=0).state_dict()
    resized = TimmEncoder(VIT, SIZE, state).backbone.pos_embed
    expected = resample_abs_pos_embed(state["pos_embed"], [6, 4], num_prefix_tokens=1)
    torch.testing.assert_close(resized, expected)
    constant = {**state, "pos_embed": torch.full_like(state["pos_embed"], 0.25)}
    embedding = TimmEncoder(VIT, SIZE, constant).backbone.pos_embed
    torch.testing.assert_close(embedding, torch.full((1, 25, 192), 0.25))


def test_windows_are_padded_to_the_image():
    """100 x 60 pixels are 25 x 15 patches: no multiple of the window, 7, nor even."""
    assert TimmEncoder(SWIN, (100, 60)).eval()(torch.randn(1, 1, 100, 60)).shape == (1, 768)


@pytest.mark.parametrize("name", ["maxvit_pico_rw_256", "hrnet_w18_small", VIT])
def test_an_impossible_size_is_refused_before_anything_is_trained(name):
    with pytest.raises(ModelError, match=f"timm:{name} cannot take images of height 100 and width 60"):
        TimmEncoder(name, (100, 60))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet18", [(64, 48, 32), (64, 24, 16), (128, 12, 8), (256, 6, 4), (512, 3, 2)]),
        ("convnext_atto", [(40, 24, 16), (80, 12, 8), (160, 6, 4), (320, 3, 2)]),
        (VIT, [(192, 6, 4)] * 12),
        (SWIN, [(96, 24, 16), (192, 12, 8), (384, 6, 4), (768, 3, 2)]),
    ],
)
def test_maps_are_channels_first_from_fine_to_coarse(name, shapes):
    encoder = TimmEncoder(name, SIZE).eval()
    maps = encoder.maps(torch.randn(2, 1, *SIZE))
    assert [tuple(each.shape[1:]) for each in maps] == shapes


@pytest.mark.parametrize("name", ["resnet18", SWIN])
def test_the_last_map_is_what_is_pooled(name):
    encoder = TimmEncoder(name, SIZE).eval()
    images = torch.randn(2, 1, *SIZE)
    torch.testing.assert_close(encoder(images), encoder.maps(images)[-1].mean(dim=(2, 3)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "num_blocks", "frozen"),
    [
        ("resnet18", 3, ("conv1.", "bn1.", "layer1.", "layer2.0.")),
        (VIT, 2, ("cls_token", "pos_embed", "patch_embed.", "blocks.0.", "blocks.1.")),
        ("convnext_atto", 2, ("stem.", "stages.0.")),
        (SWIN, 2, ("patch_embed.", "layers.0.")),
    ],
)
def test_frozen_blocks_keep_weights_and_statistics_while_the_rest_trains(name, num_blocks, frozen):
    encoder = TimmEncoder(name, SIZE)
    encoder.freeze(num_blocks)
    encoder.train()
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    encoder(torch.randn(2, 1, *SIZE)).square().sum().backward()
    for key, parameter in encoder.backbone.named_parameters():
        assert (parameter.grad is None) == key.startswith(frozen), key
    changed = {key for key, value in encoder.backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(frozen) for key in changed)
    assert bool(changed) == (name == "resnet18")  # the others have no running statistics


def test_freezing_nothing_leaves_even_the_stem_to_train():
    encoder = TimmEncoder("resnet18")
    encoder.freeze(0)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_freezing_more_blocks_than_there_are_is_an_error():
    with pytest.raises(ModelError, match="cannot freeze 9 blocks: timm:resnet18 has 8"):
        TimmEncoder("resnet18").freeze(9)


def test_a_model_that_does_not_tell_its_blocks_apart_cannot_be_frozen():
    with pytest.raises(ModelError, match="timm:poolformer_s12 does not tell its blocks apart"):
        TimmEncoder("poolformer_s12").freeze(1)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_activations_change_no_output_gradient_or_statistic(name):
    images = torch.randn(2, 1, *SIZE)
    plain, saving = TimmEncoder(name, SIZE), TimmEncoder(name, SIZE)
    saving.load_state_dict(plain.state_dict())
    saving.checkpoint_activations()
    outputs = []
    for encoder in (plain, saving):
        encoder.freeze(1)
        torch.manual_seed(1)  # for stochastic depth
        outputs.append(encoder(images))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs)
    for (key, expected), parameter in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (expected.grad is None) == (parameter.grad is None), key
        if expected.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-4, rtol=1e-3, msg=key)
    for (key, expected), buffer in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert key.endswith("num_batches_tracked") or torch.equal(buffer, expected), key


def test_a_model_that_cannot_checkpoint_says_so():
    with pytest.raises(ModelError, match="timm:selecsls42 cannot checkpoint"):
        TimmEncoder("selecsls42").checkpoint_activations()


def test_an_unknown_model_is_refused():
    with pytest.raises(ModelError, match=r"no model 'resnet17'; timm\.list_models"):
        load_image_encoder("timm:resnet17", None)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("layer1.0.conv1.weight"),
        lambda state: state.update(more=torch.ones(1)),
        lambda state: state.update({"bn1.weight": torch.ones(3)}),
        lambda state: state.clear(),
    ],
    ids=["missing", "unexpected", "of another shape", "empty"],
)
def test_weights_must_fit_exactly(change):
    state = timm.create_model("resnet18").state_dict()
    change(state)
    with pytest.raises(ModelError, match="the weights do not fit timm:resnet18"):
        TimmEncoder("resnet18", None, state)


def test_a_stem_that_cannot_be_folded_is_refused():
    """Its stem is a linear layer on flattened patches, which timm would leave at random."""
    state = timm.create_model("naflexvit_base_patch16_gap").state_dict()
    with pytest.raises(ModelError, match="naflexvit_base_patch16_gap has no convolution at its start"):
        TimmEncoder("naflexvit_base_patch16_gap", None, state)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_timm_weights(tmp_path / "none.pth")


def test_an_unreachable_hub_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="download the weights"):
        read_timm_weights("timm/no-such-model.tag")


def test_a_hub_id_is_read_without_running_code(monkeypatch):
    asked = {}

    def fake_download(model_id, weights_only):
        asked.update(model_id=model_id, weights_only=weights_only)
        return {"weight": torch.ones(1)}

    monkeypatch.setattr("mammoclip.models.timm_encoder.load_state_dict_from_hf", fake_download)
    assert read_timm_weights("timm/resnet50.a1_in1k").keys() == {"weight"}
    assert asked == {"model_id": "timm/resnet50.a1_in1k", "weights_only": True}
