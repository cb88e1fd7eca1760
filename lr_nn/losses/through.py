"""A loss on an activated output."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from lr_nn.activations import Activation
from lr_nn.losses.base import Loss
from lr_nn.trees import lift


@dataclass(frozen=True)
class Through(Loss):
    """ℓ(η) = inner(σ(η)): a loss on an activated output. By the chain rule the residual carries σ'(η).

    The squared error on a sigmoid output learns slowly where a(1 - a) vanishes; on a relu output it fits a
    quantity that is never negative. Not convex in η in general, so `hessian_multiply` may be indefinite.
    """

    activation: Activation
    inner: Loss

    def __post_init__(self):
        """Refuse what is not an activation and a loss."""
        if not isinstance(self.activation, Activation) or not isinstance(self.inner, Loss):
            raise TypeError(f"through needs an activation and a loss; got {self.activation!r} and {self.inner!r}")

    @property
    def name(self):
        return f"{self.inner.name} through {self.activation.name}"

    @property
    def smooth(self):
        return self.inner.smooth

    @property
    def target(self):
        return self.inner.target

    def valid(self, y):
        return self.inner.valid(y)

    @property
    def least_outputs(self):
        return self.inner.least_outputs

    @property
    def task(self):
        return self.inner.task

    def lowest(self, y):
        """A lower bound: the smallest value of the inner loss."""
        return self.inner.lowest(y)

    def mean(self, eta):
        return self.inner.mean(self.activation.value(eta))

    def value(self, eta, y):
        return self.inner.value(self.activation.value(eta), y)

    def residual(self, eta, y):
        a, slope = self._activated(eta)
        return slope * self.inner.residual(a, y)

    def hessian_multiply(self, eta, y, v):
        """σ' ∘ H(σ(η)) (σ' ∘ v) + σ'' ∘ residual ∘ v."""
        a, slope = self._activated(eta)
        bend = self.activation.second_derivative(self.activation.kept(eta, a)) * self.inner.residual(a, y)
        slope = lift(slope, v.ndim)
        return slope * self.inner.hessian_multiply(a, y, slope * v) + lift(bend, v.ndim) * v

    def fisher_multiply(self, eta, v):
        a, slope = self._activated(eta)
        slope = lift(slope, v.ndim)
        return slope * self.inner.fisher_multiply(a, slope * v)

    def fisher_factor(self, eta):
        a, slope = self._activated(eta)
        return slope[None] * self.inner.fisher_factor(a)

    def sample(self, eta, key):
        return self.inner.sample(self.activation.value(eta), key)

    def targets(self, y, n, k, dtype=jnp.float32):
        return self.inner.targets(y, n, k, dtype)

    def masked_targets(self, y, counted, k):
        return self.inner.masked_targets(y, counted, k)

    def encode(self, y, eta):
        return self.inner.encode(y, eta)

    def target_rows(self, y, eta):
        return self.inner.target_rows(y, eta)

    def check(self):
        super().check()
        self.activation.check()
        self.inner.check()

    def states(self, part):
        bends = part != "hessian_multiply" or self.activation.states("second_derivative")
        return super().states(part) and self.inner.states(part) and bends

    def describe(self, part):
        return self.inner.describe(part)

    def require(self, part):
        self.inner.require(part)
        if part == "hessian_multiply":
            self.activation.require("second_derivative")
        super().require(part)

    def _activated(self, eta):
        """σ(η) and σ'(η)."""
        a = self.activation.value(eta)
        return a, self.activation.derivative(self.activation.kept(eta, a))
