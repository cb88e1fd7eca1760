"""The pictures of the reports. Each function returns a matplotlib figure; `Run.figure` saves it.

Figures are made without pyplot: no display, no global state, nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

P = ParamSpec("P")

HALF, WIDE = 5.6, 9.0  # inches: half the page and all of it, so that letters come out alike
INK, FAINT = "#1f2430", "#c9ced8"
COLOURS = ("#1668b8", "#c2500c", "#2c8a57", "#8a4fbd")  # told apart by colour-blind eyes, and by their line styles
SPELLS = 200
STYLES = ("-", "--", ":", "-.")
RIGHT, WRONG = "#1d6b41", "#b3261e"
STYLE: Any = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=COLOURS),
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
}


class Line(NamedTuple):
    """A named curve. Those of one `colour` belong together and are told apart by `style`, both counted from 0."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    style: int = 0


class Sample(NamedTuple):
    """An image (height, width) or (height, width, 3) in [0, 1], what the network says of it, and what it is.

    share: the probability that goes with the answer, in words, or nothing.
    """

    image: np.ndarray
    says: str
    truth: str
    share: str = ""


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw` under the one style of the reports."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


@styled
def curves(lines: Sequence[Line], x: str, y: str, wide: bool = False) -> Figure:
    """Curves over common axes from zero.

    A long one is drawn as means over short spells of it, on a band from their least to their largest values, so
    that an oscillation is seen as such. The first steps may leave the picture at its top.
    """
    figure = Figure(figsize=(WIDE, 4.4) if wide else (HALF, 3.8))
    axes = figure.subplots()
    for line in lines:
        spells = np.array_split(np.arange(len(line.x)), min(len(line.x), SPELLS))
        at = [0, *(line.x[spell].mean() for spell in spells), line.x[-1]]
        mean = [line.y[0], *(line.y[spell].mean() for spell in spells), line.y[-1]]
        low, high = ([line.y[0], *(end(line.y[spell]) for spell in spells), line.y[-1]] for end in (np.min, np.max))
        axes.fill_between(at, low, high, color=COLOURS[line.colour], alpha=0.18, linewidth=0)
        axes.plot(at, mean, STYLES[line.style], color=COLOURS[line.colour], label=line.name)
    axes.set_xlim(0, max(line.x[-1] for line in lines))
    axes.set_ylim(0, 1.08 * max(max(line.y[0], line.y[len(line.y) // 20 :].max()) for line in lines))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(x)
    axes.set_title(y)
    figure.legend(loc="outside upper left", ncols=max(2, -(-len(lines) // 2)))
    return figure


@styled
def samples(rows: Mapping[str, Sequence[Sample]]) -> Figure:
    """Rows of images under a heading, each with what the network says; where it errs, also what it is."""
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(WIDE, 2.25 * len(rows)))
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, (heading, row) in zip(bands, rows.items()):
        band.suptitle(heading, x=0.01, ha="left", fontsize=12)
        for axes, sample in zip(band.subplots(1, columns), [*row, *[None] * (columns - len(row))]):
            axes.axis("off")
            if sample is not None:
                _picture(axes, sample)
    return figure


@styled
def weights(images: np.ndarray, names: Sequence[str]) -> Figure:
    """Weights as images, (k, height, width) or (k, height, width, 3), all on one scale.

    One channel: blue against the answer, red for it, white is zero. Three channels: each colour channel as
    brightness around a grey that is zero.
    """
    count = len(images)
    columns = 5 if count > 4 else min(count, 3) if count != 4 else 2
    lines = -(-count // columns)
    width = WIDE if count > 4 else HALF
    figure = Figure(figsize=(width, (width - 0.9) / columns * lines + 0.25 * lines * any(names)))
    grid = figure.subplots(lines, columns, squeeze=False)
    limit = float(np.quantile(np.abs(images), 0.998)) or 1.0
    colour = images.ndim == 4
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, name in zip(grid.flat, images, names):
        if colour:
            axes.imshow(np.clip(0.5 + image / (2 * limit), 0, 1))
        else:
            axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(name, loc="center")
    scale = ScalarMappable(Normalize(-limit, limit), "gray" if colour else "RdBu_r")
    bar = figure.colorbar(scale, ax=grid, shrink=0.9 if lines == 1 else 0.6, aspect=25, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"−{limit:.2g}", "0", f"{limit:.2g}"])
    bar.outline.set_visible(False)
    return figure


@styled
def bars(values: np.ndarray, names: Sequence[str], x: str) -> Figure:
    """Named values as horizontal bars, the largest magnitude on top."""
    order = np.argsort(np.abs(values))
    figure = Figure(figsize=(HALF, 0.3 * len(values) + 0.8))
    axes = figure.subplots()
    axes.barh([names[i] for i in order], values[order], color=[COLOURS[int(values[i] < 0)] for i in order], height=0.65)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(x)
    return figure


@styled
def scatter(predicted: np.ndarray, measured: np.ndarray, unit: str) -> Figure:
    """Predicted against measured values, with the line on which both agree."""
    figure = Figure(figsize=(WIDE, 5))
    axes = figure.subplots()
    low = min(predicted.min(), measured.min())
    high = max(predicted.max(), measured.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=1, label="predicted = measured")
    axes.scatter(measured, predicted, s=26, alpha=0.75, linewidths=0)
    axes.set_xlabel(f"measured ({unit})")
    axes.set_title(f"predicted ({unit})")
    axes.legend(loc="upper left")
    return figure


@styled
def path(strengths: np.ndarray, weights: np.ndarray, x: str, title: str) -> Figure:
    """Weights (d, m) against m strengths, on a logarithmic axis."""
    figure = Figure(figsize=(HALF, 3.8))
    axes = figure.subplots()
    for weight in weights:
        axes.plot(strengths, weight, color=COLOURS[0], alpha=0.6, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_title(title)
    return figure


@styled
def fits(lines: Sequence[Line], x: np.ndarray, y: np.ndarray, across: str, title: str) -> Figure:
    """Points and fitted curves."""
    figure = Figure(figsize=(WIDE, 4.2))
    axes = figure.subplots()
    for line in lines:
        axes.plot(line.x, line.y, STYLES[line.style], color=COLOURS[line.colour], label=line.name)
    axes.plot(x, y, "o", color=INK, markersize=5, alpha=0.7)
    axes.set_ylim(-0.4, 1.4)
    axes.set_xlabel(across)
    axes.set_title(title)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def falls(curves: Sequence[tuple[str, np.ndarray, np.ndarray]], x: str, title: str) -> Figure:
    """Named curves on logarithmic axes."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    for i, (name, at, values) in enumerate(curves):
        style = STYLES[i // len(COLOURS)]
        axes.plot(
            at, values, style, color=COLOURS[i % len(COLOURS)], label=name, marker="o" if i > 3 else "", markersize=4
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_title(title)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _picture(axes: Axes, sample: Sample) -> None:
    axes.imshow(sample.image, cmap="gray", vmin=0, vmax=1)
    axes.set_anchor("NW")
    right = sample.says == sample.truth
    answer = f"{sample.says}, {sample.share}" if sample.share else sample.says
    text = f"✓ {answer}" if right else f"✗ {answer}\n    is {sample.truth}"
    axes.text(
        0,
        -0.05,
        text,
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        color=RIGHT if right else WRONG,
        linespacing=1.35,
    )
