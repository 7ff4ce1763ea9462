"""Gradients of the objective with respect to embeddings: a large batch in the memory of a small one.

GradCache (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021): the
loss sees the encoders through their embeddings alone, so dL/dparameters = sum over micro-batches of
dL/dembeddings . dembeddings/dparameters. Three steps per batch:

1. encode all micro-batches without gradient;
2. ``loss_and_embedding_gradients`` on all their embeddings;
3. encode each micro-batch again, with gradient, and push its rows of (2) back with ``torch.autograd.backward``.

Shapes: B examples of this process, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mammoclip.training.objective import contrastive_loss


@dataclass(frozen=True)
class Gradients:
    """Gradients of ``loss``: B x D for embeddings, the shape of the scalars for these; no bias, no gradient of it."""

    image_1: Tensor
    image_2: Tensor
    text_1: Tensor
    text_2: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None = None

    @property
    def views(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those of both images and both texts."""
        return self.image_1, self.image_2, self.text_1, self.text_2

    @property
    def scalars(self) -> list[Tensor]:
        """Those of the logit scale, and of the logit bias where there is one."""
        return [self.logit_scale] if self.logit_bias is None else [self.logit_scale, self.logit_bias]


def loss_and_embedding_gradients(
    image_1: Tensor,
    image_2: Tensor,
    text_1: Tensor,
    text_2: Tensor,
    logit_scale: Tensor,
    *,
    logit_bias: Tensor | None = None,
    **options: Any,
) -> tuple[dict[str, Tensor], Gradients]:
    """Return the terms of ``contrastive_loss``, without gradient, and the gradients of its ``loss``.

    The gradients of embeddings hold what other processes' rows contribute, as far as ``gather`` sums it; averaged over
    processes like any other, the parameters' gradients are those of the global batch.

    Step 3 must compute what step 1 did: the same micro-batches and dropout masks (restore the random state). Batch norm
    takes its statistics of a micro-batch; keep step 1 from updating the running ones.

    Args:
        image_1, image_2, text_1, text_2: L2-normalised embeddings of all micro-batches, B x D; their graph is ignored.
        logit_scale, logit_bias: as in ``contrastive_loss``.
        options: its other keyword arguments.

    Example:
        Replaying two micro-batches gives the gradient of the whole batch:

        >>> weights = torch.eye(4, requires_grad=True)
        >>> inputs, scale = torch.eye(4), torch.tensor(1.0)
        >>> whole = inputs @ weights
        >>> contrastive_loss(whole, whole, whole, whole, scale)["loss"].backward()
        >>> expected, weights.grad = weights.grad, None
        >>> _, gradients = loss_and_embedding_gradients(whole, whole, whole, whole, scale)
        >>> for rows in (slice(0, 2), slice(2, 4)):
        ...     e = inputs[rows] @ weights
        ...     parts = [getattr(gradients, name)[rows] for name in ("image_1", "image_2", "text_1", "text_2")]
        ...     torch.autograd.backward([e] * 4, parts)
        >>> torch.allclose(weights.grad, expected)
        True
    """
    scalars = [logit_scale] if logit_bias is None else [logit_scale, logit_bias]
    inputs = [tensor.detach().requires_grad_() for tensor in (image_1, image_2, text_1, text_2, *scalars)]
    bias = None if logit_bias is None else inputs[5]
    terms = contrastive_loss(*inputs[:5], logit_bias=bias, **options)
    # An objective need not use all views: the gradient of one left out is zero, not missing.
    gradients = torch.autograd.grad(terms["loss"], inputs, allow_unused=True, materialize_grads=True)
    return {name: term.detach() for name, term in terms.items()}, Gradients(*gradients)
