"""A trained model as users hold it: images and sentences in, embeddings and scores out.

Shapes: B batch, H and W pixels, P prompts, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mammoclip.errors import ModelError
from mammoclip.models.clip import MammoClip
from mammoclip.models.preprocess import normalise
from mammoclip.models.relevance import enlarge_map, gradient_map, last_maps
from mammoclip.models.text_encoder import tokenise


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its tokenizer, image size ``(height, width)`` and metadata.

    >>> clip = mammoclip.load("results/pretrain/demo")  # doctest: +SKIP
    >>> clip.zero_shot(clip.preprocess([image_u8]), ["no mass", "mass"])  # doctest: +SKIP
    """

    model: MammoClip
    tokenizer: Any
    image_size_px: tuple[int, int]
    metadata: dict[str, Any]

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the factor on cosine similarities, a float32 scalar; 1 / temperature is its ``exp()``."""
        return self.model.logit_scale.detach().float()

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device

    def preprocess(self, images: Sequence[Any]) -> Tensor:
        """Grey images (arrays or tensors, H x W, any integer or float range) to float32 (B, 1, H, W) for this model.

        An image of another size than the model's is resized (anti-aliased bilinear, the aspect ratio is not kept).
        """
        resized = []
        for image in images:
            pixels = torch.as_tensor(image).float()
            if pixels.ndim != 2:
                raise ModelError(f"expected grey images of height x width, found shape {tuple(pixels.shape)}")
            if tuple(pixels.shape) != self.image_size_px:
                pixels = F.interpolate(pixels[None, None], self.image_size_px, mode="bilinear", antialias=True)[0, 0]
            resized.append(pixels)
        return normalise(torch.stack(resized))

    def encode_image(self, images: Tensor) -> Tensor:
        """L2-normalised float32 embeddings (B, D) of what ``preprocess`` returns, (B, 1 or 3, H, W)."""
        with torch.inference_mode():
            return self.model.encode_image(self._prepared(images)).float()

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """L2-normalised float32 embeddings (B, D) of sentences; one string is a batch of one."""
        input_ids, attention_mask = tokenise(self.tokenizer, [texts] if isinstance(texts, str) else texts)
        with torch.inference_mode():
            return self.model.encode_text(input_ids.to(self._device), attention_mask.to(self._device)).float()

    def zero_shot(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (B, P) that sum to 1 over the prompts: softmax of the cosine similarities, without temperature.

        This is the paper's protocol; with two prompts, "no X" and "X", the second column ranks images for X. The scores
        are not calibrated probabilities.
        """
        return (self.encode_image(images) @ self.encode_text(prompts).T).softmax(dim=1)

    def explain(self, images: Tensor, text: str) -> npt.NDArray[np.float32]:
        """Where each image resembles a sentence: Grad-CAM, float32 (B, H, W) in [0, 1].

        The largest value of an image is 1, whether it resembles the sentence or not; an image of which no part does is
        0 everywhere. See ``gradient_map`` for what timm's transformers get.

        Args:
            images: as ``preprocess`` returns them, (B, 1 or 3, H, W).
            text: one sentence, of any words.
        """
        prepared = self._prepared(images)
        with torch.inference_mode():
            maps = last_maps(self.model.image_encoder, prepared[:, :1])
        cells = gradient_map(self.model, maps, self.encode_text(text))[:, 0]
        return enlarge_map(cells, (images.shape[2], images.shape[3]))

    def _prepared(self, images: Tensor) -> Tensor:
        """What ``preprocess`` returned, where the model is and of its type; anything else is refused."""
        if not images.is_floating_point() or images.ndim != 4:
            raise ModelError(
                f"expected float images (batch, 1 or 3, height, width), found {images.dtype} {tuple(images.shape)}; "
                "call preprocess first"
            )
        return images.to(self._device, self.model.logit_scale.dtype)
