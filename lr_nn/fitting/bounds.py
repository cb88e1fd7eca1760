"""Bounds on J - J* from the sums of one pass, as arrays with any leading axes: none of one fit, one of lanes.

θ and the strengths are (..., q, k). Slopes Σ s |δ| are (..., k). The curvature Σ s ∂²ℓ/∂η² is (..., k), and `cross`
Σ s x̃ ∂²ℓ/∂η² (..., q, k); of a loss that couples its outputs they are (..., k, k) and (..., a, q, b).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Biases",
    "at_best_bias",
    "bias_bound",
    "diagonal",
    "newton_bound",
    "penalty_bound",
    "rounding",
    "subgradient",
]

EPS = float(np.finfo(float).eps)
LAST = (-2, -1)


def subgradient(theta: np.ndarray, gradient: np.ndarray, lasso: np.ndarray) -> np.ndarray:
    """The subgradient of J + Σ lasso |θ| of the smallest norm: zero at the optimum only."""
    at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - lasso, 0)
    return np.where(theta == 0, at_zero, gradient + lasso * np.sign(theta))


def penalty_bound(
    theta: np.ndarray,
    gradient: np.ndarray,
    rest: np.ndarray,
    ridge: np.ndarray,
    lasso: np.ndarray,
    above: np.ndarray,
) -> np.ndarray:
    """φ - φ* at most, φ the cost minimised over coefficients without a penalty, whose gradient is `gradient` ± `rest`.

    By strong convexity where there is a ridge, and by the l1 term: Σ lasso |θ*| ≤ `above`, J less the least loss.
    """
    size = np.abs(subgradient(theta, gradient, lasso)) + rest
    sparse, held = lasso > 0, ridge > 0

    def linear(of: np.ndarray) -> np.ndarray:
        ratio = np.where(of, size / np.where(of, lasso, 1), 0)
        return np.where(of, size * np.abs(theta), 0).sum(axis=LAST) + ratio.max(axis=LAST, initial=0) * above

    quadratic = np.where(held, size**2 / np.where(held, ridge, 1), 0).sum(axis=LAST) / 2
    if not sparse.any():
        return quadratic
    mixed = quadratic + linear(sparse & ~held)
    return np.where((held & ~sparse).any(axis=LAST), mixed, np.minimum(mixed, linear(sparse)))


def newton_bound(decrement: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """½ e^u δ² for the smallest u = 2 δ M e^u, ∞ where none is below one; and how much of the way to the minimum is
    not the Newton step. The iteration for u starts above it, so each u is an upper bound.

    Within ‖h‖_H ≤ ρ every η_i moves by at most ρ M / c, so the Hessian stays above e^{-ρM} H; if ρ = 2 δ e^{ρM} has
    a solution, J is larger than here on the boundary, and the minimum lies inside. There ‖h* - h‖ ≤ (e^u - 1) ρ, and
    the gradient changes along h* by as much again more than H h*: hence twice that.
    """
    decrement, m = np.asarray(decrement), np.asarray(m)
    inside = 2 * decrement * m * np.e < 1
    delta = np.where(inside, decrement, 0)
    u = np.ones_like(delta)
    for _ in range(6):
        u = 2 * delta * np.where(inside, m, 0) * np.exp(u)
    rest = 2 * np.expm1(u) * 2 * delta * np.exp(u)
    return np.where(inside, np.exp(u) * delta**2 / 2, np.inf), np.where(inside, rest, np.inf)


def diagonal(curvature: np.ndarray, coupled: bool) -> np.ndarray:
    """The curvature of single outputs, (..., k)."""
    return np.diagonal(curvature, axis1=-2, axis2=-1) if coupled else curvature


class Biases(NamedTuple):
    """A bound on J - φ, φ the cost minimised over the biases; their Newton step (..., k); and how much of the way to
    their best values is not that step, in the norm of their Hessian.
    """

    bound: np.ndarray
    step: np.ndarray
    rest: np.ndarray


def bias_bound(
    gradient: np.ndarray, error: np.ndarray, curvature: np.ndarray, coupled: bool, shifts: bool, concordance: float
) -> Biases:
    """The biases alone: `gradient` and its rounding `error` (..., k).

    `shifts`: a number common to all changes nothing.
    """
    k = gradient.shape[-1]
    if coupled:
        trace = np.trace(curvature, axis1=-2, axis2=-1)[..., None, None]
        hessian = curvature + trace / k**2 if shifts else curvature
        finite = np.isfinite(hessian).all(axis=LAST)[..., None, None]
        values, vectors = np.linalg.eigh(np.where(finite, hessian, np.eye(k)))
        definite = finite[..., 0, 0] & (values[..., 0] > 8 * k * EPS * values[..., -1])
        root = np.swapaxes(vectors, -1, -2) / np.sqrt(np.where(definite[..., None], values, 1))[..., None]
    else:
        definite = (curvature > 0).all(axis=-1)
        root = np.eye(k) / np.sqrt(np.where(curvature > 0, curvature, 1))[..., None]
    turned = (root @ gradient[..., None])[..., 0]
    decrement = np.linalg.norm(turned, axis=-1) + np.linalg.norm((np.abs(root) @ error[..., None])[..., 0], axis=-1)
    step = -(np.swapaxes(root, -1, -2) @ turned[..., None])[..., 0]
    squares = (root**2).sum(axis=-2)
    reach = np.sqrt(squares.sum(axis=-1) if coupled else squares.max(axis=-1))
    bound, rest = newton_bound(np.where(definite, decrement, np.inf), concordance * reach)
    return Biases(bound, step, rest)


def at_best_bias(
    gradient: np.ndarray, curvature: np.ndarray, cross: np.ndarray, extent: np.ndarray, inner: Biases, coupled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient where the biases are at their best, to first order, and what it may be wrong by."""
    if coupled:
        moved = np.einsum("...ajb,...b->...ja", cross, inner.step)
        trace = np.trace(curvature, axis1=-2, axis2=-1)
    else:
        moved = cross * inner.step[..., None, :]
        trace = curvature.sum(axis=-1)
    return gradient + moved, extent[..., None] * (np.sqrt(trace) * inner.rest)[..., None, None]


def rounding(
    theta: np.ndarray,
    size: np.ndarray,
    slopes: np.ndarray,
    curvature: np.ndarray | float,
    rows: Any,
    coupled: bool,
) -> np.ndarray:
    """What every entry of the gradient may be wrong by, (..., q, k): η by a sum of q products, the sum over rows by its
    own. `size` (..., q) is about the root mean square of x, `curvature` (..., k) that of single outputs; `rows` is the
    number of rows, (..., 1) or one for all.

    Errors of sums grow like the root of the number of terms, and those of rows cancel: Higham & Mary (2019).
    """
    q, root = theta.shape[-2], np.sqrt(rows)
    eta = EPS / 2 * (1 + np.sqrt(q)) * np.sqrt((size[..., None] ** 2 * theta**2).sum(axis=-2))
    of_residuals = EPS / root if coupled else 0.0  # p - y cancels
    return size[..., None] * (EPS / 4 * slopes + of_residuals + 3 / root * eta * curvature)[..., None, :]
