"""Preconditioned conjugate gradients on flat vectors, for use inside a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

Linear = Callable[[jax.Array], jax.Array]


class _State(NamedTuple):
    """v, r = b - A v, the search direction, ⟨r, M r⟩ and the number of products with A."""

    solution: jax.Array
    residual: jax.Array
    direction: jax.Array
    squared_norm: jax.Array
    products: jax.Array


def conjugate_gradients(
    multiply: Linear, precondition: Linear, target: jax.Array, accuracy: ArrayLike, max_products: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """v with A v ≈ b, A positive semidefinite and M ≈ A⁻¹, and whether √⟨r, M r⟩ has shrunk by the factor `accuracy`.

    The iteration ends there, after `max_products` products with A, or before a direction along which A has no positive
    curvature; v is the last iterate. Nocedal & Wright (2006), algorithm 5.3.
    """
    start = precondition(target)
    size = target @ start
    goal = accuracy * accuracy * size

    def unfinished(state: _State) -> jax.Array:
        return (state.squared_norm > goal) & (state.products < max_products)

    def step(state: _State) -> _State:
        solution, residual, direction, squared_norm, products = state
        image = multiply(direction)
        curvature = direction @ image
        positive = curvature > 0
        alpha = jnp.where(positive, squared_norm / jnp.where(positive, curvature, 1), 0)
        residual = residual - alpha * image
        preconditioned = precondition(residual)
        new = jnp.where(positive, residual @ preconditioned, squared_norm)
        return _State(
            solution + alpha * direction,
            residual,
            preconditioned + new / squared_norm * direction,
            new,
            jnp.where(positive, products + 1, max_products),
        )

    first = _State(jnp.zeros_like(target), target, start, size, jnp.zeros((), int))
    last = lax.while_loop(unfinished, step, first)
    return last.solution, last.squared_norm <= goal
