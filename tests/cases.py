"""The rows of the tests. A new activation or a new loss is one row here, with its twin written in jax.nn.

A twin of a loss takes η (n, k) and targets as they come and returns ℓ_i (n,).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import activations, losses
from lr_nn.activations import Activation
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.types import Batch, Layer

N, K = 7, 3


@dataclass(frozen=True)
class ActivationCase:
    """An activation and its twin, which agree at the kinks too."""

    activation: Activation
    twin: Callable[[Any], Any]


ACTIVATIONS = {
    "identity": ActivationCase(activations.identity, lambda z: z),
    "step": ActivationCase(activations.step, lambda z: jnp.heaviside(z, jnp.zeros_like(z))),
    "sigmoid": ActivationCase(activations.sigmoid, jax.nn.sigmoid),
    "tanh": ActivationCase(activations.tanh, jnp.tanh),
    "relu": ActivationCase(activations.relu, jax.nn.relu),
    "leaky_relu": ActivationCase(activations.leaky_relu(0.125), lambda z: jax.nn.leaky_relu(z, 0.125)),
    "elu": ActivationCase(activations.elu, jax.nn.elu),
    "softplus": ActivationCase(activations.softplus, jax.nn.softplus),
    "silu": ActivationCase(activations.silu, jax.nn.silu),
    "gelu": ActivationCase(activations.gelu, lambda z: jax.nn.gelu(z, approximate=False)),
    "gelu_tanh": ActivationCase(activations.gelu_tanh, lambda z: jax.nn.gelu(z, approximate=True)),
    "sine": ActivationCase(activations.sine, jnp.sin),
    "softsign": ActivationCase(activations.softsign, lambda z: z / (1 + z * jnp.sign(z))),
}


def _real(rng, n, k):
    return rng.normal(size=(n, k))


def _bits(rng, n, k):
    return rng.integers(0, 2, size=(n, k))


def _counts(rng, n, k):
    return rng.poisson(2.0, size=(n, k))


def _labels(rng, n, k):
    return rng.integers(0, k, size=n)


def _all_bits(k):
    return np.array(list(itertools.product((0.0, 1.0), repeat=k)))


def _squared(eta, y):
    return 0.5 * jnp.square(eta - y).sum(axis=1)


def _poisson(eta, y):
    return (jnp.exp(eta) - y.astype(eta.dtype) * eta).sum(axis=1)


def _huber(eta, y):
    r = eta - y
    far = 1.25 * (r * jnp.sign(r) - 0.625)
    return jnp.where(jnp.square(r) <= 1.25**2, jnp.square(r) / 2, far).sum(axis=1)


def _categorical(eta, y):
    return -jax.nn.log_softmax(eta, axis=1)[jnp.arange(eta.shape[0]), y]


@dataclass(frozen=True)
class LossCase:
    """A loss, its twin, a generator of targets, and what mathematics says of it.

    canonical: its Hessian is its Fisher. outcomes: all targets (m, k), where they can be counted; there
    ℓ is exactly -log p(y | η). overflows: its mean leaves the floats at |η| = 10⁴, as DESIGN.md says.
    """

    loss: Loss
    twin: Callable[[Any, Any], Any]
    targets: Callable[..., np.ndarray]
    canonical: bool = False
    outcomes: Callable[[int], np.ndarray] | None = None
    overflows: bool = False


LOSSES = {
    "squared_error": LossCase(losses.squared_error, _squared, _real, canonical=True),
    "absolute_error": LossCase(losses.absolute_error, lambda eta, y: jnp.abs(eta - y).sum(axis=1), _real),
    "huber": LossCase(losses.huber(1.25), _huber, _real),
    "bernoulli": LossCase(
        losses.bernoulli,
        lambda eta, y: (jax.nn.softplus(eta) - y.astype(eta.dtype) * eta).sum(axis=1),
        _bits,
        canonical=True,
        outcomes=_all_bits,
    ),
    "categorical": LossCase(losses.categorical, _categorical, _labels, canonical=True, outcomes=np.eye),
    "poisson": LossCase(losses.poisson, _poisson, _counts, canonical=True, overflows=True),
    "squared_error of sigmoid": LossCase(
        losses.through(activations.sigmoid, losses.squared_error),
        lambda eta, y: _squared(jax.nn.sigmoid(eta), y.astype(eta.dtype)),
        _bits,
    ),
    "squared_error of relu": LossCase(
        losses.through(activations.relu, losses.squared_error), lambda eta, y: _squared(jax.nn.relu(eta), y), _real
    ),
    "poisson of softplus": LossCase(
        losses.through(activations.softplus, losses.poisson),
        lambda eta, y: _poisson(jax.nn.softplus(eta), y),
        _counts,
        overflows=True,
    ),
    "categorical of tanh": LossCase(
        losses.through(activations.tanh, losses.categorical),
        lambda eta, y: _categorical(jnp.tanh(eta), y),
        _labels,
        outcomes=np.eye,
    ),
}


@dataclass(frozen=True)
class NetworkCase:
    """An architecture, the twins of its hidden activations, and the row of its loss."""

    net: Network
    hidden: tuple[Callable[[Any], Any], ...]
    loss: LossCase


# Few sizes, so that eager tests share their compiled operations; no weight is square, so that a transposed one fails.
SIZES = {1: (4, K), 2: (4, 5, K), 3: (4, 5, 4, K)}


def network(loss: str, activation: str = "sigmoid", depth: int = 2, bias: bool = True) -> NetworkCase:
    """A network of `depth` layers; the second hidden layer is tanh, so that a layer taken for another is seen."""
    row = LOSSES[loss]
    hidden = (ACTIVATIONS[activation], ACTIVATIONS["tanh"])[: depth - 1]
    net = Network(SIZES[depth], tuple(h.activation for h in hidden), row.loss, bias)
    return NetworkCase(net, tuple(h.twin for h in hidden), row)


NETWORKS = {
    "squared_error, 1 layer": network("squared_error", depth=1),
    "categorical, 1 layer, no bias": network("categorical", depth=1, bias=False),
    "bernoulli, sigmoid, 2 layers": network("bernoulli", "sigmoid", 2),
    "poisson, elu, 2 layers, no bias": network("poisson", "elu", 2, bias=False),
    "categorical, relu, 3 layers": network("categorical", "relu", 3),
    "huber, gelu, 3 layers": network("huber", "gelu", 3),
    "squared_error of sigmoid, softplus, 3 layers": network("squared_error of sigmoid", "softplus", 3),
}


def parameters(net: Network, dtype=np.float64, seed: int = 0) -> tuple[Layer, ...]:
    """Random parameters, biases included, as NumPy arrays of `dtype`."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.6 * rng.normal(size=shape)).astype(dtype)

    return tuple(Layer(draw(d_in, d_out), draw(d_out) if net.bias else None) for d_in, d_out in net.shapes)


def batch(case: NetworkCase, n: int = N, dtype=np.float64, weighted=False, offset=False, seed: int = 1) -> Batch:
    """Random rows as NumPy float64, every value exact in `dtype`."""
    rng = np.random.default_rng(seed)
    d, k = case.net.sizes[0], case.net.sizes[-1]
    rows = Batch(
        rng.normal(size=(n, d)),
        case.loss.targets(rng, n, k),
        rng.uniform(0.25, 2, size=n) if weighted else None,
        rng.normal(size=(n, k)) if offset else None,
    )
    return jax.tree.map(lambda a: a.astype(dtype).astype(np.float64) if a.dtype.kind == "f" else a, rows)


def on_device(tree, dtype=None):
    """The same tree in JAX arrays, floats in `dtype`."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype if jnp.issubdtype(a.dtype, jnp.floating) else None), tree)
