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
from lr_nn.inference.fitted import Fitted
from lr_nn.losses import Loss
from lr_nn.network import Network


def information(fitted: Fitted) -> np.ndarray:
    """F of every lane, (p, p), before any dispersion."""
    offset = fitted.offset
    arrays = [fitted.x, fitted.weight, fitted.theta] + ([] if offset is None else [offset])
    found = over_lanes(_information, (fitted.net, fitted.reference), arrays, (2, 1, 2, 2))
    if not np.isfinite(found).all() and not np.isnan(fitted.theta).any():
        check.finite("x", fitted.x)
    return found


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverses of symmetric positive definite matrices, (..., p, p), scaled to a unit diagonal first.

    Not numbers where a matrix is singular in floating point.
    """
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / np.sqrt(diagonal)
        scaled = scale[..., None] * matrix * scale[..., None, :]
    fine = np.isfinite(scaled).all(axis=(-2, -1), keepdims=True)
    found = np.linalg.inv(np.where(fine, scaled, np.eye(matrix.shape[-1])))
    found = (found + np.swapaxes(found, -1, -2)) / 2
    positive = (np.diagonal(found, axis1=-2, axis2=-1) > 0).all(axis=-1)[..., None, None]
    return np.where(fine & positive, scale[..., None] * found * scale[..., None, :], np.nan)


def sandwich(fitted: Fitted, bread: np.ndarray, groups: np.ndarray | None, factor: Any) -> np.ndarray:
    """bread M bread times `factor`; M of rows, or of sums over `groups`."""
    clusters = None if groups is None else int(groups.max()) + 1
    arrays = [fitted.x, fitted.weight, fitted.residual[..., fitted.free]] + ([] if groups is None else [groups])
    meat = over_lanes(_meat, (fitted.net, clusters), arrays, (2, 1, 2, 1))
    return bread @ meat @ bread * np.asarray(factor)[..., None, None]


def over_lanes(kernel: Callable, static: tuple, arrays: list[np.ndarray], ranks: tuple[int, ...]) -> np.ndarray:
    """kernel(*static, *arrays) in float64 for every lane; arrays of more than their rank have lanes, others share.

    On a CPU lane after lane, as many at a time as there are cores: XLA:CPU runs a batch of small products slower.
    """
    laned = tuple(array.ndim > rank for array, rank in zip(arrays, ranks))
    m = next((len(array) for array, lane in zip(arrays, laned) if lane), 0)
    parts = min(os.cpu_count() or 1, m // LANES) if jax.default_backend() == "cpu" else 1

    def part(begin: int, end: int) -> np.ndarray:
        some = [array[begin:end] if lane else array for array, lane in zip(arrays, laned)]
        with jax.enable_x64(True):
            return np.asarray(_mapped(kernel, static, laned, some))

    if parts < 2:
        return part(0, max(m, 1))
    edges = np.linspace(0, m, parts + 1).astype(int)
    with ThreadPoolExecutor(parts) as pool:
        return np.concatenate(list(pool.map(part, edges[:-1], edges[1:])))


# Lanes from which another thread is worth its start.
LANES = 64


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
    free = np.array([j for j in range(eta.shape[1]) if j != reference])
    q, k = inputs.shape[1], len(free)
    if loss.couples_outputs:
        left, right = np.triu_indices(k)
        seeds = jnp.eye(eta.shape[1], dtype=eta.dtype)[free][:, None]
        columns = loss.fisher_multiply(eta, jnp.broadcast_to(seeds, (k, *eta.shape)))
        curvature = columns[left, :, free[right]]
    else:
        left = right = np.arange(k)
        curvature = loss.fisher_diagonal(eta).T
    curvature = jnp.where(weight > 0, weight, 0)[None] * curvature

    def gram(c: jax.Array) -> jax.Array:
        return (inputs * c[:, None]).T @ inputs

    if k == 1:
        return gram(curvature[0])
    blocks = lax.map(gram, curvature)
    total = jnp.zeros((q, k, q, k), eta.dtype)
    return total.at[:, left, :, right].set(blocks).at[:, right, :, left].set(blocks).reshape(q * k, q * k)


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
