"""Which examples of a batch are not negatives of each other: those with an equal text, those of the same patient.

Shapes: B examples of this process, N examples of the global batch.
Views of an example: i1, i2 its images and t1, t2 its texts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def not_negatives(
    anchor: str, others: str, ids: Mapping[str, Tensor], everyone: Mapping[str, Tensor], target: Tensor
) -> Tensor | None:
    """Return which entries (bool, B x N) of a pairing of views are another example that is no negative.

    Entry (b, n) is one when example n is not b itself and has an equal text or the same patient. An image stands for
    the text of its example in the view that it is compared with; between two images the patient alone counts.
    None: nothing is known that could exclude an entry.

    Args:
        anchor, others: the views whose embeddings make the rows and the columns.
        ids: int64 identities of this process's examples, B each; ``t1`` and ``t2`` of texts, ``patient``, or fewer.
        everyone: the same of the global batch, N each.
        target: indices of this process's examples in the global batch, B.

    Example:
        Examples 0 and 1 carry the same first text:

        >>> ids = {"t1": torch.tensor([7, 7, 8]), "t2": torch.tensor([4, 5, 6])}
        >>> not_negatives("i2", "t1", ids, ids, torch.arange(3)).long()
        tensor([[0, 1, 0],
                [1, 0, 0],
                [0, 0, 0]])
    """
    texts = [view for view in (anchor, others) if view in ids]
    compared = [(texts[0], texts[-1])] if texts else []
    if "patient" in ids:
        compared.append(("patient", "patient"))
    if not compared:
        return None
    equal = torch.stack([ids[mine][:, None] == everyone[theirs] for mine, theirs in compared]).any(dim=0)
    own = target[:, None] == torch.arange(equal.shape[1], device=target.device)
    return equal & ~own
