"""What compiled lanes begin with: tables where they are computed, encoded targets, shares, the best constant models."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.data.in_place import aligned, is_aligned
from lr_nn.network import Network

__all__ = ["constant", "encoded", "placed", "shares"]

# Where a target never varies the best constant is infinite: a fit begins at one that is not.
FARTHEST = 30.0
# Newton's steps to the best constant model where there is an offset, and the longest of them.
STEPS, LONGEST = 30, 3.0
# Bytes from which a copy is worth two threads.
LARGE = 2**22


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


def encoded(net: Network, y: jax.Array, dtype: np.dtype) -> jax.Array:
    """Targets (n, k)."""
    return net.loss.encode(y, jnp.zeros((len(y), net.sizes[1]), dtype))


def shares(weight: jax.Array) -> jax.Array:
    """s / Σ s, of sizes whose sum may overflow."""
    weight = weight / weight.max()
    return weight / weight.sum()


def constant(net: Network, y: jax.Array, share: jax.Array, offset: jax.Array | None) -> tuple[jax.Array, ...]:
    """The best constant η (k,) given the offset, and the costs of it and of η = 0 above the smallest possible: of that
    one only where rounding might decide whether the first is zero. Rows of weight zero have no say.
    """
    counts = (share > 0)[:, None]
    least = jnp.where(counts, y, y.max()).min(axis=0)
    largest = jnp.where(counts, y, y.min()).max(axis=0)
    mean = jnp.clip((share[:, None] * y).sum(axis=0), least, largest)  # rounding may pass them
    eta = net.loss.constant(mean) if net.bias else jnp.zeros_like(mean)
    eta = jnp.where(jnp.isfinite(eta), eta, jnp.clip(eta, -FARTHEST, FARTHEST))
    if offset is not None and net.bias:
        eta = _given_offset(net, eta - (share[:, None] * offset).sum(axis=0), y, share, offset)
    everywhere = jnp.broadcast_to(eta[None], y.shape) if offset is None else eta[None] + offset

    def above(eta: jax.Array) -> jax.Array:
        return (share * (net.loss.value(eta, y) - net.loss.lowest(y))).sum()

    excess, most = above(everywhere), (1 + jnp.abs(jnp.where(counts, y, 0)).max()) ** 2
    plain = excess > jnp.finfo(y.dtype).eps * most
    return eta, excess, jax.lax.cond(plain, lambda: 0 * most, lambda: above(jnp.zeros_like(y)))


def _given_offset(net: Network, eta: jax.Array, y: jax.Array, share: jax.Array, offset: jax.Array) -> jax.Array:
    """The bias that is best with the offset, by Newton's method on the diagonal, no step longer than `LONGEST`."""
    damping = 2 if net.loss.couples_outputs else 1  # diag(p) - p pᵀ ≤ 2 diag(p (1 - p))

    def step(_: int, eta: jax.Array) -> jax.Array:
        everywhere = eta[None] + offset
        slope = (share[:, None] * net.loss.residual(everywhere, y)).sum(axis=0)
        curvature = damping * (share[:, None] * net.loss.fisher_diagonal(everywhere)).sum(axis=0)
        along = jnp.where(curvature > 0, slope / jnp.where(curvature > 0, curvature, 1), jnp.sign(slope))
        return eta - jnp.clip(along, -LONGEST, LONGEST)

    return jax.lax.fori_loop(0, STEPS, step, eta)
