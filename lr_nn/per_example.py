"""Per-example gradients, norms, clipping, moments and inner products, from one pass.

Everything follows from g_i = a_i δ_iᵀ, where a bias is the weight of a constant input 1. Activations and deltas
suffice, and nothing has size n × parameters: ‖a δᵀ‖² = ‖a‖² ‖δ‖² (Goodfellow, 2015). In a pass of `taps` g_i may be a
sum over positions; `gram` then computes the gradients of such a leaf. Gradients, norms and inner products ignore the
weight of the pass. Clipped gradients, moments and the noise scale are weighted means over
examples, Σ_i s_i (·) / Σ_i s_i, and refuse weights that are all zero. Norms and moments of half-precision passes are
summed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_mean, check_pass, checked_by, contract, mean_gradient, relative_weights
from lr_nn.pass_quantities import (
    check_direction,
    check_same_model,
    contract_squares,
    example_gradients,
    inner_products_with,
    layer_norms,
    layer_squares,
    products,
    row_norms,
)
from lr_nn.row_sums import weighted
from lr_nn.trees import cast, compiled, divide, squared_norm, widened
from lr_nn.types import Params, Pass

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
def gradients(bp: Pass) -> Params:
    """g_i for every example, unscaled: like the parameters with a leading n. Memory n × parameters."""
    return cast(example_gradients(bp), bp.dtypes)


@checked_by(check_pass)
def squared_norms(bp: Pass) -> jax.Array:
    """‖g_i‖² over all layers, (n,)."""
    return layer_squares(bp).sum(axis=1)


@checked_by(check_pass)
def layer_squared_norms(bp: Pass) -> jax.Array:
    """‖g_i‖² layer by layer, (n, L): (‖a_{l-1}‖² + 1) ‖δ_l‖², without the 1 where there is no bias.

    Leaf by leaf for a pass of `taps`.
    """
    return layer_squares(bp)


def clipped_gradient(bp: Pass, max_norm: ArrayLike) -> Params:
    """Σ_i s_i c_i g_i / Σ_i s_i, c_i = min(1, max_norm / ‖g_i‖): the mean of clipped gradients, in one pass.

    The deltas are scaled, then contracted, in float32 for half precision: no clipped norm exceeds max_norm by more
    than rounding. max_norm = ∞ gives the gradient. For every other max_norm an example whose gradient is not finite
    counts as zero, which keeps the bound. Raises ValueError for max_norm ≤ 0 or weights that are all zero.
    Abadi et al. (2016), algorithm 1.
    """
    return _clipped_gradient(bp, check.positive("max_norm", max_norm))


@checked_by(check_mean)
def _clipped_gradient(bp: Pass, max_norm: jax.Array) -> Params:
    weight, total = relative_weights(bp)
    return cast(divide(clipped_sum(bp, max_norm, weight), total), bp.dtypes)


def clipped_sum(bp: Pass, max_norm: jax.Array, weight: jax.Array | None) -> Params:
    """Σ_i s_i c_i g_i in the dtype of sums: `clipped_gradient` before the division."""
    factors = _clip_factors(row_norms(layer_norms(bp)), max_norm)
    return contract(widened(bp), factors if weight is None else weight.astype(factors.dtype) * factors)


def layer_clipped_gradient(bp: Pass, max_norms: ArrayLike) -> Params:
    """`clipped_gradient` with the gradient of each layer clipped to a norm of its own; `max_norms` () or (L,).

    The layers of a pass of `taps` are the leaves of its parameters.
    """
    check_pass(bp)
    norms = check.cast(check.numeric("max_norms", max_norms), jnp.result_type(float))
    check.require("max_norms", norms, lambda v: v > 0, "positive")
    if norms.shape not in ((), (bp.layer_count,)):
        raise ValueError(f"max_norms must be one number or {bp.layer_count}, one a layer; got shape {norms.shape}")
    return _layer_clipped_gradient(bp, norms)


@checked_by(check_mean)
def _layer_clipped_gradient(bp: Pass, max_norms: jax.Array) -> Params:
    weight, total = relative_weights(bp)
    factors = _clip_factors(layer_norms(bp), max_norms.reshape(1, -1))
    factors = factors if weight is None else weight.astype(factors.dtype)[:, None] * factors
    return cast(divide(contract(widened(bp), factors), total), bp.dtypes)


@checked_by(check_mean)
def second_moment(bp: Pass) -> Params:
    """Σ_i s_i g_i² / Σ_i s_i, elementwise, as (a²)ᵀ δ²: nothing of size n × parameters."""
    return _second_moment(bp)


def _second_moment(bp: Pass) -> Params:
    weight, total = relative_weights(bp)
    return divide(contract_squares(bp, weight), total)


@checked_by(check_mean)
def variance(bp: Pass) -> Params:
    """The mean of g_i² less the square of the mean, elementwise (divided by Σ s, not Σ s - 1); never below 0.

    A difference: its error is of the order of eps · mean g_i².
    """
    return _mean_and_variance(bp)[1]


def _mean_and_variance(bp: Pass) -> tuple[Params, Params]:
    mean, moment = mean_gradient(widened(bp)), _second_moment(bp)
    return mean, jax.tree.map(lambda m2, m: jnp.where(m2 <= m * m, 0, m2 - m * m), moment, mean)


@checked_by(check_mean)
def signal_to_noise(bp: Pass) -> Params:
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
def noise_scale(bp: Pass) -> NoiseScale:
    """The simple noise scale tr(Σ) / ‖G‖² of McCandlish et al. (2018), eq. 2.9, from one batch of n = Σ s.

    Unbiased numerator and denominator, `noise_scale_of_norms` with batches of 1 and n: the mean of ‖g_i‖²
    against the squared norm of the mean. The estimate of ‖G‖² may be negative where noise dominates. NaN for
    Σ s = 1, a batch that has no variance.
    """
    s, total = relative_weights(bp)
    n = total if bp.weight is None else bp.weight.astype(total.dtype).sum()
    small = weighted(layer_squares(bp).sum(axis=1, keepdims=True), s).sum() / total
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


def gram(bp: Pass, other: Pass | None = None) -> jax.Array:
    """⟨g_i, g_j⟩ = Σ_l (a_i·a_j + 1)(δ_i·δ_j), (n, m), within a batch or with `other`, of the same model.

    Between a training and a test batch it is the kernel of TracIn (Pruthi et al., 2020). Raises ValueError for passes
    of different models.
    """
    other = bp if other is None else other
    check_pass(bp)
    check_same_model(bp, other)
    return _gram(bp, other)


_gram = compiled(products)


def inner_products(bp: Pass, v: Params) -> jax.Array:
    """⟨g_i, v⟩ for every example, (n,), `v` shaped like the parameters: the derivative of ℓ_i along `v`.

    Raises TypeError or ValueError for a `v` of another shape.
    """
    check_pass(bp)
    check_direction(bp, v)
    return _inner_products(bp, v)


_inner_products = compiled(inner_products_with)


def _clip_factors(norms: jax.Array, max_norm: jax.Array) -> jax.Array:
    """min(1, max_norm / ‖g_i‖); zero where that is not a number."""
    bound = max_norm.astype(norms.dtype)
    one = jnp.ones_like(norms)
    outside = norms > bound
    shrunk = jnp.where(outside, bound / jnp.where(outside, norms, one), jnp.zeros_like(norms))
    return jnp.where((norms <= bound) | jnp.isinf(bound), one, shrunk)
