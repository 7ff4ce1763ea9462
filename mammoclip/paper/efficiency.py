"""Data efficiency: what is reached with a share of the training patients."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mammoclip.paper.curves import title_of
from mammoclip.paper.figures import BLUE, GREEN, PROTOCOL_STYLES, PURPLE, VERMILION, draw_note
from mammoclip.paper.rendering import figure_style
from mammoclip.paper.wording import format_number, format_percent

_TRAINED = [name for name in PROTOCOL_STYLES if name != "zero-shot"]
_TICKS = (0.01, 0.1, 0.5, 1.0)
_METRICS = {"auroc": "AUROC", "macro_auroc": "macro AUROC"}
_STYLES: tuple[tuple[str, Any, str], ...] = (
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "D"),
    ("#555555", (0, (5, 1.5, 1, 1.5, 1, 1.5)), "v"),
)
_LEGEND_ROW_IN = 0.18
_STEP = 1.03  # what one run's points are moved to the right of the one before, so that their bars do not overlap


def efficiency_points(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return run, protocol, fraction, value, low, high and num_seeds, sorted, of rows of one task and metric.

    Of several seeds the value is the mean, and low and high are the lowest and the highest; of one seed they are the
    bounds of its interval. Rows without a value are left out.
    """
    several = pl.len() > 1
    return (
        metrics.drop_nulls("value")
        .group_by("run", "protocol", "fraction")
        .agg(
            pl.col("value").mean(),
            low=pl.when(several).then(pl.col("value").min()).otherwise(pl.col("ci_low").first()),
            high=pl.when(several).then(pl.col("value").max()).otherwise(pl.col("ci_high").first()),
            num_seeds=pl.len(),
        )
        .sort("run", "protocol", "fraction")
    )


def draw_efficiency(metrics: pl.DataFrame, task: str, dataset: str, confidence: float) -> Figure:
    """Return AUROC (of several classes macro AUROC) of images against the share of training patients.

    One panel per trained protocol that has several fractions, one line per run; zero-shot is a horizontal line.

    Args:
        metrics: table of this name, of all runs and data sets that are to be compared.
        task: its name.
        dataset: its name.
        confidence: coverage of the intervals in the table.
    """
    rows = metrics.filter(
        pl.col("task") == task,
        pl.col("dataset") == dataset,
        pl.col("level") == "image",
        pl.col("subgroup") == "all",
        pl.col("metric").is_in(list(_METRICS)),
        pl.col("protocol").is_in(list(PROTOCOL_STYLES)),
    )
    points = efficiency_points(rows)
    num_fractions = {name: points.filter(protocol=name)["fraction"].n_unique() for name in _TRAINED}
    panels = [name for name, number in num_fractions.items() if number > 1]
    if not panels:
        return draw_note(f"{title_of(task, dataset)}: no curve of data efficiency, because {_why_none(rows, points)}.")
    runs = rows["run"].unique(maintain_order=True).to_list()
    with figure_style():
        legend_in = 2 * len(runs) / len(panels) * _LEGEND_ROW_IN
        figure = Figure(figsize=(0.8 + 4.2 * len(panels), 3.8 + legend_in), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, protocol in zip(grid, panels, strict=True):
            _draw_panel(axes, points, runs, protocol, confidence)
        grid[0].set_ylabel(f"{_METRICS[rows['metric'][0]]} of test images")
        handles = {
            name: handle for axes in grid for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        names = sorted(handles, key=lambda name: name not in runs)
        figure.legend(
            [handles[name] for name in names], names, loc="outside lower center", ncols=len(panels), handlelength=4.0
        )
        figure.suptitle(title_of(task, dataset))
        return figure


def _why_none(rows: pl.DataFrame, points: pl.DataFrame) -> str:
    trained = rows.filter(pl.col("protocol").is_in(_TRAINED))
    if trained.is_empty():
        return "nothing was trained on it"
    fractions = points.filter(pl.col("protocol").is_in(_TRAINED))["fraction"].unique().sort().to_list()
    if not fractions:
        return next(iter(trained["reason"].drop_nulls()), "no evaluation has a value")
    return f"only {' and '.join(map(format_percent, fractions))} of the training patients was tried"


def _draw_panel(axes: Axes, points: pl.DataFrame, runs: list[str], protocol: str, confidence: float) -> None:
    trained = points.filter(protocol=protocol)
    for number, run in enumerate(runs):
        colour, line, marker = _STYLES[number % len(_STYLES)]
        for value in points.filter(run=run, protocol="zero-shot")["value"]:
            name = f"{run}, zero-shot: {format_number(value)}"
            axes.axhline(value, color=colour, ls=line, lw=0.8, label=name)
        of_run = trained.filter(run=run)
        values = of_run["value"].to_numpy()
        bounds = of_run.select(low=pl.col("value") - pl.col("low"), high=pl.col("high") - pl.col("value"))
        axes.errorbar(
            of_run["fraction"].to_numpy() * _STEP**number,
            values,
            yerr=bounds.fill_null(0.0).to_numpy().T,
            color=colour,
            ls=line,
            marker=marker,
            ms=4.5,
            lw=1.6,
            elinewidth=1.0,
            capsize=2.5,
            label=run,
        )
    fractions = trained["fraction"].unique().to_list()
    ticks = sorted({*fractions, *(tick for tick in _TICKS if min(fractions) <= tick <= max(fractions))})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [format_percent(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    num_seeds = trained["num_seeds"].unique().sort().to_list()
    several = " or ".join(str(number) for number in num_seeds if number > 1)
    bars = [f"mean and range over {several} seeds"] if several else []
    if 1 in num_seeds:
        bars.append(f"{format_percent(confidence)} interval" + (" of one seed" if several else ""))
    axes.set(xlabel="share of the training patients", title=f"{protocol}\n{', '.join(bars)}")
