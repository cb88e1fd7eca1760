"""A step length along a direction of descent: the first trial step is one, and mostly the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Line", "OnLine", "Point", "not_yet", "search"]

ENOUGH, FLAT, GROW, MOST = 1e-4, 0.5, 4.0, 30


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


class _Search(NamedTuple):
    step: jax.Array
    found: OnLine
    low: jax.Array
    low_slope: jax.Array
    high: jax.Array
    tries: jax.Array


def search(on_line: Callable[[jax.Array], OnLine], cost: jax.Array, slope: jax.Array) -> tuple[jax.Array, OnLine]:
    """A step t with J(t) ≤ J(0) + 1e-4 t J'(0) and |J'(t)| ≤ ½ |J'(0)| (strong Wolfe), and what is found there.

    Secant steps on the slope inside a bracket, halving where the secant is of no use; the costs may differ by their
    own rounding. After 30 tries the last step is returned as it is. Nocedal & Wright (2006), section 3.1.
    """
    slack = 16 * jnp.finfo(cost.dtype).eps * (1 + jnp.abs(cost))

    def descends(at: _Search) -> jax.Array:
        return at.found.cost <= cost + ENOUGH * at.step * slope + slack

    def unsatisfied(at: _Search) -> jax.Array:
        fine = descends(at) & (jnp.abs(at.found.slope) <= FLAT * jnp.abs(slope))
        return (at.tries == 0) | (~fine & (at.tries < MOST))

    def again(at: _Search) -> _Search:
        short = descends(at) & (at.found.slope < 0)
        low = jnp.where(short, at.step, at.low)
        low_slope = jnp.where(short, at.found.slope, at.low_slope)
        high = jnp.where(short, at.high, at.step)
        secant = at.low - at.low_slope * (at.step - at.low) / (at.found.slope - at.low_slope)
        top = jnp.where(jnp.isfinite(high), high, jnp.maximum(GROW * low, 1))
        margin = (top - low) / 20
        inside = (secant > low + margin) & (secant < top - margin)
        step = jnp.where(inside, secant, jnp.where(jnp.isfinite(high), (low + high) / 2, top))
        return _Search(step, on_line(step), low, low_slope, high, at.tries + 1)

    zero = jnp.zeros_like(cost)
    here = not_yet(on_line, cost, slope)
    last = lax.while_loop(unsatisfied, again, _Search(zero, here, zero, slope, zero + jnp.inf, jnp.zeros((), int)))
    return last.step, last.found


def not_yet(on_line: Callable[[jax.Array], OnLine], cost: jax.Array, slope: jax.Array) -> OnLine:
    """What a loop that tries steps holds before the first: nothing is carried yet."""
    carry = jax.eval_shape(on_line, cost).carry
    return OnLine(cost, slope, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry))
