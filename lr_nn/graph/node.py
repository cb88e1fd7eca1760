"""A node of a computation graph, and the operation that makes nodes from nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn.graph.rules.base import Rule

__all__ = ["Node"]


@dataclass(eq=False, repr=False)
class Node:
    """One value on the way from the arguments to the result.

    index: its place in `Graph.nodes`, after all its operands. op: a primitive's name ("dot_general"), "input",
    "constant", or the name of a nested call kept as one node. name: of an input its path ("params[0].w"), of a
    constant its value or "c3", else "v7". operands: indices of nodes. value, and adjoint ∂J/∂value after
    `Graph.backward` (None where there is none). equation: how the value is made ("v5 = v4 · params[0].w").
    adjoint_equations: what each operand gains from it ("v̄4 += v̄5 params[0].wᵀ"), "" for none. source: where it was
    called ("model.py:12 in loss").
    """

    index: int
    op: str
    name: str
    operands: tuple[int, ...]
    value: np.ndarray
    adjoint: np.ndarray | None = None
    equation: str = ""
    adjoint_equations: tuple[str, ...] = ()
    source: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype of its value."""
        return self.value.dtype

    def __repr__(self) -> str:
        """Its name, operation and shape."""
        return f"Node({self.name}: {self.op}, shape {self.shape}, {self.dtype})"


@dataclass(frozen=True, eq=False)
class Operation:
    """A rule carried out: on the nodes `operands`, to the nodes `results` (None for a result that nobody uses).

    carries: to which operands an adjoint goes back.
    """

    rule: Rule
    params: Mapping[str, Any]
    operands: tuple[int, ...]
    results: tuple[int | None, ...]
    values: tuple[np.ndarray, ...]
    carries: tuple[bool, ...]
    source: str


@dataclass(frozen=True, eq=False)
class Tape:
    """Everything that was carried out, in order. between: the nodes that an adjoint reaches."""

    nodes: tuple[Node, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    between: frozenset[int]
