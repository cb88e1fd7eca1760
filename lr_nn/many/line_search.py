"""A point of a compiled search, and its cost along a direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Line", "OnLine", "Point", "not_yet"]


class Point(NamedTuple):
    """θ (p,), what the objective keeps there (η), the cost, and its gradient.

    `carried`: ‖θ‖ where η was last made from θ, and the lengths of all steps that it was carried along since.
    """

    theta: jax.Array
    eta: Any
    cost: jax.Array
    gradient: jax.Array
    carried: jax.Array


class OnLine(NamedTuple):
    """The cost and its slope at a step along a direction, and what the objective carries to the landing."""

    cost: jax.Array
    slope: jax.Array
    carry: Any


class Line(NamedTuple):
    """A cost along a direction: `at(t)`, and `land(t, at(t))`, the point there with its gradient."""

    at: Callable[[jax.Array], OnLine]
    land: Callable[[jax.Array, OnLine], Point]


def not_yet(on_line: Callable[[jax.Array], OnLine], cost: jax.Array, slope: jax.Array) -> OnLine:
    """What a loop that tries steps holds before the first: nothing is carried yet."""
    carry = jax.eval_shape(on_line, cost).carry
    return OnLine(cost, slope, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry))
