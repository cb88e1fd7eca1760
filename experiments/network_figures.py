"""The pictures of networks: activations and errors, hidden neurons, equal neurons, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import lr_nn
from experiments.figures import COLOURS, INK, STYLES, WIDE, styled
from lr_nn.activations import Activation

if TYPE_CHECKING:
    from experiments.hidden_layer import Found

MARKERS = ("o", "s", "^", "D", "v")
FIVE = (*COLOURS, INK)


@styled
def menu(activations: Mapping[str, Activation]) -> Figure:
    """Every activation and its derivative over [-4, 4]."""
    figure = Figure(figsize=(WIDE, 4.6))
    z = np.linspace(-4, 4, 401, dtype=np.float32)
    for axes, (name, activation) in zip(figure.subplots(2, 4, sharex=True, sharey=True).flat, activations.items()):
        a = activation.value(jnp.asarray(z))
        values, slopes = np.array(a), np.array(activation.derivative(a))
        for curve in (values, slopes):
            curve[1:][np.abs(np.diff(curve)) > 0.5] = np.nan  # a jump is not a line
        (value,) = axes.plot(z, values, STYLES[0], color=COLOURS[0])
        (slope,) = axes.plot(z, slopes, STYLES[1], color=COLOURS[1])
        axes.set_title(name.replace("_", " "))
        axes.set(ylim=(-1.3, 2.3), xticks=(-4, -2, 0, 2, 4), yticks=(-1, 0, 1, 2))
    figure.supxlabel("z", fontsize=11)
    figure.legend((value, slope), ("a = σ(z)", "its derivative σ'(z)"), loc="outside upper left", ncols=2)
    return figure


@styled
def errors(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Lengths of errors layer by layer, a panel for each scale: measured as dots, predicted as lines."""
    scales = sorted({row["scale"] for row in rows})
    figure = Figure(figsize=(WIDE, 4.8))
    for axes, scale in zip(figure.subplots(1, len(scales), sharey=True, squeeze=False)[0], scales):
        for name, colour, marker in zip(names, FIVE, MARKERS):
            size = 3 if name == names[-1] else 5  # the last two may lie on each other
            (row,) = (row for row in rows if (row["name"], row["scale"]) == (name, scale))
            layers = np.arange(1, 1 + row["depth"])
            axes.plot(layers, row["predicted"], color=colour, linewidth=1.2)
            label = name.replace("_", " ") if scale == scales[0] else None
            axes.plot(layers, row["measured"], marker, color=colour, markersize=size, markeredgewidth=0, label=label)
        axes.axhline(1, color=INK, linewidth=0.8)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=9))
        axes.set_title("weights of lr_nn.init" if scale == 1 else f"weights × {scale:g}")
        axes.set_xlabel("layer $l$")
    figure.supylabel(r"$\Vert\delta_l\Vert\;/\;\Vert\delta_L\Vert$")
    figure.legend(loc="outside upper left", ncols=5, columnspacing=1.2, handletextpad=0.3, markerscale=1.4)
    return figure


@styled
def hidden_layer(
    data: tuple[np.ndarray, np.ndarray],
    line: np.ndarray,
    best: Found,
    found: Mapping[int, Found],
    one: Mapping[str, float],
) -> Figure:
    """Points, regions and the lines of hidden neurons in the plane, beside the accuracy of every start by width."""
    figure = Figure(figsize=(WIDE, 4.9))
    plane, starts = figure.subplots(1, 2, width_ratios=(1.05, 1))
    x, y = data
    limit = 1.08 * np.abs(x).max()
    grid = np.linspace(-limit, limit, 301, dtype=np.float32)
    at = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    shape, ((w, b), _) = (len(grid), len(grid)), best.params
    says = np.asarray(lr_nn.predict(best.net, best.params, at)).reshape(shape)
    plane.contourf(grid, grid, says, (0, 0.5, 1), colors=(COLOURS[0], COLOURS[1]), alpha=0.14)
    for j, (colour, style) in enumerate(zip((COLOURS[2], COLOURS[3], INK, "#7a5c00"), STYLES)):
        _half_plane(plane, np.asarray(w)[:, j], float(np.asarray(b)[j]), limit, colour, style)
    plane.plot([], [], color=INK, label="four hidden neurons")
    _line(plane, line[:2], line[2], limit, color=INK, linewidth=4, alpha=0.25, label="one neuron")
    for label, marker in enumerate("os"):
        plane.plot(
            *x[y == label].T, marker, color=COLOURS[label], markersize=4, markeredgewidth=0, label=f"class {label}"
        )
    plane.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    plane.set_xlabel("$x_1$")
    plane.set_title("$x_2$")
    for place, of in enumerate(found.values()):
        jitter = np.linspace(-0.3, 0.3, len(of.scores))
        starts.plot(place + jitter, 100 * np.sort(of.scores), "o", color=COLOURS[0], markersize=4, markeredgewidth=0)
        starts.text(place, 101.5, f"{of.solved} of {len(of.scores)}", ha="center", va="bottom", fontsize=9)
    for (name, value), style in zip(
        {"best line": one["best_line"], "logistic optimum": one["accuracy"]}.items(), STYLES
    ):
        starts.axhline(100 * value, color=COLOURS[1], linestyle=style, linewidth=1.4, label=name)
    starts.set_xticks(range(len(found)), [str(width) for width in found])
    starts.grid(axis="x", visible=False)
    starts.set_ylim(45, 105)
    starts.set_xlabel("hidden neurons")
    starts.set_title("accuracy of every start (%)")
    figure.legend(loc="outside upper left", ncols=6, columnspacing=1.1, handlelength=1.6, fontsize=10)
    return figure


def _half_plane(axes: Axes, w: np.ndarray, b: float, limit: float, colour: str, style: str) -> None:
    """The line w·x + b = 0, and an arrow to the side where it is positive from the place nearest to the middle."""
    _line(axes, w, b, limit, color=colour, linestyle=style)
    normal = w / np.linalg.norm(w)
    foot = -b * w / (w @ w)
    if np.abs(foot).max() < limit:
        axes.annotate(
            "", foot + 0.22 * limit * normal, foot, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8}
        )


def _line(axes: Axes, w: np.ndarray, b: float, limit: float, **how: Any) -> None:
    along = np.array([-w[1], w[0]]) / np.linalg.norm(w)
    ends = -b * w / (w @ w) + np.array([[-3], [3]]) * limit * along[None]
    axes.plot(*ends.T, **how)


@styled
def neurons(rows: Mapping[str, np.ndarray], shown: int = 8) -> Figure:
    """The weights of the first neurons of each row as images (m, height, width)."""
    figure = Figure(figsize=(WIDE, 1.65 * len(rows)))
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, (heading, images) in zip(bands, rows.items()):
        band.suptitle(heading, x=0.01, ha="left", fontsize=11)
        limit = float(np.abs(images).max()) or 1.0
        for axes, image in zip(band.subplots(1, shown), images):
            axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xticks=(), yticks=())
            axes.grid(visible=False)
            axes.spines[:].set_visible(True)
    return figure


@styled
def starts(networks: Mapping[str, np.ndarray], one: Mapping[str, np.ndarray]) -> Figure:
    """Costs of networks by epoch, beside the cost of one neuron above its optimum by step."""
    figure = Figure(figsize=(WIDE, 4.4))
    deep, single = figure.subplots(1, 2)
    for i, (name, costs) in enumerate(networks.items()):
        deep.plot(np.arange(1, 1 + len(costs)), costs, STYLES[i // 2], color=COLOURS[i % 2], label=name)
    for i, (name, excess) in enumerate(one.items()):
        single.plot(np.arange(len(excess)), np.abs(excess), color=COLOURS[i], label=name)
    deep.set_yscale("log")
    deep.set_xlabel("epoch")
    deep.set_title("cost of a deep network")
    single.set_yscale("log")
    single.set_xlabel("step")
    single.set_title("one neuron: |cost − certified optimum|")
    deep.legend(loc="best", fontsize=9)
    single.legend(loc="best", fontsize=9)
    return figure


@styled
def counts(sizes: Mapping[str, Mapping[str, Any]], target: float) -> Figure:
    """The training cost of every batch size against updates, passes and seconds."""
    figure = Figure(figsize=(WIDE, 4.4))
    panels = figure.subplots(1, 3, sharey=True)
    for (name, of), colour, style in zip(sizes.items(), COLOURS, STYLES):
        costs = np.array(of["costs"])
        passes = np.arange(1, 1 + costs.shape[1])
        middle = np.median(costs, axis=0)
        for axes, unit in zip(panels, (of["updates_per_pass"], 1, of["seconds_per_pass"])):
            axes.fill_between(
                passes * unit, costs.min(axis=0), costs.max(axis=0), color=colour, alpha=0.15, linewidth=0
            )
            axes.plot(passes * unit, middle, style, color=colour, label=name if axes is panels[0] else None)
            axes.plot(passes[0] * unit, middle[0], "o", color=colour, markersize=5)
    for axes, count in zip(panels, ("updates", "passes over the data", "seconds")):
        axes.axhline(target, color=INK, linewidth=0.8)
        axes.set(xscale="log", yscale="log")
        axes.set_xlabel(count)
    panels[0].set_title("training cost")
    figure.legend(loc="outside upper left", ncols=len(sizes))
    return figure


@styled
def noise(points: Mapping[str, Mapping[str, Any]], accuracies: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """The error of the gradient against the batch size, beside the test accuracies of every start."""
    figure = Figure(figsize=(WIDE, 4.4))
    errors, scores = figure.subplots(1, 2)
    for (name, of), colour, style in zip(points.items(), COLOURS, STYLES):
        n = of["sizes"][-1]
        m = np.geomspace(1, 0.98 * n, 200)
        errors.plot(
            m, of["predicted"][0] * np.sqrt((n - m) / (m * (n - 1))), style, color=colour, label=f"at the {name}"
        )
        errors.plot(of["sizes"][:-1], of["errors"][:-1], "o", color=colour)
    errors.axhline(1, color=INK, linewidth=0.8)
    errors.set(xscale="log", yscale="log")
    errors.set_xlabel("rows of a batch")
    errors.set_title("error of the gradient / ‖G‖")
    errors.legend(loc="lower left")
    for place, (accuracy, colour, marker) in enumerate(zip(accuracies, COLOURS, MARKERS)):
        spread = np.linspace(-0.2, 0.2, len(accuracy))
        scores.plot(place + spread, 100 * accuracy, marker, color=colour, markersize=6, alpha=0.75, markeredgewidth=0)
        scores.hlines(100 * accuracy.mean(), place - 0.3, place + 0.3, color=INK, linewidth=1.6)
    scores.set_xticks(range(len(names)), names)
    scores.grid(axis="x", visible=False)
    scores.set_title("test accuracy at that training cost (%)")
    return figure
