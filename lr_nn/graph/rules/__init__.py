"""The rules, one an operation: its value and its derivative side by side."""

from lr_nn.graph.rules import choices, elementwise, factorizations, indexing, products, reductions, structure, windows
from lr_nn.graph.rules.base import Rule, rule

ROOMS = (elementwise, choices, products, structure, reductions, windows, indexing, factorizations)
TABLE: dict[str, Rule] = {row.operation: row for room in ROOMS for row in room.RULES}

__all__ = ["TABLE", "Rule", "rule"]
