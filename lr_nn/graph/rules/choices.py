"""Operations that choose among their operands; what ties share, they share as in JAX."""

from __future__ import annotations

import numpy as np

from lr_nn.graph.rules.base import Rule, elementwise


def _share(v, x, y):
    """Of v = max(x, y) or min(x, y), the part that x has in it: 1, 0, or a half at a tie."""
    return np.where(x == v, np.where(y == v, 0.5, 1.0), 0.0)


def _extreme(g, v, x, y):
    return g * _share(v, x, y), g * _share(v, y, x)


def _clamp(low, x, high):
    return np.minimum(np.maximum(x, low), high)


def _clamped(g, v, low, x, high):
    return (
        np.where((low > x) & (low < high), g, 0),
        np.where((x > low) & (x < high), g, 0),
        np.where(high < x, g, 0),
    )


def _select(which, *cases):
    return np.select([which == i for i in range(len(cases))], cases)


def _selected(g, v, which, *cases):
    return (None, *(np.where(which == i, g, 0) for i in range(len(cases))))


RULES: tuple[Rule, ...] = (
    elementwise("max", np.maximum, _extreme, "max({0}, {1})", "{bar} where {0} = {out}", "{bar} where {1} = {out}"),
    elementwise("min", np.minimum, _extreme, "min({0}, {1})", "{bar} where {0} = {out}", "{bar} where {1} = {out}"),
    elementwise(
        "clamp",
        _clamp,
        _clamped,
        "{1} within [{0}, {2}]",
        "{bar} where {1} < {0}",
        "{bar} where {0} < {1} < {2}",
        "{bar} where {1} > {2}",
    ),
    Rule(
        "select_n",
        _select,
        _selected,
        "choose by {0} among ({rest})",
        "{bar} where {0} chooses {self}",
        elementwise=True,
    ),
)
