"""The pictures of what things cost: times that grow, bytes that add up, and the trade between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.figures import COLOURS, INK, STYLES, WIDE, styled

MARKERS = ("o", "s", "^", "D")
FILLS = ("#1668b8", "#e0903c", "#2c8a57", "#b9a3dc", "#8d97a6")  # of areas, which letters need not be read on


class Band(NamedTuple):
    """A named curve with its quartiles `low` and `high`, each (m,); `colour` counts from 0.

    A curve without quartiles is a prediction: it is dashed, without markers.
    """

    name: str
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: int = 0

    @classmethod
    def of(cls, name: str, rows: Sequence[Mapping[str, Any]], along: str, colour: int) -> Band:
        """The curve of `rows` as `benchmarks.harness.relative` gives them, against what they call `along`."""
        x, middle, low, high = (np.array([row[key] for row in rows]) for key in (along, "relative_time", "low", "high"))
        return cls(name, x, middle, low, high, colour)


class Panel(NamedTuple):
    """Curves under a title. `mark` is a place on the x axis to be pointed at, with a word for it."""

    title: str
    x: str
    bands: Sequence[Band]
    mark: tuple[float, str] | None = None


@styled
def growth(panels: Sequence[Panel], y: str) -> Figure:
    """Panels side by side, all axes logarithmic, the y axis shared."""
    figure = Figure(figsize=(WIDE, 4.4))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, panels):
        for band in panel.bands:
            _draw(axes, band)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(panel.x)
        axes.set_title(panel.title)
        _numbers(axes.xaxis, sorted({float(at) for band in panel.bands for at in band.x}))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        if panel.mark is not None:
            axes.axvline(panel.mark[0], color=INK, linewidth=1, linestyle=":")
            axes.annotate(
                panel.mark[1],
                (panel.mark[0], 0.98),
                xycoords=("data", "axes fraction"),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                va="top",
            )
    grid[0].set_ylabel(y)
    names = {band.name: line for axes, panel in zip(grid, panels) for band, line in zip(panel.bands, axes.lines)}
    figure.legend(names.values(), names.keys(), loc="outside upper left", ncols=5)
    return figure


def _draw(axes: Axes, band: Band) -> None:
    colour = COLOURS[band.colour]
    if band.low is None or band.high is None:
        axes.plot(band.x, band.middle, STYLES[1], color=colour, linewidth=1.4)
        return
    axes.plot(band.x, band.middle, color=colour, marker=MARKERS[band.colour], markersize=5)
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, linewidth=0)


def _numbers(axis: Axis, ticks: Sequence[float]) -> None:
    """Ticks at the values themselves, written out."""
    axis.set_ticks(list(ticks), [f"{tick:,g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


@styled
def stacks(panels: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> Figure:
    """For each heading stacked bars, one a name: bytes `predicted`, part by part, and a mark at those `compiled`."""
    figure = Figure(figsize=(WIDE, 1.8 + 0.36 * len(names)))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, rows) in zip(grid, panels.items()):
        left = np.zeros(len(rows))
        for fill, part in zip(FILLS, rows[0]["predicted"]):
            megabytes = np.array([row["predicted"][part] for row in rows]) / 1e6
            axes.barh(names, megabytes, left=left, height=0.62, color=fill, edgecolor="white", label=part)
            left += megabytes
        _measured(axes, rows)
        axes.set_title(heading)
    grid[0].invert_yaxis()
    marks, labels = grid[0].get_legend_handles_labels()
    figure.legend([*marks[1:], marks[0]], [*labels[1:], labels[0]], loc="outside upper left", ncols=3)
    return figure


@styled
def trade(ways: Sequence[Mapping[str, Any]], time: str) -> Figure:
    """Ways to the same, a line each: bytes `predicted` and `compiled` on the left, times with quartiles beside."""
    figure = Figure(figsize=(WIDE, 1.8 + 0.36 * len(ways)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    names, predicted = [way["way"] for way in ways], [way["predicted"] / 1e6 for way in ways]
    left.barh(names, predicted, height=0.62, color=FILLS[-1], label="by formula")
    _measured(left, ways)
    left.invert_yaxis()
    left.set_title("memory between arguments and result")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    right.axvline(1, color=INK, linewidth=0.8)
    low, middle, high = ([way[key] for way in ways] for key in ("low", "relative_time", "high"))
    right.hlines(names, low, high, color=COLOURS[1], linewidth=3, alpha=0.4)
    right.plot(middle, names, "o", color=COLOURS[1], markersize=7)
    right.set_xlim(0, 1.1 * max(high))
    right.set_title("time")
    right.set_xlabel(time)
    return figure


def _measured(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """What the compiled programs keep, marked on horizontal bars in megabytes."""
    megabytes = [row["compiled"] / 1e6 for row in rows]
    axes.plot(megabytes, range(len(rows)), "D", color=INK, markersize=6, label="compiled program")
    axes.set_xlim(0, 1.06 * max(*megabytes, axes.get_xlim()[1] / 1.06))
    axes.set_xlabel("megabytes")
    axes.grid(axis="y", visible=False)


@styled
def counts(groups: Mapping[str, np.ndarray], x: str, y: str) -> Figure:
    """How often each whole number from zero came, a bar a group."""
    figure = Figure(figsize=(WIDE, 3.6))
    axes = figure.subplots()
    width = 0.8 / len(groups)
    for i, (group, values) in enumerate(groups.items()):
        at = np.arange(len(values)) + (i - (len(groups) - 1) / 2) * width
        axes.bar(at, values, width * 0.92, color=FILLS[i], label=group)
        axes.set_xticks(range(len(values)))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(x)
    axes.set_title(y)
    figure.legend(loc="outside upper left", ncols=len(groups))
    return figure
