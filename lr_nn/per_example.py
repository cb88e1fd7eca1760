"""What each example wants: gradients, norms, clipping, moments and inner products, example by example.

Everything follows from g_i = a_i δ_iᵀ (a bias being the weight of a constant input 1): with activations and
errors in hand nothing of size n × parameters need be made, ‖a δᵀ‖² = ‖a‖² ‖δ‖² (Goodfellow, 2015). Means are
over examples, Σ_i s_i (·) / Σ_i s_i. Norms and moments of half-precision passes are accumulated in float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backprop import check_pass, contract, example_weights, squared, weighted, widened
from lr_nn.trees import accumulator, divide, squared_norm
from lr_nn.types import Backprop, Layer, Params


def gradients(bp: Backprop) -> Params:
    """g_i for every example, unscaled: like the parameters with a leading n. Memory n × parameters."""
    check_pass(bp)
    return tuple(
        Layer(jnp.einsum("ni,nj->nij", a, delta), delta if bp.bias else None)
        for a, delta in zip(bp.activations, bp.deltas)
    )


def squared_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖² over all layers, (n,)."""
    return layer_squared_norms(bp).sum(axis=1)


def layer_squared_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖² layer by layer, (n, L): (‖a_{l-1}‖² + 1) ‖δ_l‖², without the 1 where there is no bias."""
    check_pass(bp)
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs, outputs = _squares(a) + float(bp.bias), _squares(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


def clipped_gradient(bp: Backprop, max_norm: ArrayLike, weight: ArrayLike | None = None) -> Params:
    """Σ_i s_i c_i g_i / Σ_i s_i, c_i = min(1, max_norm / ‖g_i‖): the mean of clipped gradients, in one pass.

    The errors are scaled, then contracted, in float32 for half precision: no clipped norm exceeds max_norm by more
    than rounding. max_norm = ∞ gives the gradient. With any other an example whose gradient is not finite counts as
    zero, and keeps the bound. Raises ValueError for max_norm ≤ 0, or weights that are
    negative, of another length, or all zero. Abadi et al. (2016), algorithm 1.
    """
    weight, total = example_weights(bp, weight)
    return divide(clipped_sum(bp, max_norm, weight), total, bp.eta.dtype)


def clipped_sum(bp: Backprop, max_norm: ArrayLike, weight: jax.Array | None) -> Params:
    """Σ_i s_i c_i g_i: `clipped_gradient` before the division."""
    factors = _clip_factors(_norms(_layer_norms(bp)), check.positive("max_norm", max_norm))
    return contract(widened(bp), factors if weight is None else weight * factors)


def layer_clipped_gradient(bp: Backprop, max_norms: ArrayLike, weight: ArrayLike | None = None) -> Params:
    """`clipped_gradient` with the gradient of each layer clipped to a norm of its own; `max_norms` () or (L,)."""
    weight, total = example_weights(bp, weight)
    norms = jnp.asarray(check.numeric("max_norms", max_norms), jnp.result_type(float))
    check.require("max_norms", norms, lambda v: v > 0, "positive")
    if norms.shape not in ((), (len(bp.deltas),)):
        raise ValueError(f"max_norms must be one number or {len(bp.deltas)}, one a layer; got shape {norms.shape}")
    factors = _clip_factors(_layer_norms(bp), norms.reshape(1, -1))
    wide = widened(bp)
    deltas = tuple(weighted(delta, c) for c, delta in zip(factors.T, wide.deltas))
    return divide(contract(replace(wide, deltas=deltas), weight), total, bp.eta.dtype)


def second_moment(bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """Σ_i s_i g_i² / Σ_i s_i, elementwise, as (a²)ᵀ δ²: nothing of size n × parameters."""
    weight, total = example_weights(bp, weight)
    return divide(contract(squared(bp), weight), total)


def variance(bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """The mean of g_i² less the square of the mean, elementwise (divided by Σ s, not Σ s - 1); never below 0.

    A difference: its error is of the order of eps · mean g_i².
    """
    mean, moment = _mean(bp, weight), second_moment(bp, weight)
    return jax.tree.map(lambda m2, m: jnp.maximum(m2 - m * m, 0), moment, mean)


def signal_to_noise(bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """(mean g)² / variance g, elementwise: the gradient signal-to-noise ratio of Liu et al. (2020), eq. 1.

    ∞ where only the variance vanishes, 0 where both do; above 1/eps a ratio says no more than that it is large.
    """
    mean, spread = _mean(bp, weight), variance(bp, weight)
    return jax.tree.map(lambda m, v: jnp.where(m * m == 0, jnp.zeros_like(m), m * m / v), mean, spread)


class NoiseScale(NamedTuple):
    """tr Σ of per-example gradients, ‖G‖² of the true gradient, and their ratio, the simple noise scale."""

    trace: jax.Array
    squared_norm: jax.Array
    scale: jax.Array


def noise_scale(bp: Backprop, weight: ArrayLike | None = None) -> NoiseScale:
    """The simple noise scale tr(Σ) / ‖G‖² of McCandlish et al. (2018), eq. 2.9, from one batch of n = Σ s.

    Unbiased numerator and denominator, `noise_scale_of_norms` with batches of 1 and n: the mean of ‖g_i‖²
    against the squared norm of the mean. ‖G‖² is estimated, and may come out negative where noise rules. NaN for
    Σ s = 1, a batch that has no variance.
    """
    s, total = example_weights(bp, weight)
    n = total if weight is None else jnp.asarray(weight, total.dtype).sum()
    small = weighted(squared_norms(bp)[:, None], s).sum() / total
    return _noise_scale(small, jnp.ones_like(n), squared_norm(_mean(bp, weight)), n)


def noise_scale_of_norms(
    small_norm: ArrayLike, small_size: ArrayLike, big_norm: ArrayLike, big_size: ArrayLike
) -> NoiseScale:
    """The noise scale from the (mean) squared gradient norms of batches of two sizes, unbiased.

    ‖G‖² = (B‖G_B‖² - b‖G_b‖²) / (B - b), tr Σ = (‖G_b‖² - ‖G_B‖²) / (1/b - 1/B): McCandlish et al. (2018),
    appendix A.1. Average both over many batches before dividing: the ratio itself is not unbiased. Raises ValueError
    unless 0 < small_size < big_size.
    """
    names = ("small_norm", "small_size", "big_norm", "big_size")
    given = [
        jnp.asarray(check.numeric(*at), jnp.result_type(float))
        for at in zip(names, (small_norm, small_size, big_norm, big_size))
    ]
    check.require("small_size", given[1], lambda size: size > 0, "positive")
    check.require("big_size - small_size", given[3] - given[1], lambda more: more > 0, "positive")
    return _noise_scale(*given)


def _noise_scale(small_norm: jax.Array, small_size: jax.Array, big_norm: jax.Array, big_size: jax.Array) -> NoiseScale:
    norm = (big_size * big_norm - small_size * small_norm) / (big_size - small_size)
    trace = (small_norm - big_norm) / (1 / small_size - 1 / big_size)
    return NoiseScale(trace, norm, trace / norm)


def gram(bp: Backprop, other: Backprop | None = None) -> jax.Array:
    """⟨g_i, g_j⟩ = Σ_l (a_i·a_j + 1)(δ_i·δ_j), (n, m), within a batch or with `other`, of the same network.

    Between a training and a test batch: the kernel of TracIn (Pruthi et al., 2020). Raises ValueError for passes of
    different networks.
    """
    other = bp if other is None else other
    if _widths(bp) != _widths(other):
        raise ValueError("both batches must come from one network; their layers, activations or losses differ")
    layers = zip(bp.activations, bp.deltas, other.activations, other.deltas)
    return jnp.stack([(_products(a, b) + float(bp.bias)) * _products(d, e) for a, d, b, e in layers]).sum(axis=0)


def _widths(bp: Backprop) -> tuple:
    check_pass(bp)
    return bp.bias, bp.loss, bp.hidden, [a.shape[1:] for a in (*bp.activations, *bp.deltas)]


def _mean(bp: Backprop, weight: ArrayLike | None) -> Params:
    """The gradient, in float32 throughout for half precision: differences of moments cancel."""
    weight, total = example_weights(bp, weight)
    return divide(contract(widened(bp), weight), total)


def _layer_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖ layer by layer, (n, L), without overflow of the squares."""
    check_pass(bp)
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs = _norms(a)
        inputs = jnp.hypot(inputs, jnp.ones_like(inputs)) if bp.bias else inputs
        outputs = _norms(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


def _squares(rows: jax.Array) -> jax.Array:
    """The squared length of every row, (n,)."""
    return jnp.square(rows.astype(accumulator(rows.dtype))).sum(axis=1)


def _norms(rows: jax.Array) -> jax.Array:
    """The length of every row, (n,), its entries scaled by the largest."""
    rows = rows.astype(accumulator(rows.dtype))
    largest = jnp.abs(rows).max(axis=1)
    some = largest > 0
    one = jnp.ones_like(largest)
    squares = jnp.square(rows / jnp.where(some, largest, one)[:, None]).sum(axis=1)
    return largest * jnp.sqrt(jnp.where(some, squares, one))  # a root whose derivative is finite at zero


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    dtype = accumulator(a.dtype)
    return a.astype(dtype) @ b.astype(dtype).T


def _clip_factors(norms: jax.Array, max_norm: jax.Array) -> jax.Array:
    """min(1, max_norm / ‖g_i‖); zero where that is not a number."""
    bound = max_norm.astype(norms.dtype)
    one = jnp.ones_like(norms)
    outside = norms > bound
    shrunk = jnp.where(outside, bound / jnp.where(outside, norms, one), jnp.zeros_like(norms))
    return jnp.where((norms <= bound) | jnp.isinf(bound), one, shrunk)
