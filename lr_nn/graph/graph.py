"""A computation graph: what it holds, its reverse sweep, and its views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lr_nn.graph import costs, dot, text
from lr_nn.graph.costs import Savings
from lr_nn.graph.node import Node, Tape
from lr_nn.graph.rules.base import is_float, is_real
from lr_nn.graph.summary import finite
from lr_nn.graph.sweep import sweep

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """The directed acyclic graph of a function at its arguments, as `trace` makes it; `print` shows it as a table.

    tape: what was carried out. arguments, results: the tree structures of each argument and of what was returned.
    """

    tape: Tape
    arguments: tuple[Any, ...]
    results: Any

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every value, its operands before it."""
        return self.tape.nodes

    @property
    def outputs(self) -> tuple[int, ...]:
        """The indices of the nodes that the function returned."""
        return self.tape.outputs

    def backward(self, seed: Any = None) -> tuple[Any, ...]:
        """One reverse sweep: the adjoints ∂J/∂argument, one an argument, of its structure, in NumPy.

        Sets `Node.adjoint` on every node between an argument and the result. Integers and booleans have none: None.
        A second sweep begins anew; nothing adds up.

        seed: the adjoints of what the function returned, in its structure (None for zero), where that is not a single
        number: the sweep then gives seedᵀ times the Jacobian.

        Raises ValueError where the result is not a single number and there is no seed, or the seed does not fit it.
        """
        adjoints = sweep(self.tape, self._single() if seed is None else self._seeds(seed))
        for node in self.nodes:
            node.adjoint = _kept(adjoints.get(node.index))
        leaves = []
        for index in self.tape.inputs:
            node = self.nodes[index]
            if is_float(node.dtype):
                node.adjoint = _kept(np.zeros_like(node.value)) if node.adjoint is None else node.adjoint
            leaves.append(None if node.adjoint is None else np.array(node.adjoint))
        rest = iter(leaves)
        return tuple(tree.unflatten([next(rest) for _ in range(tree.num_leaves)]) for tree in self.arguments)

    @property
    def non_finite(self) -> Node | None:
        """The first node that is not finite though all its operands are: where NaN or infinity came in.

        An argument that is not finite is such a node; a constant only if the result is not finite and nothing else
        explains it. If all of these are finite: the first node of the last reverse sweep whose adjoint is not.
        """
        bad = {node.index for node in self.nodes if not finite(node.value).all()}
        for node in self.nodes:
            if node.index in bad and node.op != "constant" and not bad.intersection(node.operands):
                return node
        if bad.intersection(self.outputs):
            return self.nodes[min(bad)]
        adjoints = (
            node for node in reversed(self.nodes) if node.adjoint is not None and not finite(node.adjoint).all()
        )
        return next(adjoints, None)

    def savings(self) -> Savings:
        """What reverse mode saves against forward mode, and against the chain rule path by path."""
        return costs.savings(self.tape)

    def dot(self) -> str:
        """The graph in the DOT language, for Graphviz: `dot -Tsvg`."""
        return dot.source(self)

    def html(self, title: str | None = None) -> str:
        """A page in one file, to be opened in a browser, that plays the forward and the reverse sweep step by step."""
        from lr_nn.graph.page import html

        return html(self, title)

    def __str__(self) -> str:
        """The table, one row a node."""
        return text.table(self)

    def __repr__(self) -> str:
        """Its size."""
        return f"Graph({len(self.nodes)} nodes)"

    def __reduce__(self) -> Any:
        """A graph holds functions, which cannot be written down or doubled."""
        raise TypeError(
            "a graph holds the functions of its rules and cannot be copied or pickled: trace again, or keep "
            "str(graph), graph.dot(), graph.html() or the values of its nodes"
        )

    def _single(self) -> list[np.ndarray]:
        values = [self.nodes[i].value for i in self.outputs]
        if len(values) != 1 or values[0].shape:
            shapes = ", ".join(str(value.shape) for value in values) or "nothing"
            raise ValueError(
                f"backward needs one number to differentiate; the function returned {shapes}: "
                "sum it up in the function, or pass backward(seed=...), adjoints in the structure of what it returned"
            )
        if not is_float(values[0].dtype):
            raise ValueError(f"backward needs a result with a derivative; the function returned {values[0].dtype}")
        return [np.ones_like(values[0])]

    def _seeds(self, seed: Any) -> list[np.ndarray | None]:
        try:
            leaves = self.results.flatten_up_to(seed)
        except (TypeError, ValueError):
            leaves = None
        if leaves is None or any(isinstance(leaf, (tuple, list, dict)) for leaf in leaves):
            structure = jax.tree.structure(seed, is_leaf=lambda leaf: leaf is None)
            raise ValueError(
                f"seed must have the structure of what the function returned, {self.results}; got {structure}"
            )
        seeds: list[np.ndarray | None] = []
        for leaf, index in zip(leaves, self.outputs):
            node = self.nodes[index]
            if leaf is None:
                seeds.append(None)
                continue
            dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
            if isinstance(leaf, jax.core.Tracer) or not is_real(dtype):
                raise TypeError(f"a seed must be a concrete array of real numbers; got {leaf!r:.60}")
            if np.shape(leaf) != node.shape:
                raise ValueError(f"a seed must have the shape of its result, {node.shape}; got {np.shape(leaf)}")
            with np.errstate(over="ignore"):
                seeds.append(np.asarray(leaf).astype(node.dtype))
        return seeds


def _kept(adjoint: np.ndarray | None) -> np.ndarray | None:
    """An adjoint that cannot be written on: nodes share theirs."""
    if adjoint is None:
        return None
    adjoint = adjoint.view()
    adjoint.setflags(write=False)
    return adjoint
