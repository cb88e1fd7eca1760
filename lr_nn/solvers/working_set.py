"""A sparse optimum needs few columns: those in hand are solved for, and the gradient of all says which are missing.

Sizes are powers of two, so that few programs are compiled: Johnson & Guestrin (2015), Massias et al. (2018).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from lr_nn.network import Network
from lr_nn.solvers import proximal
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Layer

LEAST = 32


def size(objective: OneLayer, point: Point) -> int | None:
    """Twice as many columns as have weights, as a power of two; None where that is no less than half of all."""
    d = objective.x.shape[1]
    most = int(_used(objective, point).sum())
    wanted = LEAST
    while wanted < 2 * most:
        wanted *= 2
    return wanted if 2 * wanted <= d else None


@partial(jax.jit, static_argnames="size")
def choose(objective: OneLayer, point: Point, size: int) -> jax.Array:
    """The columns with weights, and those whose subgradient is the largest."""
    pull = jnp.abs(objective.split(point.gradient).w).max(axis=1)
    return jnp.sort(jax.lax.top_k(jnp.where(_used(objective, point), jnp.inf, pull), size)[1])


@jax.jit
def restrict(objective: OneLayer, point: Point, chosen: jax.Array) -> tuple[OneLayer, jax.Array]:
    """The problem on the chosen columns, the others without weight, and its θ."""
    net = objective.net
    few = Network((len(chosen), net.sizes[1]), (), net.loss, bias=net.bias)
    w, b = objective.split(point.theta)
    problem = replace(objective, x=jnp.take(objective.x, chosen, axis=1), net=few)
    return problem, problem.join(Layer(w[chosen], b))


@jax.jit
def extend(objective: OneLayer, few: OneLayer, chosen: jax.Array, theta: jax.Array) -> Point:
    """The point of all columns at the θ of few."""
    w, b = few.split(theta)
    d, k = objective.net.sizes
    return objective.at(objective.join(Layer(jnp.zeros((d, k), w.dtype).at[chosen].set(w), b)))


@jax.jit
def bound(objective: OneLayer, point: Point) -> jax.Array:
    """`proximal.bound`, as if the bias were at its best."""
    return proximal.bound(objective, point, jnp.zeros_like(point.cost))


def _used(objective: OneLayer, point: Point) -> jax.Array:
    return (objective.split(point.theta).w != 0).any(axis=1)
