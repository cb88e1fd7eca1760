"""A sparse optimum needs few columns: those in hand are solved for, and the gradient of all says which are missing.

Sizes are few, so that few programs are compiled: Johnson & Guestrin (2015), Massias et al. (2018).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain, count

import jax
import jax.numpy as jnp

from lr_nn.network import Network
from lr_nn.row_sums import weighted
from lr_nn.solvers import proximal
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Layer

__all__ = ["bound", "choose", "extend", "restrict", "size", "suffices"]

# Few sizes where a program is sooner run than compiled; at most so many times the columns with weights.
SIZES, GROW = (32, 128, 512), 2


def size(objective: OneLayer, point: Point) -> int | None:
    """As many columns as have weights or should, at most twice as many as have, or somewhat more; None where
    that is no less than all.
    """
    used, pulled = map(int, _counts(objective, point))
    sizes = chain(SIZES, (half * 2**k for k in count(8) for half in (3, 4)))
    wanted = next(size for size in sizes if size >= min(used + pulled, GROW * used))
    return wanted if wanted < objective.x.shape[1] else None


@jax.jit
def _counts(objective: OneLayer, point: Point) -> tuple[jax.Array, jax.Array]:
    """How many columns have weights, and how many others a gradient above l1."""
    used = _used(objective, point)
    pull = jnp.abs(objective.split(point.gradient).w).max(axis=1)
    return used.sum(), (~used & (pull > objective.l1)).sum()


def suffices(objective: OneLayer, point: Point) -> bool:
    """Is there no column without a weight whose gradient is above l1?"""
    return int(_counts(objective, point)[1]) == 0


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
def extend(objective: OneLayer, few: OneLayer, chosen: jax.Array, point: Point) -> Point:
    """The point of few columns as one of all: only the gradient is new."""
    w, b = few.split(point.theta)
    theta = objective.join(Layer(jnp.zeros(objective.net.sizes, w.dtype).at[chosen].set(w), b))
    residual = weighted(objective.net.loss.residual(point.eta, objective.y), objective.share)
    return point._replace(theta=theta, gradient=objective.gradient(theta, residual))


@jax.jit
def bound(objective: OneLayer, point: Point) -> jax.Array:
    """`proximal.bound`, as if the bias were at its best."""
    return proximal.bound(objective, point, jnp.zeros_like(point.cost))


def _used(objective: OneLayer, point: Point) -> jax.Array:
    return (objective.split(point.theta).w != 0).any(axis=1)
