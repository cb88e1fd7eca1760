"""The mutation score as a picture: a row a referee, a dot a mutant, filled where it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

KILLED, MISSED = "#1f6f8b", "#b3261e"


def dots(record: Mapping[str, Any], path: Path) -> None:
    """Mutants by kind from left to right; killed ones filled, missed ones hollow and red; scores at the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scores, wrong = record["scores"]["rows"], record["mutants"]["rows"]
    figure, axis = plt.subplots(figsize=(14, 0.55 * len(scores) + 1.3), layout="constrained")
    for y, row in enumerate(scores):
        killed = [row["referee"] in mutant["objections"] for mutant in wrong]
        for state, colour, face in ((True, KILLED, KILLED), (False, MISSED, "none")):
            at = [x for x, was in enumerate(killed) if was == state]
            axis.scatter(at, [y] * len(at), s=20, marker="o", facecolors=face, edgecolors=colour, linewidths=1)
        text = f"{row['killed']} of {row['mutants']} killed\n{row['false_alarms']} of {row['right']} falsely accused"
        axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    start = 0
    for kind, of in groupby(wrong, key=lambda mutant: mutant["kind"]):
        count = len(list(of))
        axis.annotate(kind, (start, -0.75), fontsize=9, annotation_clip=False)
        if start:
            axis.axvline(start - 0.5, color="black", linewidth=0.5)
        start += count
    axis.set_yticks(range(len(scores)), [row["referee"] for row in scores], fontsize=9)
    axis.set_xticks([])
    axis.set_xlim(-1, len(wrong))
    axis.set_ylim(len(scores) - 0.5, -0.9)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
