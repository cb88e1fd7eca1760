"""Kronecker factors: of each layer's Fisher block E[aaᵀ ⊗ δδᵀ] the product E[aaᵀ] ⊗ E[δδᵀ].

Martens & Grosse (2015). The bias is the weight of a constant input 1, the last coordinate of A. Both factors are
means over examples, Σ_i s_i (·) / Σ_i s_i; n times a factor is the usual sum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backprop import check_backprop, example_weights, pullback, weighted
from lr_nn.curvature.ggn import sampled_residuals
from lr_nn.network import Network
from lr_nn.trees import accumulator
from lr_nn.types import Backprop, Layer, Params


class Factors(NamedTuple):
    """`a` (d_{l-1} + 1, d_{l-1} + 1), without the + 1 where there is no bias, and `g` (d_l, d_l) of one layer."""

    a: jax.Array
    g: jax.Array


class Eigenbasis(NamedTuple):
    """Orthogonal eigenvectors of both factors of one layer, and the second moments of gradients along them."""

    a: jax.Array
    g: jax.Array
    moments: jax.Array


def factors(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> tuple[Factors, ...]:
    """Factors of the exact Fisher: G sums over the k columns of the Fisher factor in η."""
    return _factors(net, params, bp, bp.loss.fisher_factor(bp.eta), weight)


def sampled_factors(
    net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None, *, key: jax.Array, samples: int = 1
) -> tuple[Factors, ...]:
    """Unbiased estimates of `factors`: G the mean over `samples` targets drawn from the model for each example."""
    seeds = sampled_residuals(bp, key, samples) / jnp.asarray(samples, bp.eta.dtype) ** 0.5
    return _factors(net, params, bp, seeds, weight)


def empirical_factors(bp: Backprop, weight: ArrayLike | None = None) -> tuple[Factors, ...]:
    """Factors of the empirical Fisher: G from the errors at the targets as they are."""
    return _of_deltas(bp, bp.deltas, weight)


def solve(factors: tuple[Factors, ...], gradient: Params, damping: ArrayLike) -> Params:
    """(A + π√λ I)⁻¹ ∇ (G + √λ/π I)⁻¹ layer by layer, like the parameters, λ = `damping` > 0.

    π² = (tr A / dim A) / (tr G / dim G) splits the damping by the scales of the factors: Martens & Grosse (2015),
    section 6.3. Raises ValueError for a damping that is not positive.
    """
    damping = _damping(damping)
    found = []
    for (a, g), layer in zip(factors, gradient):
        root = jnp.sqrt(damping).astype(a.dtype)
        pi = jnp.sqrt((jnp.trace(a) / a.shape[0]) / (jnp.trace(g) / g.shape[0]))
        pi = jnp.where(jnp.isfinite(pi) & (pi > 0), pi, jnp.ones_like(pi))
        joined = _join(layer).astype(a.dtype)
        left = cho_solve(cho_factor(a + pi * root * jnp.eye(a.shape[0], dtype=a.dtype)), joined)
        right = cho_solve(cho_factor(g + root / pi * jnp.eye(g.shape[0], dtype=g.dtype)), left.T).T
        found.append(_split(right, layer))
    return tuple(found)


def eigenbasis(factors: tuple[Factors, ...], bp: Backprop, weight: ArrayLike | None = None) -> tuple[Eigenbasis, ...]:
    """The eigenvectors of the factors, and along them mean_i s_i (U_Aᵀ g_i U_G)² of the gradients in `bp`.

    The diagonal that is best in this basis replaces the product of eigenvalues: EK-FAC, George et al. (2018).
    Give a `bp` whose deltas are seeded as the factors were (`sampled`, or the residuals for the empirical Fisher).
    """
    weight, total = example_weights(bp, weight)
    found = []
    for (a, g), inputs, delta in zip(factors, bp.activations, bp.deltas):
        u_a, u_g = jnp.linalg.eigh(a)[1], jnp.linalg.eigh(g)[1]
        along_a = weighted((_homogeneous(inputs, bp.bias).astype(u_a.dtype) @ u_a) ** 2, weight)
        along_g = (delta.astype(u_g.dtype) @ u_g) ** 2
        found.append(Eigenbasis(u_a, u_g, along_a.T @ along_g / total.astype(u_a.dtype)))
    return tuple(found)


def sampled(net: Network, params: Params, bp: Backprop, *, key: jax.Array) -> Backprop:
    """The pass with deltas seeded by one target drawn from the model for each example."""
    check_backprop(net, params, bp)
    return replace(bp, deltas=pullback(net, params, bp.activations, sampled_residuals(bp, key, 1)[0]))


def eigen_solve(basis: tuple[Eigenbasis, ...], gradient: Params, damping: ArrayLike) -> Params:
    """U_A [(U_Aᵀ ∇ U_G) / (moments + λ)] U_Gᵀ layer by layer, like the parameters, λ = `damping` > 0."""
    damping = _damping(damping)
    found = []
    for (u_a, u_g, moments), layer in zip(basis, gradient):
        turned = u_a.T @ _join(layer).astype(u_a.dtype) @ u_g / (moments + damping.astype(moments.dtype))
        found.append(_split(u_a @ turned @ u_g.T, layer))
    return tuple(found)


def _factors(
    net: Network, params: Params, bp: Backprop, seeds: jax.Array, weight: ArrayLike | None
) -> tuple[Factors, ...]:
    check_backprop(net, params, bp)
    return _of_deltas(bp, pullback(net, params, bp.activations, seeds), weight)


def _of_deltas(bp: Backprop, deltas: tuple[jax.Array, ...], weight: ArrayLike | None) -> tuple[Factors, ...]:
    """Second moments of inputs, and of `deltas` (n, d_l) or (c, n, d_l), the latter summed over c."""
    weight, total = example_weights(bp, weight)
    share = jnp.ones(bp.eta.shape[0], total.dtype) / total if weight is None else weight / total

    def moment(rows: jax.Array) -> jax.Array:
        rows = rows.astype(accumulator(rows.dtype))
        return rows.T @ weighted(rows, jnp.tile(share, rows.shape[0] // share.shape[0]))

    return tuple(
        Factors(moment(_homogeneous(a, bp.bias)), moment(delta.reshape(-1, delta.shape[-1])))
        for a, delta in zip(bp.activations, deltas)
    )


def _homogeneous(a: jax.Array, bias: bool) -> jax.Array:
    return jnp.concatenate([a, jnp.ones((a.shape[0], 1), a.dtype)], axis=1) if bias else a


def _join(layer: Layer) -> jax.Array:
    return layer.w if layer.b is None else jnp.concatenate([layer.w, layer.b[None]], axis=0)


def _split(joined: jax.Array, like: Layer) -> Layer:
    joined = joined.astype(like.w.dtype)
    return Layer(joined, None) if like.b is None else Layer(joined[:-1], joined[-1])


def _damping(damping: ArrayLike) -> jax.Array:
    damping = jnp.asarray(check.numeric("damping", damping), jnp.result_type(float))
    check.require("damping", damping, lambda d: d > 0, "positive")
    return damping
