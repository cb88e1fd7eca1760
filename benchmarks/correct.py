"""Right gradients at random: architectures, losses, weights, penalties, sizes, dtypes, and ways to compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lr_nn
from benchmarks.mutants.backward import Pass, Setting, gradient
from benchmarks.mutants.settings import TARGETS
from benchmarks.referees import Suspect
from lr_nn import activations, losses
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Layer

HIDDEN = (
    *(activations.sigmoid, activations.tanh, activations.relu, activations.elu, activations.softplus),
    *(activations.identity, activations.leaky_relu(0.1)),
)
LOSSES = (losses.squared_error, losses.bernoulli, losses.categorical, losses.poisson)


class Backwards(Pass):
    """Sums over the rows in the order reversed."""

    def weight_gradient(self, i: int) -> jax.Array:
        return self.a[i - 1][::-1].T @ self.delta[i][::-1]


class RowByRow(Pass):
    """Sums over the rows one after the other."""

    def weight_gradient(self, i: int) -> jax.Array:
        def add(total: jax.Array, row: Any) -> tuple[jax.Array, None]:
            return total + jnp.outer(*row), None

        return jax.lax.scan(add, jnp.zeros_like(self.layer(i).w), (self.a[i - 1], self.delta[i]))[0]


def by_the_package(setting: Setting, block_size: int | None) -> Callable[..., Any]:
    """`lr_nn.value_and_gradient`, its gradient."""

    @jax.jit
    def of(params: Any, batch: Any) -> Any:
        return lr_nn.value_and_gradient(setting.net, params, batch, setting.penalty, block_size)[1]

    return of


FORMULATIONS: dict[str, Callable[[Setting], Callable[..., Any]]] = {
    "lr_nn": lambda setting: by_the_package(setting, None),
    "lr_nn in blocks": lambda setting: by_the_package(setting, 7),
    "jax.grad": lambda setting: jax.jit(jax.grad(setting.value)),
    "by hand": lambda setting: partial(gradient, Pass, setting.net, setting.penalty),
    "by hand, backwards": lambda setting: partial(gradient, Backwards, setting.net, setting.penalty),
    "by hand, row by row": lambda setting: partial(gradient, RowByRow, setting.net, setting.penalty),
}


def suspects(count: int) -> Iterator[Suspect]:
    """Right gradients, drawn by fixed seeds, in every formulation and dtype by turns."""
    for seed in range(count):
        setting = _setting(np.random.default_rng(seed))
        formulation = tuple(FORMULATIONS)[seed % len(FORMULATIONS)]
        dtype = ("float32", "float64")[seed // len(FORMULATIONS) % 2]
        yield Suspect(_name(setting, formulation), setting, FORMULATIONS[formulation](setting), dtype)


def _setting(rng: np.random.Generator) -> Setting:
    """One to four layers of one to nine neurons, on one to sixty rows, larger and smaller than is usual."""
    loss = rng.choice(np.array(LOSSES, object))
    sizes = [int(size) for size in rng.integers(1, 10, size=rng.integers(2, 6))]
    sizes[-1] = max(sizes[-1], loss.least_outputs)
    hidden = tuple(rng.choice(np.array(HIDDEN, object), size=len(sizes) - 2))
    net = Network(sizes, hidden, loss, bias=bool(rng.random() < 0.8))
    n, k, scale = int(rng.integers(1, 61)), sizes[-1], np.exp(rng.uniform(np.log(0.2), np.log(2)))

    def draw(d_in: int, d_out: int) -> Layer:
        w: Any = scale * rng.normal(size=(d_in, d_out)) * d_in**-0.5
        b: Any = scale * rng.normal(size=d_out)
        return Layer(w, b if net.bias else None)

    batch = Batch(
        rng.normal(size=(n, sizes[0])) * np.exp(rng.uniform(-3, 1, size=sizes[0])),
        TARGETS[loss.name](n, k)(rng),
        rng.choice([rng.uniform(0.1, 3, size=n), rng.integers(1, 5, size=n).astype(float)])
        if rng.random() < 0.5
        else None,
        rng.normal(size=(n, k)) if rng.random() < 0.3 else None,
    )
    strengths = rng.uniform(0, 0.2, size=2) * (rng.random(2) < 0.4)
    return Setting(net, Penalty(*map(float, strengths)), tuple(draw(*shape) for shape in net.shapes), batch)


def _name(setting: Setting, formulation: str) -> str:
    net, batch = setting.net, setting.batch
    parts = [
        "-".join(map(str, net.sizes)),
        *(activation.name for activation in net.hidden),
        net.loss.name,
        f"{len(batch.x)} rows",
        *(["no bias"] if not net.bias else []),
        *(["weights"] if batch.weight is not None else []),
        *(["offset"] if batch.offset is not None else []),
        *([f"penalty {setting.penalty.l1:.2g}, {setting.penalty.l2:.2g}"] if any(setting.penalty) else []),
    ]
    return f"{formulation}: {' '.join(parts)}"
