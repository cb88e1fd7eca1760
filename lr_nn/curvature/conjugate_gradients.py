"""Preconditioned conjugate gradients on vectors that are arrays or trees, for use inside a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

Linear = Callable[[Any], Any]


class _State(NamedTuple):
    """v, r = b - A v, the search direction, ⟨r, M r⟩ and the number of products with A."""

    solution: Any
    residual: Any
    direction: Any
    squared_norm: jax.Array
    products: jax.Array


def conjugate_gradients(
    multiply: Linear, precondition: Linear, target: Any, accuracy: ArrayLike, max_products: ArrayLike
) -> tuple[Any, jax.Array]:
    """v with A v ≈ b, A positive semidefinite and M ≈ A⁻¹, and whether √⟨r, M r⟩ has shrunk by the factor `accuracy`.

    The iteration ends there, after `max_products` products with A, or before a direction along which A has no positive
    curvature; v is the last iterate. Nocedal & Wright (2006), algorithm 5.3.
    """
    start = precondition(target)
    size = _inner(target, start)
    goal = accuracy * accuracy * size

    def unfinished(state: _State) -> jax.Array:
        return (state.squared_norm > goal) & (state.products < max_products)

    def step(state: _State) -> _State:
        solution, residual, direction, squared_norm, products = state
        image = multiply(direction)
        curvature = _inner(direction, image)
        positive = curvature > 0
        alpha = jnp.where(positive, squared_norm / jnp.where(positive, curvature, 1), 0)
        residual = _add(residual, -alpha, image)
        preconditioned = precondition(residual)
        new = jnp.where(positive, _inner(residual, preconditioned), squared_norm)
        return _State(
            _add(solution, alpha, direction),
            residual,
            _add(preconditioned, new / squared_norm, direction),
            new,
            jnp.where(positive, products + 1, max_products),
        )

    first = _State(jax.tree.map(jnp.zeros_like, target), target, start, size, jnp.zeros((), int))
    last = lax.while_loop(unfinished, step, first)
    return last.solution, last.squared_norm <= goal


def _inner(a: Any, b: Any) -> jax.Array:
    """⟨a, b⟩."""
    terms = [(x * y).sum() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return sum(terms[1:], terms[0])


def _add(a: Any, factor: jax.Array, b: Any) -> Any:
    """a + factor · b."""
    return jax.tree.map(lambda x, y: x + factor * y, a, b)
