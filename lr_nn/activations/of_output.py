"""Activations whose derivatives are functions of the output a = σ(z)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lr_nn import probability
from lr_nn.activations.base import Activation


class Identity(Activation):
    """a = z."""

    name = "identity"
    piecewise_linear = True

    def value(self, z):
        return z

    def derivative(self, a):
        return jnp.ones_like(a)


class Step(Activation):
    """a = 1 if z > 0 else 0: Rosenblatt's perceptron. Its derivative is zero, so nothing below it learns."""

    name = "step"
    piecewise_linear = True

    def value(self, z):
        return (z > 0).astype(z.dtype)

    def derivative(self, a):
        return jnp.zeros_like(a)


class Sigmoid(Activation):
    """a = 1 / (1 + e^{-z});  σ' = a (1 - a);  σ'' = a (1 - a) (1 - 2a)."""

    name = "sigmoid"

    def value(self, z):
        return probability.expit(z)

    def derivative(self, a):
        return a * (1 - a)

    def second_derivative(self, a):
        return a * (1 - a) * (1 - 2 * a)


class Tanh(Activation):
    """a = tanh z = 2 sigmoid(2z) - 1;  σ' = 1 - a²;  σ'' = -2a (1 - a²)."""

    name = "tanh"

    def value(self, z):
        return jnp.tanh(z)

    def derivative(self, a):
        return (1 - a) * (1 + a)

    def second_derivative(self, a):
        return -2 * a * (1 - a) * (1 + a)


class Relu(Activation):
    """a = max(z, 0);  σ' = [a > 0]."""

    name = "relu"
    piecewise_linear = True

    def value(self, z):
        return jnp.where(z <= 0, 0, z)  # a NaN stays one

    def derivative(self, a):
        return (a > 0).astype(a.dtype)

    def initializer(self):
        """He et al. (2015), eq. 10: half of the signal is cut off, so its variance is doubled."""
        return jax.nn.initializers.he_normal()


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """a = z if z ≥ 0 else slope·z, slope > 0;  σ' = 1 or slope, chosen by the sign of a."""

    slope: float = 0.01
    name = "leaky_relu"
    piecewise_linear = True

    def __post_init__(self):
        """Refuse a slope that would lose the sign of z."""
        if not 0 < self.slope < math.inf:
            raise ValueError(
                f"leaky_relu needs a finite slope > 0, so that the output keeps its sign; got {self.slope}"
            )

    def value(self, z):
        return jnp.where(z >= 0, z, self.slope * z)

    def derivative(self, a):
        return jnp.where(a >= 0, jnp.ones_like(a), self.slope)

    def initializer(self):
        """He et al. (2015), eq. 15: gain 2 / (1 + slope²)."""
        return jax.nn.initializers.variance_scaling(2 / (1 + self.slope**2), "fan_in", "normal")


class Elu(Activation):
    """a = z if z > 0 else e^z - 1;  σ' = 1 or a + 1;  σ'' = 0 or a + 1."""

    name = "elu"

    def value(self, z):
        return jnp.where(z > 0, z, jnp.expm1(jnp.where(z > 0, 0, z)))

    def derivative(self, a):
        return jnp.where(a > 0, jnp.ones_like(a), a + 1)

    def second_derivative(self, a):
        return jnp.where(a > 0, jnp.zeros_like(a), a + 1)


class Softplus(Activation):
    """a = log(1 + e^z);  σ' = 1 - e^{-a} = sigmoid(z);  σ'' = e^{-a} (1 - e^{-a})."""

    name = "softplus"

    def value(self, z):
        return probability.softplus(z)

    def derivative(self, a):
        return -jnp.expm1(-a)

    def second_derivative(self, a):
        return -jnp.expm1(-a) * jnp.exp(-a)
