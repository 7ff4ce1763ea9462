"""EfficientNet with static "same" padding and the parameter names of the released Mammo-CLIP image encoder.

Tan and Le, "EfficientNet" (ICML 2019). Shapes: B batch, C channels, H and W pixels, h and w cells of the last map
(stride 32). A convolution's "same" padding is worked out once, layer by layer, for the square image that the variant
was designed for (456 for B5) and then applied to every image, as the released weights were trained. Dynamic padding
(timm's ``tf_*``) differs wherever the parities of the two feature maps differ: keep it static.

Mammograms are grey, so the stem takes one channel; weights of three channels are folded when they are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mammoclip.errors import ModelError
from mammoclip.models.batch_statistics import CountedOnce

# Repeats, kernel, stride, expansion, channels of the seven stages of EfficientNet-B0 (table 1 of the paper).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_SQUEEZE_RATIO = 0.25
_DROP_CONNECT_RATE = 0.2


@dataclass(frozen=True)
class Variant:
    """What distinguishes one EfficientNet from another; ``lite``: no squeeze-excitation, ReLU6 in place of swish."""

    width: float
    depth: float
    image_size_px: int
    dropout: float
    lite: bool = False


VARIANTS = {
    "efficientnet-lite0": Variant(width=1.0, depth=1.0, image_size_px=224, dropout=0.2, lite=True),
    "efficientnet-b2": Variant(width=1.1, depth=1.2, image_size_px=260, dropout=0.3),
    "efficientnet-b5": Variant(width=1.6, depth=2.2, image_size_px=456, dropout=0.4),
}


def _round_channels(channels: int, width: float) -> int:
    """Scaled channel count as a multiple of 8, never more than 10 % below the exact value."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class StaticSameConv2d(nn.Conv2d):
    """A bias-free convolution, zero-padded so that a square of ``image_size_px`` becomes one of ceil(size / stride).

    The padding is fixed at construction; an odd total puts the extra row and column at the bottom and at the right.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, image_size_px: int, stride: int = 1, groups: int = 1
    ) -> None:
        """Fix the padding for maps of ``image_size_px`` squared at this layer's input."""
        total = max((math.ceil(image_size_px / stride) - 1) * stride + kernel - image_size_px, 0)
        before, after = total // 2, total - total // 2
        symmetric = before == after
        # Symmetric padding is left to the convolution, which saves a copy of the map.
        super().__init__(
            in_channels, out_channels, kernel, stride, padding=before if symmetric else 0, groups=groups, bias=False
        )
        self.total_padding = total
        self._pad = None if symmetric else (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return super().forward(input if self._pad is None else F.pad(input, self._pad))


def drop_connect(inputs: Tensor, rate: float) -> Tensor:
    """Zero whole examples with probability ``rate`` and scale the others by 1 / (1 - rate) (stochastic depth)."""
    keep = 1.0 - rate
    mask = torch.empty((inputs.shape[0], 1, 1, 1), dtype=inputs.dtype, device=inputs.device).bernoulli_(keep)
    return inputs / keep * mask


class MBConvBlock(nn.Module):
    """Mobile inverted bottleneck: expand, depthwise, squeeze-excite (not in lite), project, skip."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        image_size_px: int,
        lite: bool,
        drop_rate: float,
    ) -> None:
        """``image_size_px`` is the side of the map that enters; ``drop_rate`` that of drop-connect in training."""
        super().__init__()
        hidden = in_channels * expansion
        self.expands = expansion != 1
        self.squeezes = not lite
        self.skips = stride == 1 and in_channels == out_channels
        self.drop_rate = drop_rate
        if self.expands:
            self._expand_conv = StaticSameConv2d(in_channels, hidden, 1, image_size_px=image_size_px)
            self._bn0 = _batch_norm(hidden)
        self._depthwise_conv = StaticSameConv2d(
            hidden, hidden, kernel, image_size_px=image_size_px, stride=stride, groups=hidden
        )
        self._bn1 = _batch_norm(hidden)
        if self.squeezes:
            squeezed = max(1, int(in_channels * _SQUEEZE_RATIO))
            self._se_reduce = nn.Conv2d(hidden, squeezed, 1)
            self._se_expand = nn.Conv2d(squeezed, hidden, 1)
        self._project_conv = StaticSameConv2d(hidden, out_channels, 1, image_size_px=image_size_px)
        self._bn2 = _batch_norm(out_channels)
        self._act: nn.Module = nn.ReLU6() if lite else nn.SiLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        x = self._act(self._bn0(self._expand_conv(inputs))) if self.expands else inputs
        x = self._act(self._bn1(self._depthwise_conv(x)))
        if self.squeezes:
            squeezed = self._act(self._se_reduce(x.mean(dim=(2, 3), keepdim=True)))
            x = torch.sigmoid(self._se_expand(squeezed)) * x
        x = self._bn2(self._project_conv(x))
        if self.skips:
            if self.training and self.drop_rate > 0:
                x = drop_connect(x, self.drop_rate)
            x = x + inputs
        return x


class EfficientNet(nn.Module):
    """An image encoder named in ``VARIANTS``, randomly initialised; ``load_image_encoder`` gives it weights.

    ``num_features`` is the width of its output: 1,280 (lite0), 1,408 (B2), 2,048 (B5).
    """

    def __init__(self, name: str) -> None:
        """Build the variant ``name``; raises ``ModelError`` for an unknown one."""
        super().__init__()
        if name not in VARIANTS:
            raise ModelError(
                f"unknown image encoder {name!r}; choose one of {', '.join(sorted(VARIANTS))}, or timm:NAME for a "
                "model of timm"
            )
        variant = VARIANTS[name]
        self.name = name
        # Lite models keep the stem and the head of B0.
        fixed_width = 1.0 if variant.lite else variant.width
        self.num_features = _round_channels(_HEAD_CHANNELS, fixed_width)
        channels = _round_channels(_STEM_CHANNELS, fixed_width)
        size = variant.image_size_px
        self._conv_stem = StaticSameConv2d(1, channels, 3, image_size_px=size, stride=2)
        self._bn0 = _batch_norm(channels)
        size = math.ceil(size / 2)
        blocks: list[MBConvBlock] = []
        repeats_per_stage = [math.ceil(stage[0] * variant.depth) for stage in _STAGES]
        for repeats, (_, kernel, first_stride, expansion, base_channels) in zip(
            repeats_per_stage, _STAGES, strict=True
        ):
            out_channels = _round_channels(base_channels, variant.width)
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                block = MBConvBlock(
                    channels,
                    out_channels,
                    kernel=kernel,
                    stride=stride,
                    expansion=expansion,
                    image_size_px=size,
                    lite=variant.lite,
                    drop_rate=_DROP_CONNECT_RATE * len(blocks) / sum(repeats_per_stage),
                )
                blocks.append(block)
                channels, size = out_channels, math.ceil(size / stride)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = StaticSameConv2d(channels, self.num_features, 1, image_size_px=size)
        self._bn1 = _batch_norm(self.num_features)
        self._dropout = nn.Dropout(variant.dropout)
        self._act: nn.Module = nn.ReLU6() if variant.lite else nn.SiLU()
        self._frozen: list[nn.Module] = []  # a list, so that frozen modules are not registered twice
        self._checkpoints = False
        self._statistics: AbstractContextManager[Any] = nullcontext()
        self._initialise()

    def _initialise(self) -> None:
        """Fan-out normal weights, as in the paper's released code; batch norms start at identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def config(self) -> dict[str, Any]:
        """What ``image_encoder_from_config`` needs to build the same architecture again, ready for JSON."""
        return {"name": self.name}

    def checkpoint_activations(self) -> None:
        """Keep only the maps between blocks for the backward pass and compute the others again: memory for time.

        Outputs, gradients and running statistics are those without it.
        """
        self._checkpoints = True
        self._statistics = CountedOnce(self)

    def freeze(self, num_blocks: int) -> None:
        """Fix the stem and the first ``num_blocks`` blocks: no gradient, and batch norms keep their statistics.

        0 freezes nothing, not even the stem. Raises ``ModelError`` for more blocks than there are.
        """
        if not 0 <= num_blocks <= len(self._blocks):
            raise ModelError(f"cannot freeze {num_blocks} blocks: {self.name} has {len(self._blocks)}")
        self._frozen = [self._conv_stem, self._bn0, *self._blocks[:num_blocks]] if num_blocks else []
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> EfficientNet:
        """Switch the mode of all that is not frozen; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def feature_maps(self, images: Tensor, after_blocks: Sequence[int]) -> list[Tensor]:
        """The maps that leave the blocks ``after_blocks`` (rising indices), then the head's map (B, C, h, w)."""
        # Channels last, which is faster on CPUs. On the input, not the weights: engines that flatten parameters (ZeRO)
        # would undo it there. By a view: with one channel ``contiguous`` finds both orders alike and changes nothing.
        x = images.squeeze(1).unsqueeze(-1).movedim(-1, 1)
        maps: list[Tensor] = []
        with self._statistics:
            x = self._act(self._bn0(self._conv_stem(x)))
            for index, block in enumerate(self._blocks):
                x = checkpoint(block, x, use_reentrant=False) if self._checkpoints else block(x)
                if index in after_blocks:
                    maps.append(x)
            maps.append(self._act(self._bn1(self._conv_head(x))))
        return maps

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W) to the last feature map (B, C, h, w) of stride 32."""
        return self.feature_maps(images, ())[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W) to average-pooled features (B, C), under dropout while training."""
        pooled: Tensor = self._dropout(self.forward_features(images).mean(dim=(2, 3)))
        return pooled


def fold_stem(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The state dict of an ``EfficientNet`` (names after ``prefix``) with a stem of one channel, whatever it had.

    A grey image shown in three channels is weighted with the sum of their weights: the outputs are the same.
    """
    name = f"{prefix}_conv_stem.weight"
    return {key: value.sum(dim=1, keepdim=True) if key == name else value for key, value in state.items()}
