"""Tables of counts: how often each value occurs, in every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from pydicom.uid import UID

from mammoclip.data.splits import SPLITS

MAX_ROWS = 15
NOT_STATED = "not stated"
UNKNOWN = "unknown"
ALL = "all"


@dataclass(frozen=True)
class Counts:
    """A table of counts: rows are a name and one count per column.

    ``num_more`` further rows, which sum to ``more``, are left out. Each of ``groups`` heads as many columns.
    """

    caption: str
    header: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int]]]
    num_more: int
    more: Sequence[int]
    groups: Sequence[str] = ()


def count_values(
    unit: str, name: str, values: pl.Series, splits: pl.Series | None = None, scale: Sequence[str] = ()
) -> Counts:
    """Count how often each value occurs; null counts as unknown.

    Args:
        unit: what has a value, in the plural, such as images.
        name: what the values are, as it follows "by".
        values: one value per unit.
        splits: the split of each unit; the table then has a column per split that occurs, and one for all.
        scale: the order of the values; those that are not in it follow, the most frequent first.
    """
    columns = [] if splits is None else occurring_splits(splits)
    frame = pl.DataFrame({"value": values.cast(pl.String).fill_null(UNKNOWN), "split": splits})
    counted = frame.group_by("value").agg(
        *((pl.col("split") == split).sum().alias(split) for split in columns), total=pl.len()
    )
    places = {value: place for place, value in enumerate(scale)}
    rows = sorted(counted.rows(), key=lambda row: (places.get(row[0], len(places)), -row[-1], row[0]))
    return cut_rows(
        f"{_capitalise(unit)} by {name}",
        name,
        [unit] if splits is None else [*columns, ALL],
        [(value, counts) for value, *counts in rows],
    )


def cut_rows(
    caption: str,
    header: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[int]]],
    groups: Sequence[str] = (),
) -> Counts:
    """Return a table of the first rows, and the sums of the others when there are more than a page shows."""
    more = [counts for _, counts in rows[MAX_ROWS:]]
    return Counts(
        caption,
        _capitalise(header),
        [_capitalise(name) for name in columns],
        rows[:MAX_ROWS],
        num_more=len(more),
        more=[sum(column) for column in zip(*more, strict=True)],
        groups=[_capitalise(name) for name in groups],
    )


def occurring_splits(splits: pl.Series) -> list[str]:
    """Return the splits that occur, in the order train, validation, test."""
    return [split for split in SPLITS if split in set(splits)]


def name_headers(index: pl.DataFrame) -> pl.DataFrame:
    """Return an ``index`` table with the name of each transfer syntax, and "not stated" for no manufacturer."""
    syntaxes = {uid: UID(uid).name for uid in index["transfer_syntax"].unique()}
    return index.with_columns(
        pl.col("manufacturer").replace("", None).fill_null(NOT_STATED),
        pl.col("transfer_syntax").replace(syntaxes),
    )


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
