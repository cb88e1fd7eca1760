"""Differentially private gradients: clipped, summed, noised, once each (Abadi et al., 2016).

The privacy unit is one example; neighbouring data sets differ by adding or removing one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_pass
from lr_nn.per_example import clipped_sum
from lr_nn.trees import accumulator, cast, compiled, divide
from lr_nn.types import Params, Pass

__all__ = [
    "PoissonBatch",
    "epsilon",
    "noise_multiplier",
    "poisson_batch",
    "poisson_capacity",
    "private_gradient",
]


def __dir__() -> list[str]:
    return __all__


def private_gradient(
    bp: Pass,
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

    What holds in floating point: max_norm, the multiplier and their product, the deviation of the noise, are rounded
    to the default dtype (float32, or float64 where it is on) and to that of the sum, so that noise and norms are right
    to a relative 4 eps of the lower precision. Sum and noise are float32 at least; rounding to half precision comes
    after the noise. Normal numbers are those of JAX, of the inverse error function: in float32 they end at about 5.4
    deviations, and their low bits are not protected against the attack of Mironov (2012), nor the key against a reader.

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


@compiled
def _private_gradient(bp: Pass, key: jax.Array, multiplier: jax.Array, bound: jax.Array, size: jax.Array) -> Params:
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

    This is the sampling that the accountant assumes; batches of a shuffled epoch are not. A row is taken if 64 random
    bits, as an integer, are below ⌊rate · 2⁶⁴⌋; every row is at a rate of 1. So the probability p of a row satisfies
    rate - 2⁻⁶⁴ < p ≤ rate, for the rate as it is given: in float64 for a Python float; a traced rate has been rounded
    to its own dtype before, float32 by default, and the bound holds for the rounded one. The value of a traced rate is
    not checked: no row is taken at NaN and up to 0, every row above 1.

    Raises ValueError for a rate outside (0, 1] or numbers below one; TypeError without a key.
    """
    n, capacity = check.positive_integer("n", n), check.positive_integer("capacity", capacity)
    check.key(key)
    return _poisson_batch(key, _threshold(rate), n, capacity)


@partial(compiled, static_argnames=("n", "capacity"))
def _poisson_batch(key: jax.Array, threshold: tuple[jax.Array, ...], n: int, capacity: int) -> PoissonBatch:
    taken = _below(jax.random.bits(key, (n, 2), jnp.uint32), *threshold)
    (rows,) = jnp.nonzero(taken, size=capacity, fill_value=0)
    drawn = taken.sum()
    return PoissonBatch(rows, (jnp.arange(capacity) < drawn).astype(jnp.float32), drawn)


def _below(bits: jax.Array, high: jax.Array, low: jax.Array, always: jax.Array) -> jax.Array:
    """Which rows of two words, (n, 2), are below `high` · 2³² + `low` as integers of 64 bits; (n,)."""
    return always | (bits[:, 0] < high) | ((bits[:, 0] == high) & (bits[:, 1] < low))


def _threshold(rate: ArrayLike) -> tuple[Any, Any, Any]:
    """⌊rate · 2⁶⁴⌋ in two words of 32 bits, the high one first, and whether the rate is 1, for which they are zero.

    In a trace the words are made of digits of 16 bits: multiplying by 2¹⁶ and taking the integer off is exact in
    binary floating point, and the digits fit into the integers of every platform.
    """
    rate = check.numeric("rate", rate)
    if rate.ndim:
        raise ValueError(f"rate must be a single number; got shape {rate.shape}: use vmap for many")
    if check.is_concrete(rate):
        exact = float(np.asarray(rate))
        if not 0 < exact <= 1:
            raise ValueError(f"rate must be in (0, 1]; got {exact:g}")
        whole = int(exact * 2.0**64)
        words = np.array([whole >> 32 & 0xFFFFFFFF, whole & 0xFFFFFFFF], np.uint32)
        return words[0], words[1], np.bool_(exact == 1)
    left = rate.astype(accumulator(rate.dtype) if jnp.issubdtype(rate.dtype, jnp.floating) else jnp.float32)
    always = jnp.asarray(left >= 1)
    left = jnp.where((left > 0) & ~always, left, jnp.zeros_like(left))
    digits = []
    for _ in range(4):
        left = left * 2.0**16
        digit = jnp.floor(left)
        left = left - digit
        digits.append(digit.astype(jnp.int32).astype(jnp.uint32))
    return (digits[0] << 16) | digits[1], (digits[2] << 16) | digits[3], always


def poisson_capacity(n: int, rate: float, overflow: float = 1e-9) -> int:
    """The smallest capacity that a Poisson batch exceeds with probability at most `overflow`."""
    from scipy.stats import binom

    if not 0 < rate <= 1 or not 0 < overflow < 1:
        raise ValueError(f"rate must be in (0, 1] and overflow in (0, 1); got {rate} and {overflow}")
    return max(1, int(binom.isf(overflow, check.positive_integer("n", n), rate)))


def epsilon(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """The ε of (ε, δ)-differential privacy after `steps` Poisson-sampled private gradients.

    By the PLD accountant of dp-accounting (the extra `private`), for adding or removing one example; ∞ without
    noise. Arguments are read in float64 as they are given. Raises ValueError for a rate outside (0, 1], a δ outside
    (0, 1), or a negative or minute multiplier; TypeError for what is not a number, or is traced.
    """
    multiplier = _number("noise_multiplier", noise_multiplier)
    sampling_rate, delta, steps = _sampled(sampling_rate, delta, steps)
    return epsilon_of_steps(multiplier, sampling_rate)(steps, delta)


def epsilon_of_steps(multiplier: float, sampling_rate: float) -> Callable[[int, float], float]:
    """The function (steps, δ) -> ε of `epsilon` at one noise multiplier and rate.

    It computes the privacy loss distribution of one step, which takes most of the time, only once.
    """
    if not (multiplier == 0 or LEAST_NOISE <= multiplier < float("inf")):
        raise ValueError(f"expected noise_multiplier 0, or finite from {LEAST_NOISE} on; got {multiplier}")
    if multiplier == 0:
        return lambda steps, delta: float("inf")
    library = _dp_accounting()
    distribution = library.pld.privacy_loss_distribution
    start = distribution.identity(GRID)
    one_step = distribution.from_gaussian_mechanism(
        standard_deviation=multiplier,
        value_discretization_interval=GRID,
        sampling_prob=sampling_rate,
        neighboring_relation=library.NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
    # Composed from the identity, as by PLDAccountant, which truncates the tails once more: ε is equal to the last bit.
    return lambda steps, delta: float(start.compose(one_step.self_compose(steps)).get_epsilon_for_delta(delta))


def noise_multiplier(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier with which `steps` Poisson-sampled private gradients are (ε, δ)-private.

    The inverse of `lr_nn.private.epsilon`, by the search of dp-accounting (the extra `private`): ε of what is
    returned is at most `epsilon`, and the least multiplier is at most 1e-6 smaller. It is never below `LEAST_NOISE`,
    0.05. Seconds for an ε of 1, minutes for one of 100. Raises as `lr_nn.private.epsilon` does, and ValueError for an
    ε that is not positive and finite, or so small that no multiplier is found.
    """
    target = _number("epsilon", epsilon)
    if not 0 < target < float("inf"):
        raise ValueError(f"epsilon must be positive and finite; got {target}")
    sampling_rate, delta, steps = _sampled(sampling_rate, delta, steps)
    dp_accounting = _dp_accounting()

    def repeated(multiplier: float) -> Any:
        return dp_accounting.SelfComposedDpEvent(_event(sampling_rate, multiplier), steps)

    def enough(multiplier: float) -> bool:
        return bool(_accountant().compose(repeated(multiplier)).get_epsilon(delta) <= target)

    # Without sampling ε has a formula, and no less is spent; the accountant rounds by its grid at every step.
    unsampled = dp_accounting.get_epsilon_gaussian(LEAST_NOISE / steps**0.5, delta)
    if unsampled + steps * GRID <= target:
        return LEAST_NOISE
    # Accounting for little noise takes minutes, for much of it milliseconds: the search comes from above.
    high = 1.0
    while not enough(high):
        high *= 2
        if high > MOST_NOISE:
            raise ValueError(
                f"epsilon={target:g} is below what the accountant can resolve for {steps} steps at delta={delta:g}"
            )
    low = high / 2
    while high <= 1 and enough(low):
        if low == LEAST_NOISE:
            return LEAST_NOISE
        high, low = low, max(low / 2, LEAST_NOISE)
    bracket = dp_accounting.ExplicitBracketInterval(low, high)
    return float(dp_accounting.calibrate_dp_mechanism(_accountant, repeated, target, delta, bracket))


def _number(name: str, value: Any) -> float:
    """A single number as the float64 that it is."""
    if not check.is_concrete(value):
        raise TypeError(f"{name} is traced; privacy is accounted for on the host, from numbers")
    value = check.numeric(name, value)
    if value.ndim:
        raise ValueError(f"{name} must be a single number; got shape {value.shape}")
    return float(value)


def _sampled(sampling_rate: Any, delta: Any, steps: Any) -> tuple[float, float, int]:
    """Validate what every accounting has."""
    rate, delta = _number("sampling_rate", sampling_rate), _number("delta", delta)
    if not (0 < rate <= 1 and 0 < delta < 1):
        raise ValueError(f"expected 0 < sampling_rate <= 1 and 0 < delta < 1; got {rate} and {delta}")
    return rate, delta, check.positive_integer("steps", steps)


def _dp_accounting() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError as missing:
        raise ImportError('privacy accounting needs dp-accounting: pip install "lr-nn[private]"') from missing
    return dp_accounting


def _accountant() -> Any:
    library = _dp_accounting()
    return library.pld.PLDAccountant(library.NeighboringRelation.ADD_OR_REMOVE_ONE)


def _event(sampling_rate: float, multiplier: float) -> Any:
    """One private gradient, as dp-accounting describes it."""
    library = _dp_accounting()
    return library.PoissonSampledDpEvent(sampling_rate, library.GaussianDpEvent(multiplier))


# Less is no privacy to speak of, and the accountant's grid of losses would not fit into memory.
LEAST_NOISE = 0.05
# Where an ε is not reached with this much, it is below what the accountant can resolve.
MOST_NOISE = 2.0**30
# The step of the accountant's grid of privacy losses, its default.
GRID = 1e-4
