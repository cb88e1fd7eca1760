"""Kronecker factors: of each layer's Fisher block E[aaᵀ ⊗ δδᵀ] the product E[aaᵀ] ⊗ E[δδᵀ].

Martens & Grosse (2015). The bias is the weight of a constant input 1, the last coordinate of A. Both factors are
means over examples, Σ_i s_i (·) / Σ_i s_i; n times a factor is the usual sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_backprop, example_weights, sum_over_seeds
from lr_nn.curvature.ggn import sampled_residuals
from lr_nn.network import Network
from lr_nn.row_sums import weighted
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
    """Factors of the exact Fisher, means over examples: G sums over the k columns of the Fisher factor in η."""
    check_backprop(net, params, bp)
    return _factors(bp, weight, _sweeps(net, params, bp, bp.loss.fisher_factor(bp.eta)))


def sampled_factors(
    net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None, *, key: jax.Array, samples: int = 1
) -> tuple[Factors, ...]:
    """Unbiased estimates of `factors`: G the mean over `samples` targets drawn from the model for each example."""
    check_backprop(net, params, bp)
    return _factors(bp, weight, _sweeps(net, params, bp, sampled_residuals(bp, key, samples)), samples)


def empirical_factors(bp: Backprop, weight: ArrayLike | None = None) -> tuple[Factors, ...]:
    """Factors of the empirical Fisher, means over examples: G from the errors at the targets as they are."""
    return _factors(bp, weight, lambda function: function(bp.deltas))


def solve(factors: tuple[Factors, ...], gradient: Params, damping: ArrayLike) -> Params:
    """(A + π√λ I)⁻¹ ∇ (G + √λ/π I)⁻¹ layer by layer, like the parameters, λ = `damping` > 0.

    π² = (tr A / dim A) / (tr G / dim G) splits the damping by the scales of the factors: Martens & Grosse (2015),
    section 6.3. Damping below the rounding of the factors may leave them indefinite: NaN. Raises ValueError for a
    damping that is not positive, or a gradient of other layers.
    """
    damping = check.positive("damping", damping)
    found = []
    for (a, g), layer in zip(factors, _matched(Factors, factors, gradient)):
        root = jnp.sqrt(damping).astype(a.dtype)
        pi = jnp.sqrt((jnp.trace(a) / a.shape[0]) / (jnp.trace(g) / g.shape[0]))
        pi = jnp.where(jnp.isfinite(pi) & (pi > 0), pi, jnp.ones_like(pi))
        joined = _join(layer).astype(a.dtype)
        left = cho_solve(cho_factor(a + pi * root * jnp.eye(a.shape[0], dtype=a.dtype)), joined)
        right = cho_solve(cho_factor(g + root / pi * jnp.eye(g.shape[0], dtype=g.dtype)), left.T).T
        found.append(_split(right, layer))
    return tuple(found)


def eigenbasis(
    net: Network, params: Params, bp: Backprop, factors: tuple[Factors, ...], weight: ArrayLike | None = None
) -> tuple[Eigenbasis, ...]:
    """The eigenvectors of the factors, and along them the second moments mean_i s_i Σ_c (U_Aᵀ a_i δ_icᵀ U_G)².

    The diagonal that is best in this basis replaces the product of eigenvalues: EK-FAC, George et al. (2018).
    """
    check_backprop(net, params, bp)
    return _eigenbasis(bp, factors, weight, _sweeps(net, params, bp, bp.loss.fisher_factor(bp.eta)))


def sampled_eigenbasis(
    net: Network,
    params: Params,
    bp: Backprop,
    factors: tuple[Factors, ...],
    weight: ArrayLike | None = None,
    *,
    key: jax.Array,
    samples: int = 1,
) -> tuple[Eigenbasis, ...]:
    """`eigenbasis` with moments estimated from `samples` targets drawn from the model for each example, unbiased."""
    check_backprop(net, params, bp)
    return _eigenbasis(bp, factors, weight, _sweeps(net, params, bp, sampled_residuals(bp, key, samples)), samples)


def empirical_eigenbasis(
    bp: Backprop, factors: tuple[Factors, ...], weight: ArrayLike | None = None
) -> tuple[Eigenbasis, ...]:
    """`eigenbasis` with the moments of the gradients in `bp`, at the targets as they are."""
    return _eigenbasis(bp, factors, weight, lambda function: function(bp.deltas))


def eigen_solve(basis: tuple[Eigenbasis, ...], gradient: Params, damping: ArrayLike) -> Params:
    """U_A [(U_Aᵀ ∇ U_G) / (moments + λ)] U_Gᵀ layer by layer, like the parameters, λ = `damping` > 0.

    Raises ValueError for a damping that is not positive, or a gradient of other layers.
    """
    damping = check.positive("damping", damping)
    found = []
    for (u_a, u_g, moments), layer in zip(basis, _matched(Eigenbasis, basis, gradient)):
        turned = u_a.T @ _join(layer).astype(u_a.dtype) @ u_g / (moments + damping.astype(moments.dtype))
        found.append(_split(u_a @ turned @ u_g.T, layer))
    return tuple(found)


Sweeps = Callable[[Callable[[tuple[jax.Array, ...]], tuple[jax.Array, ...]]], tuple[jax.Array, ...]]


def _sweeps(net: Network, params: Params, bp: Backprop, seeds: jax.Array) -> Sweeps:
    """What adds up a function of the deltas over seeds."""
    return lambda function: sum_over_seeds(net, params, bp.activations, seeds, function)


def _factors(bp: Backprop, weight: ArrayLike | None, summed: Sweeps, samples: int = 1) -> tuple[Factors, ...]:
    weight, total = example_weights(bp, weight)
    root = jnp.sqrt((jnp.ones(bp.eta.shape[0], total.dtype) if weight is None else weight) / total)

    def moment(rows: jax.Array) -> jax.Array:
        rows = weighted(rows.astype(accumulator(rows.dtype)), root)
        return rows.T @ rows

    outputs = summed(lambda deltas: tuple(moment(delta) for delta in deltas))
    return tuple(Factors(moment(_homogeneous(a, bp.bias)), g / samples) for a, g in zip(bp.activations, outputs))


def _eigenbasis(
    bp: Backprop, factors: tuple[Factors, ...], weight: ArrayLike | None, summed: Sweeps, samples: int = 1
) -> tuple[Eigenbasis, ...]:
    sides = [(a.shape[-1] + bp.bias, delta.shape[-1]) for a, delta in zip(bp.activations, bp.deltas)]
    _check_sides(Factors, factors, sides)
    weight, total = example_weights(bp, weight)
    root = None if weight is None else jnp.sqrt(weight)
    vectors = [(jnp.linalg.eigh(a)[1], jnp.linalg.eigh(g)[1]) for a, g in factors]

    def squares(deltas: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(
            weighted(jnp.square(delta.astype(u_g.dtype) @ u_g), root) for delta, (_, u_g) in zip(deltas, vectors)
        )

    found = []
    for (u_a, u_g), inputs, along_g in zip(vectors, bp.activations, summed(squares)):
        along_a = weighted(jnp.square(_homogeneous(inputs, bp.bias).astype(u_a.dtype) @ u_a), root)
        found.append(Eigenbasis(u_a, u_g, along_a.T @ along_g / (samples * total.astype(u_a.dtype))))
    return tuple(found)


def _matched(kind: type, by: Sequence[Factors | Eigenbasis], gradient: Params) -> Params:
    """`gradient`, if its layers are those of `by`."""
    _check_sides(kind, by, [(w.shape[0] + (b is not None), w.shape[1]) for w, b in gradient])
    return gradient


def _check_sides(kind: type, by: Sequence[Factors | Eigenbasis], sides: list[tuple[int, int]]) -> None:
    if not all(isinstance(layer, kind) for layer in by):
        raise TypeError(f"expected a {kind.__name__} for each layer; got {[type(layer).__name__ for layer in by]}")
    got = [(layer.a.shape[0], layer.g.shape[0]) for layer in by]
    if got != sides:
        raise ValueError(f"expected factors of sides {sides}, one pair a layer, the bias counted; got {got}")


def _homogeneous(a: jax.Array, bias: bool) -> jax.Array:
    return jnp.concatenate([a, jnp.ones((a.shape[0], 1), a.dtype)], axis=1) if bias else a


def _join(layer: Layer) -> jax.Array:
    return layer.w if layer.b is None else jnp.concatenate([layer.w, layer.b[None]], axis=0)


def _split(joined: jax.Array, like: Layer) -> Layer:
    joined = joined.astype(like.w.dtype)
    return Layer(joined, None) if like.b is None else Layer(joined[:-1], joined[-1])
