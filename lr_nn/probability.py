"""Odds, logits, likelihoods and entropies: the probability theory below every loss.

All functions are elementwise or act on the last axis, work under `jit` and `vmap`, and are finite or correctly
infinite at p = 0, p = 1 and logits of any size. `base` is the base of the logarithm: e gives nats, 2 gives bits.

Derivatives of every order are right at z = 0 too, which a stable form written with `max` or `abs` makes a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check

__all__ = [
    "Descent",
    "average",
    "bernoulli_likelihood",
    "bernoulli_log_likelihood",
    "bernoulli_negative_log_likelihood",
    "categorical_likelihood",
    "categorical_log_likelihood",
    "categorical_negative_log_likelihood",
    "coin_toss_descent",
    "coin_toss_estimate",
    "cross_entropy",
    "entropy",
    "expit",
    "kl_divergence",
    "log_expit",
    "log_odds",
    "odds",
    "softplus",
]


def __dir__() -> list[str]:
    return __all__


def odds(p: ArrayLike) -> jax.Array:
    """p / (1 - p) for a probability p in [0, 1]: from [0, 1] to [0, ∞].

    >>> float(odds(0.75))
    3.0
    """
    p = _probability("p", p)
    return p / (1 - p)


def log_odds(p: ArrayLike) -> jax.Array:
    """The logit, log(p / (1 - p)): from [0, 1] to [-∞, ∞]; the inverse of `expit`."""
    p = _probability("p", p)
    return jnp.log(p) - jnp.log1p(-p)


def expit(z: ArrayLike) -> jax.Array:
    """The logistic sigmoid 1 / (1 + e^{-z}): from log-odds to probability."""
    return jax.lax.logistic(_float("z", z))


def log_expit(z: ArrayLike) -> jax.Array:
    """log(1 / (1 + e^{-z})) = min(z, 0) - log(1 + e^{-|z|}), finite for every finite z."""
    return -softplus(-_float("z", z))


def softplus(z: ArrayLike) -> jax.Array:
    """log(1 + e^z) = max(z, 0) + log(1 + e^{-|z|}), finite for every finite z: -log of the probability expit(-z)."""
    z = _float("z", z)
    return jnp.where(z > 0, z, 0) + jnp.log1p(exp_minus_abs(z))


def exp_minus_abs(z: jax.Array) -> jax.Array:
    """e^{-|z|}, which never overflows.

    Each side of z = 0 is differentiated by its own formula, with the left one at 0. So a function that both
    formulas continue across 0 (softplus, sigmoid) keeps its derivatives of every order there.
    """
    return jnp.exp(jnp.where(z > 0, -z, z))


def bernoulli_likelihood(p: ArrayLike, y: ArrayLike) -> jax.Array:
    """p^y (1 - p)^{1-y}, elementwise: the probability of outcome y in {0, 1}."""
    p, y = _pair(p, y)
    return _power(p, y) * _power(1 - p, 1 - y)


def bernoulli_log_likelihood(p: ArrayLike, y: ArrayLike) -> jax.Array:
    """y log p + (1 - y) log(1 - p), elementwise, with 0 log 0 = 0; -∞ for an impossible outcome."""
    p, y = _pair(p, y)
    return _xlogy(y, p) + _xlogy(1 - y, -p, jnp.log1p, pole=-1)


def bernoulli_negative_log_likelihood(eta: ArrayLike, y: ArrayLike) -> jax.Array:
    """-log p(y) at logit η, elementwise: log(1 + e^η) - yη, written so that it is finite for every finite η."""
    eta = _float("eta", eta)
    y = _probability("y", y, eta.dtype)
    return softplus(eta) - y * eta


def categorical_likelihood(p: ArrayLike, y: ArrayLike) -> jax.Array:
    """p_y: the probability of class y. `p` (..., k) sums to one over classes; `y` (...) integers in [0, k).

    Under `jit`, where values cannot be refused, a class outside [0, k) gives NaN here and in the functions below.
    """
    p = _probability("p", p)
    return _pick(p, _labels(y, p))


def categorical_log_likelihood(p: ArrayLike, y: ArrayLike) -> jax.Array:
    """log p_y; -∞ for an impossible class. Shapes as in `categorical_likelihood`."""
    return jnp.log(categorical_likelihood(p, y))


def categorical_negative_log_likelihood(eta: ArrayLike, y: ArrayLike) -> jax.Array:
    """-log softmax(η)_y = log Σ_c e^{η_c - η_y}, from logits `eta` (..., k) and classes `y` (...)."""
    eta = _float("eta", eta)
    shifted = eta - jax.lax.stop_gradient(eta.max(axis=-1, keepdims=True))
    return jnp.log(jnp.exp(shifted).sum(axis=-1)) - _pick(shifted, _labels(y, eta))


def average(values: ArrayLike, weight: ArrayLike | None = None) -> jax.Array:
    """Σ s_i v_i / Σ s_i over the first axis: the averaged negative log-likelihood is the cost J."""
    values = _float("values", values)
    if weight is None:
        return values.mean(axis=0)
    weight = check.weights(weight, values.shape[0], values.dtype)
    weight = weight.reshape(-1, *(1,) * (values.ndim - 1))
    counted = jnp.where((weight != 0) | jnp.isfinite(values), values, jnp.zeros_like(values))
    return (weight * counted).sum(axis=0) / weight.sum()


def coin_toss_estimate(heads: ArrayLike, tosses: ArrayLike) -> jax.Array:
    """The maximum-likelihood probability of heads, n/N, from n heads in N tosses."""
    heads, tosses = _counts(heads, tosses)
    return heads / tosses


class Descent(NamedTuple):
    """The path of a gradient descent: `p` and the averaged negative log-likelihood `cost`, each (steps + 1,)."""

    p: jax.Array
    cost: jax.Array


def coin_toss_descent(
    heads: ArrayLike, tosses: ArrayLike, *, learning_rate: float = 1.0, steps: int = 200, start: float = 0.0
) -> Descent:
    """Gradient descent on the averaged negative log-likelihood of a coin, in its logit η from η = `start`.

    J(η) = log(1 + e^η) - (n/N) η, so dJ/dη = expit(η) - n/N: it stops where p = n/N. J is ¼-smooth, so every
    learning rate below 8 descends.
    """
    heads, tosses = _counts(heads, tosses)
    steps = check.positive_integer("steps", steps)
    share = heads / tosses

    def step(eta, _):
        return eta - learning_rate * (expit(eta) - share), eta

    last, path = jax.lax.scan(step, jnp.full_like(share, start), length=steps)
    path = jnp.append(path, last)
    return Descent(expit(path), bernoulli_negative_log_likelihood(path, share))


def entropy(p: ArrayLike, *, base: float = math.e) -> jax.Array:
    """H(p) = -Σ_c p_c log p_c over the last axis, with 0 log 0 = 0."""
    p = _probability("p", p)
    return -_xlogy(p, p).sum(axis=-1) / _log(base)


def cross_entropy(p: ArrayLike, q: ArrayLike, *, base: float = math.e) -> jax.Array:
    """H(p, q) = -Σ_c p_c log q_c = H(p) + KL(p ‖ q) over the last axis; ∞ where q_c = 0 < p_c."""
    p, q = _pair(p, q, "q")
    return -_xlogy(p, q).sum(axis=-1) / _log(base)


def kl_divergence(p: ArrayLike, q: ArrayLike, *, base: float = math.e) -> jax.Array:
    """KL(p ‖ q) = Σ_c p_c log(p_c / q_c) ≥ 0 over the last axis; zero only for p = q, ∞ where q_c = 0 < p_c."""
    p, q = _pair(p, q, "q")
    impossible = p == 0
    return _xlogy(p, p / jnp.where(impossible, 1, q)).sum(axis=-1) / _log(base)


def _log(base: float) -> float:
    if not (base > 0 and base != 1):
        raise ValueError(f"base must be positive and not 1; got {base}")
    return math.log(base)


def _float(name: str, array: ArrayLike, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """A floating-point array; integers become `dtype`."""
    array = jnp.asarray(check.numeric(name, array))
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(dtype)


def _probability(name: str, array: ArrayLike, dtype: DTypeLike = jnp.float32) -> jax.Array:
    array = _float(name, array, dtype)
    check.require(name, array, lambda p: (p >= 0) & (p <= 1), "in [0, 1]")
    return array


def _pair(p: ArrayLike, other: ArrayLike, name: str = "y") -> tuple[jax.Array, jax.Array]:
    p = _probability("p", p)
    other = _probability(name, other, p.dtype)
    if p.ndim and other.ndim and p.ndim != other.ndim:
        raise ValueError(f"p and {name} must have the same number of axes; got {p.shape} and {other.shape}")
    return p, other


def _labels(y: ArrayLike, scores: jax.Array) -> jax.Array:
    y, k = jnp.asarray(check.numeric("y", y)), scores.shape[-1]
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape != scores.shape[:-1]:
        raise ValueError(f"y must be integers of shape {scores.shape[:-1]}; got {y.dtype} of shape {y.shape}")
    check.require("y", y, lambda y: (y >= 0) & (y < k), f"in [0, {k})")
    return y.astype(jnp.int32) if y.dtype.itemsize < 4 else y  # a narrow dtype may not hold k


def _pick(scores: jax.Array, y: jax.Array) -> jax.Array:
    """scores[..., y], and NaN where y is outside [0, k)."""
    k = scores.shape[-1]
    inside = ((y >= 0) & (y < k)).astype(scores.dtype)
    picked = jnp.take_along_axis(scores, jnp.clip(y, 0, k - 1)[..., None], axis=-1, mode="clip")[..., 0]
    return picked * (inside / inside)


def _power(p: jax.Array, y: jax.Array) -> jax.Array:
    """p^y for y in [0, 1]; an outcome, y = 0 or 1, is 1 or p, with their derivatives at p = 0 too."""
    outcome = (y == 0) | (y == 1)
    return jnp.where(outcome, jnp.where(y == 0, 1, p), jnp.where(outcome, 1, p) ** y)


def _xlogy(x: jax.Array, y: jax.Array, log: Callable[[jax.Array], jax.Array] = jnp.log, pole: float = 0) -> jax.Array:
    """x log y, with 0 log 0 = 0; `log` is -∞ at `pole` and 0 at pole + 1.

    Where x = 0 and y is the pole the derivative by y is 0, and that by x, -∞ in the limit, is the logarithm of the
    smallest float.
    """
    both = (x == 0) & (y == pole)
    least = math.log(float(jnp.finfo(y.dtype).tiny))
    return x * jnp.where(both, least, log(jnp.where(both, pole + 1, y)))


def _counts(heads: ArrayLike, tosses: ArrayLike) -> tuple[jax.Array, jax.Array]:
    heads, tosses = _float("heads", heads), _float("tosses", tosses)
    check.require("tosses", tosses, lambda n: n > 0, "at least 1")
    if check.is_concrete(heads) and check.is_concrete(tosses) and not bool(((heads >= 0) & (heads <= tosses)).all()):
        raise ValueError(f"heads must lie between 0 and tosses; got {heads} of {tosses}")
    return heads, tosses
