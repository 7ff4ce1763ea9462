"""The training objective: multi-view (Mammo-CLIP, section 2; after CXR-CLIP), plain CLIP as in ConVIRT, or SigLIP.

Shapes: B examples of this process, N = B x processes examples of the global batch, D dimensions.
Views of an example: i1, i2 its images and t1, t2 its texts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mammoclip.training.masks import not_negatives

Gather = Callable[[Tensor], Tensor]
Objective = Literal["multi_view", "convirt", "siglip"]

_IMAGE_TO_TEXT_SHARE = {"multi_view": 0.5, "convirt": 0.75, "siglip": 0.5}


def _alone(local: Tensor) -> Tensor:
    return local


def contrastive_loss(
    image_1: Tensor,
    image_2: Tensor,
    text_1: Tensor,
    text_2: Tensor,
    logit_scale: Tensor,
    *,
    objective: Objective = "multi_view",
    logit_bias: Tensor | None = None,
    image_text_weight: float = 1.0,
    image_image_weight: float = 1.0,
    text_text_weight: float = 0.5,
    text_ids: tuple[Tensor, Tensor] | None = None,
    patient_ids: Tensor | None = None,
    gather: Gather = _alone,
    first_row: int = 0,
) -> dict[str, Tensor]:
    """Return the terms of the loss and their weighted sum under ``loss``, each the mean over this process's rows.

    With s = exp(logit_scale) and CE the cross-entropy against the row's own index over the global batch:

    - ``multi_view``: ``i2t`` is the mean over the four image-text pairings of CE(s * image . texts), ``t2i`` the same
      with the roles exchanged, ``image_text`` = (i2t + t2i) / 2, ``image_image`` = (CE(s * i1 . i2) +
      CE(s * i2 . i1)) / 2, ``text_text`` = (CE(s * t2 . t1) + CE(s * t1 . t2)) / 2.
    - ``convirt``: CLIP on the first image and the first text alone, ``image_text`` = 0.75 i2t + 0.25 t2i (lambda of
      Zhang et al., MLHC 2022). ``image_image`` and ``text_text`` are 0.
    - ``siglip``: as ``multi_view``, but instead of CE the sum over n of -log sigmoid(z (s * image . text_n +
      logit_bias)), z = 1 for the row's own index and -1 for others (Zhai et al., ICCV 2023, algorithm 1); over the
      global batch i2t = t2i. It is published for image-text pairs: ``image_image`` and ``text_text`` are 0.

    loss = 1.0 image_text + 1.0 image_image + 0.5 text_text by default.

    Args:
        image_1, image_2, text_1, text_2: L2-normalised embeddings, B x D.
        logit_scale: log of the inverse temperature, scalar.
        objective: which of the three.
        logit_bias: scalar, for ``siglip`` alone; published initial values are logit_scale = log 10, logit_bias = -10.
        image_text_weight, image_image_weight, text_text_weight: weights of the terms.
        text_ids: int64 identities of the first and the second texts, B each; equal texts are not negatives.
        patient_ids: int64, B; other examples of the same patient are not negatives in any term.
        gather: makes N x D (or N) of B x D (or B), with gradient; the default is for one process.
        first_row: index of this process's first example in the global batch.

    Raises:
        ValueError: if ``siglip`` lacks its bias, or another objective has one.

    Example:
        Perfectly aligned and far apart embeddings have almost no loss:

        >>> e = torch.eye(4)
        >>> bool(contrastive_loss(e, e, e, e, torch.tensor(4.0))["loss"] < 1e-6)
        True
    """
    if (objective == "siglip") != (logit_bias is not None):
        raise ValueError(f"objective={objective!r}: siglip needs a logit_bias, the others have none")
    scale = logit_scale.exp()
    images, texts = (("i1",), ("t1",)) if objective == "convirt" else (("i1", "i2"), ("t1", "t2"))
    local = {"i1": image_1, "i2": image_2, "t1": text_1, "t2": text_2}
    everyone = {view: gather(local[view]) for view in (*images, *texts)}
    ids = {} if text_ids is None else {"t1": text_ids[0], "t2": text_ids[1]}
    if patient_ids is not None:
        ids["patient"] = patient_ids
    everyone_ids = {name: gather(values) for name, values in ids.items()}
    target = torch.arange(first_row, first_row + len(image_1), device=image_1.device)

    def compare(anchor: str, others: str) -> Tensor:
        logits = scale * local[anchor] @ everyone[others].T
        mask = not_negatives(anchor, others, ids, everyone_ids, target)
        if logit_bias is None:
            return _cross_entropy(logits, target, mask)
        return _sigmoid_loss(logits + logit_bias, target, mask)

    i2t = torch.stack([compare(image, text) for image, text in product(images, texts)]).mean()
    t2i = torch.stack([compare(text, image) for image, text in product(images, texts)]).mean()
    image_image = text_text = torch.zeros_like(i2t)
    if objective == "multi_view":
        image_image = (compare("i1", "i2") + compare("i2", "i1")) / 2
        text_text = (compare("t2", "t1") + compare("t1", "t2")) / 2
    share = _IMAGE_TO_TEXT_SHARE[objective]
    image_text = share * i2t + (1 - share) * t2i
    loss = image_text_weight * image_text + image_image_weight * image_image + text_text_weight * text_text
    return {
        "loss": loss,
        "i2t": i2t,
        "t2i": t2i,
        "image_text": image_text,
        "image_image": image_image,
        "text_text": text_text,
    }


def _cross_entropy(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over rows (logits and mask B x N, target B); a masked entry is left out of the row's softmax."""
    if mask is not None:
        logits = logits.masked_fill(mask, float("-inf"))
    return F.cross_entropy(logits, target)


def _sigmoid_loss(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Sum over pairs divided by rows (logits and mask B x N, target B); a masked entry is left out of the sum."""
    sign = 2 * F.one_hot(target, logits.shape[1]) - 1
    pairs = -F.logsigmoid(sign * logits)
    if mask is not None:
        pairs = pairs.masked_fill(mask, 0.0)
    return pairs.sum(dim=1).mean()
