"""A metric in subgroups of the cases, with its interval and the counts that say how far it can be trusted."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.checks import as_classes
from mammoclip.evaluation.statistics import Metric, clustered_bootstrap

MIN_CASES = 10
"""A group with fewer positives or fewer negatives than this gets no number."""

_SCHEMA = pl.Schema(
    {
        "group": pl.String,
        "n_positive": pl.Int64,
        "n_negative": pl.Int64,
        "num_clusters": pl.Int64,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "reason": pl.String,
    }
)


def subgroup_metrics(
    metric: Metric,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: pl.Series | Sequence[object],
    clusters: npt.ArrayLike,
    *,
    all_negatives: bool = False,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int,
) -> pl.DataFrame:
    """Return ``metric`` of every group with a patient-clustered bootstrap interval.

    A group with fewer than `MIN_CASES` positive or negative cases has counts and a reason, but no number: what so few
    cases give is noise that would be read as a finding.

    Args:
        metric: as `statistics.clustered_bootstrap` takes it.
        labels: shape (N,), 0 or 1.
        scores: shape (N,).
        groups: shape (N,), the group of each case, null where it is not known; of a dtype that sorts, or an Enum.
        clusters: shape (N,), normally the patient id.
        all_negatives: every group is its positive cases against all negatives. For properties that only positives
            have, as the size of a lesion.
        num_resamples: number of resamples.
        confidence: coverage of the interval.
        seed: of the resamples.

    Returns:
        Sorted by ``groups``, last the cases of no known group, if there are any:

        - group: as text, null for the cases of no known group;
        - n_positive, n_negative, num_clusters: what the number is computed from;
        - value, ci_low, ci_high: null where there is a reason; the bounds also if there is no interval;
        - reason: a sentence, else null.

    Raises:
        ValueError: lengths differ, or what `clustered_bootstrap` raises.
        MammoClipError: a label is not 0 or 1, or what the metric raises.

    Worked example: of patients in their forties eleven images of each class, in their fifties one.

    >>> from mammoclip.evaluation.metrics import auroc
    >>> labels, groups = [0, 1] * 12, ["40-49"] * 22 + ["50-59"] * 2
    >>> table = subgroup_metrics(auroc, labels, labels, groups, range(24), seed=0)
    >>> table.select("group", "n_positive", "value", "reason").rows()[0]
    ('40-49', 11, 1.0, None)
    >>> table.select("group", "n_positive", "value", "reason").rows()[1]
    ('50-59', 1, None, 'fewer than 10 positive and fewer than 10 negative cases')
    """
    y, s, ids = as_classes(labels, "labels"), np.asarray(scores), np.asarray(clusters)
    names = pl.Series("group", groups)
    lengths = [len(y), len(s), len(names), len(ids)]
    if len(set(lengths)) > 1:
        raise ValueError(f"labels, scores, groups and clusters must have the same length; got {lengths}.")
    if y.size and y.max() > 1:
        raise MammoClipError(f"Labels of subgroups must be 0 or 1; found {y.max()}.")
    rows: list[dict[str, object]] = []
    occurring = names.filter(pl.Series(y == 1)) if all_negatives else names
    for name in occurring.unique().sort(nulls_last=True):
        member = (names.is_null() if name is None else (names == name).fill_null(False)).to_numpy()
        chosen = (member & (y == 1)) | (y == 0) if all_negatives else member
        counts = {"positive": int(y[chosen].sum()), "negative": int((1 - y[chosen]).sum())}
        row: dict[str, object] = {
            "group": None if name is None else str(name),
            "n_positive": counts["positive"],
            "n_negative": counts["negative"],
            "num_clusters": len(np.unique(ids[chosen])),
        }
        short = [f"fewer than {MIN_CASES} {kind}" for kind, count in counts.items() if count < MIN_CASES]
        if short:
            rows.append(row | {"reason": f"{' and '.join(short)} cases"})
            continue
        interval = clustered_bootstrap(
            metric,
            y[chosen],
            s[chosen],
            ids[chosen],
            num_resamples=num_resamples,
            confidence=confidence,
            seed=seed,
        )
        rows.append(row | {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high})
    return pl.DataFrame(rows, schema=_SCHEMA).with_columns(pl.col("value", "ci_low", "ci_high").fill_nan(None))


def age_decades(ages_years: pl.Series | Sequence[int | None]) -> pl.Series:
    """Return the decade of each age as an Enum that sorts by age, null where the age is.

    >>> age_decades([45, 50, None, 103]).to_list()
    ['40-49', '50-59', None, '100-109']

    Raises:
        MammoClipError: an age lies outside 0 to 120.
    """
    ages = pl.Series("age", ages_years).cast(pl.Int64)
    if wrong := ages.filter(~ages.is_between(0, 120)).to_list():
        raise MammoClipError(
            f"{len(wrong)} ages lie outside 0 to 120 years, e.g. {wrong[0]}; set unknown ones to null."
        )
    decades = [f"{first}-{first + 9}" for first in range(0, 121, 10)]
    return (ages // 10).replace_strict(dict(enumerate(decades)), return_dtype=pl.Enum(decades))


def size_bins(sizes: pl.Series | Sequence[float | None], edges: Sequence[float]) -> pl.Series:
    """Return the bin of each size as an Enum that sorts by size, null where the size is.

    Bins are below the first edge, from each to below the next, and from the last. ``edges`` ascend, in the unit of the
    sizes.

    Worked example: T1 to T3 of the TNM stages are divided at 20 and 50 mm.

    >>> size_bins([4.0, 20.0, 49.9, None, 80.0], [20, 50]).to_list()
    ['< 20', '20 to < 50', '20 to < 50', None, '>= 50']

    Raises:
        ValueError: there is no edge, or they do not ascend.
        MammoClipError: a size is negative or NaN.
    """
    if not edges or (np.diff(edges) <= 0).any():
        raise ValueError(f"edges must be ascending and at least one; got {list(edges)}.")
    values = pl.Series("size", sizes).cast(pl.Float64)
    if num_wrong := int((values.is_nan() | (values < 0)).sum()):
        raise MammoClipError(f"{num_wrong} of {len(values)} sizes are negative or NaN; set unknown ones to null.")
    between = [f"{low:g} to < {high:g}" for low, high in itertools.pairwise(edges)]
    names = [f"< {edges[0]:g}", *between, f">= {edges[-1]:g}"]
    bins = [None if size is None else names[bisect.bisect_right(edges, size)] for size in values]
    return pl.Series("size", bins, dtype=pl.Enum(names))
