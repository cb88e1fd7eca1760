"""The systems (H + λI) u = g of influence functions, by Kronecker factors or conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.curvature import ggn, hessian, kfac, solve
from lr_nn.curvature.blocks import by_layer
from lr_nn.curvature.kronecker import moments_along
from lr_nn.curvature.kronecker_eigenbasis import scale_along
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty, is_tree
from lr_nn.trees import on_automatic_mesh
from lr_nn.types import Batch, Params

Solver = Callable[[Params], Params]
Curvature = Literal["kfac", "ekfac", "ggn", "hessian"]


class Problem(NamedTuple):
    """The checked arguments of every influence function."""

    params: Params
    train: Batch
    penalty: Penalty | None
    damping: jax.Array
    tol: jax.Array | None


def make_problem(
    net: Network,
    params: Params,
    train: Batch,
    curvature: Curvature,
    damping: ArrayLike,
    penalty: Penalty | None,
    tol: ArrayLike | None,
) -> Problem:
    """The checked `Problem`; raises ValueError or TypeError as `upweighting` says."""
    check_network(net)
    if curvature not in get_args(Curvature):
        raise ValueError(f"curvature must be one of {get_args(Curvature)}; got {curvature!r:.100}")
    batch = admit(net, params, train)
    check_penalty(penalty, net)
    for l1 in jax.tree.leaves(None if penalty is None else penalty.l1):
        check.require("penalty l1", check.numeric("penalty l1", l1), lambda v: v == 0, "0, because l1 has no curvature")
    number = check.scalar("damping", damping)
    if factored(curvature):
        check.require(f"damping of curvature={curvature!r}", number, lambda v: v > 0, "positive")
        if penalty is not None and is_tree(penalty.l2):
            raise ValueError(f"curvature={curvature!r} takes one l2 strength for all weights; use curvature='ggn'")
    check.require("damping", number, check.is_not_negative, "finite and not negative")
    if tol is not None:
        tol = check.positive("tol", tol)
        check.require("tol", tol, lambda v: v < 1, "below 1, for the solution 0 has a relative residual of 1")
    params, batch = on_automatic_mesh((params, batch))
    return Problem(params, batch, penalty, number, tol)


def admit_rows(net: Network, params: Params, rows: Batch) -> Batch:
    """Checked rows whose gradients are solved for; their weights do not count, and may all be zero."""
    return on_automatic_mesh(admit(net, params, rows, allow_no_weight=True))


def make_solver(net: Network, problem: Problem, curvature: Curvature, max_steps: int) -> Solver:
    """(H + λI)⁻¹ v, its factorisation made once."""
    params, train, penalty, damping, tol = problem
    if factored(curvature):
        layers = kronecker_axes(net, problem, curvature)
        return lambda v: by_layer(lambda axes, v: scale_along(axes.a, axes.g, v, axes.scale), layers, v)
    op = (ggn if curvature == "ggn" else hessian)(net, params, train, penalty)
    return lambda v: solve(op, v, damping, tol=tol, max_steps=max_steps)


def factored(curvature: Curvature) -> bool:
    """True if the curvature is kept by Kronecker factors."""
    return curvature in ("kfac", "ekfac")


class Axes(NamedTuple):
    """One layer: (C + D ⊗ I)⁻¹ V = a [(aᵀ V g) ∘ scale] gᵀ, D diagonal; `a` need not be orthogonal."""

    a: jax.Array
    g: jax.Array
    scale: jax.Array


def kronecker_axes(net: Network, problem: Problem, curvature: Curvature) -> list[Axes]:
    """Exact for an L2 penalty that leaves biases free: D = diag(λ + l2, ..., λ + l2, λ) is taken into the input factor.

    D^{-½} A D^{-½} = U diag(α) Uᵀ and G = V diag(γ) Vᵀ give a = D^{-½} U, g = V and scale = 1 / (1 + m_jk): for "kfac"
    m_jk = α_j γ_k, for "ekfac" the second moment mean_i s_i Σ_c (aᵀ ã_i)_j² (gᵀ δ_ic)_k².
    """
    params, train, penalty, damping, _ = problem
    op, layers = kfac(net, params, train), []
    for a, g in op.factors:
        l2 = jnp.asarray(0.0 if penalty is None else penalty.l2).astype(a.dtype)
        weights = jnp.arange(len(a)) < len(a) - int(net.bias)
        root = 1 / jnp.sqrt(damping.astype(a.dtype) + jnp.where(weights, l2, jnp.zeros_like(l2)))
        alpha, u_a = jnp.linalg.eigh(root[:, None] * a * root[None])
        gamma, u_g = jnp.linalg.eigh(g)
        products = jnp.maximum(alpha, 0)[:, None] * jnp.maximum(gamma, 0)[None]
        layers.append(Axes(root[:, None] * u_a, u_g, 1 / (1 + products)))
    if curvature == "kfac":
        return layers
    moments = moments_along(op, [(axes.a, axes.g) for axes in layers])
    return [axes._replace(scale=1 / (1 + each)) for axes, each in zip(layers, moments)]
