"""Limited-memory BFGS: the last few steps and changes of the gradient, and the direction that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Memory", "empty", "multiply", "remember"]


class Memory(NamedTuple):
    """The last m pairs s = Δθ and y = Δ∇J, newest last, (m, p); 1/⟨s, y⟩ (m,), zero where there is none yet."""

    steps: jax.Array
    changes: jax.Array
    inverse: jax.Array


def empty(size: int, theta: jax.Array) -> Memory:
    """No pairs, room for `size`."""
    none = jnp.zeros((size, *theta.shape), theta.dtype)
    return Memory(none, none, none[:, 0])


def remember(memory: Memory, step: jax.Array, change: jax.Array) -> Memory:
    """One pair more, in place of the oldest; a pair without curvature, ⟨s, y⟩ ≤ 0 but for rounding, is left out."""
    product = step @ change
    curved = product > 1e-12 * jnp.sqrt((step @ step) * (change @ change))

    def push(rows: jax.Array, row: jax.Array) -> jax.Array:
        return jnp.where(curved, jnp.concatenate([rows[1:], row[None]]), rows)

    return Memory(
        push(memory.steps, step), push(memory.changes, change), push(memory.inverse, 1 / jnp.where(curved, product, 1))
    )


def multiply(memory: Memory, gradient: jax.Array, start: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """H ∇J by the two loops, `start` the first guess of the inverse Hessian: Nocedal & Wright (2006), algorithm 7.4."""

    def back(q: jax.Array, pair: Memory):
        alpha = pair.inverse * (pair.steps @ q)
        return q - alpha * pair.changes, alpha

    q, alphas = lax.scan(back, gradient, memory, reverse=True)

    def forth(r: jax.Array, pair: tuple[Memory, jax.Array]):
        (step, change, inverse), alpha = pair
        return r + (alpha - inverse * (change @ r)) * step, None

    return lax.scan(forth, start(q), (memory, alphas))[0]
