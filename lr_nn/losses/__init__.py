"""Losses ℓ_i on the linear predictor η, per example, with everything the backward pass asks of them.

Each is finite with finite derivatives at |η| = 10⁴, in float32 and bfloat16 (but `poisson`, whose mean e^η may
overflow), and none is ever averaged here. To add one, write a subclass of `Loss`, or of `Separable` where the
outputs contribute one by one, and an instance below.

Shapes: `eta` (n, k); `y` as `Loss.targets` describes; seeds `v` (..., n, k) with free leading axes.
"""

from lr_nn.activations import Activation
from lr_nn.losses.base import Loss, Separable
from lr_nn.losses.categorical import Categorical
from lr_nn.losses.separable import AbsoluteError, Bernoulli, Poisson, SquaredError
from lr_nn.losses.through import Through

__all__ = [
    "Loss",
    "Separable",
    "absolute_error",
    "bernoulli",
    "categorical",
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


def through(activation: Activation, loss: Loss) -> Through:
    """`loss` on the activated output σ(η), e.g. through(sigmoid, squared_error)."""
    return Through(activation, loss)
