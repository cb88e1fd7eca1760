"""The pictures of the first lessons: chances, likelihoods, entropies and errors that fade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures import COLOURS, HALF, INK, STYLES, WIDE, styled


@styled
def vanishing(log10_likelihood: np.ndarray, ends: Mapping[str, Sequence[int]]) -> Figure:
    """The likelihood of the first 0, 1, ..., N tosses by its logarithm, and the tosses at which products of it end."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    axes.plot(log10_likelihood, color=INK, linewidth=1.6)
    for (said, tosses), colour, marker in zip(ends.items(), COLOURS, "oD"):
        axes.plot(tosses, log10_likelihood[tosses], marker, color=colour, markersize=7)
        early = tosses[0] < len(log10_likelihood) / 2
        at = tosses[-1] if early else tosses[0]
        aside: dict[str, Any] = {"xytext": (14, -2), "va": "bottom"} if early else {"xytext": (-16, -4), "va": "top"}
        axes.annotate(
            said,
            (at, log10_likelihood[at]),
            textcoords="offset points",
            ha="left" if early else "right",
            color=colour,
            **aside,
        )
    end = len(log10_likelihood) - 1
    axes.annotate(
        "the sum of the logarithms goes on",
        (end, log10_likelihood[end]),
        (-12, 0),
        textcoords="offset points",
        ha="right",
    )
    axes.set_xlim(0)
    axes.yaxis.set_major_formatter(lambda value, _: f"$10^{{{value:g}}}$" if value else "1")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("tosses")
    axes.set_title("likelihood of all tosses so far")
    return figure


@styled
def hill(p: np.ndarray, height: np.ndarray, path: np.ndarray, tops: Mapping[str, float]) -> Figure:
    """A log-likelihood over `p`, the steps of a climb on it, and named chances, the first of them its top."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    axes.plot(p, height, color=INK)
    for (name, at), colour, style in zip(tops.items(), COLOURS, STYLES):
        axes.axvline(at, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.plot(path, np.interp(path, p, height), "o", color=COLOURS[2], markersize=6, label="steps of descent")
    axes.set_xlim(0, 1)
    axes.set_ylim(2 * height.max(), 0.75 * height.max())
    axes.set_xlabel("chance of heads")
    axes.set_title("log-likelihood per toss (nats)")
    figure.legend(loc="outside upper left", ncols=len(tops) + 1, handlelength=1.4, columnspacing=1.2)
    return figure


@styled
def rulers(chances: Sequence[float]) -> Figure:
    """Probability, odds and log-odds as three rulers, joined at the same `chances`; far odds leave theirs."""
    figure = Figure(figsize=(WIDE, 4))
    axes = figure.subplots()
    p = np.array(chances)
    most, end, off, below = 12.0, 5.0, 1.03, 0.76
    # Name, height, its marks, and the arrows at its ends. Every ruler goes from 0 to 1 across the page.
    scales = (
        ("probability", 2, np.arange(11) / 10, (0.0, 1.0)),
        ("odds", 1, np.arange(most + 1), (0.0, off)),
        ("log-odds", 0, np.arange(-end, end + 1), (1 - off, off)),
    )
    for (name, height, marks, ends), arrow in zip(scales, ("-", "->", "<->")):
        at = (marks - marks[0]) / (marks[-1] - marks[0])
        axes.annotate(
            "",
            (ends[1], height),
            (ends[0], height),
            arrowprops={"arrowstyle": arrow, "color": INK, "shrinkA": 0, "shrinkB": 0},
        )
        axes.plot(at, np.full(len(at), height), "|", color=INK, markersize=9)
        for x, mark in zip(at, marks):
            above = height == scales[0][1]
            said = f"{mark:g}".replace("-", "−")
            axes.text(x, height + (0.1 if above else -0.1), said, ha="center", va="bottom" if above else "top")
        axes.text(-0.06, height, name, ha="right", va="center")
    odds, logits = p / (1 - p), np.log(p) - np.log1p(-p)
    middles, lasts = np.where(odds <= most, odds / most, off), (logits + end) / (2 * end)
    for x, middle, last, ratio in zip(p, middles, lasts, odds):
        colour, inside = COLOURS[int(x > 0.5)] if x != 0.5 else INK, ratio <= most
        line: dict[str, Any] = {"color": colour, "linewidth": 1.2, "markersize": 5}
        axes.plot([x, middle], [2, 1], "-o", markevery=[0, 1] if inside else [0], **line)
        axes.plot([middle, last], [below, 0], "-o", markevery=[1], **line)
        if not inside:
            axes.text(off + 0.015, 1, f"{ratio:.0f}", ha="left", va="center", color=colour)
    axes.set_xlim(-0.2, 1.1)
    axes.set_ylim(-0.4, 2.35)
    axes.axis("off")
    return figure


@styled
def three_lines(
    levels: tuple[np.ndarray, np.ndarray, np.ndarray], lines: Sequence[tuple[float, float]], x: str
) -> Figure:
    """Levels are values, shares there and counts, each (m,): as probabilities, odds and log-odds, each with its line.

    A line is (slope, start). Larger dots are of more people; what the scale cannot hold is hatched.
    """
    values, shares, counts = levels
    figure = Figure(figsize=(WIDE, 4.2))
    panels = figure.subplots(1, 3)
    with np.errstate(divide="ignore"):
        odds = shares / (1 - shares)
        measured = (shares, odds, np.log(odds))
    ends = np.array([values[0] - 0.8, values[-1] + 0.8])
    size = 12 + 90 * counts / counts.max()
    for axes, name, y, (slope, start) in zip(panels, ("probability", "odds", "log-odds"), measured, lines):
        line, inside = slope * ends + start, np.isfinite(y)
        low, high = min(y[inside].min(), line.min()), max(y[inside].max(), line.max())
        if name != "log-odds":
            low, high = min(low, -0.2 * (high - low)), max(high, 1.2 if name == "probability" else high)
        edge = 0.06 * (high - low)
        low, high = low - edge, high + edge
        for bottom, top in {"probability": [(low, 0), (1, high)], "odds": [(low, 0)], "log-odds": []}[name]:
            axes.axhspan(bottom, top, facecolor="none", edgecolor=COLOURS[1], hatch="///", alpha=0.35, linewidth=0)
        axes.scatter(values[inside], y[inside], s=size[inside], color=COLOURS[0], alpha=0.75, linewidths=0)
        for side, marker in ((-np.inf, "v"), (np.inf, "^")):
            at = values[y == side]
            axes.plot(at, np.full(len(at), low + edge / 2 if side < 0 else high - edge / 2), marker, color=COLOURS[0])
        axes.plot(ends, line, color=COLOURS[1], linewidth=2.2)
        axes.set_xlim(*ends)
        axes.set_ylim(low, high)
        axes.set_title(name)
    panels[1].set_xlabel(x)
    return figure


@styled
def two_valleys(q: np.ndarray, curves: Mapping[str, np.ndarray], entropy: float, p: float) -> Figure:
    """Cross-entropy and divergence by name over `q`, with the constant `entropy` between them."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    top = 3.2 * entropy
    for (name, curve), colour, style in zip(curves.items(), COLOURS, STYLES):
        axes.plot(q, curve, style, color=colour, label=name)
    _, divergence = curves.values()
    axes.axvline(p, color=INK, linewidth=0.8)
    for at in (p, 0.5 * (1 + p)):
        low = float(np.interp(at, q, divergence))
        arrow = {"arrowstyle": "<->", "color": COLOURS[2], "shrinkA": 0, "shrinkB": 0, "linewidth": 1.4}
        axes.annotate("", (at, low + entropy), (at, low), arrowprops=arrow)
        axes.annotate(
            "H(p)", (at, low + entropy / 2), (5, 0), textcoords="offset points", va="center", color=COLOURS[2]
        )
    axes.annotate("q = p", (p, top), (5, -12), textcoords="offset points")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    axes.set_xlabel("q")
    axes.set_title("bits")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)
    return figure


@styled
def layers(parts: np.ndarray, names: Sequence[str], whole: str, x: str) -> Figure:
    """Parts (2, m) in bits that lie on one another, and what they sum to."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    steps = np.arange(parts.shape[1])
    axes.stackplot(steps, parts, colors=(COLOURS[2], COLOURS[1]), alpha=0.35, labels=names)
    axes.plot(steps, parts.sum(axis=0), color=COLOURS[0], label=whole)
    axes.set_xlim(0, steps[-1])
    axes.set_ylim(0)
    axes.set_xlabel(x)
    axes.set_title("bits")
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    return figure


@styled
def unlearning(logits: Mapping[str, np.ndarray]) -> Figure:
    """By name, logits (steps + 1, m) of a wrong answer from m starts, over steps on a logarithmic axis."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    for (name, paths), colour, style in zip(logits.items(), COLOURS, STYLES):
        lines = axes.plot(np.arange(1, len(paths) + 1), paths, style, color=colour)
        lines[0].set_label(name)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.annotate("even odds", (1, 0), (4, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(1, max(len(paths) for paths in logits.values()))
    axes.set_ylim(-3, 1.04 * max(paths.max() for paths in logits.values()))
    axes.set_xlabel("steps of gradient descent, counted from 1")
    axes.set_title("logit of the wrong answer")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def fading(sizes: Mapping[str, np.ndarray]) -> Figure:
    """By name, sizes (L,) of what belongs to layers 1 to L, on a logarithmic axis."""
    figure = Figure(figsize=(HALF, 4.4))
    axes = figure.subplots()
    for (name, values), colour, style, marker in zip(sizes.items(), COLOURS, STYLES, "osD^"):
        axes.plot(np.arange(1, len(values) + 1), values, style, marker=marker, markersize=5, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_title("size of δ (root mean square)")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure
