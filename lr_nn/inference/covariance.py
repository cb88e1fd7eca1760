"""The Fisher information and the covariances made of it.

F = Σ s_i x̃_i x̃_iᵀ ⊗ F_i, with F_i the Fisher of the loss in η, and H = F + P with P the curvature of n · penalty.
Model based H⁻¹ F H⁻¹; sandwich H⁻¹ M H⁻¹ with M = Σ s_i g_i g_iᵀ, g_i = x̃_i ⊗ ∂ℓ_i/∂η, or of sums over clusters.
White (1980), Huber (1967), Liang & Zeger (1986). All are (p, p), in the order of coefficients.reshape(-1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lr_nn import check
from lr_nn.inference.fitted import Fitted, marked, without
from lr_nn.losses import Loss
from lr_nn.network import Network

__all__ = ["clusters", "fisher", "information", "inverse", "over_lanes", "sandwich"]


def information(fitted: Fitted) -> np.ndarray:
    """F of every lane, (p, p), before any dispersion."""
    offset, (n, d) = fitted.offset, fitted.x.shape[-2:]
    arrays = [fitted.x, fitted.weight, fitted.theta] + ([] if offset is None else [offset])
    static = fitted.net, fitted.reference
    if fitted.lanes and fitted.x.ndim == 2 and n * d * d <= SQUARES:
        bad = np.isnan(fitted.theta).any(axis=(1, 2))
        arrays[2] = without(bad, fitted.theta)
        with jax.enable_x64(True):
            found = marked(bad, np.asarray(_of_shared_rows(*static, *arrays)))
    else:
        found = over_lanes(_information, static, arrays, (2, 1, 2, 2))
    if not np.isfinite(found).all() and not np.isnan(fitted.theta).any():
        check.finite("x", fitted.x)
    return found


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverses of symmetric positive definite matrices, (..., p, p); NaN where one is singular.

    Many small ones are taken by elimination in blocks: LAPACK takes longer to be called than to invert them.
    """
    p = matrix.shape[-1]
    if matrix.ndim == 2 or p > SMALL:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = _scaled(np, np.linalg.inv, matrix)
    else:
        found = _many_inverses(matrix)
    positive = np.asarray((np.diagonal(found, axis1=-2, axis2=-1) > 0).all(axis=-1))
    return np.where(positive[..., None, None], found, np.nan)


def _many_inverses(matrix: np.ndarray) -> np.ndarray:
    """Inverses (m, p, p) of many small matrices; zero where one is singular or not finite."""
    (m, p, _), rest = matrix.shape, -len(matrix) % BLOCK
    bad = ~np.isfinite(matrix).all(axis=(1, 2))
    matrix = np.where(bad[:, None, None], 0, matrix)
    padded = np.concatenate([matrix, np.broadcast_to(np.eye(p), (rest, p, p))]) if rest else matrix
    return over_lanes(_block, (), [padded.reshape(-1, BLOCK, p, p)], (3,)).reshape(-1, p, p)[:m]


def _block(matrices: jax.Array) -> jax.Array:
    return _scaled(jnp, _eliminated, matrices)


def _scaled(xp: Any, invert: Callable, matrix: Any) -> Any:
    """Symmetric inverses by way of unit diagonals, in NumPy or JAX; zero for a matrix that is not positive definite."""
    scale = 1 / xp.sqrt(xp.diagonal(matrix, axis1=-2, axis2=-1))
    scaled = scale[..., :, None] * matrix * scale[..., None, :]
    fine = xp.isfinite(scaled).all(axis=(-2, -1))[..., None, None]
    found = invert(xp.where(fine, scaled, xp.ones_like(scaled) * xp.eye(matrix.shape[-1])[(None,) * (matrix.ndim - 2)]))
    found = (found + xp.swapaxes(found, -1, -2)) / 2
    positive = (xp.diagonal(found, axis1=-2, axis2=-1) > 0).all(axis=-1)[..., None, None]
    return xp.where(fine & positive, scale[..., :, None] * found * scale[..., None, :], 0)


def _eliminated(matrices: jax.Array) -> jax.Array:
    """Inverses of positive definite matrices, (m, p, p), by Gauss-Jordan elimination, the lanes in the last axis."""
    a = jnp.moveaxis(matrices, 0, -1)

    def eliminate(i: jax.Array, a: jax.Array) -> jax.Array:
        pivot, column = a[i, i], a[:, i]
        row = a[i] / pivot[None]
        rest = (a - column[:, None] * row[None]).at[i].set(row).at[:, i].set(-column / pivot[None])
        return rest.at[i, i].set(1 / pivot)

    return jnp.moveaxis(lax.fori_loop(0, len(a), eliminate, a), -1, 0)


def sandwich(fitted: Fitted, bread: np.ndarray, groups: np.ndarray | None, factor: Any) -> np.ndarray:
    """bread M bread times `factor`; M of rows, or of sums over `groups`."""
    clusters = None if groups is None else int(groups.max()) + 1
    arrays = [fitted.x, fitted.weight, fitted.residual[..., fitted.free]] + ([] if groups is None else [groups])
    meat = over_lanes(_meat, (fitted.net, clusters), arrays, (2, 1, 2, 1))
    return bread @ meat @ bread * np.asarray(factor)[..., None, None]


def clusters(fitted: Fitted, groups: np.ndarray) -> np.ndarray:
    """How many groups have a row that counts, () or (m,)."""
    member = np.arange(int(groups.max()) + 1)[:, None] == groups[None]
    return ((fitted.weight > 0) @ member.T).sum(axis=-1)


def over_lanes(kernel: Callable, static: tuple, arrays: list[np.ndarray], ranks: tuple[int, ...]) -> np.ndarray:
    """kernel(*static, *arrays) in float64 for every lane; arrays of more than their rank have lanes, others share.

    On a CPU lane after lane, as many at a time as there are cores: XLA:CPU runs a batch of small products slower.
    """
    laned = tuple(array.ndim > rank for array, rank in zip(arrays, ranks))
    m = next((len(array) for array, lane in zip(arrays, laned) if lane), 0)
    bad = np.zeros(max(m, 1), bool)
    for array in (array for array, lane in zip(arrays, laned) if lane):
        bad |= np.isnan(array).reshape(m, -1).any(axis=1)
    arrays = [without(bad, array) if lane else array for array, lane in zip(arrays, laned)]
    parts = min(os.cpu_count() or 1, m // LANES) if jax.default_backend() == "cpu" else 1

    def part(begin: int, end: int) -> np.ndarray:
        some = [array[begin:end] if lane else array for array, lane in zip(arrays, laned)]
        with jax.enable_x64(True):
            return np.asarray(_mapped(kernel, static, laned, some))

    if parts < 2:
        return marked(bad, part(0, max(m, 1))) if m else part(0, 1)
    edges = np.linspace(0, m, parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        return marked(bad, np.concatenate(list(pool.map(part, edges[:-1], edges[1:]))))


# Lanes that are worth another thread; rows of small matrices, and how many fit the cache; products of columns.
LANES, SMALL, BLOCK, SQUARES = 8, 64, 32, 2**23


@partial(jax.jit, static_argnums=(0, 1, 2))
def _mapped(kernel: Callable, static: tuple, laned: tuple[bool, ...], arrays: list[jax.Array]) -> jax.Array:
    def one(lane: list[jax.Array]) -> jax.Array:
        own = iter(lane)
        return kernel(*static, *(next(own) if each else array for each, array in zip(laned, arrays)))

    lanes = [array for each, array in zip(laned, arrays) if each]
    if not lanes:
        return one([])
    return lax.map(one, lanes) if jax.default_backend() == "cpu" else jax.vmap(one)(lanes)


def _information(
    net: Network, reference: int | None, x: jax.Array, weight: jax.Array, theta: jax.Array, offset: Any = None
) -> jax.Array:
    inputs = _design(net, x)
    eta = inputs @ theta
    return fisher(net.loss, reference, inputs, weight, eta if offset is None else eta + offset)


def fisher(loss: Loss, reference: int | None, inputs: jax.Array, weight: jax.Array, eta: jax.Array) -> jax.Array:
    """F from x̃ (n, q), weights and η (n, k): one product of x̃ with itself for every pair of outputs that interact."""

    def gram(c: jax.Array) -> jax.Array:
        return (inputs * c[:, None]).T @ inputs

    curvature = _curvature(loss, reference, weight, eta)
    blocks = gram(curvature[0])[None] if len(curvature) == 1 else lax.map(gram, curvature)
    return _assembled(loss, blocks)


def _curvature(loss: Loss, reference: int | None, weight: jax.Array, eta: jax.Array) -> jax.Array:
    """s_i times the entries of F_i that are not zero and not on the other side of the diagonal, (pairs, n)."""
    if not loss.couples_outputs:
        return weight[None] * loss.fisher_diagonal(eta).T
    free = np.array([j for j in range(eta.shape[1]) if j != reference])
    left, right = np.triu_indices(len(free))
    seeds = jnp.eye(eta.shape[1], dtype=eta.dtype)[free][:, None]
    columns = loss.fisher_multiply(eta, jnp.broadcast_to(seeds, (len(free), *eta.shape)))
    return weight[None] * columns[left, :, free[right]]


def _assembled(loss: Loss, blocks: jax.Array) -> jax.Array:
    """(p, p) from the blocks (pairs, q, q) of pairs of outputs."""
    pairs, q, _ = blocks.shape
    if pairs == 1:
        return blocks[0]
    k = round((8 * pairs + 1) ** 0.5 - 1) // 2 if loss.couples_outputs else pairs
    left, right = np.triu_indices(k) if loss.couples_outputs else (np.arange(k), np.arange(k))
    total = jnp.zeros((q, k, q, k), blocks.dtype)
    return total.at[:, left, :, right].set(blocks).at[:, right, :, left].set(blocks).reshape(q * k, q * k)


@partial(jax.jit, static_argnums=(0, 1))
def _of_shared_rows(
    net: Network, reference: int | None, x: jax.Array, weight: jax.Array, theta: jax.Array, offset: Any = None
) -> jax.Array:
    """F of lanes that share x: one product of all their curvatures with the products of columns x̃_a x̃_b."""
    inputs = _design(net, x)
    (n, q), m = inputs.shape, len(theta)
    eta = jnp.einsum("na,mak->mnk", inputs, theta)
    eta = eta if offset is None else eta + (offset[None] if offset.ndim == 2 else offset)
    weight = weight if weight.ndim == 2 else jnp.broadcast_to(weight[None], (m, n))
    curvature = jax.vmap(partial(_curvature, net.loss, reference))(weight, eta)
    squares = (inputs[:, :, None] * inputs[:, None, :]).reshape(n, q * q)
    blocks = (curvature.reshape(-1, n) @ squares).reshape(m, -1, q, q)
    return jax.vmap(partial(_assembled, net.loss))(blocks)


def _meat(
    net: Network, clusters: int | None, x: jax.Array, weight: jax.Array, residual: jax.Array, groups: Any = None
) -> jax.Array:
    inputs = _design(net, x)
    scores = (inputs[:, :, None] * residual[:, None, :]).reshape(len(x), -1)
    if clusters is None:
        return scores.T @ (weight[:, None] * scores)
    sums = jax.ops.segment_sum(weight[:, None] * scores, groups, clusters)
    return sums.T @ sums


def _design(net: Network, x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1) if net.bias else x
