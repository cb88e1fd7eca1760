"""What can four hidden neurons do that one cannot? XOR, if descent finds it.

One neuron says on which side of a line a point lies, and no line tells the classes of opposite quarters apart, nor a
ring from its disc: shown at the certified optimum of a logistic regression, and by a search of lines. Hidden neurons
are lines too, and the output neuron weighs their sides. That a network can do it does not say that descent from random
weights finds it: so it starts many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from lr_nn import Batch, Network
    from lr_nn.types import Params, Solution

DIRECTIONS, SOLVED = 720, 0.99


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of hidden_layer."""

    data: Literal["xor", "rings"] = "xor"
    """xor: clouds in the four quarters, of the class of the one across; rings: a ring around a disc."""
    points: int = 200
    """Points to learn, half of them of each class."""
    widths: tuple[int, ...] = (1, 2, 3, 4, 8)
    """Numbers of hidden neurons, growing; 4 is among them."""
    starts: int = 50
    """Random starts of every width."""
    steps: int = 1000
    """Steps of Adam on all points, from every start."""


class Found(NamedTuple):
    """Of one width: the network, the parameters of its lowest cost, and the accuracy of every start."""

    net: Network
    params: Params
    scores: np.ndarray

    @property
    def solved(self) -> int:
        """Starts that led to a solution."""
        return int((self.scores >= SOLVED).sum())


def main(options: Options, run: runner.Run) -> None:
    """Fit a neuron, train networks of every width from many starts, and tell what they found."""
    if not runner.growing(options.widths, above=0) or 4 not in options.widths:
        raise runner.UserError(f"--widths must be growing numbers of neurons with 4 among them; got {options.widths}")
    if min(options.starts, options.steps) < 1 or options.points < 20:
        raise runner.UserError("--starts and --steps must be at least 1, --points at least 20")

    import numpy as np

    import lr_nn

    x, y = points(options)
    neuron = lr_nn.fit(lr_nn.logistic_regression(2), lr_nn.Batch(x, y))
    one = {"accuracy": accuracy(neuron.coefficients[:, 0], x, y), "best_line": best_line(x, y)}
    run.record(kind="neuron", status=str(neuron.status), cost=neuron.cost, certificate=neuron.certificate, **one)
    found = {}
    for width in options.widths:
        found[width] = descend(width, lr_nn.Batch(x, y), options)
        run.record(kind="width", width=width, solved=found[width].solved, accuracy=found[width].scores.tolist())
    best = found[4]
    outputs = np.asarray(lr_nn.forward(best.net, best.params, x).activations[1])
    inside = lr_nn.fit(lr_nn.logistic_regression(4), lr_nn.Batch(outputs, y))
    run.record(kind="hidden", status=str(inside.status), message=inside.message)
    tell(options, run, (x, y), neuron, one, found, str(inside.status))


def points(options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) in float32 and their classes, 0 and 1 by turns."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    y = np.arange(options.points) % 2
    if options.data == "xor":
        corner = rng.choice([-1.0, 1.0], options.points)
        x = np.stack([corner, corner * (1 - 2 * y)], axis=1) + 0.25 * rng.standard_normal((options.points, 2))
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


def descend(width: int, data: Batch, options: Options) -> Found:
    """Train a network of so many hidden sigmoids from every start."""
    import jax
    import numpy as np
    import optax

    import lr_nn

    net = lr_nn.mlp((2, width, 1))
    starts = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(jax.random.key(options.seed), options.starts))
    trained = lr_nn.train_many(net, starts, data, optimizer=optax.adam(0.05), epochs=options.steps)
    scores = jax.vmap(lambda params: lr_nn.training.metrics(net, params, data)["accuracy"])(trained.params)
    lowest = int(np.nanargmin(trained.history["cost"][-1]))
    return Found(net, jax.tree.map(lambda leaf: leaf[lowest], trained.params), np.asarray(scores, float))


def tell(
    options: Options,
    run: runner.Run,
    data: tuple[np.ndarray, np.ndarray],
    neuron: Solution,
    one: Mapping[str, float],
    found: Mapping[int, Found],
    inside: str,
) -> None:
    """The finding, the table and the figure."""
    import numpy as np

    from experiments import network_figures

    four, others = found[4], [f"{of.solved} with {width}" for width, of in found.items() if width != 4]
    told_apart = "can be told apart by a plane" if inside == "separated" else "cannot be told apart by a plane"
    finding = (
        f"A logistic regression at its optimum (the cost is at most {neuron.certificate:.0e} above it) is right on "
        f"{one['accuracy']:.1%} of the points, and the best of all lines in {DIRECTIONS} directions on "
        f"{one['best_line']:.1%}. "
        f"Four hidden sigmoids are right on {four.scores.max():.1%}: by their outputs the classes {told_apart}, and a "
        f"logistic regression on them ends as {inside}. "
        f"Of {options.starts} random starts descent led {four.solved} to {SOLVED:.0%} or more with 4 neurons, "
        f"{', '.join(others)}{'' if four.solved == options.starts else ': what a network can do is not always found'}."
    )
    rows = [("one neuron, at its optimum", "", f"{one['accuracy']:.1%}", "", "")]
    rows += [("one neuron, the best of all lines", "", f"{one['best_line']:.1%}", "", "")]
    for width in found:
        best, median, worst = (f"{of(found[width].scores):.1%}" for of in (np.max, np.median, np.min))
        rows.append((f"{width} hidden", f"{found[width].solved} of {options.starts}", best, median, worst))
    columns = ("", "starts that\nsolve it", "best\naccuracy", "median", "worst")
    table = Table("Accuracy on the points that were learnt", columns, rows, (f"solved: {SOLVED:.0%} or more",))
    picture = run.figure(
        "plane",
        network_figures.hidden_layer(data, neuron.coefficients[:, 0], four, found, one),
        alt="Left, points of two classes in the plane, the line of one neuron, the lines of four hidden neurons, and "
        f"the regions that those enclose. Right, the accuracy of every start against the number of neurons. {finding}",
        caption="Left, the four neurons of the lowest cost: each is a line, with an arrow to its active side, and the "
        "output neuron adds them up to the shaded regions. Right, a dot for each of "
        f"{options.starts} random starts; the lines are those of one neuron.",
        wide=True,
    )
    run.conclude(
        "What a hidden layer adds", finding, [Section("Lines in the plane", tables=(table,), figures=(picture,))]
    )
