"""The graph as a table of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lr_nn.graph.summary import brief, finite

if TYPE_CHECKING:
    from lr_nn.graph.graph import Graph
    from lr_nn.graph.node import Node

WIDTH = 120
GAP = "  "
HEADS = ("node", "operation", "shape", "value", "adjoint", "equation")
WIDEST = (24, 20, 14, 24, 24)


def table(graph: Graph) -> str:
    """One row a node: name, operation, shape, value, adjoint and equation, no line longer than 120 characters."""
    rows = [HEADS, *map(_row, graph.nodes)]
    widths = [min(limit, max(_length(row[k]) for row in rows)) for k, limit in enumerate(WIDEST)]
    widths.append(WIDTH - 1 - sum(widths) - len(GAP) * (len(widths) + 1))
    marks = ["", *("→" if node.index in graph.outputs else "" for node in graph.nodes)]
    head, *lines = [_line(mark, row, widths) for mark, row in zip(marks, rows)]
    lines = [head, "─" * WIDTH, *lines]
    bad = graph.non_finite
    if bad is not None:
        made = "value" if bad.adjoint is None or not finite(bad.value).all() else "adjoint"
        where = f", {bad.source}" if bad.source else ""
        lines += ["─" * WIDTH, _cut(f"first {made} that is not finite: {bad.name} ({bad.op}{where})", WIDTH)]
    return "\n".join(lines)


def _row(node: Node) -> tuple[str, ...]:
    return (
        node.name,
        node.op,
        str(node.shape).replace(" ", "") if node.shape else "",
        brief(node.value),
        "" if node.adjoint is None else brief(node.adjoint),
        node.equation.partition(" = ")[2],
    )


def _line(mark: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = [_cut(cell, width) for cell, width in zip(cells, widths)]
    padded = [cell + " " * (width - _length(cell)) for cell, width in zip(cut, widths)]
    return GAP.join([f"{mark:1}", *padded]).rstrip()


def _length(text: str) -> int:
    """What a terminal shows: a macron takes no place."""
    return len(text) - text.count("\u0304")


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if _length(text) <= width else text[: max(width - 1, 0)] + "…"
