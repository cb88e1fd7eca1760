"""Losses that are a sum over outputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.losses.base import Separable
from lr_nn.probability import exp_minus_abs, expit


class SquaredError(Separable):
    """ℓ = ½ Σ_j (η_j - y_j)²: the negative log-likelihood of a Gaussian with unit variance."""

    name = "squared_error"
    concordance = 0.0

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


class Bernoulli(Separable):
    """ℓ = Σ_j log(1 + e^{η_j}) - y_j η_j: cross-entropy on one or many independent labels; δ_L = a_L - y."""

    name = "bernoulli"
    target = "0 or 1, or probabilities between them"
    task = "labels"
    concordance = 1.0

    def constant(self, mean):
        return jnp.log(mean) - jnp.log1p(-mean)

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
