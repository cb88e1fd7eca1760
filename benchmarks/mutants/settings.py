"""The networks in which mutants are planted: small, with hidden layers of one width, so that shapes tell nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.mutants.backward import Setting
from lr_nn import activations, losses
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Layer

ROWS = 23
DEEP = (5, 6, 6, 6, 3)


def _setting(
    net: Network,
    penalty: Penalty | None = None,
    weighted: bool = False,
    offset: bool = False,
    rows: int = ROWS,
    shift: float = 0.0,
    y: Callable[[np.random.Generator], Any] | None = None,
) -> Setting:
    """Parameters at which signals keep their scale, and data from them; `shift` is added to the biases of layer 1."""
    rng = np.random.default_rng(0)

    def draw(i: int, d_in: int, d_out: int) -> Layer:
        w: Any = rng.normal(size=(d_in, d_out)) * d_in**-0.5
        b: Any = 0.3 * rng.normal(size=d_out) + shift * (i == 0)
        return Layer(w, b if net.bias else None)

    params = tuple(draw(i, *shape) for i, shape in enumerate(net.shapes))
    k = net.sizes[-1]
    batch = Batch(
        rng.normal(size=(rows, net.sizes[0])),
        (y or TARGETS[net.loss.name](rows, k))(rng),
        rng.uniform(0.25, 3, size=rows) if weighted else None,
        rng.normal(size=(rows, k)) if offset else None,
    )
    return Setting(net, penalty or Penalty(), params, batch)


TARGETS: dict[str, Callable[[int, int], Callable[[np.random.Generator], Any]]] = {
    "bernoulli": lambda n, k: lambda rng: rng.integers(0, 2, size=(n, k)).astype(float),
    "categorical": lambda n, k: lambda rng: rng.integers(0, k, size=n),
    "poisson": lambda n, k: lambda rng: rng.poisson(2.0, size=(n, k)).astype(float),
    "squared_error": lambda n, k: lambda rng: rng.normal(size=(n, k)),
}


def _smoothed(rng: np.random.Generator) -> np.ndarray:
    return 0.9 * np.eye(4)[rng.integers(0, 4, size=ROWS)] + 0.1 / 4


def _deep(hidden: activations.Activation, loss: losses.Loss = losses.bernoulli, bias: bool = True) -> Network:
    return Network(DEEP, hidden, loss, bias)


SETTINGS: dict[str, Setting] = {
    "logistic": _setting(Network((5, 1), (), losses.bernoulli), Penalty(0.03, 0.1), weighted=True, offset=True),
    "labels": _setting(Network((5, 3), (), losses.bernoulli), Penalty(0.0, 0.1)),
    "softmax": _setting(Network((5, 4), (), losses.categorical), Penalty(0.0, 0.1)),
    "softmax, smoothed": _setting(Network((5, 4), (), losses.categorical), y=_smoothed),
    "linear": _setting(Network((5, 2), (), losses.squared_error), Penalty(0.02, 0.0), weighted=True),
    "poisson": _setting(Network((5, 1), (), losses.poisson), weighted=True, offset=True),
    "sigmoid": _setting(_deep(activations.sigmoid), Penalty(0.0, 0.1)),
    "sigmoid, weighted": _setting(_deep(activations.sigmoid, losses.categorical), weighted=True),
    "tanh": _setting(_deep(activations.tanh, losses.squared_error), Penalty(0.01, 0.05)),
    "tanh, square": _setting(Network((6, 6, 6, 6), activations.tanh, losses.squared_error), rows=6),
    "tanh, no bias": _setting(_deep(activations.tanh, losses.categorical, bias=False)),
    "relu": _setting(_deep(activations.relu, losses.categorical)),
    "relu, squared": _setting(_deep(activations.relu, losses.squared_error)),
    "leaky relu": _setting(_deep(activations.leaky_relu(0.1))),
    "elu": _setting(_deep(activations.elu, losses.poisson), offset=True),
    "softplus": _setting(_deep(activations.softplus, losses.categorical), weighted=True),
    "softplus, far left": _setting(_deep(activations.softplus), shift=-12.0),
    "large": _setting(Network((100, 100, 1), activations.tanh, losses.bernoulli)),
}
