"""A record as a picture: one panel a section, one bar a competitor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def bars(record: Mapping[str, Any], titles: Mapping[str, str], path: Path) -> None:
    """Relative times with their quartiles, on a logarithmic axis; the baseline is the line at one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in titles if name in record]
    heights = [0.24 * len(record[name]["rows"]) + 1.1 for name in names]
    figure, axes = plt.subplots(
        len(names), 1, figsize=(10, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for name, axis in zip(names, axes[:, 0]):
        rows = record[name]["rows"][::-1]
        times = [row["relative_time"] for row in rows]
        errors = [[t - row["low"] for t, row in zip(times, rows)], [row["high"] - t for t, row in zip(times, rows)]]
        ours = [row["competitor"].startswith(("by hand", "lr_nn", "train_many")) for row in rows]
        axis.barh(range(len(rows)), times, xerr=errors, color=["#1f6f8b" if own else "#b9c4c9" for own in ours])
        axis.set_yticks(range(len(rows)), [f"{row['case']}   {row['competitor']}" for row in rows], fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8)
        if max(times) > 5 or min(times) < 0.2:
            axis.set_xscale("log")
        for i, time in enumerate(times):
            axis.annotate(f"{time:.2f}", (time, i), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.margins(x=0.12)
        axis.set_title(titles[name], fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
