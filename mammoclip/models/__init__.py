"""Encoders, the two-tower model and its file format."""

from mammoclip.models.torchvision_ops import ensure_torchvision

ensure_torchvision()  # before anything below imports torchvision, directly or through transformers

from mammoclip.models.checkpoint import load, model_folder, save_pretrained  # noqa: E402
from mammoclip.models.clip import ImageEncoderSpec, MammoClip, TextEncoderSpec, build_model  # noqa: E402
from mammoclip.models.efficientnet import EfficientNet  # noqa: E402
from mammoclip.models.image_encoder import load_image_encoder  # noqa: E402
from mammoclip.models.inference import LoadedModel  # noqa: E402
from mammoclip.models.preprocess import normalise  # noqa: E402
from mammoclip.models.text_encoder import TextEncoder, load_text_encoder, load_tokenizer, tokenise  # noqa: E402
from mammoclip.models.timm_encoder import TimmEncoder  # noqa: E402

__all__ = [
    "EfficientNet",
    "ImageEncoderSpec",
    "LoadedModel",
    "MammoClip",
    "TextEncoder",
    "TextEncoderSpec",
    "TimmEncoder",
    "build_model",
    "load",
    "load_image_encoder",
    "load_text_encoder",
    "load_tokenizer",
    "model_folder",
    "normalise",
    "save_pretrained",
    "tokenise",
]
