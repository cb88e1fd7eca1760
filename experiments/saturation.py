"""Why not the squared error on a sigmoid? Most wrong, it learns least.

One neuron says yes with great confidence, and the answer is no. The error δ of the squared error carries the factor
a(1 - a) of the sigmoid, that of the cross-entropy does not. That "cross-entropy has no vanishing gradient" holds for
the output alone: in a deep network every sigmoid layer below multiplies δ by its own a(1 - a), at most a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.report import Figure

NAMES = ("cross-entropy", "squared error")


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of saturation."""

    starts: tuple[float, ...] = (2.0, 4.0, 6.0, 8.0)
    """Logits of the wrong answer that the neuron starts from, growing; the last is also the deep network's."""
    rate: float = 0.1
    """Learning rate, as a share of 1 over the largest curvature of each loss."""
    steps: int = 4000
    """Steps of gradient descent."""
    hidden: int = 8
    """Hidden layers of the deep network."""
    width: int = 32
    """Neurons of a hidden layer."""


def main(options: Options, run: runner.Run) -> None:
    """Let one neuron learn from every start, look into a deep network, and tell."""
    if not runner.growing(options.starts, above=0) or len(options.starts) < 2:
        raise runner.UserError(f"--starts must be at least two positive numbers, growing; got {options.starts}")
    if min(options.steps, options.hidden, options.width) < 1 or not 0 < options.rate <= 1:
        raise runner.UserError("--steps, --hidden and --width must be at least 1, and --rate in (0, 1]")

    import jax

    from lr_nn import activations, losses

    both = dict(zip(NAMES, (losses.bernoulli, losses.through(activations.sigmoid, losses.squared_error))))
    hidden = [("sigmoid", name) for name in NAMES] + [("tanh", NAMES[0]), ("relu", NAMES[0])]
    with jax.enable_x64(True):
        learned = {name: learn(loss, options) for name, loss in both.items()}
        deep = [errors(getattr(activations, of), both[name], options) for of, name in hidden]
    for name, found in learned.items():
        run.record(kind="neuron", loss=name, **{key: value for key, value in found.items() if key != "logits"})
    for (of, name), sizes in zip(hidden, deep):
        run.record(kind="deep", hidden=of, loss=name, sizes=sizes)
    tell(options, run, learned, {f"{of}, {name}": sizes for (of, name), sizes in zip(hidden, deep)})


def learn(loss: Any, options: Options) -> dict[str, Any]:
    """One neuron η = w on x = 1, y = 0, from every start: its first δ, its logits, and its steps to one half.

    The learning rate is a share of 1/L, L the largest |∂²ℓ/∂η²|: the fastest that is safe everywhere.
    """
    import jax
    import numpy as np
    import optax

    import lr_nn
    from lr_nn import Batch, Layer

    net, one = lr_nn.Network((1, 1), (), loss, bias=False), Batch(np.ones((1, 1)), np.zeros(1))
    eta = np.linspace(-10, max(10, options.starts[-1]), 2001)[:, None]
    largest = float(np.abs(loss.hessian_multiply(eta, np.zeros_like(eta), np.ones_like(eta))).max())
    starts = np.array(options.starts)[:, None, None]
    delta = [lr_nn.backprop(net, (Layer(w, None),), one).deltas[-1][0, 0] for w in starts]
    descent = optax.sgd(options.rate / largest)
    lanes = (Layer(jax.numpy.asarray(starts), None),)
    trained = lr_nn.train_many(net, lanes, one, optimizer=descent, epochs=options.steps)
    arrived = (costs := trained.history["cost"]) <= float(loss.value(np.zeros((1, 1)), one.y)[0])
    return {
        "rate": options.rate / largest,
        "delta": np.array(delta),
        "steps": [int(of.argmax()) if of.any() else None for of in arrived.T],
        "logits": np.interp(costs, loss.value(eta, np.zeros_like(eta)), eta[:, 0]),
    }


def errors(hidden: Any, loss: Any, options: Options) -> np.ndarray:
    """Of a deep network that is sure of the wrong answer: the root mean square of δ_1, ..., δ_L over 256 examples."""
    import jax
    import numpy as np

    import lr_nn

    net = lr_nn.mlp((16, *[options.width] * options.hidden, 1), hidden, loss)
    *below, last = lr_nn.init(net, jax.random.key(options.seed), "float64")
    sure = last._replace(b=jax.numpy.full(1, options.starts[-1]))
    x = np.random.default_rng(options.seed).standard_normal((256, 16))
    deltas = lr_nn.backprop(net, (*below, sure), lr_nn.Batch(x, np.zeros(256))).deltas
    return np.array([float(np.sqrt(np.mean(np.square(delta)))) for delta in deltas])


def tell(options: Options, run: runner.Run, learned: dict[str, Any], deep: dict[str, np.ndarray]) -> None:
    """The finding, the tables and the figures."""
    cross, squared = learned.values()
    first, far = options.starts[0], options.starts[-1]
    sigmoid, through, tanh, relu = (sizes[0] / sizes[-1] for sizes in deep.values())
    finding = (
        f"One neuron that is wrong by a logit of {far:g} has a δ of {cross['delta'][-1]:.3f} by the cross-entropy and "
        f"of {squared['delta'][-1]:.1e} by the squared error, a(1 − a) = "
        f"{squared['delta'][-1] / cross['delta'][-1]:.1e} of it. "
        f"From logits of {first:g} to {far:g} its steps to even odds go from {said(cross['steps'][0])} to "
        f"{said(cross['steps'][-1])} by the cross-entropy, and from {said(squared['steps'][0])} to "
        f"{said(squared['steps'][-1])} by the squared error, each at the same share of the rate that it bears. "
        f"That is the last layer alone: below {options.hidden} sigmoid layers δ_1 is {sigmoid:.1e} of δ_L with the "
        f"cross-entropy and {through:.1e} of it with the squared error, {sigmoid ** (1 / options.hidden):.2f} a layer, "
        f"where tanh leaves {tanh:.2g} and relu {relu:.2g} of δ_L."
    )
    rows = [
        (
            f"{start:g}",
            *(f"{found['delta'][i]:.2g}" for found in learned.values()),
            *(said(found["steps"][i]) for found in learned.values()),
        )
        for i, start in enumerate(options.starts)
    ]
    columns = (
        "start\n(logit)",
        "δ, cross-\nentropy",
        "δ, squared\nerror",
        "steps, cross-\nentropy",
        "steps,\nsquared error",
    )
    neuron = Table("One neuron, sure of the wrong answer", columns, rows)
    rows = [
        (name, f"{sizes[-1]:.1e}", f"{sizes[0]:.1e}", f"{(sizes[0] / sizes[-1]) ** (1 / options.hidden):.2f}")
        for name, sizes in deep.items()
    ]
    note = "root mean squares over 256 examples; weights drawn by Glorot's rule, for relu by He's"
    network = Table(
        f"δ above and below {options.hidden} hidden layers", ("hidden, loss", "δ_L", "δ_1", "a layer"), rows, (note,)
    )
    one, many = draw(options, run, learned, deep)
    sections = [
        Section("The last layer", tables=(neuron,), figures=(one,)),
        Section("The layers below", tables=(network,), figures=(many,)),
    ]
    run.conclude("Saturation", finding, sections)


def said(steps: int | None) -> str:
    """A number of steps, or that there were not enough."""
    return "more than were taken" if steps is None else f"{steps:,}"


def draw(options: Options, run: runner.Run, learned: dict[str, Any], deep: dict[str, np.ndarray]) -> Iterator[Figure]:
    """The logit of one neuron as it learns, and δ by layer."""
    from experiments import teaching_figures

    spoken = (f"{name}: {', '.join(map(said, found['steps']))} steps" for name, found in learned.items())
    yield run.figure(
        "neuron",
        teaching_figures.unlearning({name: found["logits"] for name, found in learned.items()}),
        alt=f"Logits of the wrong answer against steps; until even odds from starts {options.starts}, "
        f"{'; '.join(spoken)}.",
        caption="A neuron that is sure of the wrong answer. The cross-entropy takes it back at once; the squared error "
        "waits the longer the surer it is.",
    )
    yield run.figure(
        "layers",
        teaching_figures.fading(deep),
        alt="The size of δ from the last layer down to the first: "
        + "; ".join(f"{name} from {sizes[-1]:.0e} to {sizes[0]:.0e}" for name, sizes in deep.items())
        + ".",
        caption="The loss sets where the line begins at the last layer. How steeply it falls, the hidden layers do.",
    )
