"""Patients whom several data sets that are trained together name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from mammoclip.data.splits import find_shared_patients


@dataclass(frozen=True)
class SharedPatients:
    """How many patients two data sets share; ``num_leaking`` of them are not in the same split in both."""

    first: str
    second: str
    num_patients: int
    num_leaking: int


def count_shared_patients(breasts: Mapping[str, pl.DataFrame]) -> Sequence[SharedPatients]:
    """Count the patients that each two data sets share, by their tables ``breasts``.

    A patient is the same when both data sets call it the same. Pairs that share none are left out.
    """
    pairs: list[SharedPatients] = []
    for (first, table), (second, other) in itertools.combinations(breasts.items(), 2):
        shared = find_shared_patients([table, other])
        leaking = shared.filter(pl.col("splits").list.len() > 1)
        if len(shared):
            pairs.append(SharedPatients(first, second, len(shared), len(leaking)))
    return pairs
