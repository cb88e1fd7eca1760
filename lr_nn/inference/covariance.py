"""The Fisher information and the covariances made of it.

F = Σ s_i x̃_i x̃_iᵀ ⊗ F_i, with F_i the Fisher of the loss in η, and H = F + P with P the curvature of n · penalty.
Model based H⁻¹ F H⁻¹; sandwich H⁻¹ M H⁻¹ with M = Σ s_i g_i g_iᵀ, g_i = x̃_i ⊗ ∂ℓ_i/∂η, or of sums over clusters.
White (1980), Huber (1967), Liang & Zeger (1986). All are (p, p), in the order of coefficients.reshape(-1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lr_nn import check
from lr_nn.fitting.chunks import Frame
from lr_nn.inference.fitted import Fitted, marked, without
from lr_nn.many.inputs import OwnInputs, SharedInputs
from lr_nn.many.rows import Rows, Targets, in_parts, pairs_at_once

__all__ = ["clusters", "information", "inverse", "over_lanes", "sandwich", "shared_inputs"]

# Numbers of x, or of Hessians, of the lanes that are taken at once.
CACHED = 2**19
# Matrices that are inverted at once.
BATCH = 256


def information(fitted: Fitted) -> np.ndarray:
    """F of every lane, (p, p), before any dispersion."""
    lanes, free, (q, k) = fitted.lanes, fitted.free, fitted.theta.shape[-2:]
    theta = fitted.theta.reshape(-1, q, k)
    bad = np.isnan(theta).any(axis=(1, 2))
    theta = without(bad, theta)

    def blocks(rows: Rows, ids: np.ndarray) -> np.ndarray:
        found = rows.hessian(theta[ids])
        if found.shape[1] == 1 == k:
            return found[:, 0]
        if not fitted.loss.couples_outputs:
            whole = np.zeros((len(ids), q, k, q, k))
            whole[:, :, np.arange(k), :, np.arange(k)] = np.moveaxis(found, 1, 0)
            return whole.reshape(len(ids), q * k, q * k)
        p = q * len(free)
        return found.reshape(len(ids), q, k, q, k)[:, :, free][..., free].reshape(len(ids), p, p)

    found = marked(bad, over_lanes(blocks, fitted))
    if not bad.any() and not np.isfinite(found).all():
        check.finite("x", fitted.x)
    return found.reshape(*lanes, *found.shape[1:])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverses of symmetric positive definite matrices, (..., p, p); NaN where one is singular."""
    p = matrix.shape[-1]
    flat = matrix.reshape(-1, p, p)
    parts = [flat[begin : begin + BATCH] for begin in range(0, len(flat), BATCH)]
    return np.concatenate(in_parts(_inverses, parts, True)).reshape(matrix.shape)


def _inverses(matrices: np.ndarray) -> np.ndarray:
    """By way of unit diagonals."""
    scale = 1 / np.sqrt(np.diagonal(matrices, axis1=-2, axis2=-1))
    scaled = scale[..., :, None] * matrices * scale[..., None, :]
    fine = np.isfinite(scaled).all(axis=(-2, -1))[..., None, None]
    try:
        found = np.linalg.inv(np.where(fine, scaled, np.eye(matrices.shape[-1])))
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full_like(matrices, np.nan)
        return np.concatenate([_inverses(matrix[None]) for matrix in matrices])
    found = (found + np.swapaxes(found, -1, -2)) / 2
    positive = np.all(np.diagonal(found, axis1=-2, axis2=-1) > 0, axis=-1)
    return np.where(
        fine & np.asarray(positive)[..., None, None], scale[..., :, None] * found * scale[..., None, :], np.nan
    )


def sandwich(fitted: Fitted, bread: np.ndarray, groups: np.ndarray | None, factor: Any) -> np.ndarray:
    """bread M bread times `factor`; M of rows, or of sums over `groups`."""
    residual = fitted.residual[..., fitted.free]
    n, f = residual.shape[-2:]
    residual = residual.reshape(-1, n, f)
    weight = np.broadcast_to(fitted.weight, residual.shape[:2])
    bad = np.isnan(residual).any(axis=(1, 2))
    residual = without(bad, residual)

    def meat(rows: Rows, ids: np.ndarray) -> np.ndarray:
        products = residual[ids, :, :, None] * residual[ids, :, None] * weight[ids, :, None, None]
        grams = rows.gram(np.moveaxis(products.reshape(len(ids), n, f * f), 2, 1))
        q = grams.shape[-1]
        return np.transpose(grams.reshape(-1, f, f, q, q), (0, 3, 1, 4, 2)).reshape(-1, q * f, q * f)

    if groups is None:
        found = over_lanes(meat, fitted)
    else:
        slopes = weight[..., None] * residual
        found = np.stack([_of_clusters(fitted, i, slopes[i], groups) for i in range(len(slopes))])
    found = marked(bad, found).reshape(bread.shape)
    return bread @ found @ bread * np.asarray(factor)[..., None, None]


def _of_clusters(fitted: Fitted, lane: int, slopes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """M of the sums of scores x̃_i ⊗ slopes_i over groups, (p, p)."""
    inputs = fitted.inputs if fitted.x.ndim == 2 else fitted.inputs[lane]
    order = np.argsort(groups, kind="stable")
    scores = (inputs[order, :, None] * slopes[order, None]).reshape(len(order), -1)
    sums = np.add.reduceat(scores, np.searchsorted(groups[order], np.arange(int(groups.max()) + 1)), axis=0)
    return sums.T @ sums


def clusters(fitted: Fitted, groups: np.ndarray) -> np.ndarray:
    """How many groups have a row that counts, () or (m,)."""
    found = [len(np.unique(groups[counts])) for counts in np.atleast_2d(fitted.weight > 0)]
    return np.array(found) if fitted.weight.ndim > 1 else np.array(found[0])


def over_lanes(function: Callable[[Rows, np.ndarray], np.ndarray], fitted: Fitted) -> np.ndarray:
    """function(rows, ids) of all lanes, (m, ...), some lanes `ids` at a time; of a single fit m is 1."""
    m, (n, d) = fitted.lanes[0] if fitted.lanes else 1, fitted.x.shape[-2:]
    own = fitted.x.ndim == 3
    numbers = n * (d + 1) if own else (fitted.theta.shape[-2] * fitted.theta.shape[-1]) ** 2
    size = max(1, CACHED // numbers)
    ids = [np.arange(begin, min(begin + size, m)) for begin in range(0, m, size)]
    shared = None if own else shared_inputs(fitted, np.zeros(d))
    parts = in_parts(lambda some: function(_rows(fitted, some, shared, len(ids) == 1), some), ids, True)
    return np.concatenate(parts)


def shared_inputs(fitted: Fitted, mean: np.ndarray) -> SharedInputs:
    """x (n, d) less `mean` (d,), for passes."""
    k = fitted.net.sizes[1]
    frame = Frame(mean, bool(mean.any()), np.zeros(k), fitted.net.bias)
    return SharedInputs.of(fitted.x, frame, pairs_at_once(fitted.loss, k))


def _rows(fitted: Fitted, ids: np.ndarray, shared: SharedInputs | None, threaded: bool) -> Rows:
    def of(array: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
        return (array, ids) if array.ndim > rank else (array[None], np.zeros(len(ids), int))

    (y, y_of), (weight, weight_of) = of(fitted.targets, 2), of(fitted.weight, 1)
    offset, offset_of = (None, y_of) if fitted.offset is None else of(fitted.offset, 2)
    k = fitted.net.sizes[1]
    inputs: SharedInputs | OwnInputs | None = shared
    if inputs is None:
        inputs = OwnInputs.of(fitted.x[ids], weight[weight_of], False, fitted.net.bias, pairs_at_once(fitted.loss, k))
    return Rows(inputs, Targets(y, weight, offset, y_of, weight_of, offset_of, np.float64), fitted.loss, k, threaded)
