"""Any image model of timm as an encoder of grey mammograms.

Wightman, "PyTorch Image Models" (github.com/huggingface/pytorch-image-models). Shapes: B batch, H and W pixels,
F features, C channels of an inner map, h and w its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from timm.layers import to_2tuple
from timm.models import get_model_traits, group_parameters, load_state_dict_from_hf
from torch import Tensor, nn

from mammoclip.errors import ModelError
from mammoclip.models.batch_statistics import CountedOnce
from mammoclip.models.weights import read_weights

PREFIX = "timm:"
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class TimmEncoder(nn.Module):
    """A timm model without classifier; ``num_features`` is the width F of what its own pooling returns.

    It takes one channel. Weights of three are folded by their sum, which is exact, as the three channels of a grey
    image are equal. Pooling, dropout and stochastic depth are what timm gives the model.
    """

    def __init__(
        self,
        name: str,
        image_size_px: tuple[int, int] | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Build timm's model ``name``, random or with the weights ``state``, in timm's or the authors' names.

        ``image_size_px`` is (height, width) of the images to come, None for the model's own: models of one size are
        built for it, and the position embeddings in ``state`` are resized to it (bicubic).

        Raises:
            ModelError: if timm has no such model, it cannot take images of that size, or the weights do not fit.
        """
        super().__init__()
        if not timm.is_model(name):
            raise ModelError(f"timm has no model {name!r}; timm.list_models() lists the names")
        self.name = PREFIX + name
        self.image_size_px = image_size_px
        if image_size_px is not None:
            _check_size(name, image_size_px)
        self.backbone = _create(name, image_size_px) if state is None else _create_filled(name, image_size_px, state)
        self.num_features: int = self.backbone.head_hidden_size
        self._frozen: list[nn.Module] = []  # a list, so that frozen modules are not registered twice
        self._statistics: AbstractContextManager[Any] = nullcontext()

    @property
    def config(self) -> dict[str, Any]:
        """What ``image_encoder_from_config`` needs to build the same architecture again, ready for JSON."""
        return {"name": self.name, "image_size_px": self.image_size_px}

    def freeze(self, num_blocks: int) -> None:
        """Fix the stem and the first ``num_blocks`` blocks: no gradient, and batch norms keep their statistics.

        Blocks are timm's groups of layers: residual or transformer blocks; a norm after the last one may count as one
        more. 0 freezes nothing, not even the stem. Raises ``ModelError`` for more blocks than there are, or a model
        that does not tell its blocks apart.
        """
        if num_blocks == 0:
            return
        if not hasattr(self.backbone, "group_matcher"):
            raise ModelError(f"{self.name} does not tell its blocks apart, so none can be frozen; freeze 0 blocks")
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=False))
        if not 0 < num_blocks < len(groups):
            raise ModelError(f"cannot freeze {num_blocks} blocks: {self.name} has {len(groups) - 1}")
        for group in range(num_blocks + 1):  # group 0 is the stem
            for name in groups[group]:
                self.backbone.get_parameter(name).requires_grad_(False)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                self._frozen.append(module)
        self.train(self.training)

    def train(self, mode: bool = True) -> TimmEncoder:
        """Switch the mode of all that is not frozen; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Keep few activations for the backward pass and compute the others again: memory for time.

        Outputs, gradients and running statistics are those without it. Raises ``ModelError`` where timm's model
        cannot do it.
        """
        try:
            self.backbone.set_grad_checkpointing(True)
        except AssertionError as error:
            raise ModelError(f"{self.name} cannot checkpoint its activations; leave it off or take another") from error
        self._statistics = CountedOnce(self)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Inner maps (B, C, h, w) of normalised images (B, 1, H, W), one a stage or transformer block, first to last.

        Those of transformers are normalised by the model's last norm and leave out class and register tokens.
        """
        with self._statistics:
            maps: list[Tensor] = self.backbone.forward_intermediates(images, norm=True, intermediates_only=True)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W) to pooled features (B, F)."""
        with self._statistics:
            features: Tensor = self.backbone(images)
        return features


def read_timm_weights(weights: str | Path) -> dict[str, Tensor]:
    """The state dict in a weights file, or in a repository of the Hugging Face hub such as ``timm/resnet50.a1_in1k``.

    Raises ``ModelError`` when it is neither, or the hub cannot be reached and its cache does not hold it.
    """
    if Path(weights).is_file() or Path(weights).suffix in _FILE_SUFFIXES:
        return read_weights(weights)
    try:
        return dict(load_state_dict_from_hf(str(weights), weights_only=True))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"no weights at {str(weights)!r}: it is no file here and not found on the Hugging Face hub; check the "
            f"name, or download the weights and give the path of the file ({type(error).__name__})"
        ) from error


def _create(name: str, image_size_px: tuple[int, int] | None, **options: Any) -> Any:
    if image_size_px is not None and timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = image_size_px  # other models take any size, and no such option
    return timm.create_model(name, num_classes=0, in_chans=1, **options)


def _check_size(name: str, image_size_px: tuple[int, int]) -> None:
    """Windows, strides and patches allow some sizes only: try it on tensors without memory."""
    height, width = image_size_px
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = _create(name, image_size_px).eval()
            backbone(torch.empty(1, 1, height, width))
        patch = to_2tuple(getattr(getattr(backbone, "patch_embed", None), "patch_size", 1))
        if height % patch[0] or width % patch[1]:
            raise ValueError(f"patches of {patch[0]} x {patch[1]} pixels would leave out the border")
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{PREFIX}{name} cannot take images of height {height} and width {width}; take multiples of its patch, its "
            f"stride (often 32) or that times its window ({_brief(error)})"
        ) from error


def _create_filled(name: str, image_size_px: tuple[int, int] | None, state: Mapping[str, Tensor]) -> Any:
    """timm renames, resizes and folds the weights itself; nothing may be left over or stay random."""
    architecture = timm.get_pretrained_cfg(name)
    classifiers = architecture.classifier or ()
    heads = tuple(f"{head}." for head in ([classifiers] if isinstance(classifiers, str) else classifiers))
    # With a classifier or an address in its description timm would skip what is missing, or look for it elsewhere.
    description = {
        "state_dict": {key: value for key, value in state.items() if not key.startswith(heads)},
        "classifier": None,
        "url": None,
        "hf_hub_id": None,
        "custom_load": False,
    }
    try:
        backbone = _create(name, image_size_px, pretrained=True, pretrained_cfg_overlay=description)
    except (AssertionError, RuntimeError, KeyError, ValueError) as error:
        raise ModelError(
            f"the weights do not fit {PREFIX}{name}; check which model they are of ({_brief(error)})"
        ) from error
    stems = get_model_traits(backbone).get("first_conv") or ()
    for stem in [stems] if isinstance(stems, str) else stems:
        if not isinstance(backbone.get_submodule(stem), nn.Conv2d):  # timm folds no other layer and leaves it random
            raise ModelError(f"{PREFIX}{name} has no convolution at its start that could take grey; take another model")
    return backbone


def _brief(error: Exception) -> str:
    """What an exception of torch or timm says, in brief."""
    return " ".join(str(error).split())[:200] or type(error).__name__
