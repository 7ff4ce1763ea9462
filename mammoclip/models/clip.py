"""The two-tower model: image encoder, text encoder and a linear projection of each into one space.

Mammo-CLIP (MICCAI 2024), section 2. Shapes: B batch, H and W pixels, T tokens, C encoder width, D embedding width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mammoclip.models.efficientnet import EfficientNet, load_image_encoder
from mammoclip.models.text_encoder import TextEncoder, load_text_encoder

INITIAL_TEMPERATURE = 0.07


@dataclass(frozen=True)
class ImageEncoderSpec:
    """A name in ``efficientnet.VARIANTS`` and the file of its pretrained weights (None: random)."""

    name: str
    weights: str | Path | None = None


@dataclass(frozen=True)
class TextEncoderSpec:
    """A local folder or a Hugging Face hub id of a BERT-like model."""

    name_or_path: str | Path


class Projection(nn.Module):
    """One linear layer with bias from encoder width to embedding width."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Draw the layer from torch's default initialisation."""
        super().__init__()
        self.projection = nn.Linear(in_features, out_features)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C) to (B, D)."""
        projected: Tensor = self.projection(features)
        return projected


class MammoClip(nn.Module):
    """Embeds mammograms and sentences into one space.

    ``logit_scale`` is the logarithm of the factor applied to cosine similarities (initially log(1 / 0.07)); use
    ``logit_scale.exp()`` in the loss.
    """

    def __init__(self, image_encoder: EfficientNet, text_encoder: TextEncoder, embedding_dim: int = 512) -> None:
        """Join the two encoders; the projections are drawn from torch's global random state."""
        super().__init__()
        self.embedding_dim = embedding_dim
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = Projection(image_encoder.num_features, embedding_dim)
        self.text_projection = Projection(text_encoder.num_features, embedding_dim)
        # One element, not zero dimensions: DeepSpeed cannot broadcast a scalar parameter.
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / INITIAL_TEMPERATURE)))

    def image_features(self, images: Tensor) -> Tensor:
        """Pooled features (B, C) before the projection, of normalised images (B, 1 or 3, H, W); see ``normalise``."""
        features: Tensor = self.image_encoder(images.expand(-1, 3, -1, -1))
        return features

    def encode_image(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of normalised images (B, 1 or 3, H, W); one channel is repeated."""
        return self.project_image(self.image_features(images))

    def project_image(self, features: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of pooled features (B, C), for those who keep the features too."""
        return F.normalize(self.image_projection(features), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of token ids and their mask, both (B, T)."""
        return F.normalize(self.text_projection(self.text_encoder(input_ids, attention_mask)), dim=-1)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image embeddings, text embeddings and ``logit_scale``: one call, as data-parallel wrappers need it."""
        return self.encode_image(images), self.encode_text(input_ids, attention_mask), self.logit_scale


def build_model(
    image_encoder: ImageEncoderSpec, text_encoder: TextEncoderSpec, embedding_dim: int = 512, seed: int = 0
) -> MammoClip:
    """A model ready for pretraining: encoders from their weights, what has no weights drawn from ``seed``.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MammoClip(
            load_image_encoder(image_encoder.name, image_encoder.weights),
            load_text_encoder(text_encoder.name_or_path),
            embedding_dim,
        )
