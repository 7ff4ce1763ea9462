"""The detector: where its maps come from, what its losses and anchors are, and what training may not touch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mammoclip.errors import ModelError
from mammoclip.localization.detector import PYRAMID_STRIDES_PX, build_detector, find_taps
from mammoclip.models import EfficientNet, TimmEncoder

SIZE_PX = (64, 96)
SMALL = {"anchor_sizes_px": (12, 24, 48, 96, 192)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder() -> EfficientNet:
    torch.manual_seed(0)
    return EfficientNet("efficientnet-lite0").eval()


def build(encoder: EfficientNet | TimmEncoder, size_px: tuple[int, int] = SIZE_PX, **changes: Any) -> Any:
    options = {"mode": "strict", "trains_encoder": False, **SMALL, **changes}
    return build_detector(encoder, options.pop("num_classes", 1), size_px, **options)


def images(number: int, size_px: tuple[int, int] = SIZE_PX, seed: int = 1) -> Tensor:
    return torch.randn(number, 1, *size_px, generator=torch.Generator().manual_seed(seed))


def targets(*boxes: list[tuple[float, ...]]) -> list[dict[str, Tensor]]:
    """One list of boxes an image, all of class 0."""
    return [
        {"boxes": torch.tensor(each).reshape(-1, 4), "labels": torch.zeros(len(each), dtype=torch.int64)}
        for each in boxes
    ]


# Where the maps come from


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-b2"])
def test_strict_takes_the_last_maps_of_stride_8_and_16_and_the_head(name: str) -> None:
    efficientnet = EfficientNet(name).eval()
    every = range(len(efficientnet._blocks))
    with torch.no_grad():
        widths = [each.shape[-1] for each in efficientnet.feature_maps(images(1), every)]
        inputs = build(efficientnet).backbone.eval().inputs(images(1))
    taps = find_taps(efficientnet, SIZE_PX, "strict")
    assert [tap.stride_px for tap in taps] == [tap.level_px for tap in taps] == [8, 16, 32]
    for tap, each in zip(taps, inputs.values(), strict=True):
        assert each.shape == (1, tap.channels, SIZE_PX[0] // tap.level_px, SIZE_PX[1] // tap.level_px)
        assert tap.index == max(index for index, width in enumerate(widths) if width == SIZE_PX[1] // tap.level_px)
    assert taps[-1].index == len(every)


@pytest.mark.parametrize(
    ("name", "blocks", "channels"),
    [("efficientnet-b5", [26, 37], [176, 512, 2048]), ("efficientnet-b2", [15, 21], [120, 352, 1408])],
)
def test_compat_takes_the_blocks_of_the_released_detector(name: str, blocks: list[int], channels: list[int]) -> None:
    efficientnet = EfficientNet(name)
    taps = find_taps(efficientnet, (512, 512), "compat")
    assert [tap.index for tap in taps] == [*blocks, len(efficientnet._blocks)]
    assert [tap.channels for tap in taps] == channels
    assert [tap.stride_px for tap in taps] == [16, 32, 32]
    assert [tap.level_px for tap in taps] == [8, 16, 32]


def test_strict_taps_of_the_released_encoder_at_the_size_of_pretraining_have_true_strides() -> None:
    taps = find_taps(EfficientNet("efficientnet-b5"), (1520, 912), "strict")  # 47.5 x 28.5 cells of stride 32
    assert [(tap.index, tap.channels, tap.stride_px) for tap in taps] == [(12, 64, 8), (26, 176, 16), (39, 2048, 32)]


def test_compat_doubles_its_first_two_maps(encoder: EfficientNet) -> None:
    taps = find_taps(encoder, SIZE_PX, "compat")
    with torch.no_grad():
        inputs = list(build(encoder, mode="compat").backbone.eval().inputs(images(2)).values())
        maps = encoder.feature_maps(images(2), [tap.index for tap in taps[:2]])
    for found, each in zip(inputs, maps, strict=True):
        repeats = 1 if each is maps[-1] else 2
        assert torch.equal(found, each.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3))
    assert [each.shape[2:] for each in inputs] == [(8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_encoders_of_timm_give_maps_of_three_strides(name: str) -> None:
    taps = find_taps(TimmEncoder(name), SIZE_PX, "strict")
    assert [tap.stride_px for tap in taps] == [8, 16, 32]
    inputs = build(TimmEncoder(name)).backbone.eval().inputs(images(1))
    assert [each.shape[2:] for each in inputs.values()] == [(8, 12), (4, 6), (2, 3)]


def test_compat_of_the_paper_s_resnet_has_its_own_maps_of_three_strides() -> None:
    resnet = TimmEncoder("test_resnet")
    assert find_taps(resnet, SIZE_PX, "compat") == find_taps(resnet, SIZE_PX, "strict")


def test_the_map_of_a_transformer_is_resampled() -> None:
    vit = TimmEncoder("test_vit", SIZE_PX)
    assert {(tap.index, tap.stride_px) for tap in find_taps(vit, SIZE_PX, "strict")} == {(5, 16)}
    detector = build(vit).eval()
    with torch.no_grad():
        fine, true, coarse = detector.backbone.inputs(images(1)).values()
    assert torch.equal(true, vit.eval().maps(images(1))[-1])
    assert torch.equal(fine[..., ::2, ::2], true)
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(true, 2))


def test_the_pyramid_has_five_levels_of_stride_8_to_128(encoder: EfficientNet) -> None:
    with torch.no_grad():
        pyramid = build(encoder, (128, 256)).backbone(images(1, (128, 256)))
    assert [tuple(each.shape) for each in pyramid.values()] == [
        (1, 256, 128 // stride, 256 // stride) for stride in PYRAMID_STRIDES_PX
    ]


@pytest.mark.parametrize(
    ("encoder_name", "size_px", "says"),
    [
        ("test_resnet", (32, 512), "height 32 and width 512 are too small .* at least 64 pixels a side"),
        ("vit_tiny_patch16_224", (64, 128), "gives no maps for images of height 64 and width 128"),
    ],
)
def test_what_cannot_be_a_detector_is_one_sentence(encoder_name: str, size_px: tuple[int, int], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        build(TimmEncoder(encoder_name, SIZE_PX), size_px)


# Anchors and matches


def test_nine_anchors_lie_about_the_centre_of_every_cell(encoder: EfficientNet) -> None:
    size_px = (80, 104)  # cells of 32 pixels do not come out even
    detector = build(encoder, size_px).eval()
    maps = list(detector.backbone(images(1, size_px)).values())
    batch, _ = detector.transform(images(1, size_px))
    (anchors,) = detector.anchor_generator(batch, maps)
    expected = []
    for each, stride, side in zip(maps, PYRAMID_STRIDES_PX, SMALL["anchor_sizes_px"], strict=True):
        for row in range(each.shape[2]):
            for column in range(each.shape[3]):
                for ratio in (0.5, 1.0, 2.0):
                    for octave in range(3):
                        width = side * 2 ** (octave / 3) / np.sqrt(ratio)
                        centre = ((column + 0.5) * stride, (row + 0.5) * stride)
                        expected.append([*centre, width, width * ratio])
    found = torch.column_stack([(anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]]).numpy()
    np.testing.assert_allclose(found[:, :2], np.array(expected)[:, :2], atol=1e-4)
    np.testing.assert_allclose(found[:, 2:], np.array(expected)[:, 2:], atol=1.0)  # torchvision rounds half sides


@pytest.mark.parametrize(("mode", "matches"), [("strict", True), ("compat", False)])
def test_a_box_smaller_than_every_anchor_is_matched_in_strict_alone(
    encoder: EfficientNet, mode: str, matches: bool
) -> None:
    detector = build(encoder, mode=mode).train()
    tiny = targets([(30.0, 30.0, 33.0, 33.0)])
    assert (float(detector(images(1), tiny)["bbox_regression"].detach()) > 0) is matches


# Losses


def focal(logits: np.ndarray, truth: np.ndarray, alpha: float, gamma: float) -> np.ndarray:
    """Equation 5 of Lin et al."""
    probability = 1 / (1 + np.exp(-logits))
    of_truth = np.where(truth, probability, 1 - probability)
    return -np.where(truth, alpha, 1 - alpha) * (1 - of_truth) ** gamma * np.log(of_truth)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.6, 2.0), (0.25, 2.0), (0.6, 0.0), (0.25, 3.5)])
def test_the_focal_loss_has_the_alpha_and_gamma_that_were_asked_for(
    encoder: EfficientNet, alpha: float, gamma: float
) -> None:
    head = build(encoder, num_classes=3, focal_alpha=alpha, focal_gamma=gamma).head.classification_head
    logits = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    labels = [{"labels": torch.tensor([2, 0])}, {"labels": torch.zeros(0, dtype=torch.int64)}]
    matched = [torch.tensor([-1, 0, 1, -2, 1, -1]), torch.full((6,), -1)]  # -2: neither positive nor negative
    truth = np.zeros((2, 6, 3), bool)
    truth[0, [1, 2, 4], [2, 0, 0]] = True
    each = focal(logits.double().numpy(), truth, alpha, gamma)
    expected = (each[0, [0, 1, 2, 4, 5]].sum() / 3 + each[1].sum()) / 2
    assert float(head.compute_loss(labels, {"cls_logits": logits}, matched)) == pytest.approx(expected, rel=1e-5)


def test_alpha_weighs_positives_against_negatives_in_the_loss_of_training(encoder: EfficientNet) -> None:
    """It is linear in alpha, and the loss of negatives alone falls with it."""
    square = targets([(20.0, 20.0, 40.0, 40.0)], [])
    found = [
        float(build(encoder, focal_alpha=alpha).train()(images(2), square)["classification"].detach())
        for alpha in (0.2, 0.5, 0.8)
    ]
    assert found[1] == pytest.approx((found[0] + found[2]) / 2, rel=1e-5)
    none = targets([], [])
    low, high = (
        float(build(encoder, focal_alpha=alpha).train()(images(2), none)["classification"].detach())
        for alpha in (0.25, 0.75)
    )
    assert low == pytest.approx(3 * high, rel=1e-5)


def test_the_box_loss_is_smooth_l1_of_what_the_box_coder_makes(encoder: EfficientNet) -> None:
    head = build(encoder).head.regression_head
    anchors = torch.tensor([[0.0, 0.0, 20.0, 10.0], [10.0, 10.0, 30.0, 30.0], [0.0, 0.0, 8.0, 8.0]])
    boxes = torch.tensor([[1.0, 0.0, 21.0, 12.0], [10.0, 12.0, 34.0, 28.0]])
    matched = torch.tensor([0, 1, -1])
    predicted = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    sides, true_sides = anchors[:2, 2:] - anchors[:2, :2], boxes[:, 2:] - boxes[:, :2]
    offsets = (boxes[:, :2] + boxes[:, 2:] - anchors[:2, :2] - anchors[:2, 2:]) / 2 / sides
    truth = torch.column_stack([offsets * 10, (true_sides / sides).log() * 5])
    error = (predicted[0, :2] - truth).abs()
    expected = torch.where(error < 1 / 9, 4.5 * error**2, error - 1 / 18).mean()
    of_image = [{"boxes": boxes}]
    found = head.compute_loss(of_image, {"bbox_regression": predicted}, [anchors], [matched])
    torch.testing.assert_close(found, expected)


def test_what_the_box_loss_asks_for_is_what_is_detected(encoder: EfficientNet) -> None:
    """Codes at which the loss is 0 are decoded to the true boxes."""
    detector = build(encoder)
    anchors, boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0]]), torch.tensor([[12.0, 9.0, 31.0, 33.0]])
    codes = detector.box_coder.encode_single(boxes, anchors)
    loss = detector.head.regression_head.compute_loss(
        [{"boxes": boxes}], {"bbox_regression": codes[None]}, [anchors], [torch.tensor([0])]
    )
    assert float(loss) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(detector.box_coder.decode_single(codes, anchors), boxes)


# What is trained


@pytest.mark.parametrize("trains", [False, True])
def test_a_frozen_encoder_keeps_weights_and_statistics_and_a_trained_one_does_not(trains: bool) -> None:
    torch.manual_seed(0)
    given = TimmEncoder("test_efficientnet")  # batch norms
    before = {name: value.clone() for name, value in given.state_dict().items()}
    detector = build(given, trains_encoder=trains).train()
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], 1e-2)
    for seed in range(2):
        losses = detector(images(2, seed=seed), targets([(20.0, 20.0, 40.0, 40.0)], []))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    after = detector.backbone.encoder.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert {"backbone.bn1.running_mean", "backbone.conv_stem.weight"} <= moved if trains else not moved
    assert all(torch.equal(given.state_dict()[name], value) for name, value in before.items())  # a copy is trained
    assert detector.backbone.encoder.training is trains
    assert all(parameter.grad is not None for parameter in detector.backbone.fpn.parameters())
    assert all(parameter.grad is not None for parameter in detector.head.parameters())


def test_images_without_a_box_teach_that_there_is_nothing(encoder: EfficientNet) -> None:
    losses = build(encoder).train()(images(2), targets([], []))
    assert float(losses["bbox_regression"].detach()) == 0
    assert float(losses["classification"].detach()) > 0
    sum(losses.values()).backward()


def test_a_seed_gives_the_same_detector_and_leaves_other_random_numbers_alone(encoder: EfficientNet) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, third = (build(encoder, seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert not all(torch.equal(third[name], value) for name, value in first.items())


# What is detected


def test_no_more_is_detected_than_is_allowed_and_nothing_at_or_below_the_threshold(encoder: EfficientNet) -> None:
    with torch.no_grad():
        (many,) = build(encoder, score_threshold=0.0, max_detections=5, num_classes=2).eval()(images(1))
        (none,) = build(encoder, score_threshold=0.5).eval()(images(1))
    assert many["boxes"].shape == (5, 4)
    assert many["scores"].tolist() == sorted(many["scores"].tolist(), reverse=True)
    assert set(many["labels"].tolist()) <= {0, 1}
    assert (many["boxes"] >= 0).all()
    assert (many["boxes"] <= torch.tensor([96, 64, 96, 64])).all()
    assert len(none["boxes"]) == len(none["scores"]) == len(none["labels"]) == 0


def test_bf16_gives_about_the_same_losses_in_float32(encoder: EfficientNet) -> None:
    square = targets([(20.0, 20.0, 40.0, 40.0)])
    exact, rounded = (build(encoder, bf16=bf16).train()(images(1), square) for bf16 in (False, True))
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert not torch.equal(rounded[name], value)
        torch.testing.assert_close(rounded[name], value, rtol=0.05, atol=1e-3)
