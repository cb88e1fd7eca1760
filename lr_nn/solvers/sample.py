"""Rows that stand for all, and precision that is enough to begin with."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.problem import placed

__all__ = ["guarded", "is_tall", "known", "narrow", "rows"]

# A sample has so many rows a column: more where they are cheap beside a pass over all rows, whose number and that of
# the columns says so. Where there are fewer than twice the least, or so few numbers, all are taken.
LEAST, SAMPLE, CHEAP, SMALL = 40, 640, 16, 2e6
# A column is known by rows worth so many of equal size.
KNOWN = 20


def rows(objective: OneLayer, theta: jax.Array) -> OneLayer | None:
    """Rows that stand for all, in float32; None where all should."""
    if not is_tall(objective):
        return None
    n, q = objective.x.shape[0], objective.x.shape[1] + 1
    most = min(n // 2, max(LEAST * q, min(SAMPLE * q, CHEAP * n // q)))
    positive = np.flatnonzero(np.asarray(objective.share)) if check.is_concrete(objective.share) else np.arange(n)
    if len(positive) < most:
        return None
    chosen = np.random.default_rng(0).choice(positive, most, replace=False, shuffle=False)
    return guarded(_chosen(objective, np.sort(chosen).astype(np.int32)), objective, theta)


def is_tall(objective: OneLayer) -> bool:
    """Are there so many rows that a sample of them is worth its cost?"""
    n, q = objective.x.shape[0], objective.x.shape[1] + 1
    return n >= 2 * LEAST * q and n * q > SMALL


@jax.jit
def _chosen(objective: OneLayer, chosen: jax.Array) -> OneLayer:
    picked = jax.tree.map(lambda a: (a[chosen] if a.ndim else a).astype(jnp.float32), objective)
    return replace(picked, share=picked.share / picked.share.sum())


@jax.jit
def guarded(sample: OneLayer, objective: OneLayer, theta: jax.Array) -> OneLayer:
    """A column that few rows know may have none of its curvature in them, and its coefficient might go anywhere: it
    gets a ridge of the curvature that it has in all rows, at θ and roughly.
    """
    rare = ~known(sample)

    def ridge() -> jax.Array:
        curvature = sample.net.loss.fisher_diagonal(sample.eta(theta.astype(jnp.float32)))
        square = (objective.share[:, None] * objective.x * objective.x).sum(axis=0).astype(jnp.float32)
        return jnp.where(rare, square * curvature.mean(), 0)

    extra = jax.lax.cond(rare.any(), ridge, lambda: jnp.zeros_like(sample.x[0]))
    return replace(sample, l2=sample.l2 + extra[:, None])


@jax.jit
def known(sample: OneLayer) -> jax.Array:
    """Which columns are not zero in rows worth so many of equal size."""
    squares = sample.x * sample.x
    total, most = sample.share @ squares, (sample.share * sample.share) @ (squares * squares)
    return total * total > KNOWN * most


def narrow(objective: OneLayer) -> OneLayer:
    """The objective in float32."""
    x = objective.x
    if {device.platform for device in x.devices()} != {"cpu"} or len(x.devices()) > 1:
        return _narrow(objective)
    few = replace(objective, x=jnp.zeros((), x.dtype))
    return replace(_narrow(few), x=placed(np.asarray(x), np.dtype(np.float32)))


@jax.jit
def _narrow(objective: OneLayer) -> OneLayer:
    return jax.tree.map(lambda a: a.astype(jnp.float32), objective)
