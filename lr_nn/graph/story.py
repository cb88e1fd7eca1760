"""The two sweeps as a story, one operation a step, in words and numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lr_nn.graph.summary import brief, number
from lr_nn.graph.wording import MACRON, bar

if TYPE_CHECKING:
    from lr_nn.graph import Graph, Node


# What may stand right behind a name in an equation without being part of it.
SUPERSCRIPTS = "²³ᵀ"


Gains = dict[tuple[int, int], np.ndarray]


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

    @property
    def amount(self) -> str:
        """The contribution in short, "" without one."""
        return "" if self.contribution is None else brief(self.contribution)


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
    gains = _gains(graph)
    senders = {index for index, _ in gains}
    passing = [node for node in reversed(graph.nodes) if node.index in senders]
    edges = _edges(graph, passing, gains, len(forward) + 1)
    return Story((*forward, _seed(graph), *_backward(passing, edges), _end(graph)), edges)


def worked(equation: str, numbers: Mapping[str, str], result: str) -> str:
    """The right-hand side with numbers for names, and what it comes to; "" where a name has no single number.

    >>> worked("v3 = a · b", {"a": "2", "b": "-3"}, "-6")
    '2 · (-3) = -6'
    """
    _, _, right = equation.partition("= ")
    names = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True))
    named = re.compile(rf"(?<![\w.\]])(?:{names})(?![^\W{SUPERSCRIPTS}]|{MACRON})")
    if not names or not all(numbers[name] for name in named.findall(right)):
        return ""
    filled = named.sub(lambda found: _bracketed(numbers[found.group()]), right)
    filled = re.sub(r"\((\([^()]*\))\)", r"\1", filled)
    return "" if filled == result else f"{filled} = {result}"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _single(array: np.ndarray | None) -> str:
    """The number of a scalar; "" for an array."""
    return "" if array is None or array.ndim else number(array)


def _numbers(graph: Graph, node: Node) -> dict[str, str]:
    """The numbers that the equations of `node` may name: operands, result, adjoints."""
    near = [graph.nodes[i] for i in node.operands] + [node]
    return {n.name: _single(n.value) for n in near} | {bar(n.name): _single(n.adjoint) for n in near}


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


def _edges(graph: Graph, passing: list[Node], gains: Gains, first: int) -> tuple[Edge, ...]:
    """Every edge, with what it carries when its node passes its adjoint on; branches add up in the order they come."""
    places = [(node.index, place) for node in passing for place in range(len(node.operands))]
    carrying = {key: graph.nodes[key[0]].operands[key[1]] for key in places if key in gains}
    branches = Counter(carrying.values())
    step = {node.index: number for number, node in enumerate(passing, start=first)}
    totals = _seeds(graph, gains)
    arrived: Counter[int] = Counter()
    edges = {(node.index, place): Edge(i, node.index) for node in graph.nodes for place, i in enumerate(node.operands)}
    for key, i in carrying.items():
        node, gain = graph.nodes[key[0]], gains[key]
        with np.errstate(all="ignore"):
            totals[i] = totals[i] + gain if i in totals else gain
        arrived[i] += 1
        equation = node.adjoint_equations[key[1]]
        edges[key] = Edge(
            source=i,
            target=node.index,
            equation=equation,
            worked=worked(equation, _numbers(graph, node), number(gain)) if gain.ndim == 0 else "",
            contribution=gain,
            total=totals[i],
            branch=arrived[i],
            branches=branches[i],
            step=step[node.index],
        )
    return tuple(edges.values())


def _seeds(graph: Graph, gains: Gains) -> dict[int, np.ndarray]:
    """What each result has before any branch comes: its adjoint without all that it gains."""
    seeds = {node.index: adjoint for node, adjoint in _with_adjoint(graph.nodes[i] for i in graph.outputs)}
    for (index, place), gain in gains.items():
        i = graph.nodes[index].operands[place]
        if i in seeds:
            with np.errstate(all="ignore"):
                seeds[i] = seeds[i] - gain
    return seeds


def _gains(graph: Graph) -> Gains:
    """What each operand gains from each node, by the index of the node and the place of the operand.

    The results of one operation are nodes of their own; each passes on its own part.
    """
    gains: Gains = {}
    for operation in graph.tape.operations:
        operands = [graph.nodes[i].value for i in operation.operands]
        for turn, index in enumerate(operation.results):
            adjoint = None if index is None else graph.nodes[index].adjoint
            if index is None or adjoint is None:
                continue
            given = [adjoint if k == turn else np.zeros_like(value) for k, value in enumerate(operation.values)]
            amounts = operation.rule.pull(given, operation.values, operands, operation.params)
            for place, (carried, amount) in enumerate(zip(operation.carries, amounts)):
                if carried and amount is not None:
                    gains[index, place] = amount
    return gains


def _seed(graph: Graph) -> Step:
    results = _with_adjoint(graph.nodes[i] for i in dict.fromkeys(graph.outputs))
    says = "; ".join(f"{bar(node.name)} starts as {brief(adjoint)}" for node, adjoint in results)
    return Step("seed", "Backward starts", f"The backward sweep starts: {says}.", tuple(n.index for n, _ in results))


def _backward(passing: list[Node], edges: tuple[Edge, ...]) -> tuple[Step, ...]:
    carrying: dict[int, list[int]] = {}
    for k, edge in enumerate(edges):
        if edge.contribution is not None:
            carrying.setdefault(edge.target, []).append(k)
    return tuple(
        _backward_step(node, adjoint, edges, carrying[node.index], f"Backward {turn} of {len(passing)}")
        for turn, (node, adjoint) in enumerate(_with_adjoint(passing), start=1)
    )


def _backward_step(node: Node, adjoint: np.ndarray, edges: tuple[Edge, ...], carrying: list[int], title: str) -> Step:
    passes = " ".join(f"{edges[k].equation}, a contribution of {edges[k].amount}." for k in carrying)
    says = f"{title}: {node.op} passes {bar(node.name)} = {brief(adjoint)} on. {passes}"
    return Step("backward", title, says, (node.index,), tuple(carrying))


def _end(graph: Graph) -> Step:
    reached = _with_adjoint(node for node in graph.nodes if node.op == "input")
    says = "; ".join(f"{bar(node.name)} = {brief(adjoint)}" for node, adjoint in reached)
    return Step("end", "The gradient", f"The gradient: {says}.", tuple(node.index for node, _ in reached))


def _with_adjoint(nodes: Iterable[Node]) -> list[tuple[Node, np.ndarray]]:
    return [(node, node.adjoint) for node in nodes if node.adjoint is not None]
