"""Activations whose derivatives are functions of the pre-activation z."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lr_nn import probability
from lr_nn.activations.base import Activation


class Silu(Activation):
    """a = z s with s = sigmoid(z);  σ' = s + z s (1 - s);  σ'' = s (1 - s) (2 + z (1 - 2s)).

    Also called swish: Elfwing, Uchibe & Doya (2018).
    """

    name = "silu"
    keeps = "z"

    def value(self, z):
        return z * probability.expit(z)

    def derivative(self, z):
        s = probability.expit(z)
        return s * (1 + z * (1 - s))

    def second_derivative(self, z):
        s = probability.expit(z)
        return s * (1 - s) * (2 + z * (1 - 2 * s))

    def initializer(self):
        """As for the rectifier, which it resembles: He et al. (2015), eq. 10."""
        return jax.nn.initializers.he_normal()


class Gelu(Activation):
    """a = z Φ(z), Φ and φ the normal distribution and density;  σ' = Φ + z φ;  σ'' = (2 - z²) φ.

    Hendrycks & Gimpel (2016). The exact form; `GeluTanh` is its approximation.
    """

    name = "gelu"
    keeps = "z"

    def value(self, z):
        return z * _normal_distribution(z)

    def derivative(self, z):
        return _normal_distribution(z) + z * _normal_density(z)

    def second_derivative(self, z):
        density = _normal_density(z)
        return 2 * density - z * (z * density)  # z² alone may overflow

    def initializer(self):
        """As for the rectifier, which it resembles: He et al. (2015), eq. 10."""
        return jax.nn.initializers.he_normal()


class GeluTanh(Activation):
    """a = z s with s = (1 + tanh u) / 2 = sigmoid(2u), u = √(2/π) (z + 0.044715 z³);  σ' = s + 2 z s (1 - s) u'.

    σ'' = s (1 - s) (4 u' + z (4 (1 - 2s) u'² + 2 u'')). Hendrycks & Gimpel (2016), section 2.
    """

    name = "gelu_tanh"
    keeps = "z"

    def value(self, z):
        return z * probability.expit(self._twice_u(z))

    def derivative(self, z):
        s = probability.expit(self._twice_u(z))
        return s + z * s * (1 - s) * self._slope(z)

    def second_derivative(self, z):
        s = probability.expit(self._twice_u(z))
        slope, bend = self._slope(z), 6 * CUBIC * TWICE * z
        return s * (1 - s) * (2 * slope + z * ((1 - 2 * s) * slope * slope + bend))

    def initializer(self):
        """As for the rectifier, which it resembles: He et al. (2015), eq. 10."""
        return jax.nn.initializers.he_normal()

    def _twice_u(self, z):
        return TWICE * z * (1 + CUBIC * z * z)

    def _slope(self, z):
        """The derivative of 2u."""
        return TWICE * (1 + 3 * CUBIC * z * z)


class Sine(Activation):
    """a = sin z;  σ' = cos z;  σ'' = -sin z. Sitzmann et al. (2020)."""

    name = "sine"
    keeps = "z"

    def value(self, z):
        return jnp.sin(z)

    def derivative(self, z):
        return jnp.cos(z)

    def second_derivative(self, z):
        return -jnp.sin(z)

    def initializer(self):
        """Uniform within ±√(6 / d_in): Sitzmann et al. (2020), theorem 1.8."""
        return jax.nn.initializers.he_uniform()


class Softsign(Activation):
    """a = z / (1 + |z|);  σ' = 1 / (1 + |z|)²;  σ'' = -2 sign(z) / (1 + |z|)³. Glorot & Bengio (2010).

    σ' is (1 - |a|)² too, but that has lost its digits where the output is nearly ±1.
    """

    name = "softsign"
    keeps = "z"

    def value(self, z):
        return z / self._scale(z)

    def derivative(self, z):
        return 1 / self._scale(z) / self._scale(z)

    def second_derivative(self, z):
        return -2 * jnp.sign(z) / self._scale(z) / self._scale(z) / self._scale(z)

    def _scale(self, z):
        return 1 + z * jnp.sign(z)  # the derivative of `jnp.abs` at 0 is 1


# 2√(2/π), and the coefficient of z³ in `GeluTanh`.
TWICE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


def _normal_distribution(z: jax.Array) -> jax.Array:
    """Φ(z), with all its digits in the lower tail."""
    return jax.lax.erfc(-ROOT_HALF * z) / 2


def _normal_density(z: jax.Array) -> jax.Array:
    """φ(z), by the exponential that `erfc` contains: the compiler takes it once."""
    return jnp.exp(-jnp.square(-ROOT_HALF * z)) / math.sqrt(2 * math.pi)


ROOT_HALF = math.sqrt(0.5)
