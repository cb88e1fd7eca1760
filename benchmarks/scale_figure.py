"""Growth as a picture: time and memory against what grows, with their exponents."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any


def growth(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Two panels of lines, a line an axis, its exponent over the last decade in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = [list(points) for _, points in groupby(rows, key=lambda row: row["axis"])]
    figure, panels = plt.subplots(1, 2, figsize=(13, 5.8), layout="constrained")
    for panel, what, unit, exponent in (
        (panels[0], "seconds", "seconds", "time_exponent"),
        (panels[1], "bytes", "bytes above the smallest", "memory_exponent"),
    ):
        for marker, points in zip("osv^D*PX", axes):
            seen = [(point["value"], point[what]) for point in points if point[what] > 0]
            slope = points[0][exponent]
            told = f"{points[0]['grows']} ({points[0]['case']})" + (f", slope {slope:.2f}" if slope else "")
            if seen:
                panel.loglog(*zip(*seen), marker=marker, markersize=4, label=told)
        panel.set_xlabel("what grows")
        panel.set_ylabel(unit)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_title("time", loc="left")
    panels[1].set_title("memory", loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
