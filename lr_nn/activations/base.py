"""The base class of activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from lr_nn import check


@dataclass(frozen=True)
class Activation(ABC):
    """An elementwise function σ with its derivatives. `value` and `derivative` are enough to train.

    `keeps` says what the derivatives are functions of: the output, "a", or the pre-activation, "z". `piecewise_linear`
    states that σ'' is zero wherever it exists. `name` is the name of the class unless stated. Two activations are equal
    if they are of one class with equal parameters, so that they compile once; a class with parameters is a frozen
    dataclass.
    """

    keeps: ClassVar[Literal["a", "z"]] = "a"
    piecewise_linear: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in messages and files."""
        return type(self).__name__

    @abstractmethod
    def value(self, z: jax.Array) -> jax.Array:
        """a = σ(z), elementwise, in the dtype of `z`."""

    @abstractmethod
    def derivative(self, kept: jax.Array) -> jax.Array:
        """σ'(z), elementwise, as a function of a = σ(z), or of z where `keeps` is "z"."""

    def second_derivative(self, kept: jax.Array) -> jax.Array:
        """σ''(z), elementwise, of the same argument. Optional: NotImplementedError where it is not stated."""
        if self.piecewise_linear:
            return jnp.zeros_like(kept)
        raise self._missing("second_derivative")

    def check(self) -> None:
        """Raise TypeError or ValueError if the class is not one that a network can hold."""
        check.static_record(self.name, self)
        if self.keeps not in ("a", "z"):
            raise ValueError(f"keeps of the activation {self.name} must be 'a' or 'z'; got {self.keeps!r}")

    def states(self, part: str) -> bool:
        """Does the activation state this optional method?"""
        replaced = getattr(type(self), part) is not getattr(Activation, part)
        return replaced or (part == "second_derivative" and self.piecewise_linear)

    def require(self, part: str) -> None:
        """Raise NotImplementedError if the activation does not state this optional method."""
        if not self.states(part):
            raise self._missing(part)

    def _missing(self, part: str) -> NotImplementedError:
        signature = f"{part}({self.keeps}), which the Hessian needs"
        return NotImplementedError(f"the activation {self.name} states no {signature}: add it to the class")

    def kept(self, z: jax.Array, a: jax.Array) -> jax.Array:
        """The argument of the derivatives: `z` or `a`, as `keeps` says."""
        return z if self.keeps == "z" else a

    def initializer(self) -> jax.nn.initializers.Initializer:
        """The law of initial weights that keeps signals at their scale: Glorot & Bengio (2010), eq. 16."""
        return jax.nn.initializers.glorot_uniform()
