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
        columns = (np.array([row[key] for row in rows]) for key in (along, "relative_time", "low", "high"))
        return cls(name, *columns, colour=colour)


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
def stacks(
    parts: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], measured: Mapping[str, np.ndarray]
) -> Figure:
    """For each heading a panel of stacked bars, one a name: predicted megabytes by part, and a mark for the measured.

    parts: heading -> part -> megabytes (m,). measured: heading -> megabytes (m,).
    """
    figure = Figure(figsize=(WIDE, 1.8 + 0.36 * len(names)))
    grid = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, (heading, columns) in zip(grid, parts.items()):
        left = np.zeros(len(names))
        for fill, (part, megabytes) in zip(FILLS, columns.items()):
            axes.barh(names, megabytes, left=left, height=0.62, color=fill, edgecolor="white", label=part)
            left += megabytes
        _measured(axes, measured[heading])
        axes.set_title(heading)
        axes.set_xlim(0, 1.06 * max(left.max(), measured[heading].max()))
    grid[0].invert_yaxis()
    marks, labels = grid[0].get_legend_handles_labels()
    figure.legend([*marks[1:], marks[0]], [*labels[1:], labels[0]], loc="outside upper left", ncols=3)
    return figure


FILLS = ("#1668b8", "#e0903c", "#2c8a57", "#b9a3dc", "#8d97a6")


class Way(NamedTuple):
    """A way to compute the same: megabytes predicted and kept, and its time as a multiple, with quartiles."""

    name: str
    predicted: float
    measured: float
    time: float
    low: float
    high: float


@styled
def trade(ways: Sequence[Way], time: str) -> Figure:
    """Memory on the left, time on the right, a line a way."""
    figure = Figure(figsize=(WIDE, 1.6 + 0.36 * len(ways)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    at = range(len(ways))
    left.barh(
        [way.name for way in ways], [way.predicted for way in ways], height=0.62, color=FILLS[-1], label="by formula"
    )
    _measured(left, np.array([way.measured for way in ways]))
    left.invert_yaxis()
    left.set_title("memory between arguments and result")
    left.legend(loc="lower right", facecolor="white", frameon=True, edgecolor="none")
    right.axvline(1, color=INK, linewidth=0.8)
    right.hlines(at, [way.low for way in ways], [way.high for way in ways], color=COLOURS[1], linewidth=3, alpha=0.4)
    right.plot([way.time for way in ways], at, "o", color=COLOURS[1], markersize=7)
    right.set_xlim(0, 1.1 * max(way.high for way in ways))
    right.set_title("time")
    right.set_xlabel(time)
    return figure


def _measured(axes: Axes, megabytes: np.ndarray) -> None:
    """What the compiled program keeps, marked on horizontal bars in megabytes."""
    axes.plot(megabytes, range(len(megabytes)), "D", color=INK, markersize=6, label="compiled program")
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
