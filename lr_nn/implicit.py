"""Fits that JAX differentiates: `fit` is a function of the data and of the penalty, by the implicit function theorem.

At the optimum θ* the gradient F(θ, φ) = ∇J vanishes, for φ the strengths, x, y, weight and offset:

    F(θ*, φ) = 0,    ∂θ*/∂φ = -H⁻¹ ∂F/∂φ,    H = ∂F/∂θ = ∇²J

`fit` takes θ₀ = θ* and H as constants and corrects θ by steps θ ← θ - H⁻¹ F(θ, φ). F is zero at θ*, so a step leaves
the value as it is and has the derivative above; every further step makes one more order of derivatives exact. F and H
are written by hand. JAX differentiates the steps as it does any other arithmetic, in forward and in reverse mode.

Source: Griewank & Walther, Evaluating Derivatives (2008), chapter 15; Blondel et al., Efficient and modular implicit
differentiation (2022), for the penalties.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from lr_nn.many.compiled import admitted, run
from lr_nn.many.local_model import (
    Factor,
    Problem,
    centred,
    factored,
    gradient_at,
    hessian_at,
    make_problem,
    params_at,
    product,
)
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.trees import compiled
from lr_nn.types import Batch, Params, Status

__all__ = ["fit"]


def __dir__() -> list[str]:
    return __all__


# One for each order of derivatives that is exact, and one because θ₀ is θ* only up to the certificate.
STEPS = 3
# A Hessian whose solves rounding may change by more than this fraction counts as singular.
LARGEST_SLACK = 0.1


def fit(
    net: Network, batch: Batch, penalty: Penalty | None = None, *, tol: ArrayLike | None = None, max_steps: int = 100
) -> Params:
    """The parameters of a one-layer network that minimise J = Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + (l2/2) Σ w².

    They are a function of penalty, x, y, weight and offset under `jax.grad`, `jax.jacobian`, `jax.jvp`, `jax.hessian`,
    `jit` and `vmap`. First and second derivatives are exact, those of higher order are not. `lr_nn.many.solve` finds
    the optimum, with the same arguments, errors and precision. For many fits `jax.lax.map` is faster than `vmap`.

    Returns w (d, k) and b (k,). Where the optimum is not certified or not unique, all of them and all derivatives are
    NaN; `many.solve` of the same arguments gives the status.

    penalty: `Penalty(l1, l2)`, both single numbers. For one strength per feature divide each column of x by the root of
    its strength, as docs/examples/hypergradients.py does. With an l1 penalty the derivatives of a zero weight are zero,
    which holds until the set of zero weights changes. Without an l1 penalty leave l1 a concrete zero.
    batch: the derivative by the weight s_i is the infinitesimal jackknife
    -H⁻¹ (∇ℓ_i - Σ_j s_j ∇ℓ_j / Σ_j s_j) / Σ_j s_j, for s_i = 0 too. A row of weight zero with numbers that are not
    finite is padding; its derivative is zero. For softmax regression without a penalty the coefficients and their
    derivatives sum to zero over classes.

    >>> import jax, jax.numpy as jnp, lr_nn
    >>> net = lr_nn.linear_regression(1)
    >>> batch = lr_nn.Batch(x=jnp.array([[-1.0], [1.0]]), y=jnp.array([-3.0, 3.0]))
    >>> weight = lambda l2: lr_nn.implicit.fit(net, batch, lr_nn.Penalty(l2=l2))[0].w[0, 0]  # 3 / (1 + l2)
    >>> [round(float(f(1.0)), 5) for f in (weight, jax.grad(weight), jax.hessian(weight))]
    [1.5, -0.75, 0.75]
    """
    return _fit(net, *admitted("implicit.fit", net, batch, penalty, tol, max_steps))


def _differentiable(
    net: Network, batch: Batch, l1: jax.Array | None, l2: jax.Array, tol: jax.Array, max_steps: jax.Array
) -> Params:
    """`fit` of admitted arguments."""
    constants = lax.stop_gradient((batch, l1, l2, tol))
    solved = run(net, *constants, max_steps).solved
    problem = make_problem(net, batch, l1, l2, _counted(net, constants[0], solved.params))
    theta = lax.stop_gradient(_theta(problem, solved.params))
    free = jnp.ones(theta.shape, bool) if l1 is None else (theta != 0) | (constants[1] * problem.penalised[None] == 0)
    factor = lax.stop_gradient(_factor(problem, theta, free))
    for _ in range(STEPS):
        theta = centred(problem, theta - _solve(factor, jnp.where(free, _gradient(problem, theta), 0)))
    usable = ((solved.status == int(Status.converged)) & (factor.slack < LARGEST_SLACK)).astype(theta.dtype)
    # 1 or NaN, by a product, so that the derivatives become NaN with the values.
    return jax.tree.map(lambda leaf: leaf * (usable / usable), params_at(problem, theta))


_fit = compiled(_differentiable)


def _counted(net: Network, batch: Batch, params: Params) -> jax.Array | None:
    """The rows (n, 1) that have a derivative by their weight: those of weight zero must have finite numbers."""
    if batch.weight is None:
        return None
    [(w, b)], y = params, batch.y
    eta = product("nd,dk->nk", batch.x, w)
    eta = eta if b is None else eta + b[None]
    eta = eta if batch.offset is None else eta + batch.offset.reshape(eta.shape)
    numbers = jnp.concatenate([batch.x, net.loss.residual(eta, net.loss.encode(y, eta))], axis=1)
    return ((batch.weight > 0) | jnp.isfinite(numbers).all(axis=1))[:, None]


def _theta(problem: Problem, params: Params) -> jax.Array:
    """θ (k, q) of centred features: the weights, and c = b + mean·w."""
    [(w, b)] = params
    if b is None:
        return w.T
    return jnp.concatenate([w.T, (b + product("d,dk->k", problem.mean[:-1], w))[:, None]], axis=1)


def _eta(problem: Problem, theta: jax.Array) -> jax.Array:
    """η (n, k), also in rows of weight zero."""
    eta = product("nq,kq->nk", problem.x, theta)
    return eta if problem.offset is None else eta + problem.offset


def _gradient(problem: Problem, theta: jax.Array) -> jax.Array:
    """F(θ, φ), (k, q); of the l1 penalty with the signs of θ."""
    gradient = gradient_at(problem, theta, problem.loss.residual(_eta(problem, theta), problem.y))
    return gradient if problem.l1 is None else gradient + problem.l1 * problem.penalised[None] * jnp.sign(theta)


def _factor(problem: Problem, theta: jax.Array, free: jax.Array) -> Factor:
    """The factor of H of the free coefficients (k, q); the others have the rows and columns of the identity."""
    hessian = hessian_at(problem, _eta(problem, theta))
    m, s, _ = hessian.shape
    if problem.l1 is not None:
        only_l1 = (problem.l1 > 0) & (problem.l2 == 0)
        hessian = hessian + _common_shift(problem, hessian, free & only_l1)
        rows = free.reshape(m, s)
        hessian = jnp.where(rows[:, :, None] & rows[:, None, :], hessian, np.eye(s, dtype=hessian.dtype)[None])
    penalised = np.tile(problem.penalised, s // theta.shape[1])
    return factored(hessian, problem.l2, penalised, jnp.zeros_like(theta), len(problem.x))


def _common_shift(problem: Problem, hessian: jax.Array, free: jax.Array) -> jax.Array:
    """A curvature along the shift common to all classes, of columns that it moves at no cost: those of l1 alone."""
    if not problem.loss.couples_outputs:
        return jnp.zeros_like(hessian)
    k, q = free.shape
    kept = free.all(axis=0) & (problem.penalised > 0)
    curvature = jnp.where(kept, product("caca->a", hessian.reshape(k, q, k, q)) / k**2, 0)
    return jnp.tile(jnp.diag(curvature), (k, k))[None]


def _solve(factor: Factor, gradient: jax.Array) -> jax.Array:
    """H⁻¹ g, (k, q)."""
    half = product("mij,mj->mi", factor.inverse, factor.scale * gradient.reshape(factor.scale.shape))
    return (factor.scale * product("mji,mj->mi", factor.inverse, half)).reshape(gradient.shape)
