import math

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mammoclip.errors import ModelError
from mammoclip.models.efficientnet import VARIANTS, EfficientNet, StaticSameConv2d, drop_connect, fold_stem
from mammoclip.models.image_encoder import load_image_encoder

TIMM_NAMES = {
    "efficientnet-lite0": "tf_efficientnet_lite0",
    "efficientnet-b2": "tf_efficientnet_b2",
    "efficientnet-b5": "tf_efficientnet_b5",
}
# Names of the released encoder: a block without expansion and one with it.
B2_FIRST_NAMES = [
    "_conv_stem.weight",
    "_bn0.weight",
    "_blocks.0._depthwise_conv.weight",
    "_blocks.0._bn1.weight",
    "_blocks.0._se_reduce.weight",
    "_blocks.0._se_reduce.bias",
    "_blocks.0._se_expand.weight",
    "_blocks.0._se_expand.bias",
    "_blocks.0._project_conv.weight",
    "_blocks.0._bn2.weight",
    "_blocks.2._expand_conv.weight",
    "_blocks.2._bn0.running_var",
    "_conv_head.weight",
    "_bn1.num_batches_tracked",
]


def timm_state(name: str) -> dict[str, torch.Tensor]:
    """timm's weights, in its order (which is ours), without the classifier."""
    theirs = timm.create_model(TIMM_NAMES[name], pretrained=False, in_chans=1)
    return {key: value for key, value in theirs.state_dict().items() if not key.startswith("classifier.")}


def as_timm(encoder: EfficientNet) -> torch.nn.Module:
    """timm's model of the same variant (dynamic padding) with the weights of ``encoder``."""
    theirs = timm.create_model(TIMM_NAMES[encoder.name], pretrained=False, num_classes=0, in_chans=1)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), encoder.state_dict().values(), strict=True)))
    return theirs.eval()


@pytest.mark.parametrize(("name", "num_features"), zip(TIMM_NAMES, (1280, 1408, 2048), strict=True))
def test_topology_is_that_of_timm(name, num_features):
    encoder = EfficientNet(name)
    theirs = timm_state(name)
    assert encoder.num_features == num_features
    assert [value.shape for value in encoder.state_dict().values()] == [value.shape for value in theirs.values()]


def test_parameter_counts_are_the_published_ones():
    """Table 2 of the paper with a 1,000-class layer on top: 9.2 M (B2: 9.11) and 30 M (B5: 30.39)."""
    for name, published in (("efficientnet-b2", 9_109_994), ("efficientnet-b5", 30_389_784)):
        encoder = EfficientNet(name)
        classifier = (encoder.num_features + 1) * 1000
        colours = 2 * encoder._conv_stem.weight.numel()  # theirs has three input channels
        assert sum(p.numel() for p in encoder.parameters()) + colours + classifier == published


def test_names_are_those_of_the_released_encoder():
    names = EfficientNet("efficientnet-b2").state_dict().keys()
    assert set(B2_FIRST_NAMES) <= names
    assert "_blocks.0._expand_conv.weight" not in names


def test_lite_has_no_squeeze_excitation():
    assert not any("_se_" in name for name in EfficientNet("efficientnet-lite0").state_dict())


def test_pretrained_lite0_computes_what_timm_computes_at_its_own_size(lite0_weights):
    encoder = load_image_encoder("efficientnet-lite0", lite0_weights).eval()
    images = torch.randn(2, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), as_timm(encoder)(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet-b2"])
def test_squeeze_excitation_variants_compute_what_timm_computes_at_their_own_size(name):
    encoder = EfficientNet(name)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.randn(2, 1, 260, 260)
    with torch.no_grad():
        encoder(images)  # the batch norms take the statistics of these images: every layer is of unit scale
        ours, theirs = encoder.eval().forward_features(images), as_timm(encoder).forward_features(images)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_static_padding_differs_from_dynamic_where_parities_differ():
    """256 halves to even sides down to 8; the design size 260 becomes 65, 33, 17, whose padding is one pixel more."""
    encoder = EfficientNet("efficientnet-b2").eval()
    images = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        ours, theirs = encoder.forward_features(images), as_timm(encoder).forward_features(images)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() > 0.1 * theirs.std()


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        # Sides of the maps entering the stride-2 depthwise convolutions: 112, 56, 28, 14.
        ("efficientnet-lite0", [1, 1, 3, 1, 3]),
        # 260 -> 130, 130, 65, 33, 17: an odd side pads kernel - 1, an even one kernel - 2.
        ("efficientnet-b2", [1, 1, 4, 2, 4]),
        # 456 -> 228, 228, 114, 57, 29.
        ("efficientnet-b5", [1, 1, 3, 2, 4]),
    ],
)
def test_padding_of_the_strided_layers_follows_the_design_size(name, totals):
    """Worked by hand: stem, then the four strided blocks, whose inputs have the sides named above."""
    layers = [m for m in EfficientNet(name).modules() if isinstance(m, StaticSameConv2d) and m.stride == (2, 2)]
    assert [layer.total_padding for layer in layers] == totals


@given(st.integers(1, 40), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_same_padding_gives_ceil_of_size_over_stride_at_the_design_size(size, kernel, stride):
    conv = StaticSameConv2d(1, 1, kernel, image_size_px=size, stride=stride)
    assert conv(torch.zeros(1, 1, size, size)).shape[2:] == (math.ceil(size / stride),) * 2


def test_odd_padding_goes_to_the_bottom_and_the_right():
    conv = StaticSameConv2d(1, 1, 3, image_size_px=4, stride=2)
    torch.nn.init.ones_(conv.weight)
    # Total padding 1: the windows start at 0 and 2, the last one reaches one pixel over the edge.
    assert conv(torch.ones(1, 1, 4, 4)).flatten().tolist() == [9, 6, 6, 4]


def test_pooled_features_are_the_mean_of_the_last_map_and_mammograms_need_not_be_square():
    encoder = EfficientNet("efficientnet-lite0").eval()
    images = torch.randn(2, 1, 160, 96)
    maps = encoder.forward_features(images)
    assert maps.shape == (2, 1280, 5, 3)
    torch.testing.assert_close(encoder(images), maps.mean(dim=(2, 3)))


def test_inner_maps_come_in_order_before_the_head():
    encoder = EfficientNet("efficientnet-lite0").eval()
    maps = encoder.feature_maps(torch.randn(1, 1, 64, 64), after_blocks=(4, 10))
    assert [tuple(m.shape[1:]) for m in maps] == [(40, 8, 8), (112, 4, 4), (1280, 2, 2)]


def test_channels_last_changes_no_value():
    encoder = EfficientNet("efficientnet-lite0").eval()
    images = torch.randn(1, 1, 64, 64)
    expected = encoder(images)
    assert encoder.forward_features(images).is_contiguous(memory_format=torch.channels_last)
    encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-4)


def test_drop_connect_drops_whole_examples_and_keeps_the_mean():
    dropped = drop_connect(torch.ones(4000, 2, 1, 1), 0.2)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)


def test_drop_connect_rate_rises_with_the_block_index():
    rates = [block.drop_rate for block in EfficientNet("efficientnet-b5")._blocks]
    assert rates == pytest.approx([0.2 * i / 39 for i in range(39)])


def test_training_is_noisy_and_evaluation_is_not():
    encoder = EfficientNet("efficientnet-lite0")
    images = torch.randn(3, 1, 64, 64)
    assert not torch.equal(encoder(images), encoder(images))
    encoder.eval()
    assert torch.equal(encoder(images), encoder(images))


def test_batch_norm_constants():
    norms = [m for m in EfficientNet("efficientnet-lite0").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_the_folded_stem_computes_what_three_equal_channels_give(lite0_weights):
    """The reference is timm's three-channel model at the design size, where its padding is ours."""
    released = {k: v for k, v in torch.load(lite0_weights, weights_only=True).items() if not k.startswith("_fc.")}
    colour = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    colour.load_state_dict(dict(zip(colour.state_dict(), released.values(), strict=True)))
    stem = EfficientNet("efficientnet-lite0")._conv_stem
    stem.weight.data = fold_stem(released)["_conv_stem.weight"]
    grey = torch.randn(2, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            stem(grey), colour.conv_stem(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5, check_stride=False
        )
        encoder = load_image_encoder("efficientnet-lite0", lite0_weights).eval()
        torch.testing.assert_close(encoder(grey), colour(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_folding_touches_the_stem_alone_and_only_once():
    state = {"x._conv_stem.weight": torch.rand(4, 3, 3, 3), "x._conv_head.weight": torch.rand(4, 3, 1, 1)}
    folded = fold_stem(state, prefix="x.")
    assert torch.equal(folded["x._conv_stem.weight"], state["x._conv_stem.weight"].sum(dim=1, keepdim=True))
    assert folded["x._conv_head.weight"] is state["x._conv_head.weight"]
    assert torch.equal(fold_stem(folded, "x.")["x._conv_stem.weight"], folded["x._conv_stem.weight"])


def test_checkpointed_activations_change_no_output_gradient_or_statistic():
    images = torch.randn(2, 1, 64, 64)
    plain, saving = EfficientNet("efficientnet-lite0"), EfficientNet("efficientnet-lite0")
    saving.load_state_dict(plain.state_dict())
    saving.checkpoint_activations()
    outputs = []
    for encoder in (plain, saving):
        encoder.freeze(2)
        torch.manual_seed(1)  # for drop-connect and dropout
        outputs.append(encoder(images))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for (name, expected), parameter in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (expected.grad is None) == (parameter.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.grad, msg=name)
    for (name, expected), buffer in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.equal(buffer, expected), name


def test_safetensors_and_pth_load_alike(tmp_path, lite0_weights):
    from_pth = load_image_encoder("efficientnet-lite0", lite0_weights).state_dict()
    save_file(from_pth, tmp_path / "encoder.safetensors")
    again = load_image_encoder("efficientnet-lite0", tmp_path / "encoder.safetensors").state_dict()
    assert all(torch.equal(from_pth[name], again[name]) for name in from_pth)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match="efficientnet-b2, efficientnet-b5, efficientnet-lite0"):
        load_image_encoder("resnet50", None)


def test_design_sizes():
    assert {name: v.image_size_px for name, v in VARIANTS.items()} == {
        "efficientnet-lite0": 224,
        "efficientnet-b2": 260,
        "efficientnet-b5": 456,
    }


def test_frozen_blocks_keep_weights_and_batch_norm_statistics_while_the_rest_trains():
    encoder = EfficientNet("efficientnet-lite0")
    encoder.freeze(3)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(torch.randn(2, 1, 64, 32)).sum().backward()
    frozen = ("_conv_stem.", "_bn0.", "_blocks.0.", "_blocks.1.", "_blocks.2.")
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith(frozen) for name in changed)
    assert "_blocks.3._bn0.running_mean" in changed


def test_freezing_nothing_leaves_even_the_stem_to_train():
    encoder = EfficientNet("efficientnet-lite0")
    encoder.freeze(0)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_freezing_more_blocks_than_there_are_is_an_error():
    with pytest.raises(ModelError, match="cannot freeze 17 blocks: efficientnet-lite0 has 16"):
        EfficientNet("efficientnet-lite0").freeze(17)
