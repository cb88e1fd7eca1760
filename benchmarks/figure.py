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


def gaps(record: dict[str, Any], sections: tuple[str, ...], path: Path) -> None:
    """Gap against time for every case that has tries, one panel each; competitors that end above the line missed it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases: dict[str, dict[str, list[list[float]]]] = {}
    for section in sections:
        for row in record.get(section, {}).get("rows", []):
            if row.get("tries"):
                curves = cases.setdefault(row["case"], {})
                curves[row["competitor"].rsplit(", ", 1)[0]] = row["tries"]
                curves.update(row["not_reached_by"])
    if not cases:
        return
    across = 3
    down = -(-len(cases) // across)
    figure, panels = plt.subplots(down, across, figsize=(5 * across, 3.4 * down), squeeze=False, layout="constrained")
    colours: dict[str, Any] = {}
    for panel, (case, curves) in zip(panels.flat, cases.items()):
        for name, tries in curves.items():
            colour = colours.setdefault(name, f"C{len(colours)}")
            seconds, gap = zip(*tries)
            panel.loglog(seconds, [max(each, 1e-14) for each in gap], "o-", markersize=3, color=colour, label=name)
        panel.axhline(1e-10, color="grey", linewidth=0.8, linestyle=":")
        panel.set_title(case, fontsize=9)
        panel.set_xlabel("time relative to lr_nn.fit", fontsize=8)
        panel.set_ylabel("J - J*", fontsize=8)
    for panel in panels.flat[len(cases) :]:
        panel.set_axis_off()
    handles = [plt.Line2D([], [], color=colour, marker="o", markersize=3) for colour in colours.values()]
    figure.legend(handles, colours, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
