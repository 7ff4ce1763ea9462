"""The two-tower model: image encoder, text encoder and a projection of each into one space.

Mammo-CLIP (MICCAI 2024), section 2. Shapes: B batch, H and W pixels, T tokens, C encoder width, D embedding width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mammoclip.errors import ModelError
from mammoclip.models.image_encoder import ImageEncoder, load_image_encoder
from mammoclip.models.text_encoder import TextEncoder, load_text_encoder

INITIAL_TEMPERATURE = 0.07
INITIAL_SIGMOID_SCALE = 10.0
INITIAL_SIGMOID_BIAS = -10.0
ProjectionKind = Literal["linear", "mlp"]


@dataclass(frozen=True)
class ImageEncoderSpec:
    """A name in ``efficientnet.VARIANTS`` or ``timm:NAME``, and its pretrained weights (None: random).

    Weights are a file, or for timm also a hub id; ``image_size_px`` is (height, width) of the images, which timm's
    models with position embeddings or windows have to know (None: their own).
    """

    name: str
    weights: str | Path | None = None
    image_size_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class TextEncoderSpec:
    """A local folder or a Hugging Face hub id of a BERT-like model.

    With a ``lora_rank`` above 0 only adapters of that rank are trained (see ``lora``).
    """

    name_or_path: str | Path
    lora_rank: int = 0


class Projection(nn.Module):
    """From encoder width to embedding width: one linear layer with bias, or for ``mlp`` two with a GELU between.

    The hidden layer of the MLP is as wide as the embedding.
    """

    def __init__(self, in_features: int, out_features: int, kind: ProjectionKind = "linear") -> None:
        """Draw the layers from torch's default initialisation; raises ``ModelError`` for an unknown kind."""
        super().__init__()
        if kind not in ("linear", "mlp"):
            raise ModelError(f"unknown projection {kind!r}; choose linear or mlp")
        first = nn.Linear(in_features, out_features)
        self.projection: nn.Module = (
            first if kind == "linear" else nn.Sequential(first, nn.GELU(), nn.Linear(out_features, out_features))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C) to (B, D)."""
        projected: Tensor = self.projection(features)
        return projected


class MammoClip(nn.Module):
    """Embeds mammograms and sentences into one space.

    ``logit_scale`` is the logarithm of the factor applied to cosine similarities; use ``logit_scale.exp()`` in the
    loss. It is log(1 / 0.07) initially, and ``logit_bias`` is None; for the sigmoid loss they are log(10) and -10 (Zhai
    et al., ICCV 2023).
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        embedding_dim: int = 512,
        projection: ProjectionKind = "linear",
        sigmoid_loss: bool = False,
    ) -> None:
        """Join the two encoders; the projections are drawn from torch's global random state."""
        super().__init__()
        self.embedding_dim = embedding_dim
        self.projection: ProjectionKind = projection
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = Projection(image_encoder.num_features, embedding_dim, projection)
        self.text_projection = Projection(text_encoder.num_features, embedding_dim, projection)
        # One element, not zero dimensions: DeepSpeed cannot broadcast a scalar parameter.
        scale = INITIAL_SIGMOID_SCALE if sigmoid_loss else 1 / INITIAL_TEMPERATURE
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(scale)))
        self.logit_bias = nn.Parameter(torch.full((1,), INITIAL_SIGMOID_BIAS)) if sigmoid_loss else None

    def image_features(self, images: Tensor) -> Tensor:
        """Pooled features (B, C) before the projection, of normalised images (B, 1 or 3, H, W); see ``normalise``.

        Images are grey: of three channels, which are equal, the first is used.
        """
        features: Tensor = self.image_encoder(images[:, :1])
        return features

    def encode_image(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of normalised images (B, 1 or 3, H, W), grey."""
        return self.project_image(self.image_features(images))

    def project_image(self, features: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of pooled features (B, C), for those who keep the features too."""
        return F.normalize(self.image_projection(features), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) of token ids and their mask, both (B, T)."""
        return F.normalize(self.text_projection(self.text_encoder(input_ids, attention_mask)), dim=-1)

    def logit_parameters(self) -> list[nn.Parameter]:
        """``logit_scale``, and ``logit_bias`` where there is one."""
        return [self.logit_scale] if self.logit_bias is None else [self.logit_scale, self.logit_bias]

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Image and text embeddings and ``logit_parameters``: one call, as data-parallel wrappers need it."""
        return self.encode_image(images), self.encode_text(input_ids, attention_mask), *self.logit_parameters()


def build_model(
    image_encoder: ImageEncoderSpec,
    text_encoder: TextEncoderSpec,
    embedding_dim: int = 512,
    seed: int = 0,
    projection: ProjectionKind = "linear",
    sigmoid_loss: bool = False,
) -> MammoClip:
    """A model ready for pretraining: encoders from their weights, what has no weights drawn from ``seed``.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MammoClip(
            load_image_encoder(image_encoder.name, image_encoder.weights, image_encoder.image_size_px),
            load_text_encoder(text_encoder.name_or_path, text_encoder.lora_rank),
            embedding_dim,
            projection,
            sigmoid_loss,
        )
