"""The two sweeps as a story, one operation a step, in words and numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lr_nn.graph.summary import brief, number

if TYPE_CHECKING:
    from lr_nn.graph import Graph, Node


# What may stand right behind a name in an equation without being part of it.
SUPERSCRIPTS = "²³ᵀ"


@dataclass(frozen=True)
class Edge:
    """One operand of one operation. In the backward sweep it may carry a `contribution` to the operand's adjoint.

    `worked` is its equation in numbers, `total` the operand's adjoint once it is added, as branch number `branch` of
    `branches`, at step `step`.
    """

    source: int
    target: int
    equation: str = ""
    worked: str = ""
    contribution: np.ndarray | None = None
    total: np.ndarray | None = None
    branch: int = 0
    branches: int = 0
    step: int | None = None


@dataclass(frozen=True)
class Step:
    """What happens at once: in which phase, at which nodes, along which edges; `says` is the sentence read aloud."""

    phase: str
    title: str
    says: str
    nodes: tuple[int, ...]
    edges: tuple[int, ...] = ()


@dataclass(frozen=True)
class Story:
    """Steps in order, and the edges: node by node, operand by operand."""

    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]

    @property
    def has_backward(self) -> bool:
        """Whether there are adjoints to tell of."""
        return self.steps[-1].phase == "end"


def tell(graph: Graph) -> Story:
    """The forward sweep in the order of the nodes; if there are adjoints, the backward sweep against it."""
    forward = _forward(graph)
    if all(node.adjoint is None for node in graph.nodes):
        return Story(forward, tuple(Edge(i, node.index) for node in graph.nodes for i in node.operands))
    passing = [node for node in reversed(graph.nodes) if node.adjoint is not None and any(node.adjoint_equations)]
    edges = _edges(graph, passing, len(forward) + 1)
    return Story((*forward, _seed(graph), *_backward(graph, passing, edges), _end(graph)), edges)


def adjoint_name(node: Node) -> str:
    """`v̄7`, `x̄`, `params[0].w̄`: the bar stands over the letter that numbers follow, or at the end."""
    return re.sub(r"^(v)(?=\d+$)|(?<=.)$", "\\1\u0304", node.name, count=1)


def worked(equation: str, numbers: Mapping[str, str], result: str) -> str:
    """The right-hand side with numbers for names, and what it comes to; "" where a name has no single number.

    >>> worked("v3 = a · b", {"a": "2", "b": "-3"}, "-6")
    '2 · (-3) = -6'
    """
    _, _, right = equation.partition("= ")
    names = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True))
    named = re.compile(rf"(?<![\w.\]])(?:{names})(?![^\W{SUPERSCRIPTS}]|\u0304)")
    if not names or not all(numbers[name] for name in named.findall(right)):
        return ""
    filled = named.sub(lambda found: _bracketed(numbers[found.group()]), right)
    return "" if filled == result else f"{filled} = {result}"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _single(array: np.ndarray | None) -> str:
    """The number of a scalar; "" for an array."""
    return "" if array is None or array.ndim else number(array)


def _numbers(graph: Graph, node: Node) -> dict[str, str]:
    """The numbers that the equations of `node` may name: operands, result, adjoints."""
    near = [graph.nodes[i] for i in node.operands] + [node]
    return {n.name: _single(n.value) for n in near} | {adjoint_name(n): _single(n.adjoint) for n in near}


def forward_worked(graph: Graph, node: Node) -> str:
    """The equation of `node` in numbers."""
    return worked(node.equation, _numbers(graph, node), _single(node.value)) if node.value.ndim == 0 else ""


def is_given(node: Node) -> bool:
    """Whether nothing has to be computed for it."""
    return node.op in ("input", "constant")


def _forward(graph: Graph) -> tuple[Step, ...]:
    given = tuple(node.index for node in graph.nodes if is_given(node))
    computed = [node for node in graph.nodes if not is_given(node)]
    start = Step("start", "Start", f"Start: {len(given)} inputs and constants are given.", given)
    return start, *(
        Step(
            "forward",
            f"Forward {turn} of {len(computed)}",
            f"Forward {turn} of {len(computed)}: {node.equation}, which is {brief(node.value)}.",
            (node.index,),
        )
        for turn, node in enumerate(computed, start=1)
    )


def _edges(graph: Graph, passing: list[Node], first: int) -> tuple[Edge, ...]:
    """Every edge, with what it carries when its node passes its adjoint on; branches add up in the order they come."""
    branches = Counter(i for node in passing for i in _reached(graph, node).values())
    totals: dict[int, np.ndarray] = {}
    arrived: Counter[int] = Counter()
    edges = {(node.index, place): Edge(i, node.index) for node in graph.nodes for place, i in enumerate(node.operands)}
    for step, node in enumerate(passing, start=first):
        numbers = _numbers(graph, node)
        for place, i in _reached(graph, node).items():
            contribution, equation = np.asarray(node.contributions[place]), node.adjoint_equations[place]
            totals[i] = totals[i] + contribution if i in totals else contribution
            arrived[i] += 1
            edges[node.index, place] = Edge(
                source=i,
                target=node.index,
                equation=equation,
                worked=worked(equation, numbers, number(contribution)) if contribution.ndim == 0 else "",
                contribution=contribution,
                total=totals[i],
                branch=arrived[i],
                branches=branches[i],
                step=step,
            )
    return tuple(edges.values())


def _reached(graph: Graph, node: Node) -> dict[int, int]:
    """The operands that receive an adjoint from `node`, by their place."""
    pairs = enumerate(zip(node.operands, node.adjoint_equations))
    return {place: i for place, (i, equation) in pairs if equation and graph.nodes[i].adjoint is not None}


def _seed(graph: Graph) -> Step:
    ends = [node for node in (graph.nodes[i] for i in graph.outputs) if node.adjoint is not None]
    says = "; ".join(f"{adjoint_name(node)} starts as {brief(node.adjoint)}" for node in ends)
    return Step("seed", "Backward starts", f"The backward sweep starts: {says}.", tuple(node.index for node in ends))


def _backward(graph: Graph, passing: list[Node], edges: tuple[Edge, ...]) -> tuple[Step, ...]:
    steps = []
    for turn, node in enumerate(passing, start=1):
        carrying = [number for number, edge in enumerate(edges) if edge.target == node.index and edge.step is not None]
        title = f"Backward {turn} of {len(passing)}"
        passes = "; ".join(f"{edges[k].equation}, a contribution of {brief(edges[k].contribution)}" for k in carrying)
        says = f"{title}: {node.op} passes {adjoint_name(node)} = {brief(node.adjoint)} on. {passes}."
        steps.append(Step("backward", title, says, (node.index,), tuple(carrying)))
    return tuple(steps)


def _end(graph: Graph) -> Step:
    reached = [node for node in graph.nodes if node.op == "input" and node.adjoint is not None]
    says = "; ".join(f"{adjoint_name(node)} = {brief(node.adjoint)}" for node in reached)
    return Step("end", "The gradient", f"The gradient: {says}.", tuple(node.index for node in reached))
