"""The pictures of networks: activations and errors, hidden neurons, equal neurons, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.figures import COLOURS, INK, STYLES, WIDE, styled
from lr_nn.activations import Activation

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
