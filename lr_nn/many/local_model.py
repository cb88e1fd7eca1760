"""The cost of a one-layer network, its quadratic model at a point, and what that bounds of J - J*.

The Hessian is in blocks (m, s, s): one for each output, or a single one where the loss couples outputs. Vectors like
θ (k, q) become rows (m, s). The bounds rest on |D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u], c the loss's `concordance`: Bach
(2010). Rounding enters them as sums of independent errors: Higham & Mary (2019).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.types import Batch, Layer, Params

__all__ = [
    "Factor",
    "Problem",
    "bias_gap",
    "bound_by_hessian",
    "bound_by_penalty",
    "centred",
    "cost_at",
    "eta_at",
    "factored",
    "gradient_at",
    "hessian_at",
    "lasso_target",
    "make_problem",
    "newton_step",
    "params_at",
]

# Rounds of the lasso's inner solver at each step, and sweeps of coordinate descent in each round.
ROUNDS, SWEEPS = 4, 3

product = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


class Problem(NamedTuple):
    """Rows `x` (n, q) with the constant 1 last, targets (n, k), `share` s / Σ s (n, 1), offset (n, k) or None.

    `l1` is None or a scalar, `l2` a scalar, `penalised` (q,) one for weights and zero for the bias. `mean` (q,) is the
    weighted mean of each column of x (zero for the bias, and without a bias), `extent` (q,) its largest |x - mean|.
    `low` is the least mean loss that the targets allow.
    """

    loss: Loss
    bias: bool
    x: jax.Array
    y: jax.Array
    share: jax.Array
    offset: jax.Array | None
    l1: jax.Array | None
    l2: jax.Array
    penalised: np.ndarray
    mean: jax.Array
    extent: jax.Array
    low: jax.Array


class Factor(NamedTuple):
    """The Hessian scaled to a unit diagonal, `scaled` (m, s, s) = L Lᵀ, with L⁻¹ and `scale` (m, s).

    `half` (m, s) is L⁻¹ times the scaled gradient, and `decrement` its norm, that of the gradient in H⁻¹. `size` bounds
    ‖scaled⁻¹‖; `slack` bounds the relative error of squared decrements by rounding and jitter. NaN where H overflows.
    """

    scaled: jax.Array
    scale: jax.Array
    inverse: jax.Array
    half: jax.Array
    decrement: jax.Array
    size: jax.Array
    slack: jax.Array


def make_problem(
    net: Network, batch: Batch, l1: jax.Array | None, l2: jax.Array, counted: jax.Array | None = None
) -> Problem:
    """The problem of an admitted batch. counted: the rows (n, 1) to read, those of positive weight if None."""
    (d, k), loss, (x, labels, weight, offset), n = net.sizes, net.loss, batch, len(batch.x)
    y = loss.encode(labels, jnp.zeros((n, k), x.dtype))
    offset = None if offset is None else offset.reshape(n, k)
    if net.bias:
        x = jnp.concatenate([x, jnp.ones((n, 1), x.dtype)], axis=1)
    share = jnp.full((n, 1), 1 / n, x.dtype)
    if weight is not None:
        weight = (weight / lax.stop_gradient(weight.max()))[:, None]
        weight = weight if counted is None else jnp.where(counted, weight, 0)
        share = weight / weight.sum()
        counted = share > 0 if counted is None else counted
        x, y = (jnp.where(counted, each, 0) for each in (x, y))
        offset = None if offset is None else jnp.where(counted, offset, 0)
    penalised = (np.arange(x.shape[1]) < d).astype(x.dtype)
    mean = penalised * (share * x).sum(axis=0) if net.bias else jnp.zeros_like(x[0])
    x = x - mean[None]
    extent = jnp.abs(x if weight is None else jnp.where(share > 0, x, 0)).max(axis=0)
    constant = extent <= 8 * float(jnp.finfo(x.dtype).eps) * jnp.abs(mean)
    # What centring left of a constant is rounding: it becomes 0, and keeps its derivative.
    x = x - lax.stop_gradient(jnp.where(constant[None], x, 0))
    # Row by row, so that what a loss asks of all its rows fuses with their sum.
    lowest = jax.vmap(lambda row: loss.lowest(row[None])[0])(y)
    low = (share[:, 0] * (lowest if weight is None else jnp.where(share[:, 0] > 0, lowest, 0))).sum()
    return Problem(loss, net.bias, x, y, share, offset, l1, l2, penalised, mean, extent, low)


def params_at(problem: Problem, theta: jax.Array) -> Params:
    """The parameters at θ: w, and b = c - mean·w."""
    if not problem.bias:
        return (Layer(theta.T, None),)
    return (Layer(theta[:, :-1].T, theta[:, -1] - product("kq,q->k", theta, problem.mean)),)


def eta_at(problem: Problem, theta: jax.Array) -> jax.Array:
    """η (n, k), zero in rows of weight zero."""
    eta = product("nq,kq->nk", problem.x, theta)
    return jnp.where(problem.share == 0, 0, eta if problem.offset is None else eta + problem.offset)


def cost_at(problem: Problem, eta: jax.Array) -> jax.Array:
    """The mean loss, less the least that the targets allow."""
    return (problem.share[:, 0] * problem.loss.value(eta, problem.y)).sum() - problem.low


def gradient_at(problem: Problem, theta: jax.Array, residual: jax.Array) -> jax.Array:
    """∇J at θ without the l1 penalty, (k, q), from ∂ℓ/∂η (n, k)."""
    gradient = product("nk,nq->kq", problem.share * residual, problem.x)
    return gradient + problem.l2 * (problem.penalised[None] * theta)


def hessian_at(problem: Problem, eta: jax.Array) -> jax.Array:
    """∇²J at η without its ridge in blocks, (k, q, q), or (1, k q, k q) of coupled outputs.

    A shift common to coupled outputs changes no ℓ_i. It is given a curvature, where θ is kept centred.
    """
    loss, x, (k, q) = problem.loss, problem.x, (eta.shape[1], problem.x.shape[1])
    if not loss.couples_outputs:
        rows = jnp.sqrt(problem.share * loss.fisher_diagonal(eta)).T[:, :, None] * x[None]
        return product("kna,knb->kab", rows, rows)
    eye = np.eye(k, dtype=eta.dtype)
    fisher = loss.fisher_multiply(eta, jnp.broadcast_to(eye[:, None], (k, *eta.shape)))
    rows = (problem.share[None] * fisher)[..., None] * x[None, :, None]
    hessian = product("cnda,nb->cadb", rows, x)
    kept = jnp.ones(q, eta.dtype)
    if problem.l1 is not None:
        kept = jnp.where(problem.l1 > 0, 1 - problem.penalised, kept)
    shift = jnp.diag(kept * product("caca->a", hessian) / k**2)
    return (hessian + shift[None, :, None]).reshape(1, k * q, k * q)


def centred(problem: Problem, theta: jax.Array) -> jax.Array:
    """θ of coupled outputs less its mean over them; with an l1 penalty only the bias is free to be."""
    if not problem.loss.couples_outputs:
        return theta
    free = 1 - problem.penalised
    mean = theta.mean(axis=0)
    if problem.l1 is not None:
        mean = jnp.where(problem.l1 > 0, (mean @ (free - problem.mean)) * free, mean)
    return theta - mean[None]


def factored(hessian: jax.Array, l2: jax.Array, penalised: np.ndarray, gradient: jax.Array, n: int) -> Factor:
    """The factor of `hessian` (m, s, s), a sum over n rows, with l2 added to the diagonal where `penalised` (s,)."""
    m, s, _ = hessian.shape
    diagonal = hessian.reshape(m, s * s)[:, :: s + 1] + l2 * penalised[None]
    scale = lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1))
    eye, jitter = np.eye(s, dtype=hessian.dtype)[None], float(jnp.finfo(hessian.dtype).eps) * (s + (n * s) ** 0.5)
    ridge = l2 * (penalised[None] * scale * scale)
    scaled = scale[:, :, None] * hessian * scale[:, None] + eye * (jitter + ridge)[:, None]
    lower = lax.linalg.cholesky(scaled, symmetrize_input=False)
    right = jnp.concatenate([jnp.broadcast_to(eye, hessian.shape), (scale * gradient.reshape(m, s))[..., None]], axis=2)
    solved = lax.linalg.triangular_solve(lower, right, left_side=True, lower=True)
    inverse, half = solved[:, :, :s], solved[:, :, s]
    size = (inverse * inverse).sum(axis=(1, 2)).max()
    return Factor(scaled, scale, inverse, half, jnp.sqrt((half * half).sum()), size, 2 * jitter * size)


def newton_step(factor: Factor) -> jax.Array:
    """-H⁻¹ g, (m, s)."""
    return -factor.scale * product("mji,mj->mi", factor.inverse, factor.half)


def lasso_target(factor: Factor, theta: jax.Array, gradient: jax.Array, thresholds: jax.Array) -> jax.Array:
    """About argmin_u g·(u - θ) + ½ (u - θ)ᵀ H (u - θ) + Σ thresholds |u|, block by block.

    Rounds of coordinate descent, and of a step to the minimum for the signs that it finds, cut where a sign changes:
    exact once the signs are right.
    """
    rows = [each.reshape(factor.scale.shape) for each in (theta, gradient, jnp.broadcast_to(thresholds, theta.shape))]
    found = jax.vmap(_lasso)(factor.scaled, rows[0] / factor.scale, rows[1] * factor.scale, rows[2] * factor.scale)
    return (found * factor.scale).reshape(theta.shape)


def _lasso(hessian: jax.Array, u: jax.Array, slope: jax.Array, thresholds: jax.Array) -> jax.Array:
    size = len(u)

    def coordinate(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u, slope = state
        a = i % size
        row = hessian[a]
        goal = u[a] - slope[a] / row[a]
        new = jnp.sign(goal) * jnp.maximum(jnp.abs(goal) - thresholds[a] / row[a], 0)
        return u.at[a].set(new), slope + (new - u[a]) * row

    def on_signs(u: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        free = (u != 0) | (thresholds == 0)
        masked = jnp.where(free[:, None] & free[None], hessian, jnp.eye(size, dtype=u.dtype))
        lower = lax.linalg.cholesky(masked, symmetrize_input=False)
        step = jnp.where(free, slope + thresholds * jnp.sign(u), 0)
        for transposed in (False, True):
            step = lax.linalg.triangular_solve(
                lower, step[:, None], left_side=True, lower=True, transpose_a=transposed
            )[:, 0]
        crosses = (thresholds > 0) & (u * (u - step) < 0)
        reach = jnp.where(crosses, u / jnp.where(crosses, step, 1), 1)
        part = reach.min()
        part = jnp.where(jnp.isfinite(step).all(), part, 0)
        new = jnp.where(crosses & (reach <= part), 0, u - part * jnp.where(part > 0, step, 0))
        return new, slope + product("ij,j->i", hessian, new - u)

    def rounds(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return on_signs(*lax.fori_loop(0, SWEEPS * size, coordinate, state))

    return lax.fori_loop(0, ROUNDS, rounds, (u, slope))[0]


def bound_by_hessian(factor: Factor, decrement: jax.Array, extent: jax.Array, concordance: float) -> jax.Array:
    """½ e^u δ² for some u ≥ 2 δ M e^u: holds where the Hessian is definite; ∞ where it is not or where u > 1.

    Within ‖h‖_H ≤ ρ no η_i moves by more than ρ M / c. `extent` (q,): the largest entries of the features. With
    a = 2 δ M e < 1 the smallest such u is at most a, and e^a ≤ 1 / (1 - a).
    """
    reach = ((factor.scale.reshape(-1, len(extent)) * extent[None]) ** 2).reshape(factor.scale.shape)
    a = 2 * float(np.e) * concordance * decrement * jnp.sqrt(factor.size * reach.sum(axis=1).max())
    holds = (a < 1) & (factor.slack < 0.5)
    return jnp.where(holds, decrement**2 / (2 * (1 - a) * (1 - factor.slack)), jnp.inf)


def bound_by_penalty(
    slope: jax.Array, size: jax.Array, cost: jax.Array, l1: jax.Array | None, l2: jax.Array
) -> jax.Array:
    """From the penalty alone, by bounds `slope` (k, d) on the absolute subgradient at the best bias; NaN without one.

    (Σ slope²) / (2 l2), or max slope (‖w‖₁ + ‖w*‖₁), `size` ‖w‖₁, ‖w*‖₁ ≤ cost / l1, the cost above the least possible.
    """
    found = (slope * slope).sum() / (2 * l2)
    return found if l1 is None else jnp.fmin(found, slope.max() * (size + cost / l1))


def bias_gap(slope: jax.Array, curvature: jax.Array, concordance: float) -> tuple[jax.Array, jax.Array]:
    """How far J is above its minimum over the bias at most, and a bound (k,) on the change of Σ share |δ| on the way.

    slope: of the bias, (k,). curvature: (k,), or (k, k) of coupled outputs. NaN or negative where there is no bound.
    """
    coupled = curvature.ndim == 2
    error = jnp.sqrt((slope * slope).sum(keepdims=True)) if coupled else slope
    least = jnp.linalg.eigvalsh(curvature)[:1] if coupled else curvature
    # -log(1 - f) / c ≤ (f / c) / (1 - f), f = c error / least
    room = least - concordance * error
    distance = jnp.where(room > 0, error / room, jnp.inf)
    # Residuals of a loss that is a sum over outputs all move one way with b: their changes add up to that of the slope.
    return (error * distance).sum(), distance / 2 if coupled else error
