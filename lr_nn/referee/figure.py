"""Taylor remainders drawn: what falls by h² is right, what falls by h is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lr_nn.referee.report import Report

COLOURS = ("#0072b2", "#d55e00", "#009e73")


def slopes(report: Report) -> Figure:
    """A panel for each leaf: remainders of orders 0, 1, 2 at the given point, in float64, and their noise floor."""
    from matplotlib.figure import Figure

    given = [(leaf, leaf.findings[0].evidence) for leaf in report.leaves]
    drawn = [(leaf, evidence.by_hand) for leaf, evidence in given if evidence is not None]
    columns = max(1, min(3, len(drawn)))
    rows = max(1, -(-len(drawn) // columns))
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis, (leaf, found) in zip(axes, drawn):
        for order, (remainder, colour, slope) in enumerate(zip(found.remainders, COLOURS, found.slopes)):
            label = f"order {order}: " + ("below the noise" if np.isnan(slope) else f"slope {slope:.2f}")
            positive, window = np.where(remainder > 0, remainder, np.nan), found.windows[order]
            axis.loglog(found.steps, positive, ".-", color=colour, lw=1, ms=4, label=label)
            if window is not None:
                axis.axvspan(*window, ymin=0.02 * order, ymax=0.02 * (order + 1), color=colour)
        if found.floor > 0:
            axis.axhline(found.floor, color="0.4", ls="--", lw=1, label="noise floor")
        axis.set(title=f"{leaf.name}: {leaf.verdict}".replace("$", r"\$"), xlabel="step h", ylabel="Taylor remainder")
        axis.legend(fontsize=7)
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    return figure
