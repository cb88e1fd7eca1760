"""Where data enter a fit: tables, targets, weights and offsets as a `OneLayer` cost, and the best constant model."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.admission import admit_rows
from lr_nn.data.in_place import aligned, is_aligned
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Batch

__all__ = ["Admitted", "achievable", "admit", "constant", "constant_eta", "encoded", "make_problem", "placed", "shares"]

# Where a target never varies the best constant is infinite: a fit begins at one that is not.
FARTHEST = 30.0
# Bytes from which a copy is worth two threads.
LARGE = 2**22


class Admitted(NamedTuple):
    """A cost, the best constant model θ, and its J₀ above the smallest cost that the targets allow."""

    objective: OneLayer
    constant: jax.Array
    excess: float


def admit(net: Network, batch: Batch, penalty: Penalty, dtype: np.dtype) -> Admitted:
    """The data as an objective, without rows of weight zero, for their numbers might overflow and they say nothing.

    Values of `x` are looked at only if the fit fails: that saves a pass over them.
    """
    x, y, weight, offset = admit_rows(net, batch, dtype)
    weight = jnp.asarray(np.ones(len(x), dtype)) if weight is None else weight
    offset = offset[:, None] if offset is not None and offset.ndim == 1 else offset
    if len(kept := np.flatnonzero(np.asarray(weight) > 0)) < len(x):
        x, y, weight, offset = x[kept], y[kept], weight[kept], None if offset is None else offset[kept]
    x = placed(x, dtype) if isinstance(x, np.ndarray) else x.astype(dtype)
    return make_problem(net, x, y, weight, offset, penalty)


def make_problem(
    net: Network, x: jax.Array, y: jax.Array, weight: jax.Array, offset: jax.Array | None, penalty: Penalty
) -> Admitted:
    """`admit` of checked arrays, wherever they are, in the precision of `x`."""
    dtype, k = x.dtype, net.sizes[1]
    y, share, eta, excess, far = _prepare(net, y, weight, offset)
    l2, l1 = (jnp.asarray(np.asarray(strength, dtype)) for strength in (penalty.l2, penalty.l1))
    weights = np.zeros((x.shape[1] * k,), dtype)
    theta = jnp.asarray(np.append(weights, eta) if net.bias else weights)
    excess = float(achievable(np.asarray(excess, dtype), np.asarray(far, dtype)))
    return Admitted(OneLayer(x, y, share, offset, l2, l1, net), theta, excess)


def achievable(excess: np.ndarray, far: np.ndarray) -> np.ndarray:
    """J₀, or, where a constant model is perfect, what rounding allows: the square of its errors."""
    eps = np.finfo(excess.dtype).eps
    return np.where(excess <= eps * far, np.maximum(excess, 1e14 * eps**2 * (1 + far)), excess)


def placed(x: np.ndarray, dtype: np.dtype) -> jax.Array:
    """`x` in `dtype` where JAX computes. A CPU reads it in place if it is aligned, and most arrays of NumPy are not:
    they are copied on all cores, of which JAX takes one, into large pages of memory, which JAX does not ask for.
    """
    if jax.default_backend() != "cpu" or x.size * dtype.itemsize < LARGE:
        with np.errstate(over="ignore"):
            return jax.device_put(x.astype(dtype, copy=False))
    if x.dtype == dtype and is_aligned(x):
        return jax.device_put(x)
    copy = aligned(x.shape, dtype)
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(copy, threads), np.array_split(x, threads)
        list(pool.map(_copy, *parts))
    return jax.device_put(copy)


def _copy(to: np.ndarray, x: np.ndarray) -> None:
    with np.errstate(over="ignore"):  # what overflows becomes infinite, for the checks that follow to find
        np.copyto(to, x, casting="unsafe")


@partial(jax.jit, static_argnames="net")
def _prepare(net: Network, y: jax.Array, weight: jax.Array, offset: jax.Array | None) -> tuple[jax.Array, ...]:
    y, share = encoded(net, y, weight.dtype), shares(weight)
    return y, share, *constant(net, y, share, offset)


def encoded(net: Network, y: jax.Array, dtype: np.dtype) -> jax.Array:
    """Targets (n, k)."""
    return net.loss.encode(y, jnp.zeros((len(y), net.sizes[1]), dtype))


def shares(weight: jax.Array) -> jax.Array:
    """s / Σ s, of sizes whose sum may overflow."""
    weight = weight / weight.max()
    return weight / weight.sum()


def constant(net: Network, y: jax.Array, share: jax.Array, offset: jax.Array | None) -> tuple[jax.Array, ...]:
    """The best constant η, and the costs of it and of η = 0 above the smallest possible: of that one only where
    rounding might decide whether the first is zero.
    """
    mean = jnp.clip((share[:, None] * y).sum(axis=0), y.min(axis=0), y.max(axis=0))  # rounding may pass them
    eta = constant_eta(net, mean)
    everywhere = jnp.broadcast_to(eta[None], y.shape) if offset is None else eta[None] + offset

    def above(eta: jax.Array) -> jax.Array:
        return (share * (net.loss.value(eta, y) - net.loss.lowest(y))).sum()

    excess, most = above(everywhere), (1 + jnp.abs(y).max()) ** 2
    plain = excess > jnp.finfo(y.dtype).eps * most
    return eta, excess, jax.lax.cond(plain, lambda: 0 * most, lambda: above(jnp.zeros_like(y)))


def constant_eta(net: Network, mean: jax.Array) -> jax.Array:
    """The best constant η (k,) of targets of such a mean, not farther than what is finite."""
    eta = net.loss.constant(mean) if net.bias else jnp.zeros_like(mean)
    return jnp.where(jnp.isfinite(eta), eta, jnp.clip(eta, -FARTHEST, FARTHEST))
