"""The pictures of what surrounds a fit: intervals, calibration, resamples, paths and choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments.figures import COLOURS, FAINT, HALF, INK, STYLES, WIDE, styled

MARKERS = ("o", "s", "^", "D")


class Choices(NamedTuple):
    """Two strengths of a path: of the lowest score, and the largest within one standard error of it."""

    best: float
    simplest: float


@styled
def forest(names: Sequence[str], ratios: np.ndarray, intervals: np.ndarray, x: str) -> Figure:
    """Ratios (m,) with intervals (m, 2) on a logarithmic axis, the largest on top."""
    figure = Figure(figsize=(WIDE, 0.3 * len(ratios) + 1))
    axes = figure.subplots()
    for at, i in enumerate(np.argsort(ratios)):
        side = int(ratios[i] < 1)
        axes.plot(intervals[i], [at, at], color=COLOURS[side], linewidth=2)
        axes.plot(ratios[i], at, MARKERS[side], color=COLOURS[side], markersize=6)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set_yticks(range(len(ratios)), [names[i] for i in np.argsort(ratios)])
    axes.set_ylim(-0.7, len(ratios) - 0.3)
    axes.set_xlabel(x)
    return figure


@styled
def calibration(predicted: np.ndarray, measured: np.ndarray, intervals: np.ndarray) -> Figure:
    """Measured shares (m,) with intervals (m, 2) against predicted ones, in per cent."""
    figure = Figure(figsize=(HALF, 4.8))
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8)
    axes.vlines(100 * predicted, *(100 * intervals.T), color=COLOURS[0], linewidth=2)
    axes.plot(100 * predicted, 100 * measured, "o", color=COLOURS[0], markersize=6)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted (%)")
    axes.set_title("measured (%)")
    return figure


@styled
def roc(false_positive: np.ndarray, true_positive: np.ndarray, area: float) -> Figure:
    """The curve of a classifier over all thresholds, in per cent, and the area below it."""
    figure = Figure(figsize=(HALF, 4.8))
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8)
    axes.fill_between(100 * false_positive, 100 * true_positive, color=COLOURS[0], alpha=0.12, linewidth=0)
    axes.plot(100 * false_positive, 100 * true_positive, color=COLOURS[0])
    axes.text(96, 6, f"area {area:.3f}", ha="right", fontsize=12)
    axes.set_aspect("equal")
    axes.set_xlabel("false positives (% of the negatives)")
    axes.set_title("true positives (% of the positives)")
    return figure


@styled
def agreement(groups: Mapping[str, np.ndarray], x: str, y: str) -> Figure:
    """Named groups of positive pairs (2, m) on logarithmic axes, with the line on which both agree."""
    figure = Figure(figsize=(WIDE, 5.2))
    axes = figure.subplots()
    values = np.concatenate(list(groups.values()), axis=1)
    ends = [values.min(), values.max()]
    axes.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
    for (name, (across, up)), colour, marker in zip(groups.items(), COLOURS, MARKERS):
        axes.plot(across, up, marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0, label=name)
    axes.set(xscale="log", yscale="log")
    _plain(axes.xaxis, axes.yaxis)
    axes.set_xlabel(x)
    axes.set_title(y)
    axes.legend(loc="upper left")
    return figure


@styled
def path(
    strengths: np.ndarray,
    weights: np.ndarray,
    named: Mapping[int, str],
    score: np.ndarray,
    error: np.ndarray,
    choices: Choices,
) -> Figure:
    """Weights (t, d) along t strengths, some of them named, beside the score with a band of one standard error.

    Weights and scores far above those of the choices leave the picture.
    """
    figure = Figure(figsize=(WIDE, 4.8))
    left, right = figure.subplots(1, 2)
    for j in set(range(weights.shape[1])) - set(named):
        left.plot(strengths, weights[:, j], color=FAINT, linewidth=1)
    for (j, name), colour, style in zip(named.items(), COLOURS, STYLES):
        left.plot(strengths, weights[:, j], style, color=colour, label=name)
    right.fill_between(strengths, score - error, score + error, color=COLOURS[0], alpha=0.18, linewidth=0)
    right.plot(strengths, score, color=COLOURS[0], label="mean ± 1 s.e.")
    for axes in (left, right):
        labels = ("lowest mean", "strongest within 1 s.e.") if axes is right else (None, None)
        for at, style, label in zip(choices, STYLES, labels):
            axes.axvline(at, color=INK, linewidth=1, linestyle=style, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("strength λ")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.05, 1.06), ncols=2, fontsize=10, columnspacing=1)
    limit = 2.2 * abs(weights[strengths == choices.best]).max()
    left.set_ylim(max(-limit, 1.1 * weights.min()), min(limit, 1.1 * weights.max()))
    left.set_title("weights")
    right.set_title("held-out loss")
    right.set_ylim(0, 1.1 * min((score + error).max(), 4 * score.min()))
    return figure


@styled
def choices(groups: Mapping[str, np.ndarray], bar: float, chosen: int, x: str) -> Figure:
    """Named groups (3, m) of sizes, scores and standard errors, a bar for the scores, a ring around the chosen size."""
    figure = Figure(figsize=(HALF, 4.8))
    axes = figure.subplots()
    for (name, (sizes, scores, errors)), colour, style, marker in zip(groups.items(), COLOURS, STYLES, MARKERS):
        axes.errorbar(sizes, scores, errors, linestyle=style, marker=marker, color=colour, elinewidth=1.2, label=name)
        for size, score in zip(sizes, scores):
            if size == chosen:
                axes.plot(size, score, "o", markersize=15, markerfacecolor="none", markeredgecolor=INK)
    axes.axhline(bar, color=INK, linewidth=0.8)
    axes.set(xscale="log", yscale="log")
    _plain(axes.xaxis, axes.yaxis)
    axes.set_xlabel(x)
    axes.set_title("held-out error (%)")
    figure.legend(loc="outside upper left", ncols=len(groups))
    return figure


@styled
def strips(values: Mapping[str, np.ndarray], title: str) -> Figure:
    """The values of every name as points in a column of their own, with their mean."""
    figure = Figure(figsize=(HALF, 4.8))
    axes = figure.subplots()
    for at, (column, colour, marker) in enumerate(zip(values.values(), COLOURS, MARKERS)):
        spread = np.linspace(-0.18, 0.18, len(column))
        axes.plot(at + spread, column, marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0)
        axes.hlines(column.mean(), at - 0.3, at + 0.3, color=INK, linewidth=1.6)
    axes.set_xticks(range(len(values)), list(values))
    axes.grid(axis="x", visible=False)
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    return figure


def _plain(*logarithmic: Axis) -> None:
    """Ticks at 1, 2, 5, 10, ..., in plain numbers."""
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_locator(NullLocator())
