"""Computation graphs of JAX functions, opened: every operation with its value, its adjoint and its equation.

graph.trace(fn, *args) -> Graph    graph.rule(operation, forward, derivative) -> Rule
"""

from lr_nn.graph.costs import Savings
from lr_nn.graph.graph import Graph
from lr_nn.graph.node import Node
from lr_nn.graph.rules.base import Rule, rule
from lr_nn.graph.tracing import trace

__all__ = ["Graph", "Node", "Rule", "Savings", "rule", "trace"]


def __dir__() -> list[str]:
    return __all__
