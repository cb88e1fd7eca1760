"""What can four hidden neurons do that one cannot? Enclose, if descent finds how.

One neuron says on which side of a line a point lies. Points of a ring around a disc, or in opposite quarters, are not
told apart by any line: shown at the certified optimum of a logistic regression, and by a search of all lines. Hidden
neurons are lines too, and the output neuron weighs their sides. That a network could do it does not say that descent
from random weights finds it: so it starts many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from lr_nn import Batch, Network
    from lr_nn.types import Params, Solution

DIRECTIONS = 720
SOLVED = 0.99


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of hidden_layer."""

    data: Literal["rings", "xor"] = "rings"
    """rings: a ring around a disc; xor: clouds in the four quarters, of the class of their neighbour across."""
    points: int = 400
    """Points to learn, half of them of each class."""
    widths: tuple[int, ...] = (1, 2, 3, 4, 8)
    """Numbers of hidden neurons, growing; 4 is among them."""
    starts: int = 50
    """Random starts of every width."""
    steps: int = 2000
    """Steps of Adam on all points, from every start."""


def main(options: Options, run: runner.Run) -> None:
    """Fit a neuron, train networks of every width from many starts, and tell what they found."""
    if list(options.widths) != sorted(set(options.widths)) or 4 not in options.widths or options.widths[0] < 1:
        raise runner.UserError(f"--widths must be growing numbers of neurons with 4 among them; got {options.widths}")
    if min(options.starts, options.steps) < 1 or options.points < 20:
        raise runner.UserError("--starts and --steps must be at least 1, --points at least 20")

    import numpy as np

    import lr_nn

    x, y = points(options)
    neuron = lr_nn.fit(lr_nn.logistic_regression(2), x, y)
    one = {"accuracy": accuracy(neuron.coefficients[:, 0], x, y), "best_line": best_line(x, y)}
    one |= {"status": str(neuron.status), "cost": neuron.cost, "certificate": neuron.certificate}
    run.record(kind="neuron", **one)
    found = {}
    for width in options.widths:
        net, params, scores = descend(width, lr_nn.Batch(x, y), options)
        found[width] = {"scores": scores, "net": net, "params": params}
        run.record(kind="width", width=width, solved=int((scores >= SOLVED).sum()), accuracy=scores.tolist())
    four = found[4]
    inside = lr_nn.fit(lr_nn.logistic_regression(4), np.asarray(lr_nn.forward(four["net"], four["params"], x)[0][1]), y)
    run.record(kind="hidden", status=str(inside.status), cost=inside.cost)
    tell(options, run, (x, y), one, neuron, found, inside)


def points(options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) in float32 and their classes, 0 and 1 by turns."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    y = np.arange(options.points) % 2
    if options.data == "xor":
        corner = rng.choice([-1.0, 1.0], options.points)
        x = np.stack([corner, corner * (1 - 2 * y)], axis=1) + 0.3 * rng.standard_normal((options.points, 2))
    else:
        angle, radius = rng.uniform(0, 2 * np.pi, options.points), np.sqrt(rng.random(options.points))
        radius = np.where(y == 1, 0.8 * radius, 1.4 + 0.6 * radius)
        x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x.astype(np.float32), y


def accuracy(coefficients: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The share of points on the right side of a line (w_1, w_2, b)."""
    return float(((x @ coefficients[:2] + coefficients[2] > 0) == y).mean())


def best_line(x: np.ndarray, y: np.ndarray) -> float:
    """The largest share of points that a line tells apart, of all places in many directions."""
    import numpy as np

    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    order = np.argsort(x @ np.stack([np.cos(angles), np.sin(angles)]), axis=0)
    # Ones that lie below each place less zeros that do: the hits of a line there that says 0 below, but for a constant.
    below = np.cumsum(np.vstack([np.zeros(DIRECTIONS), 1 - 2 * y[order]]), axis=0)
    hits = below + y.sum()
    return float(max(hits.max(), (len(y) - hits).max()) / len(y))


def descend(width: int, data: Batch, options: Options) -> tuple[Network, Params, np.ndarray]:
    """A network of so many hidden sigmoids: the parameters of its lowest cost, and the accuracy of every start."""
    import jax
    import numpy as np
    import optax

    import lr_nn

    net = lr_nn.mlp((2, width, 1))
    starts = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(jax.random.key(options.seed), options.starts))
    trained = lr_nn.train_many(net, starts, data, optimizer=optax.adam(0.05), epochs=options.steps)
    scores = jax.vmap(lambda params: lr_nn.training.metrics(net, params, data)["accuracy"])(trained.params)
    lowest = int(np.nanargmin(trained.history["cost"][-1]))
    return net, jax.tree.map(lambda leaf: leaf[lowest], trained.params), np.asarray(scores, float)
