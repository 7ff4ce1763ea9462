"""Image encoders by name: our EfficientNets with the released padding, and every model of timm as ``timm:NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammoclip.models.efficientnet import EfficientNet, fold_stem
from mammoclip.models.timm_encoder import PREFIX, TimmEncoder, read_timm_weights
from mammoclip.models.weights import load_into, read_weights

ImageEncoder = EfficientNet | TimmEncoder


def load_image_encoder(
    name: str, weights: str | Path | None, image_size_px: tuple[int, int] | None = None
) -> ImageEncoder:
    """Build the encoder ``name`` and, unless ``weights`` is None, fill it from a ``.pth`` or ``.safetensors`` file.

    For ``timm:NAME`` the weights may be an id of the Hugging Face hub too, such as ``timm/resnet50.a1_in1k``, and
    ``image_size_px``, (height, width), is what position embeddings are resized to; other encoders take any size.

    The file holds the encoder's own state dict, of one or three input channels; a classifier in it is ignored, anything
    else missing, unexpected or of another shape raises ``ModelError``. Pickled files are read without running code
    from them.
    """
    if name.startswith(PREFIX):
        state = None if weights is None else read_timm_weights(weights)
        return TimmEncoder(name.removeprefix(PREFIX), image_size_px, state)
    encoder = EfficientNet(name)
    if weights is not None:
        state = {key: value for key, value in read_weights(weights).items() if not key.startswith("_fc.")}
        load_into(encoder, fold_stem(state), source=f"{weights} for {name}")
    return encoder


def image_encoder_from_config(config: Mapping[str, Any]) -> ImageEncoder:
    """A randomly initialised encoder of the architecture that an encoder's ``config`` describes."""
    size = config.get("image_size_px")
    return load_image_encoder(config["name"], None, None if size is None else (int(size[0]), int(size[1])))
