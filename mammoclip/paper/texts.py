"""The report texts of a data set in numbers; the texts themselves are never shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mammoclip.paper.figures import BLUE
from mammoclip.paper.rendering import figure_style

_MAX_BINS = 50


@dataclass(frozen=True)
class TextFacts:
    """The texts of one section (FINDINGS, IMPRESSION) over all breasts.

    ``commonest`` is the share of the text that occurs most often; ``words`` are the fewest, median and most.
    """

    section: str
    num_texts: int
    num_distinct: int
    commonest: float
    words: tuple[int, float, int]


def describe_texts(reports: pl.DataFrame) -> Sequence[TextFacts]:
    """Describe the texts of each section of the table ``reports``."""
    text = pl.col("sentences").list.join("\n")
    words = _num_words()
    grouped = reports.group_by("section").agg(
        num=pl.len(),
        distinct=text.n_unique(),
        commonest=text.unique_counts().max() / pl.len(),
        fewest=words.min(),
        median=words.median(),
        most=words.max(),
    )
    rows = grouped.sort("section").rows()
    return [
        TextFacts(section, num, distinct, share, (fewest, median, most))
        for section, num, distinct, share, fewest, median, most in rows
    ]


def draw_text_lengths(reports: pl.DataFrame) -> Figure:
    """Return a histogram of the words of the texts, one panel per section, with bins of whole words."""
    counted = reports.select("section", words=_num_words())
    words = {str(name): part["words"].to_numpy() for (name,), part in counted.group_by("section")}
    longest = max(int(numbers.max()) for numbers in words.values())
    width = math.ceil((longest + 1) / _MAX_BINS)
    # From half to half, so that every number of words lies inside a bin.
    edges = np.arange(0, longest + width + 1, width) - 0.5
    with figure_style():
        figure = Figure(figsize=(7.2, 0.6 + 1.7 * len(words)), layout="constrained")
        panels = figure.subplots(len(words), 1, sharex=True, squeeze=False).flatten()
        for axes, section in zip(panels, sorted(words), strict=True):
            axes.hist(words[section], bins=edges.tolist(), color=BLUE)
            axes.axvline(float(np.median(words[section])), color="black", lw=1.0, ls="--", label="median")
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            axes.set_title(section, loc="left")
            axes.set_ylabel("texts")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right")
        panels[-1].set(xlabel="words", xlim=(-0.5, None))
        return figure


def _num_words() -> pl.Expr:
    return pl.col("sentences").list.join(" ").str.count_matches(r"\S+")
