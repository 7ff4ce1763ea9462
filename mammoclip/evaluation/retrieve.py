"""Image-text retrieval among the test breasts of one data set, and among those of several, with intervals.

A breast has one embedding of its images and one of what is said of it. Shapes: N breasts, D dimensions, B resamples,
R distinct ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.artifacts import RETRIEVAL
from mammoclip.data.captions import CaptionSampler
from mammoclip.data.pairs import trainable_breasts
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.resampling import Draws
from mammoclip.evaluation.retrieval import RECALL_AT, IntArray, chance_recall, first_hit_ranks, median_rank, recall_at

ALL = "all"
"""What the table calls the breasts of all data sets together."""

_CELLS_PER_CHUNK = 2_000_000  # ranks x resamples held at once: 16 MB of int64

Floats = npt.NDArray[np.float64]
EncodeTexts = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts to L2-normalised embeddings, texts x D."""


@dataclass(frozen=True)
class Breasts:
    """Breasts of one data set: patients and what is said (N each), L2-normalised embeddings (N x D) of both sides.

    ``said`` holds the two texts of a breast in alphabetical order: breasts of equal texts say the same.
    """

    patients: list[str]
    said: list[tuple[str, str]]
    images: Floats
    texts: Floats


def embed_breasts(breasts: pl.DataFrame, features: pl.DataFrame, encode_texts: EncodeTexts, split: str) -> Breasts:
    """Embed the breasts of a split that have images and texts.

    The image side is the normalised mean of the embeddings of all its images, the text side that of its two texts,
    which are those that validation takes (``CaptionSampler.first``).

    Args:
        breasts: the table ``breasts`` of one data set.
        features: the table ``features`` of the data set.
        encode_texts: is asked once, for the distinct texts.
        split: train, validation or test.

    Raises:
        ArtifactError: there is no such breast, or an image has no features.
    """
    found = trainable_breasts(breasts, split)
    sampler = CaptionSampler()
    said = [sampler.first(breast.captions) for breast in found]
    texts = sorted({text for pair in said for text in pair})
    embedded = dict(zip(texts, np.asarray(encode_texts(texts), np.float64), strict=True))
    by_image = dict(features.select("image_id", "embedding").rows())
    images = []
    for breast in found:
        ids = [key.partition("/")[2] for key in (*breast.cc_image_ids, *breast.mlo_image_ids)]
        if missing := [image_id for image_id in ids if image_id not in by_image]:
            raise ArtifactError(
                f"the features lack the image {missing[0]!r} of the data set {breast.dataset!r}; delete its "
                "features.parquet and rerun the evaluate stage"
            )
        images.append(np.mean([by_image[image_id] for image_id in ids], axis=0))
    return Breasts(
        [breast.patient for breast in found],
        [(min(pair), max(pair)) for pair in said],
        _normalised(np.array(images, np.float64)),
        _normalised(np.array([(embedded[first] + embedded[last]) / 2 for first, last in said])),
    )


def retrieval_table(
    datasets: Mapping[str, Breasts], run: str, num_resamples: int, confidence: float, seed: int
) -> pl.DataFrame:
    """Return the ``retrieval`` table: each data set searched by itself and, of several, among all of them.

    Intervals are percentiles over resamples of the patients whose breasts are the queries; what is searched stays as it
    is. With one patient there is none.

    Args:
        datasets: name -> its breasts; one at least.
        run: pretraining run, for the column.
        num_resamples: 1 or more.
        confidence: coverage of the intervals, between 0 and 1.
        seed: draws the resamples; those of a data set are the same for every metric.
    """
    everyone = _joined(list(datasets.values()))
    numbers = {pair: number for number, pair in enumerate(sorted(set(everyone.said)))}
    rows: list[tuple[object, ...]] = []
    for dataset, queries in datasets.items():
        draws = Draws.of(queries.patients, num_resamples, seed)
        for candidates, searched in ((dataset, queries), (ALL, everyone))[: len(datasets)]:
            for metric, value, values in _metrics(queries, searched, numbers, draws):
                low, high = _bounds(values, draws, confidence)
                rows.append((run, dataset, candidates, metric, value, low, high, len(queries.said), draws.num_clusters))
    return pl.DataFrame(rows, schema=RETRIEVAL.schema, orient="row")


def resampled_recall(ranks: IntArray, k: int, draws: Draws) -> Floats:
    """Return `retrieval.recall_at` of ``ranks`` (N,) in every resample, (B,)."""
    return np.asarray(draws.sums(ranks <= k)[0] / draws.sizes, np.float64)


def resampled_median(ranks: IntArray, draws: Draws) -> Floats:
    """Return `retrieval.median_rank` of ``ranks`` (N,) in every resample, (B,).

    Of n ranks in order, the median is the mean of those at the places (n - 1) // 2 and n // 2 from 0. The rank at a
    place is the first one up to which more ranks than the place were counted.
    """
    levels, level_of_rank = np.unique(ranks, return_inverse=True)
    ranks_RC = draws.per_cluster(level_of_rank, len(levels))
    medians = np.empty(draws.num_resamples)
    step = max(1, _CELLS_PER_CHUNK // len(levels))
    for start in range(0, draws.num_resamples, step):
        chunk = slice(start, start + step)
        counted_RB = np.cumsum(ranks_RC @ draws.multiplicities[:, chunk], axis=0, dtype=np.int64)
        places = ((counted_RB[-1] - 1) // 2, counted_RB[-1] // 2)
        medians[chunk] = np.mean([levels[(counted_RB <= place).sum(axis=0)] for place in places], axis=0)
    return medians


def _metrics(
    queries: Breasts, searched: Breasts, numbers: Mapping[tuple[str, str], int], draws: Draws
) -> Iterator[tuple[str, float, Floats | None]]:
    """Yield metrics by name with their value in all queries and in every resample of them; None: none of chance."""
    query_ids, searched_ids = (np.array([numbers[pair] for pair in of.said], np.int64) for of in (queries, searched))
    for name, sought, among in (
        ("image_to_text", queries.images, searched.texts),
        ("text_to_image", queries.texts, searched.images),
    ):
        ranks = first_hit_ranks(sought, among, query_ids, searched_ids)
        for k in RECALL_AT:
            yield f"{name}_recall_at_{k}", recall_at(ranks, k), resampled_recall(ranks, k, draws)
        yield f"{name}_median_rank", median_rank(ranks), resampled_median(ranks, draws)
    for k in RECALL_AT:
        yield f"chance_recall_at_{k}", chance_recall(query_ids, searched_ids, k), None


def _bounds(values: Floats | None, draws: Draws, confidence: float) -> tuple[float | None, float | None]:
    if values is None or draws.num_clusters < 2:
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _joined(parts: Sequence[Breasts]) -> Breasts:
    return Breasts(
        [patient for part in parts for patient in part.patients],
        [pair for part in parts for pair in part.said],
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.texts for part in parts]),
    )


def _normalised(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float64)
