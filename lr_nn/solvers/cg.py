"""Conjugate gradients, for directions that need no more than products with a matrix."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["solve"]

Linear = Callable[[jax.Array], jax.Array]
# v, r, the direction, ⟨r, M r⟩, products.
State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def solve(multiply: Linear, precondition: Linear, target: jax.Array, accuracy: jax.Array, most: int) -> jax.Array:
    """v with A v ≈ b, A positive semidefinite and M ≈ A⁻¹: until √⟨r, M r⟩ has shrunk by `accuracy`, r = b - A v.

    In at most `most` products, and no further than a direction of no curvature. Nocedal & Wright (2006), algorithm 5.3.
    """
    size = target @ precondition(target)

    def goes_on(state: State) -> jax.Array:
        *_, length, products = state
        return (length > accuracy * accuracy * size) & (products < most)

    def step(state: State) -> State:
        found, residual, along, length, products = state
        image = multiply(along)
        curvature = along @ image
        curved = curvature > 0
        alpha = jnp.where(curved, length / jnp.where(curved, curvature, 1), 0)
        residual = residual - alpha * image
        helped = precondition(residual)
        new = jnp.where(curved, residual @ helped, 0)
        beta = new / length
        return found + alpha * along, residual, helped + beta * along, new, products + 1

    helped = precondition(target)
    first = (jnp.zeros_like(target), target, helped, target @ helped, jnp.zeros((), int))
    return lax.while_loop(goes_on, step, first)[0]
