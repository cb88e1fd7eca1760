"""Per-example gradients, norms, clipping, moments and inner products, from one pass.

Everything follows from g_i = a_i δ_iᵀ, where a bias is the weight of a constant input 1. With activations and deltas
at hand nothing of size n × parameters is needed: ‖a δᵀ‖² = ‖a‖² ‖δ‖² (Goodfellow, 2015). Gradients, norms and inner
products ignore the weight of the pass. Clipped gradients, moments and the noise scale are weighted means over
examples, Σ_i s_i (·) / Σ_i s_i, and refuse weights that are all zero. Norms and moments of half-precision passes are
summed in float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_mean, check_pass, checked_by, contract, mean_gradient, relative_weights, squared
from lr_nn.network import Network, check_params
from lr_nn.row_sums import weighted
from lr_nn.tangents import inner_products as _inner_products
from lr_nn.trees import cast, compiled, divide, product_sharding, squared_norm, widened
from lr_nn.types import Backprop, Layer, Params

__all__ = [
    "NoiseScale",
    "clipped_gradient",
    "gradients",
    "gram",
    "inner_products",
    "layer_clipped_gradient",
    "layer_squared_norms",
    "noise_scale",
    "noise_scale_of_norms",
    "second_moment",
    "signal_to_noise",
    "squared_norms",
    "variance",
]


def __dir__() -> list[str]:
    return __all__


@checked_by(check_pass)
def gradients(bp: Backprop) -> Params:
    """g_i for every example, unscaled: like the parameters with a leading n. Memory n × parameters."""
    found = (
        Layer(jnp.einsum("ni,nj->nij", *widened((a, delta))), delta if bp.bias else None)
        for a, delta in zip(bp.activations, bp.deltas)
    )
    return cast(tuple(found), bp.dtypes)


@checked_by(check_pass)
def squared_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖² over all layers, (n,)."""
    return _layer_squared_norms(bp).sum(axis=1)


@checked_by(check_pass)
def layer_squared_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖² layer by layer, (n, L): (‖a_{l-1}‖² + 1) ‖δ_l‖², without the 1 where there is no bias."""
    return _layer_squared_norms(bp)


def _layer_squared_norms(bp: Backprop) -> jax.Array:
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs, outputs = _squares(a) + float(bp.bias), _squares(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


def clipped_gradient(bp: Backprop, max_norm: ArrayLike) -> Params:
    """Σ_i s_i c_i g_i / Σ_i s_i, c_i = min(1, max_norm / ‖g_i‖): the mean of clipped gradients, in one pass.

    The deltas are scaled, then contracted, in float32 for half precision: no clipped norm exceeds max_norm by more
    than rounding. max_norm = ∞ gives the gradient. For every other max_norm an example whose gradient is not finite
    counts as zero, which keeps the bound. Raises ValueError for max_norm ≤ 0 or weights that are all zero.
    Abadi et al. (2016), algorithm 1.
    """
    return _clipped_gradient(bp, check.positive("max_norm", max_norm))


@checked_by(check_mean)
def _clipped_gradient(bp: Backprop, max_norm: jax.Array) -> Params:
    weight, total = relative_weights(bp)
    return cast(divide(clipped_sum(bp, max_norm, weight), total), bp.dtypes)


def clipped_sum(bp: Backprop, max_norm: jax.Array, weight: jax.Array | None) -> Params:
    """Σ_i s_i c_i g_i in the dtype of sums: `clipped_gradient` before the division."""
    factors = _clip_factors(_norms(_layer_norms(bp)), max_norm)
    return contract(widened(bp), factors if weight is None else weight.astype(factors.dtype) * factors)


def layer_clipped_gradient(bp: Backprop, max_norms: ArrayLike) -> Params:
    """`clipped_gradient` with the gradient of each layer clipped to a norm of its own; `max_norms` () or (L,)."""
    check_pass(bp)
    norms = check.cast(check.numeric("max_norms", max_norms), jnp.result_type(float))
    check.require("max_norms", norms, lambda v: v > 0, "positive")
    if norms.shape not in ((), (len(bp.deltas),)):
        raise ValueError(f"max_norms must be one number or {len(bp.deltas)}, one a layer; got shape {norms.shape}")
    return _layer_clipped_gradient(bp, norms)


@checked_by(check_mean)
def _layer_clipped_gradient(bp: Backprop, max_norms: jax.Array) -> Params:
    weight, total = relative_weights(bp)
    factors = _clip_factors(_layer_norms(bp), max_norms.reshape(1, -1))
    wide = widened(bp)
    deltas = tuple(weighted(delta, c) for c, delta in zip(factors.T, wide.deltas))
    return cast(divide(contract(replace(wide, deltas=deltas), weight), total), bp.dtypes)


@checked_by(check_mean)
def second_moment(bp: Backprop) -> Params:
    """Σ_i s_i g_i² / Σ_i s_i, elementwise, as (a²)ᵀ δ²: nothing of size n × parameters."""
    return _second_moment(bp)


def _second_moment(bp: Backprop) -> Params:
    weight, total = relative_weights(bp)
    return divide(contract(squared(bp), weight), total)


@checked_by(check_mean)
def variance(bp: Backprop) -> Params:
    """The mean of g_i² less the square of the mean, elementwise (divided by Σ s, not Σ s - 1); never below 0.

    A difference: its error is of the order of eps · mean g_i².
    """
    return _mean_and_variance(bp)[1]


def _mean_and_variance(bp: Backprop) -> tuple[Params, Params]:
    mean, moment = mean_gradient(widened(bp)), _second_moment(bp)
    return mean, jax.tree.map(lambda m2, m: jnp.where(m2 > m * m, m2 - m * m, 0), moment, mean)


@checked_by(check_mean)
def signal_to_noise(bp: Backprop) -> Params:
    """(mean g)² / variance g, elementwise: the gradient signal-to-noise ratio of Liu et al. (2020), eq. 1.

    ∞ where only the variance vanishes, 0 where both do. A ratio above 1/eps says only that it is large.
    """
    mean, spread = _mean_and_variance(bp)

    def ratio(m: jax.Array, v: jax.Array) -> jax.Array:
        silent = m * m == 0
        return jnp.where(silent, jnp.zeros_like(m), m * m / jnp.where(silent, jnp.ones_like(v), v))

    return jax.tree.map(ratio, mean, spread)


class NoiseScale(NamedTuple):
    """tr Σ of per-example gradients, ‖G‖² of the true gradient, and their ratio, the simple noise scale."""

    trace: jax.Array
    squared_norm: jax.Array
    scale: jax.Array


@checked_by(check_mean)
def noise_scale(bp: Backprop) -> NoiseScale:
    """The simple noise scale tr(Σ) / ‖G‖² of McCandlish et al. (2018), eq. 2.9, from one batch of n = Σ s.

    Unbiased numerator and denominator, `noise_scale_of_norms` with batches of 1 and n: the mean of ‖g_i‖²
    against the squared norm of the mean. The estimate of ‖G‖² may be negative where noise dominates. NaN for
    Σ s = 1, a batch that has no variance.
    """
    s, total = relative_weights(bp)
    n = total if bp.weight is None else bp.weight.astype(total.dtype).sum()
    small = weighted(_layer_squared_norms(bp).sum(axis=1, keepdims=True), s).sum() / total
    return _noise_scale(small, jnp.ones_like(n), squared_norm(mean_gradient(widened(bp))), n)


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
    if _architecture(bp) != _architecture(other):
        raise ValueError("both batches must come from one network; their layers, activations or losses differ")
    return _gram(bp, other)


@compiled
def _gram(bp: Backprop, other: Backprop) -> jax.Array:
    layers = zip(bp.activations, bp.deltas, other.activations, other.deltas)
    return jnp.stack([(_products(a, b) + float(bp.bias)) * _products(d, e) for a, d, b, e in layers]).sum(axis=0)


def _architecture(bp: Backprop) -> tuple:
    check_pass(bp)
    return bp.bias, bp.loss, bp.hidden, [a.shape[1:] for a in (*bp.activations, *bp.deltas)]


def inner_products(bp: Backprop, v: Params) -> jax.Array:
    """⟨g_i, v⟩ for every example, (n,), `v` shaped like the parameters: the derivative of ℓ_i along `v`.

    Raises TypeError or ValueError for a `v` of another shape.
    """
    check_pass(bp)
    sizes = (bp.activations[0].shape[1], *(delta.shape[1] for delta in bp.deltas))
    check_params(Network(sizes, bp.hidden, bp.loss, bp.bias), v, "v")
    return _compiled_inner_products(bp.activations, bp.deltas, v)


_compiled_inner_products = compiled(_inner_products)


def _layer_norms(bp: Backprop) -> jax.Array:
    """‖g_i‖ layer by layer, (n, L), without overflow of the squares."""
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs = _norms(a)
        inputs = jnp.hypot(inputs, jnp.ones_like(inputs)) if bp.bias else inputs
        outputs = _norms(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


def _squares(rows: jax.Array) -> jax.Array:
    """The squared norm of every row, (n,)."""
    return jnp.square(widened(rows)).sum(axis=1)


def _norms(rows: jax.Array) -> jax.Array:
    """The norm of every row, (n,), its entries scaled by the largest."""
    rows = widened(rows)
    largest = jax.lax.stop_gradient(jnp.abs(rows).max(axis=1))  # the norm does not depend on its scale
    some = largest > 0
    one = jnp.ones_like(largest)
    squares = jnp.square(rows / jnp.where(some, largest, one)[:, None]).sum(axis=1)
    return largest * jnp.sqrt(jnp.where(some, squares, one))  # a root whose derivative is finite at zero


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    a, b = widened((a, b))
    return jnp.matmul(a, b.T, out_sharding=product_sharding(a, b, 0, 0))


def _clip_factors(norms: jax.Array, max_norm: jax.Array) -> jax.Array:
    """min(1, max_norm / ‖g_i‖); zero where that is not a number."""
    bound = max_norm.astype(norms.dtype)
    one = jnp.ones_like(norms)
    outside = norms > bound
    shrunk = jnp.where(outside, bound / jnp.where(outside, norms, one), jnp.zeros_like(norms))
    return jnp.where((norms <= bound) | jnp.isinf(bound), one, shrunk)
