"""Losses that are a sum over outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.losses.base import Separable
from lr_nn.probability import exp_minus_abs, expit


class SquaredError(Separable):
    """ℓ = ½ Σ_j (η_j - y_j)²: the negative log-likelihood of a Gaussian with unit variance."""

    name = "squared_error"
    canonical = True
    concordance = 0.0

    def recession(self, y):
        return None

    def mean(self, eta):
        return eta

    def constant(self, mean):
        return mean

    def term(self, eta, y):
        return (eta - y) ** 2 / 2

    def slope(self, eta, y):
        return eta - y

    def curvature(self, eta, y):
        return jnp.ones_like(eta)

    def information(self, eta):
        return jnp.ones_like(eta)

    def sample(self, eta, key):
        check.key(key)
        return eta + jax.random.normal(key, eta.shape, eta.dtype)


class AbsoluteError(Separable):
    """ℓ = Σ_j |η_j - y_j|: a Laplace distribution with unit scale. At a tie the slope is 0."""

    name = "absolute_error"
    convex = True
    smooth = False

    def mean(self, eta):
        return eta

    def term(self, eta, y):
        return (eta - y) * jnp.sign(eta - y)  # `jnp.abs` has slope 1 at a tie

    def slope(self, eta, y):
        return jnp.sign(eta - y)

    def curvature(self, eta, y):
        return jnp.zeros_like(eta)

    def information(self, eta):
        return jnp.ones_like(eta)

    def sample(self, eta, key):
        check.key(key)
        return eta + jax.random.laplace(key, eta.shape, eta.dtype)


@dataclass(frozen=True)
class Huber(Separable):
    """ℓ = Σ_j h(η_j - y_j), h(r) = r²/2 where |r| ≤ δ, else δ (|r| - δ/2): Huber (1964). Its slope is at most δ.

    Its law has the density e^{-h(r)} / Z, normal in the middle with exponential tails:
    Z = √(2π) (2Φ(δ) - 1) + (2/δ) e^{-δ²/2}. Its Fisher is E[h''] = P(|r| ≤ δ).
    """

    delta: float
    name = "huber"
    convex = True

    def __post_init__(self):
        """Refuse a δ that is not a positive number."""
        if not 0 < self.delta < math.inf:
            raise ValueError(f"huber needs a finite delta > 0; got {self.delta}")

    def mean(self, eta):
        return eta

    def term(self, eta, y):
        r = eta - y
        inside = self._inside(r)
        return jnp.where(inside, jnp.where(inside, r, 0) ** 2 / 2, self.delta * (r * jnp.sign(r) - self.delta / 2))

    def slope(self, eta, y):
        r = eta - y
        return jnp.where(self._inside(r), r, self.delta * jnp.sign(r))

    def curvature(self, eta, y):
        return self._inside(eta - y).astype(eta.dtype)

    def information(self, eta):
        return jnp.full_like(eta, self._middle)

    def sample(self, eta, key):
        check.key(key)
        which, middle, tail, side = jax.random.split(key, 4)
        tails = (jax.random.exponential(tail, eta.shape, eta.dtype) / self.delta + self.delta) * jax.random.rademacher(
            side, eta.shape, eta.dtype
        )
        normal = jax.random.truncated_normal(middle, -self.delta, self.delta, eta.shape, eta.dtype)
        return eta + jnp.where(jax.random.bernoulli(which, self._middle, eta.shape), normal, tails)

    def _inside(self, r):
        return (-self.delta <= r) & (r <= self.delta)

    @property
    def _middle(self):
        """P(|r| ≤ δ)."""
        middle = math.sqrt(2 * math.pi) * math.erf(self.delta / math.sqrt(2))
        return middle / (middle + 2 / self.delta * math.exp(-(self.delta**2) / 2))


class Bernoulli(Separable):
    """ℓ = Σ_j log(1 + e^{η_j}) - y_j η_j: cross-entropy on one or many independent labels; δ_L = a_L - y."""

    name = "bernoulli"
    target = "0 or 1, or probabilities between them"
    task = "labels"
    canonical = True
    concordance = 1.0

    def constant(self, mean):
        return jnp.log(mean) - jnp.log1p(-mean)

    def lowest(self, y):
        """The entropy of y, 0 for labels."""

        def entropy(y):
            return -(jax.scipy.special.xlogy(y, y) + jax.scipy.special.xlog1py(1 - y, -y)).sum(axis=1)

        soft = ((y > 0) & (y < 1)).any()  # of labels the logarithms are spared
        return jax.lax.cond(soft, entropy, lambda y: jnp.zeros_like(y[:, 0]), y)

    def recession(self, y):
        """Up where y = 1, down where y = 0, not at all where it is a probability between."""
        return np.where(y > 0.5, 1, -1)[:, :, None] * np.eye(y.shape[1])[None], (y > 0) & (y < 1)

    def valid(self, y):
        return (y >= 0) & (y <= 1)

    def mean(self, eta):
        return expit(eta)

    def term(self, eta, y):
        return jnp.where(eta > 0, 1 - y, -y) * eta + jnp.log1p(exp_minus_abs(eta))

    def slope(self, eta, y):
        # The exponential of `term`, so that one pass serves value and residual. Each side of 0 keeps its digits
        # where the prediction is nearly the target.
        up, e = eta > 0, exp_minus_abs(eta)
        return jnp.where(up, 1 - y, -y) + jnp.where(up, -e, e) / (1 + e)

    def curvature(self, eta, y):
        return self.information(eta)

    def information(self, eta):
        e = exp_minus_abs(eta)
        return e / (1 + e) ** 2

    def sample(self, eta, key):
        check.key(key)
        return jax.random.bernoulli(key, self.mean(eta)).astype(eta.dtype)


class Poisson(Separable):
    """ℓ = Σ_j e^{η_j} - y_j η_j: counts with a log link (log y! is left to the likelihood)."""

    name = "poisson"
    target = "counts, not negative"
    canonical = True
    concordance = 1.0

    def valid(self, y):
        return check.is_not_negative(y)

    def mean(self, eta):
        return jnp.exp(eta)

    def constant(self, mean):
        return jnp.log(mean)

    def lowest(self, y):
        return (y - jax.scipy.special.xlogy(y, y)).sum(axis=1)

    def recession(self, y):
        """Down where no event was counted, not at all elsewhere."""
        return -np.broadcast_to(np.eye(y.shape[1]), (*y.shape, y.shape[1])), y > 0

    def term(self, eta, y):
        return jnp.exp(eta) - y * eta

    def slope(self, eta, y):
        return jnp.exp(eta) - y

    def curvature(self, eta, y):
        return jnp.exp(eta)

    def information(self, eta):
        return jnp.exp(eta)

    def sample(self, eta, key):
        check.key(key)
        rate = jnp.exp(eta)
        counts = _poisson(key, jnp.minimum(rate, MANY)).astype(eta.dtype)
        normal = rate + jnp.sqrt(rate) * jax.random.normal(key, eta.shape, eta.dtype)
        return jnp.where(rate < MANY, counts, normal)  # counts are 32-bit integers


def _poisson(key, rate):
    """`jax.random.poisson`, which by itself refuses arrays sharded over Explicit axes of a mesh."""
    sharding = jax.typeof(rate).sharding
    draw = jax.random.poisson
    return (jax.sharding.auto_axes(draw, out_sharding=sharding) if sharding.mesh.explicit_axes else draw)(key, rate)


MANY = 1e6
