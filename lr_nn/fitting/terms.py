"""The loss of a chunk of rows as compiled functions of η: all that a fit compiles.

Products with x are made outside, so that these programs know neither d nor, but for a bucket, n.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.losses import Loss

__all__ = [
    "Terms",
    "bucket",
    "constant",
    "constants",
    "curvatures",
    "curves",
    "encoded",
    "multiplied",
    "multiply",
    "once",
    "terms",
]


class Terms(NamedTuple):
    """Of one chunk: Σ s ℓ, s times the residuals (n, k), and s times the diagonal of the curvature (n, k) or None."""

    cost: Any
    residual: Any
    curvature: Any


def curves(loss: Loss) -> bool:
    """Does the loss state the second derivative that a Newton step needs?"""
    return loss.states("hessian_multiply") or (loss.canonical and loss.states("fisher_multiply"))


@partial(jax.jit, static_argnames="loss")
def terms(loss: Loss, eta: jax.Array, y: jax.Array, share: jax.Array) -> Terms:
    """Rows of weight zero add nothing, whatever their η is."""
    counts = (share > 0)[:, None]
    eta = jnp.where(counts, eta, 0)
    residual = loss.residual(eta, y)
    cost = jnp.where(counts[:, 0], share * loss.value(eta, y), 0).sum()
    curvature = None
    if not loss.couples_outputs and curves(loss):
        curvature = jnp.where(counts, share[:, None] * multiply(loss, eta, y, jnp.ones_like(eta)), 0)
    return Terms(cost, jnp.where(counts, share[:, None] * residual, 0), curvature)


@partial(jax.jit, static_argnames="loss")
def curvatures(loss: Loss, eta: jax.Array, y: jax.Array, share: jax.Array) -> jax.Array:
    """s ∂²ℓ/∂η², (k, k, n), of a loss that couples its outputs."""
    n, k = eta.shape
    counts = (share > 0)[:, None]
    eta = jnp.where(counts, eta, 0)
    basis = jnp.broadcast_to(jnp.eye(k, dtype=eta.dtype)[:, None, :], (k, n, k))
    found = jnp.where(counts[None], share[None, :, None] * multiply(loss, eta, y, basis), 0)
    return jnp.moveaxis(found, 2, 1)


@partial(jax.jit, static_argnames="loss")
def multiplied(loss: Loss, eta: jax.Array, y: jax.Array, share: jax.Array, moved: jax.Array) -> jax.Array:
    """s (∂²ℓ/∂η²) η̇, (n, k): what a product with the Hessian needs of a chunk."""
    counts = (share > 0)[:, None]
    return jnp.where(counts, share[:, None] * multiply(loss, jnp.where(counts, eta, 0), y, moved), 0)


@partial(jax.jit, static_argnames="loss")
def constants(loss: Loss, y: jax.Array, share: jax.Array, zeros: jax.Array) -> tuple[jax.Array, ...]:
    """Σ s y (k,), the largest y and -y of rows that count (k,), and Σ s times the smallest ℓ that y allows."""
    encoded = loss.encode(y, zeros)
    counts = (share > 0)[:, None]
    encoded = jnp.where(counts, encoded, 0)
    lowest = jnp.where(counts[:, 0], share * loss.lowest(encoded), 0).sum()
    below_all = jnp.finfo(encoded.dtype).min
    largest, least = (jnp.where(counts, a, below_all).max(axis=0) for a in (encoded, -encoded))
    return (share[:, None] * encoded).sum(axis=0), largest, least, lowest


@partial(jax.jit, static_argnames="loss")
def encoded(loss: Loss, y: jax.Array, zeros: jax.Array) -> jax.Array:
    """Targets (n, k)."""
    return loss.encode(y, zeros)


@partial(jax.jit, static_argnames="loss")
def constant(loss: Loss, mean: jax.Array) -> jax.Array:
    """The best constant η (k,) of targets of such a mean."""
    return loss.constant(mean)


def multiply(loss: Loss, eta: jax.Array, y: jax.Array, v: jax.Array) -> jax.Array:
    """(∂²ℓ/∂η²) v; of a canonical loss by the Fisher, which is the same and never negative."""
    if loss.canonical and loss.states("fisher_multiply"):
        return loss.fisher_multiply(eta, v)
    return loss.hessian_multiply(eta, y, v)


def bucket(rows: int) -> int:
    """The smallest size of a chunk that holds so many rows: eight sizes an octave."""
    step = max(1, 2 ** ((rows - 1).bit_length() - 4)) if rows > 1 else 1
    return -(-rows // step) * step


def once(function: Callable[..., Any], loss: Loss, *arrays: Any) -> Any:
    """function(loss, *arrays), compiled by one thread where several ask for it at once."""
    key = (function, loss, tuple((np.shape(a), np.dtype(a.dtype)) for a in arrays))
    if key not in _COMPILED:
        with _LOCK:
            found = function(loss, *arrays)
            _COMPILED.add(key)
            return found
    return function(loss, *arrays)


_COMPILED: set[Any] = set()
_LOCK = Lock()
