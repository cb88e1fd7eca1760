"""Differentially private gradients: clipped, summed, noised, once each (Abadi et al., 2016).

The privacy unit is one example; neighbouring data sets differ by adding or removing one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_pass
from lr_nn.per_example import clipped_sum
from lr_nn.trees import cast, divide
from lr_nn.types import Backprop, Params


def private_gradient(
    bp: Backprop,
    key: jax.Array,
    *,
    max_norm: ArrayLike,
    noise_multiplier: ArrayLike,
    expected_batch_size: ArrayLike,
) -> Params:
    """(Σ_i s_i c_i g_i + noise_multiplier · max_norm · N(0, I)) / expected_batch_size, like the parameters.

    c_i = min(1, max_norm / ‖g_i‖). The weights s_i of the pass are in [0, 1], a mask such as `poisson_batch` draws: the
    sum then changes by at most max_norm when an example is added or removed. That is its sensitivity, and
    `noise_multiplier` the standard deviation of the noise in its units. Noise is added to the sum, and the division is
    by the expected batch size, a constant, because the actual size is private: an empty batch gives noise alone.

    Raises ValueError for a max_norm or expected_batch_size that is not positive and finite, a negative multiplier,
    or a weight outside [0, 1]; TypeError without a key.
    """
    check_pass(bp)
    check.key(key)
    multiplier = check.scalar("noise_multiplier", noise_multiplier)
    check.require("noise_multiplier", multiplier, check.is_not_negative, "finite and not negative")
    size, bound = (check.positive("expected_batch_size", expected_batch_size), check.positive("max_norm", max_norm))
    check.finite("expected_batch_size", size)
    check.finite("max_norm", bound)
    if bp.weight is not None:
        check.require("weight", bp.weight, lambda s: s <= 1, "at most 1, a mask")
    return _private_gradient(bp, key, multiplier, bound, size)


@jax.jit
def _private_gradient(bp: Backprop, key: jax.Array, multiplier: jax.Array, bound: jax.Array, size: jax.Array) -> Params:
    leaves, structure = jax.tree.flatten(clipped_sum(bp, bound, bp.weight))
    noisy = [
        leaf + (multiplier * bound).astype(leaf.dtype) * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, jax.random.split(key, len(leaves)))
    ]
    return cast(divide(jax.tree.unflatten(structure, noisy), size), bp.dtypes)


class PoissonBatch(NamedTuple):
    """`rows` (capacity,) of the data, `weight` (capacity,) one for a row drawn and zero for padding.

    `drawn` is how many were drawn; where it exceeds the capacity the last ones are left out. That is no longer the
    mechanism that `epsilon` accounts for: add the chance of it, steps × overflow of `poisson_capacity`, to δ.
    """

    rows: jax.Array
    weight: jax.Array
    drawn: jax.Array


def poisson_batch(key: jax.Array, n: int, rate: ArrayLike, capacity: int) -> PoissonBatch:
    """Each of n rows on its own with probability `rate`, padded to `capacity` rows: one compiled shape.

    This is the sampling that the accountant assumes; batches of a shuffled epoch are not.
    """
    n, capacity = check.positive_integer("n", n), check.positive_integer("capacity", capacity)
    check.key(key)
    rate = check.scalar("rate", rate).astype(jnp.float32)
    check.require("rate", rate, lambda q: (q > 0) & (q <= 1), "in (0, 1]")
    taken = jax.random.uniform(key, (n,), jnp.float32) < rate
    (rows,) = jnp.nonzero(taken, size=capacity, fill_value=0)
    drawn = taken.sum()
    return PoissonBatch(rows, (jnp.arange(capacity) < drawn).astype(jnp.float32), drawn)


def poisson_capacity(n: int, rate: float, overflow: float = 1e-9) -> int:
    """The smallest capacity that a Poisson batch exceeds with probability at most `overflow`."""
    from scipy.stats import binom

    if not 0 < rate <= 1 or not 0 < overflow < 1:
        raise ValueError(f"rate must be in (0, 1] and overflow in (0, 1); got {rate} and {overflow}")
    return max(1, int(binom.isf(overflow, check.positive_integer("n", n), rate)))


def epsilon(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """The ε of (ε, δ)-differential privacy after `steps` Poisson-sampled private gradients.

    By the PLD accountant of dp-accounting (the extra `private`), for adding or removing one example; ∞ without
    noise. Raises ValueError for a rate outside (0, 1], a δ outside (0, 1), or a negative or minute multiplier.
    """
    given = (sampling_rate, delta, noise_multiplier)
    sampling_rate, delta, noise_multiplier = (
        float(check.scalar(name, value)) for name, value in zip(("sampling_rate", "delta", "noise_multiplier"), given)
    )
    enough = noise_multiplier == 0 or LEAST_NOISE <= noise_multiplier < float("inf")
    if not (0 < sampling_rate <= 1 and 0 < delta < 1 and enough):
        raise ValueError(
            f"expected 0 < sampling_rate <= 1, 0 < delta < 1 and noise_multiplier 0, or finite from {LEAST_NOISE} on; "
            f"got {sampling_rate}, {delta} and {noise_multiplier}"
        )
    steps = check.positive_integer("steps", steps)
    if noise_multiplier == 0:
        return float("inf")
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError as missing:
        raise ImportError('epsilon needs dp-accounting: pip install "lr-nn[private]"') from missing

    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return float(accountant.compose(event, steps).get_epsilon(delta))


# Less is no privacy to speak of, and the accountant's grid of losses would not fit into memory.
LEAST_NOISE = 0.05
