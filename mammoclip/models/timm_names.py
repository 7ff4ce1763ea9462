"""EfficientNet weights of timm in the names of the released encoder (Tan and Le's, by way of EfficientNet-PyTorch)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)")
_OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
_INSIDE = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
# The blocks of the first stage do not expand.
_INSIDE_FIRST = {**_INSIDE, "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}


def is_timm_efficientnet(state: Mapping[str, Tensor]) -> bool:
    """Return whether the names are timm's."""
    return "conv_stem.weight" in state


def rename_timm_efficientnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of timm's ``tf_efficientnet_*`` in the names of ``EfficientNet``; the classifier is left out.

    Names that timm's models do not have stay as they are, for a strict loader to complain about.
    """
    blocks = sorted({(int(match[1]), int(match[2])) for name in state if (match := _BLOCK.fullmatch(name))})
    numbers = {block: number for number, block in enumerate(blocks)}
    renamed = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if module == "classifier":
            continue
        if match := _BLOCK.fullmatch(name):
            stage, block = int(match[1]), int(match[2])
            inside = (_INSIDE if stage else _INSIDE_FIRST).get(match[3], match[3])
            renamed[f"_blocks.{numbers[stage, block]}.{inside}.{match[4]}"] = value
        else:
            renamed[f"{_OUTSIDE.get(module, module)}.{leaf}"] = value
    return renamed
