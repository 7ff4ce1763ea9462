"""Image-text retrieval as pure functions on arrays: recall at k and median rank, with the level of chance.

Shapes: Q queries, C candidates, N pairs, D dimensions. Embeddings are finite float32 or float64, L2-normalised or not:
candidates are ranked by their dot product with the query. Ids are int64; what says the same has the same id.

Equal texts are common ("no mass, no suspicious calcification"), and of two candidates that say the same neither is
wrong. So every candidate with the query's id is a hit, the rank of a query is that of its first hit, and recall is
large by chance alone where there are many hits: read it beside `chance_recall`.

What ties with the first hit is ranked before it. A model that embeds everything alike then finds nothing, as it should:
ranking ties after the hit would call it perfect, and their middle would put it in the middle of the field.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mammoclip.errors import MammoClipError

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

RECALL_AT = (1, 5, 10)
"""The ranks k that image-text retrieval is reported at."""

_CELLS_PER_BLOCK = 4_000_000  # similarities held at once: 32 MB of float64


def retrieval_metrics(images: FloatArray, texts: FloatArray, text_ids: IntArray) -> dict[str, float]:
    """Return recall at k and median rank in both directions, and the recall of a random ranking.

    Args:
        images: N x D.
        texts: N x D, row for row the text of each image.
        text_ids: N.

    Returns:
        For each k of `RECALL_AT` ``image_to_text_recall_at_<k>``, ``text_to_image_recall_at_<k>`` and
        ``chance_recall_at_<k>`` (the same in both directions), from 0 to 1; ``image_to_text_median_rank`` and
        ``text_to_image_median_rank``, from 1, best, to N. NaN without a pair.

    Raises:
        ValueError: shapes do not fit together.
        MammoClipError: an embedding is not finite.
    """
    found: dict[str, float] = {}
    for name, queries, candidates in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        ranks = first_hit_ranks(queries, candidates, text_ids, text_ids)
        found |= {f"{name}_recall_at_{k}": recall_at(ranks, k) for k in RECALL_AT}
        found[f"{name}_median_rank"] = median_rank(ranks)
    return found | {f"chance_recall_at_{k}": chance_recall(text_ids, text_ids, k) for k in RECALL_AT}


def first_hit_ranks(
    queries: FloatArray, candidates: FloatArray, query_ids: IntArray, candidate_ids: IntArray
) -> IntArray:
    """Return for each query the rank of its first hit, from 1, ties ranked before it; int64 of shape (Q,).

    Similarities are computed in blocks of queries: the memory needed is that of one block, whatever Q.

    Worked example: the query is closest to the second candidate, and of the other two, which say the same, to the
    third. Asking for what the first says finds the third at rank 2.

    >>> candidates = np.array([[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]])
    >>> first_hit_ranks(np.array([[1.0, 0.0]]), candidates, np.array([7]), np.array([7, 8, 7])).tolist()
    [2]

    Args:
        queries: Q x D.
        candidates: C x D.
        query_ids: Q, the id that a hit has.
        candidate_ids: C.

    Raises:
        ValueError: shapes do not fit together, or no candidate is a hit of some query.
        MammoClipError: an embedding is not finite.
    """
    _check(queries, query_ids, "queries")
    _check(candidates, candidate_ids, "candidates")
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, candidates {candidates.shape[1]}.")
    if missing := int((_num_hits(query_ids, candidate_ids) == 0).sum()):
        raise ValueError(f"{missing} of {len(query_ids)} queries have no hit among the candidates.")
    by_id = np.argsort(candidate_ids, kind="stable")
    starts = np.searchsorted(candidate_ids[by_id], query_ids, side="left")
    counts = _num_hits(query_ids, candidate_ids)
    ranks = np.empty(len(queries), np.int64)
    size = max(1, _CELLS_PER_BLOCK // max(1, len(candidates)))
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        similarity = queries[block] @ candidates.T
        # The hits of a query are few: they are listed, in place of a mask over all candidates.
        ends = np.cumsum(counts[block])
        places = np.arange(ends[-1]) + np.repeat(starts[block] - ends + counts[block], counts[block])
        hits = similarity[np.repeat(np.arange(len(ends)), counts[block]), by_id[places]]
        first = np.maximum.reduceat(hits, ends - counts[block])
        hits_as_high = np.add.reduceat(hits >= np.repeat(first, counts[block]), ends - counts[block], dtype=np.int64)
        ranks[block] = 1 + np.count_nonzero(similarity >= first[:, None], axis=1) - hits_as_high
    return ranks


def recall_at(ranks: IntArray, k: int) -> float:
    """Share of queries with a hit among the first ``k`` candidates, 0 to 1; NaN without a query.

    >>> recall_at(np.array([1, 4, 6, 30]), 5)
    0.5
    """
    return float(np.mean(ranks <= k)) if ranks.size else float("nan")


def median_rank(ranks: IntArray) -> float:
    """Median rank of the first hit, 1 is best; of an even number the mean of the middle two; NaN without a query."""
    return float(np.median(ranks)) if ranks.size else float("nan")


def chance_recall(query_ids: IntArray, candidate_ids: IntArray, k: int) -> float:
    """Expected `recall_at` ``k`` of a random ranking of the candidates, exact; NaN without a query.

    With m hits among n candidates the first k hold none with probability C(n - m, k) / C(n, k) (hypergeometric),
    the product of (n - m - j) / (n - j) over j < k.

    Worked example: two of four candidates are hits. The first two drawn both miss with probability 2/4 * 1/3.

    >>> round(chance_recall(np.array([7]), np.array([7, 7, 8, 9]), 2), 4)
    0.8333
    """
    num = len(candidate_ids)
    drawn = np.arange(min(k, num))
    misses = num - _num_hits(query_ids, candidate_ids)
    no_hit = ((misses[:, None] - drawn) / (num - drawn)).prod(axis=1)  # 0 from the draw on that has to be a hit
    return float(np.mean(1 - no_hit)) if query_ids.size else float("nan")


def _num_hits(query_ids: IntArray, candidate_ids: IntArray) -> IntArray:
    """Return how many candidates have the id of each query."""
    ordered = np.sort(candidate_ids)
    counts = np.searchsorted(ordered, query_ids, side="right") - np.searchsorted(ordered, query_ids, side="left")
    return counts.astype(np.int64)


def _check(embeddings: FloatArray, ids: IntArray, name: str) -> None:
    if embeddings.ndim != 2 or ids.shape != embeddings.shape[:1]:
        raise ValueError(f"{name} must be N x D with N ids; got {embeddings.shape} and {ids.shape}.")
    num_bad = int((~np.isfinite(embeddings)).any(axis=1).sum())
    if num_bad:
        raise MammoClipError(f"{num_bad} of {len(ids)} embeddings are NaN or infinite; did the model diverge?")
