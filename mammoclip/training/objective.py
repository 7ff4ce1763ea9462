"""The multi-view objective (Mammo-CLIP, section 2; after CXR-CLIP).

Shapes: B examples of this process, N = B x processes examples of the global batch, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Gather = Callable[[Tensor], Tensor]


def _alone(local: Tensor) -> Tensor:
    return local


def contrastive_loss(
    image_1: Tensor,
    image_2: Tensor,
    text_1: Tensor,
    text_2: Tensor,
    logit_scale: Tensor,
    *,
    image_text_weight: float = 1.0,
    image_image_weight: float = 1.0,
    text_text_weight: float = 0.5,
    text_ids: tuple[Tensor, Tensor] | None = None,
    gather: Gather = _alone,
    first_row: int = 0,
) -> dict[str, Tensor]:
    """Return the terms of the loss and their weighted sum under ``loss``.

    With CE the cross-entropy against the row's own index over the global batch and s = exp(logit_scale):
    ``i2t`` is the mean over the four image-text pairings of CE(s * image . texts), ``t2i`` the same with the roles
    exchanged, ``image_image`` = (CE(s * i1 . i2) + CE(s * i2 . i1)) / 2, ``text_text`` = (CE(s * t2 . t1) +
    CE(s * t1 . t2)) / 2, ``image_text`` = (i2t + t2i) / 2, and
    loss = 1.0 image_text + 1.0 image_image + 0.5 text_text by default.

    Args:
        image_1, image_2, text_1, text_2: L2-normalised embeddings, B x D.
        logit_scale: log of the inverse temperature, scalar.
        image_text_weight, image_image_weight, text_text_weight: weights of the terms.
        text_ids: int64 identities of the texts, B each; equal texts are then not negatives of each other.
        gather: makes N x D (or N) of B x D (or B), with gradient; the default is for one process.
        first_row: index of this process's first example in the global batch.

    Example:
        Perfectly aligned and far apart embeddings have almost no loss:

        >>> e = torch.eye(4)
        >>> bool(contrastive_loss(e, e, e, e, torch.tensor(4.0))["loss"] < 1e-6)
        True
    """
    scale = logit_scale.exp()
    local = {"i1": image_1, "i2": image_2, "t1": text_1, "t2": text_2}
    everyone = {name: gather(embedding) for name, embedding in local.items()}
    target = torch.arange(first_row, first_row + len(image_1), device=image_1.device)
    masks = _equal_text_masks(text_ids, gather, target)

    def cross_entropy(anchor: str, others: str) -> Tensor:
        logits = scale * local[anchor] @ everyone[others].T
        mask = masks.get((anchor[0], others[0], _text_view(anchor, others)))
        if mask is not None:
            logits = logits.masked_fill(mask, float("-inf"))
        return F.cross_entropy(logits, target)

    pairings = [(image, text) for image in ("i1", "i2") for text in ("t1", "t2")]
    i2t = torch.stack([cross_entropy(image, text) for image, text in pairings]).mean()
    t2i = torch.stack([cross_entropy(text, image) for image, text in pairings]).mean()
    image_image = (cross_entropy("i1", "i2") + cross_entropy("i2", "i1")) / 2
    text_text = (cross_entropy("t2", "t1") + cross_entropy("t1", "t2")) / 2
    image_text = (i2t + t2i) / 2
    loss = image_text_weight * image_text + image_image_weight * image_image + text_text_weight * text_text
    return {
        "loss": loss,
        "i2t": i2t,
        "t2i": t2i,
        "image_text": image_text,
        "image_image": image_image,
        "text_text": text_text,
    }


def _text_view(anchor: str, others: str) -> str:
    """Return the text view (1, 2) of an image-text pairing, or the views of a text-text one."""
    return "".join(name[1] for name in (anchor, others) if name[0] == "t")


def _equal_text_masks(
    text_ids: tuple[Tensor, Tensor] | None, gather: Gather, target: Tensor
) -> dict[tuple[str, str, str], Tensor]:
    """Return, per kind of pairing, which entries (B x N) are another example with an equal text."""
    if text_ids is None:
        return {}
    local = {"1": text_ids[0], "2": text_ids[1]}
    everyone = {view: gather(ids) for view, ids in local.items()}
    own = torch.arange(len(everyone["1"]), device=target.device)[None] == target[:, None]

    def equal(mine: str, theirs: str) -> Tensor:
        return (local[mine][:, None] == everyone[theirs][None]) & ~own

    masks: dict[tuple[str, str, str], Tensor] = {}
    for view in ("1", "2"):
        masks["i", "t", view] = masks["t", "i", view] = equal(view, view)
    masks["t", "t", "21"] = equal("2", "1")
    masks["t", "t", "12"] = equal("1", "2")
    return masks
