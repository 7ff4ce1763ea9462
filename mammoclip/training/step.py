"""One optimiser step: the loss over the global batch, and its gradient, whatever part of it fits into memory.

With micro-batches the embeddings are computed twice: first all of them without graph, for the loss and its gradient
with respect to the embeddings, then one micro-batch after the other with graph, to carry that gradient into the
parameters (gradient caching; Gao et al., RepL4NLP 2021). The result is that of the whole batch, but for layers that mix
the examples of a batch: batch normalisation takes its statistics of a micro-batch, and updates its running ones once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mammoclip.config import LossWeights
from mammoclip.models import normalise
from mammoclip.training.augmentation_batch import augment_batch
from mammoclip.training.batches import Batch
from mammoclip.training.distributed import gather_with_gradient
from mammoclip.training.gradient_cache import loss_and_embedding_gradients
from mammoclip.training.objective import contrastive_loss

Embeddings = tuple[Tensor, ...]
"""Images (2B x D) and texts (2B x D), first views first, the logit scale, and the logit bias of the sigmoid loss."""


@dataclass(frozen=True)
class Stepper:
    """Makes steps of one process.

    ``engine`` is DeepSpeed's, ``weights`` those of the loss, ``micro_batch_size`` the examples embedded at a time.
    """

    engine: Any
    weights: LossWeights
    micro_batch_size: int
    seed: int
    rank: int

    def train(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Make the optimiser step ``step`` and return the terms of the loss, without graph."""
        parts = batch.to(self.engine.device).parts(self.micro_batch_size)
        if len(parts) == 1:
            views, options = self._views([self._embed(parts[0], step, 0)], parts)
            terms = contrastive_loss(*views, **options)
            told = _told(terms, views[4])
            self.engine.backward(terms["loss"])
            self.engine.step()
            return told
        with torch.no_grad(), unchanged_statistics(self.engine.module):
            cached = [self._embed(part, step, number) for number, part in enumerate(parts)]
        views, options = self._views(cached, parts)
        terms, gradients = loss_and_embedding_gradients(*views, **options)
        told = _told(terms, views[4])
        start = 0
        for number, part in enumerate(parts):
            images, texts, *scalars = self._embed(part, step, number)
            rows = slice(start, start := start + len(part))
            views_of_part = [*images.chunk(2), *texts.chunk(2)]
            pairs = list(zip(views_of_part, (gradient[rows] for gradient in gradients.views), strict=True))
            if number == 0:  # the loss knows one logit scale, not one a part
                pairs += zip(scalars, gradients.scalars, strict=True)
            surrogate = torch.stack([(value * gradient).sum() for value, gradient in pairs]).sum()
            # DeepSpeed divides by the parts, as of a mean; this is a sum.
            self.engine.backward(surrogate * len(parts))
            self.engine.step()
        return told

    @torch.no_grad()
    def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the terms of the loss, the embeddings (B x 4 x D: images, then texts) and the ids of texts (B x 2)."""
        batch = batch.to(self.engine.device)
        parts = batch.parts(self.micro_batch_size)
        views, options = self._views([self._embed(part, 0, number) for number, part in enumerate(parts)], parts)
        terms = _told(contrastive_loss(*views, **options), views[4])
        return terms, torch.stack(views[:4], dim=1), torch.stack(batch.text_ids.chunk(2), dim=1)

    @torch.no_grad()
    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor, batch: Batch) -> Tensor:
        """Return the embeddings (P x D) of texts beside those of a batch (both P x T).

        Precision and ZeRO 3 want a whole call of the engine, so an image of ``batch`` goes along.
        """
        device = self.engine.device
        image = normalise(batch.images[:1].to(device))
        size = 2 * self.micro_batch_size
        parts = zip(torch.split(input_ids.to(device), size), torch.split(attention_mask.to(device), size), strict=True)
        return torch.cat([self.engine(image, *part)[1].float() for part in parts])

    def _embed(self, part: Batch, step: int, number: int) -> Embeddings:
        # Dropout depends on nothing else, so that it is the same when a part is embedded again, or after a resume.
        seed = np.random.SeedSequence([self.seed, 5, step, self.rank, number]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0] >> np.uint64(1)))
        images = augment_batch(part.images, part.warps) if part.warps else part.images
        embedded = self.engine(normalise(images), part.input_ids, part.attention_mask)
        return tuple(tensor.float() for tensor in embedded)

    def _views(self, embedded: list[Embeddings], parts: list[Batch]) -> tuple[list[Tensor], dict[str, Any]]:
        """Return image_1, image_2, text_1, text_2 of all parts and the logit scale, and the options of the loss."""
        views = [torch.cat([part[kind].chunk(2)[view] for part in embedded]) for kind in (0, 1) for view in (0, 1)]
        ids_1, ids_2 = (torch.cat([part.text_ids.chunk(2)[view] for part in parts]) for view in (0, 1))
        patients = torch.cat([part.patient_ids.chunk(2)[0] for part in parts])
        options = {
            "objective": self.weights.objective,
            "logit_bias": embedded[0][3] if len(embedded[0]) > 3 else None,
            "image_text_weight": self.weights.image_text,
            "image_image_weight": self.weights.image_image,
            "text_text_weight": self.weights.text_text,
            "text_ids": (ids_1, ids_2) if self.weights.mask_equal_texts else None,
            "patient_ids": patients if self.weights.mask_same_patient else None,
            "gather": gather_with_gradient,
            "first_row": self.rank * len(views[0]),
        }
        return [*views, embedded[0][2]], options


def _told(terms: dict[str, Tensor], logit_scale: Tensor) -> dict[str, Tensor]:
    """Return the terms without graph, and the ``temperature`` that they were computed with."""
    temperature = torch.exp(-logit_scale).squeeze()
    return {name: term.detach() for name, term in {**terms, "temperature": temperature}.items()}


@contextmanager
def unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Within the block the running statistics of batch normalisation stay as they are."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
