"""The pictures of what surrounds a fit: intervals, calibration, resamples, paths and choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

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
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
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
def agreement(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], x: str, y: str) -> Figure:
    """Named groups of positive pairs on logarithmic axes, with the line on which both agree."""
    figure = Figure(figsize=(WIDE, 5.2))
    axes = figure.subplots()
    values = np.concatenate([each for pair in groups.values() for each in pair])
    ends = [values.min(), values.max()]
    axes.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
    for (name, (across, up)), colour, marker in zip(groups.items(), COLOURS, MARKERS):
        axes.plot(across, up, marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.axes.set(xscale="log", yscale="log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
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
    """Weights (t, d) along t strengths, some of them named, beside the score with a band of one standard error."""
    figure = Figure(figsize=(WIDE, 4.8))
    left, right = figure.subplots(1, 2)
    for j in set(range(weights.shape[1])) - set(named):
        left.plot(strengths, weights[:, j], color=FAINT, linewidth=1)
    for (j, name), colour, style in zip(named.items(), COLOURS, STYLES):
        left.plot(strengths, weights[:, j], style, color=colour, label=name)
    right.fill_between(strengths, score - error, score + error, color=COLOURS[0], alpha=0.18, linewidth=0)
    right.plot(strengths, score, color=COLOURS[0], label="mean, ± one standard error")
    for axes in (left, right):
        axes.axvline(choices.best, color=INK, linewidth=1, label="lowest mean" if axes is right else None)
        axes.axvline(
            choices.simplest,
            color=INK,
            linewidth=1,
            linestyle="--",
            label="strongest within one standard error" if axes is right else None,
        )
        axes.set_xscale("log")
        axes.set_xlabel("strength λ")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), fontsize=10)
    left.set_title("weights")
    right.set_title("held-out loss")
    right.set_ylim(0, 1.1 * min(score.max() + error.max(), 4 * score.min()))
    return figure


@styled
def choices(groups: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], bar: float, chosen: int, x: str) -> Figure:
    """Named groups of (sizes, scores, standard errors), the bar of the best, and a ring around the chosen size."""
    figure = Figure(figsize=(HALF, 4.8))
    axes = figure.subplots()
    for (name, (sizes, scores, errors)), colour, style, marker in zip(groups.items(), COLOURS, STYLES, MARKERS):
        axes.errorbar(sizes, scores, errors, linestyle=style, marker=marker, color=colour, elinewidth=1.2, label=name)
        for size, score in zip(sizes, scores):
            if size == chosen:
                axes.plot(size, score, "o", markersize=15, markerfacecolor="none", markeredgecolor=INK)
    axes.axhline(bar, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_formatter(NullFormatter())
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
