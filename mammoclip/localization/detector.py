"""RetinaNet on an image encoder of ours: torchvision's pyramid, heads, anchors, matcher and detections.

Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017). Shapes: B images of H x W pixels, C channels of a map
of h x w cells, K classes, A anchors of an image, N boxes of one. Boxes are ``x_min, y_min, x_max, y_max`` in pixels of
the image, measured at the edges of pixels: the whole image is ``0, 0, W, H``. Classes count from 0, without background.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mammoclip.config import Mode
from mammoclip.errors import ModelError
from mammoclip.models import EfficientNet, TimmEncoder
from mammoclip.models.image_encoder import ImageEncoder
from mammoclip.models.torchvision_ops import ensure_torchvision

ensure_torchvision()  # before torchvision is imported

from torchvision.models.detection import RetinaNet  # noqa: E402
from torchvision.models.detection._utils import BoxCoder, Matcher  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.retinanet import (  # noqa: E402
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import FeaturePyramidNetwork, sigmoid_focal_loss  # noqa: E402
from torchvision.ops.feature_pyramid_network import LastLevelP6P7  # noqa: E402

PYRAMID_STRIDES_PX = (8, 16, 32, 64, 128)
"""Pixels between cells of P3 to P7; the encoder's maps make the first three."""

_SMALLEST_PX = 64  # of a side: below, maps of two strides can have equally many cells
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # of a level's anchors: thirds of an octave, to the next level
_POSITIVE_IOU, _NEGATIVE_IOU = 0.5, 0.4  # between the two an anchor is not counted
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # offsets are coded in tenths of an anchor's sides, logarithms of sizes in fifths
_LINEAR_FROM = 1 / 9  # of smooth L1


@dataclass(frozen=True)
class Tap:
    """A map of the encoder, by its index among all, and what it serves as.

    ``stride_px`` is the distance of its cells; where that is not ``level_px``, the map is resampled to it.
    """

    index: int
    channels: int
    stride_px: float
    level_px: int


def build_detector(
    image_encoder: ImageEncoder,
    num_classes: int,
    size_px: tuple[int, int],
    *,
    mode: Mode,
    trains_encoder: bool,
    focal_alpha: float = 0.6,
    focal_gamma: float = 2.0,
    anchor_sizes_px: Sequence[float] = (32, 64, 128, 256, 512),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    max_detections: int = 100,
    score_threshold: float = 0.05,
    channels: int = 256,
    bf16: bool = False,
    seed: int = 0,
) -> Any:
    """Put torchvision's ``RetinaNet``, drawn from ``seed``, on a copy of ``image_encoder``, on the CPU.

    It takes normalised images (B, 1, H, W) of ``size_px``, (height, width), as they are; in training mode with targets,
    per image ``boxes`` (N, 4) and ``labels`` (N), and returns its losses, in evaluation mode its detections. A frozen
    encoder stays in evaluation mode, without gradient. In ``strict`` every box matches its nearest anchors, however
    small it is; in ``compat`` those alone that overlap it by half.

    The focal loss weighs positives with ``focal_alpha`` and negatives with ``1 - focal_alpha``; ``focal_gamma`` is how
    much less an anchor counts that is right already. ``anchor_sizes_px`` are sides of the smallest anchors of P3 to P7,
    two more follow in thirds of an octave; ``anchor_ratios`` are heights over widths, at equal area. An image has
    ``max_detections`` at most, above ``score_threshold``. Pyramid and heads are ``channels`` wide. With ``bf16``
    encoder, pyramid and heads compute in bfloat16; losses and boxes are float32.

    Raises:
        ModelError: see ``find_taps``.
    """
    taps = find_taps(image_encoder, size_px, mode)
    anchors = _CellAnchors(anchor_sizes_px, anchor_ratios)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        num_anchors = anchors.num_anchors_per_location()[0]
        head = _Head(channels, num_anchors, num_classes, (focal_alpha, focal_gamma), bf16=bf16)
        encoder = copy.deepcopy(image_encoder).cpu()
        backbone = _Pyramid(encoder, taps, channels, trains_encoder=trains_encoder, bf16=bf16)
    detector = RetinaNet(
        backbone,
        num_classes,
        anchor_generator=anchors,
        head=head,
        proposal_matcher=Matcher(_POSITIVE_IOU, _NEGATIVE_IOU, allow_low_quality_matches=mode == "strict"),
        score_thresh=score_threshold,
        detections_per_img=max_detections,
    )
    detector.box_coder = BoxCoder(_BOX_WEIGHTS)
    detector.transform = _Unchanged()
    return detector


def find_taps(image_encoder: ImageEncoder, size_px: tuple[int, int], mode: Mode) -> list[Tap]:
    """Return which maps of an encoder make P3, P4 and P5 for images of ``size_px``, (height, width).

    ``strict``: the last map of stride 8, of 16 and of 32; where an encoder has none, as transformers, its last map is
    resampled. [quirk] ``compat``, as released: the last map of stride 16 upsampled to 8, that of the last block but one
    upsampled from stride 32 to 16, and the head's; of encoders other than EfficientNets, such as the paper's ResNet-50,
    those of ``strict``, which are a RetinaNet's own.

    Raises:
        ModelError: the encoder has no maps, takes no images of that size, or they are too small.
    """
    if min(size_px) < _SMALLEST_PX:
        raise ModelError(
            f"images of height {size_px[0]} and width {size_px[1]} are too small for a detector; take at least "
            f"{_SMALLEST_PX} pixels a side"
        )
    shapes = _map_shapes(image_encoder, size_px)
    strides = [_stride_px(cells, size_px) for _, *cells in shapes]
    final, levels = len(shapes) - 1, PYRAMID_STRIDES_PX[:3]
    last = {stride: index for index, stride in enumerate(strides)}
    if mode == "compat" and isinstance(image_encoder, EfficientNet):
        chosen = [last[levels[1]], final - 2, final]
    else:
        chosen = [last.get(level, final) for level in levels]
    return [Tap(index, shapes[index][0], strides[index], level) for index, level in zip(chosen, levels, strict=True)]


def _map_shapes(image_encoder: ImageEncoder, size_px: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return (C, h, w) of every map, first to last, from a run on tensors without memory."""
    shadow = copy.deepcopy(image_encoder).to("meta").eval()
    every = range(len(shadow._blocks) + 1) if isinstance(shadow, EfficientNet) else None
    try:
        with torch.no_grad():
            maps = _maps(shadow, torch.empty(1, 1, *size_px, device="meta"), every)
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{image_encoder.name} gives no maps for images of height {size_px[0]} and width {size_px[1]}; take "
            f"another size or another encoder ({' '.join(str(error).split())[:200]})"
        ) from error
    return [tuple(each.shape[1:]) for each in maps]


def _maps(image_encoder: ImageEncoder, images: Tensor, indices: Iterable[int] | None) -> list[Tensor]:
    """Return the maps with these indices, in their order; of a timm model None means all."""
    if isinstance(image_encoder, TimmEncoder):
        maps = image_encoder.maps(images)
        return maps if indices is None else [maps[index] for index in indices]
    wanted, head = list(indices or ()), len(image_encoder._blocks)
    blocks = sorted({index for index in wanted if index != head})
    found = dict(zip([*blocks, head], image_encoder.feature_maps(images, blocks), strict=True))
    return [found[index] for index in wanted]


def _stride_px(cells: Sequence[int], size_px: tuple[int, int]) -> float:
    """Return the distance of a map's cells: a power of two if it can be one, with sizes rounded down or up."""
    for stride in (2, 4, *PYRAMID_STRIDES_PX):
        if all(count in (size // stride, -(-size // stride)) for count, size in zip(cells, size_px, strict=True)):
            return stride
    return size_px[0] / cells[0]


class _Pyramid(nn.Module):
    """The encoder and a feature pyramid on its maps: images (B, 1, H, W) to float32 maps P3 to P7 (B, C, h, w)."""

    def __init__(
        self, encoder: ImageEncoder, taps: Sequence[Tap], channels: int, *, trains_encoder: bool, bf16: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(trains_encoder)
        last = LastLevelP6P7(taps[-1].channels, channels)
        self.fpn = FeaturePyramidNetwork([tap.channels for tap in taps], channels, last)
        self.out_channels = channels
        self.taps = list(taps)
        self._trains_encoder = trains_encoder
        self._bf16 = bf16

    def train(self, mode: bool = True) -> _Pyramid:
        """Switch the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if not self._trains_encoder:
            self.encoder.eval()
        return self

    def inputs(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the encoder's maps at the strides of P3 to P5, (B, C, h, w) each."""
        with torch.set_grad_enabled(self._trains_encoder and torch.is_grad_enabled()):
            maps = _maps(self.encoder, images, [tap.index for tap in self.taps])
        return OrderedDict(
            (f"p{number}", _resample(each, tap.stride_px / tap.level_px))
            for number, (each, tap) in enumerate(zip(maps, self.taps, strict=True), start=3)
        )

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            pyramid = self.fpn(self.inputs(images))
        return OrderedDict((name, each.float()) for name, each in pyramid.items())  # anchors take the type of maps


def _resample(each: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return each
    return F.interpolate(each, scale_factor=factor, mode="nearest" if factor > 1 else "area")


class _CellAnchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors about the centres of cells, as released; torchvision's lie about their upper left corners."""

    cell_anchors: list[Tensor]

    def __init__(self, sizes_px: Sequence[float], ratios: Sequence[float]) -> None:
        sizes = tuple(tuple(size * scale for scale in _SCALES) for size in sizes_px)
        super().__init__(sizes, (tuple(ratios),) * len(sizes))
        of_levels = zip(self.cell_anchors, PYRAMID_STRIDES_PX, strict=True)
        self.cell_anchors = [anchors + stride / 2 for anchors, stride in of_levels]

    def grid_anchors(self, grid_sizes: list[Any], strides: list[Any]) -> list[Tensor]:
        """Take the true strides, not image size over cells, which is smaller where that does not come out even."""
        boxes: list[Tensor] = super().grid_anchors(grid_sizes, [(stride, stride) for stride in PYRAMID_STRIDES_PX])
        return boxes


class _FocalHead(RetinaNetClassificationHead):  # type: ignore[misc]
    """torchvision's head, whose loss has its own alpha and gamma built in, with ours."""

    focal: tuple[float, float]

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], matched_idxs: list[Tensor]
    ) -> Tensor:
        """Return the mean over images of the focal loss, summed over anchors and divided by the matched ones."""
        losses = []
        for target, logits, matched in zip(targets, head_outputs["cls_logits"], matched_idxs, strict=True):
            positive, counted = matched >= 0, matched != self.BETWEEN_THRESHOLDS
            truth = torch.zeros_like(logits)
            truth[positive, target["labels"][matched[positive]]] = 1.0
            loss = sigmoid_focal_loss(logits[counted], truth[counted], *self.focal, reduction="sum")
            losses.append(loss / positive.sum().clamp(min=1))
        return torch.stack(losses).mean()


class _SmoothL1Head(RetinaNetRegressionHead):  # type: ignore[misc]
    """torchvision's head with its smooth L1, the mean of a box's four numbers, linear from 1/9 on, as released.

    torchvision's is linear from 1 on, and L1(x) is ``L1(9 * x) / 9`` of that. Its coder makes targets 9 times as large.
    """

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__(channels, num_anchors)
        self._loss_type = "smooth_l1"
        self.box_coder = BoxCoder(tuple(weight / _LINEAR_FROM for weight in _BOX_WEIGHTS))

    def compute_loss(self, targets: Any, head_outputs: dict[str, Tensor], anchors: Any, matched_idxs: Any) -> Tensor:
        outputs = {"bbox_regression": head_outputs["bbox_regression"] / _LINEAR_FROM}
        loss: Tensor = super().compute_loss(targets, outputs, anchors, matched_idxs)
        return loss * _LINEAR_FROM / len(_BOX_WEIGHTS)


class _Head(RetinaNetHead):  # type: ignore[misc]
    """The two heads on maps (B, C, h, w): float32 logits (B, A, K) and box codes (B, A, 4)."""

    def __init__(
        self, channels: int, num_anchors: int, num_classes: int, focal: tuple[float, float], *, bf16: bool
    ) -> None:
        nn.Module.__init__(self)  # not torchvision's, which would make heads of its own
        self.classification_head = _FocalHead(channels, num_anchors, num_classes)
        self.classification_head.focal = focal
        self.regression_head = _SmoothL1Head(channels, num_anchors)
        self._bf16 = bf16

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        with torch.autocast(x[0].device.type, torch.bfloat16, enabled=self._bf16):
            outputs = super().forward(x)
        return {name: output.float() for name, output in outputs.items()}


class _Unchanged(nn.Module):
    """In place of torchvision's normalising and resizing: images and boxes stay as they are."""

    def forward(self, images: Iterable[Tensor], targets: Any = None) -> tuple[Any, Any]:
        batch = torch.stack(tuple(images))
        return ImageList(batch, [tuple(batch.shape[-2:])] * len(batch)), targets

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:
        return result
