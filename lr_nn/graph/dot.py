"""The graph in the DOT language of Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lr_nn.graph.summary import brief

if TYPE_CHECKING:
    from lr_nn.graph.graph import Graph
    from lr_nn.graph.node import Node

SHAPES = {"input": "box", "constant": "plaintext"}


def source(graph: Graph) -> str:
    """A digraph from operands to results; where an adjoint has gone back, it is in the label."""
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=ellipse];"]
    for node in graph.nodes:
        style = ", peripheries=2" if node.index in graph.outputs else ""
        lines.append(f"  n{node.index} [label={_quoted(_label(node))}, shape={SHAPES.get(node.op, 'ellipse')}{style}];")
    for node in graph.nodes:
        lines += [f"  n{operand} -> n{node.index};" for operand in node.operands]
    return "\n".join([*lines, "}", ""])


def _label(node: Node) -> list[str]:
    if node.op == "constant":
        return [node.name]
    lines = [node.equation or node.name, f"{node.shape or ''} {brief(node.value)}".strip()]
    return lines if node.adjoint is None else [*lines, f"adjoint {brief(node.adjoint)}"]


def _quoted(lines: list[str]) -> str:
    """A quoted string of DOT; its lines are centred."""
    clean = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ") for line in lines)
    return '"' + "\\n".join(clean) + '"'
