"""Image encoders by name: our EfficientNets with the released padding, and every model of timm as ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammoclip.models.efficientnet import EfficientNet, fold_stem
from mammoclip.models.timm_encoder import PREFIX, TimmEncoder, read_timm_weights
from mammoclip.models.timm_names import is_timm_efficientnet, rename_timm_efficientnet
from mammoclip.models.weights import load_into

ImageEncoder = EfficientNet | TimmEncoder


def load_image_encoder(
    name: str, weights: str | Path | None, image_size_px: tuple[int, int] | None = None
) -> ImageEncoder:
    """Build the encoder ``name`` and, unless ``weights`` is None, fill it.

    Weights are a ``.pth`` or ``.safetensors`` file or an id of the Hugging Face hub, such as ``timm/resnet50.a1_in1k``;
    for our EfficientNets in their own names or in those of timm's ``tf_efficientnet_*``, which are the same networks.
    For ``timm:NAME`` ``image_size_px``, (height, width), is what position embeddings are resized to; other encoders
    take any size.

    The stem has one or three input channels; a classifier is ignored, anything else missing, unexpected or of another
    shape raises ``ModelError``. Pickled files are read without running code from them.
    """
    state = None if weights is None else read_timm_weights(weights)
    if name.startswith(PREFIX):
        return TimmEncoder(name.removeprefix(PREFIX), image_size_px, state)
    encoder = EfficientNet(name)
    if state is not None:
        if is_timm_efficientnet(state):
            state = rename_timm_efficientnet(state)
        own = {key: value for key, value in state.items() if not key.startswith("_fc.")}
        load_into(encoder, fold_stem(own), source=f"{weights} for {name}")
    return encoder


def image_encoder_from_config(config: Mapping[str, Any]) -> ImageEncoder:
    """A randomly initialised encoder of the architecture that an encoder's ``config`` describes."""
    size = config.get("image_size_px")
    return load_image_encoder(config["name"], None, None if size is None else (int(size[0]), int(size[1])))
