"""A backward pass by hand, one method a step, and what it takes to break one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lr_nn.network import Network, affine
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Layer, Params


class Setting(NamedTuple):
    """A network with its cost, and the parameters and data at which a gradient of it is judged, in NumPy float64."""

    net: Network
    penalty: Penalty
    params: Params
    batch: Batch

    @property
    def value(self) -> Callable[[Params, Batch], jax.Array]:
        """J as a function of parameters and data."""
        return partial(cost, self.net, self.penalty)


@partial(jax.jit, static_argnums=(0, 1))
def cost(net: Network, penalty: Penalty, params: Params, batch: Batch) -> jax.Array:
    """J = Σ s_i ℓ_i / Σ s_i + penalty, written plainly."""
    a = batch.x
    for layer, hidden in zip(params, net.hidden):
        a = hidden.value(affine(layer, a))
    eta = affine(params[-1], a)
    losses = net.loss.value(eta if batch.offset is None else eta + batch.offset, batch.y)
    s = jnp.ones_like(losses) if batch.weight is None else batch.weight
    return (s * losses).sum() / s.sum() + penalty.value(params)


class Pass:
    """∇J, step by step, with layers counted from 1 as in δ_l = (δ_{l+1} w_{l+1}ᵀ) ∘ σ'(z_l).

    a[i] for i = 0, ..., L-1, z[i] for i = 1, ..., L and delta[i] for i = L, ..., 1 are there once they are known.
    """

    def __init__(self, net: Network, penalty: Penalty, params: Params, batch: Batch) -> None:
        """Keep what the steps need."""
        self.net, self.strengths, self.params, self.batch = net, penalty, params, batch
        self.depth, self.rows = len(params), batch.x.shape[0]
        self.a, self.z, self.delta = {0: batch.x}, dict[int, jax.Array](), dict[int, jax.Array]()

    def gradient(self) -> Params:
        """All steps in their order."""
        self.forward(self.params)
        self.delta[self.depth] = self.shares()[:, None] * self.residual(self.eta)
        for i in range(self.depth - 1, 0, -1):
            self.delta[i] = self.back(i) * self.derivative(i)
        layers = [Layer(self.weight_gradient(i), self.bias_gradient(i)) for i in range(1, self.depth + 1)]
        return self.finish([jax.tree.map(jnp.add, layer, self.shrink(i)) for i, layer in enumerate(layers, start=1)])

    def layer(self, i: int) -> Layer:
        """w_l and b_l."""
        return self.params[i - 1]

    def sigma(self, i: int) -> Any:
        """The activation of hidden layer i."""
        return self.net.hidden[i - 1]

    @cached_property
    def eta(self) -> jax.Array:
        """z_L with its offset."""
        return self.predictor()

    def forward(self, params: Params) -> None:
        """z_l = a_{l-1} w_l + b_l, a_l = σ(z_l)."""
        for i, layer in enumerate(params, start=1):
            self.z[i] = affine(layer, self.a[i - 1])
            if i < self.depth:
                self.a[i] = self.activation(i)

    def activation(self, i: int) -> jax.Array:
        """a_l = σ(z_l)."""
        return self.sigma(i).value(self.z[i])

    def predictor(self) -> jax.Array:
        """η = z_L + offset."""
        z, offset = self.z[self.depth], self.batch.offset
        return z if offset is None else z + offset

    def weights(self) -> jax.Array:
        """s_i, (n,)."""
        return jnp.ones_like(self.batch.x[:, 0]) if self.batch.weight is None else self.batch.weight

    def shares(self) -> jax.Array:
        """s_i / Σ s_i, (n,)."""
        return self.weights() / self.weights().sum()

    def targets(self) -> jax.Array:
        """y, (n, k)."""
        return self.net.loss.encode(self.batch.y, self.eta)

    def residual(self, eta: jax.Array) -> jax.Array:
        """∂ℓ_i/∂η, (n, k)."""
        return self.net.loss.residual(eta, self.targets())

    def back(self, i: int) -> jax.Array:
        """δ_{l+1} w_{l+1}ᵀ."""
        return self.delta[i + 1] @ self.layer(i + 1).w.T

    def derivative(self, i: int) -> jax.Array:
        """σ'(z_l)."""
        return self.sigma(i).derivative(self.a[i])

    def weight_gradient(self, i: int) -> jax.Array:
        """a_{l-1}ᵀ δ_l."""
        return self.a[i - 1].T @ self.delta[i]

    def bias_gradient(self, i: int) -> jax.Array | None:
        """Σ_i δ_l."""
        return self.delta[i].sum(axis=0) if self.net.bias else None

    def shrink(self, i: int) -> Layer:
        """What the penalty adds to layer i."""
        return self.strengths.gradient((self.layer(i),))[0]

    def finish(self, layers: list[Layer]) -> Params:
        """The gradient as it is handed out."""
        return tuple(layers)


@partial(jax.jit, static_argnums=(0, 1, 2))
def gradient(kind: type[Pass], net: Network, penalty: Penalty, params: Params, batch: Batch) -> Params:
    """∇J by a pass of some kind."""
    return kind(net, penalty, params, batch).gradient()


class Mutant(NamedTuple):
    """A wrong backward pass: the name of its network, the step that is replaced, and by what.

    far: the factor by which x is to be multiplied for it to show; 1 where it shows as it is. dtype: the one in which it
    is to be judged.
    """

    name: str
    wrong: str
    setting: str
    step: str
    change: Callable[..., Any]
    far: float = 1
    dtype: str = "float32"

    def gradient(self, setting: Setting) -> Callable[[Params, Batch], Params]:
        """The wrong gradient as a function of parameters and data."""
        return partial(gradient, type("Broken", (Pass,), {self.step: self.change}), setting.net, setting.penalty)


def mutant(name: str, wrong: str, setting: str, far: float = 1, dtype: str = "float32", **step: Any) -> Mutant:
    """A mutant whose replaced step is the one keyword left: a function of the pass and what the step is given."""
    ((where, change),) = step.items()
    if not hasattr(Pass, where):
        raise ValueError(f"{where} is no step of the pass")
    return Mutant(name, wrong, setting, where, change, far, dtype)
