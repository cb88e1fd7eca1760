"""Losses ℓ_i on the linear predictor η, per example, with everything the backward pass asks of them.

Each is finite with finite derivatives at |η| = 10⁴, in float32 and bfloat16 (but `poisson`, whose mean e^η may
overflow), and none is ever averaged here.

Shapes: `eta` (n, k); `y` as `Loss.targets` describes; seeds `v` (..., n, k) with free leading axes.

A loss of your own is a subclass of `Loss`, or of `Separable` where it is a sum over outputs, checked by
`lr_nn.audit_loss`:

>>> import jax.numpy as jnp, lr_nn
>>> class LogCosh(lr_nn.losses.Separable):
...     convex = True
...
...     def term(self, eta, y):
...         r = jnp.where(eta > y, eta - y, y - eta)
...         return r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2)
...
...     def slope(self, eta, y):
...         return jnp.tanh(eta - y)
>>> net = lr_nn.mlp((4, 8, 1), loss=LogCosh())
"""

from lr_nn.activations import Activation
from lr_nn.losses.base import Loss, Separable
from lr_nn.losses.categorical import Categorical
from lr_nn.losses.separable import AbsoluteError, Bernoulli, Huber, Poisson, SquaredError
from lr_nn.losses.through import Through

__all__ = [
    "Loss",
    "Separable",
    "absolute_error",
    "bernoulli",
    "categorical",
    "huber",
    "poisson",
    "squared_error",
    "through",
]


def __dir__() -> list[str]:
    return __all__


squared_error = SquaredError()
absolute_error = AbsoluteError()
bernoulli = Bernoulli()
categorical = Categorical()
poisson = Poisson()


def huber(delta: float) -> Huber:
    """The Huber loss: squared error up to residuals of `delta` > 0, absolute error beyond."""
    return Huber(float(delta))


def through(activation: Activation, loss: Loss) -> Through:
    """`loss` on the activated output σ(η), e.g. through(sigmoid, squared_error)."""
    return Through(activation, loss)
