"""Why not start a network at zero? Equal neurons get equal gradients for ever.

The error of a hidden neuron is δ_l = (δ_{l+1} w_{l+1}ᵀ) ∘ σ'(z_l): with w_{l+1} = 0 it is exactly zero, and neurons of
equal weights have equal errors, gradients, and so equal weights after the step. Networks on digits start from zeros and
from lr_nn.init, and their neurons are compared bit by bit. One neuron has no other to be equal to, and a convex cost:
there zero is as good a start as any, which the certified optimum of lr_nn.fit shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.data import Dataset
    from lr_nn.types import Params

FIRST_STEPS = 4


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of init_and_symmetry."""

    width: int = 8
    """Neurons in each of the two hidden layers."""
    epochs: int = 40
    """Epochs of Adam with mini-batches of 64 rows."""
    strength: float = 1e-2
    """Strength of the L2 penalty of the single neuron, so that its optimum is one point."""
    steps: int = 600
    """Steps of the single neuron's gradient descent."""


def main(options: Options, run: runner.Run) -> None:
    """Train deep networks and one neuron from zeros and from random weights, and tell what differs."""
    if options.width < 2 or min(options.epochs, options.steps) < 1 or options.strength <= 0:
        raise runner.UserError("--width must be at least 2, --epochs and --steps 1, and --strength positive")

    import jax
    import jax.numpy as jnp

    import lr_nn
    from experiments import data

    source = data.digits(options.seed)
    found: dict[str, dict[str, Any]] = {}
    for name in ("sigmoid", "tanh"):
        hidden = getattr(lr_nn.activations, name)
        net = lr_nn.mlp((64, options.width, options.width, 10), hidden, lr_nn.losses.categorical)
        random = lr_nn.init(net, jax.random.key(options.seed))
        starts = {"zeros": jax.tree.map(jnp.zeros_like, random), "random weights": random}
        for start, params in starts.items():
            found[f"{name}, {start}"] = train(net, params, source, options)
            numbers = {key: value for key, value in found[f"{name}, {start}"].items() if key != "params"}
            run.record(kind="network", hidden=name, start=start, **numbers)
    neurons = one_neuron(source, options)
    for start, excess in neurons.items():
        run.record(kind="neuron", start=start, excess=excess.tolist())
    tell(options, run, found, neurons)


def train(net: Any, params: Params, source: Dataset, options: Options) -> dict[str, Any]:
    """The largest entry of every layer's gradient in the first steps, and what the training ends with."""
    import jax
    import numpy as np
    import optax

    import lr_nn
    from experiments import compare

    rows, optimizer = lr_nn.Batch(*source.train), optax.adam(1e-2)
    first, now, state = [], params, optimizer.init(params)
    step = jax.jit(lr_nn.training.step, static_argnames="optimizer")
    for _ in range(FIRST_STEPS):
        gradient = compare.by_hand(net, now, rows)[1]
        first.append([float(abs(w).max()) for w, _ in gradient])
        now, state, _ = step(net, now, state, rows, optimizer=optimizer)
    order = jax.random.key(options.seed + 1)
    settings = {"optimizer": optimizer, "epochs": options.epochs, "batch_size": 64, "key": order}
    trained = lr_nn.train(net, params, rows, **settings)
    score = lr_nn.training.metrics(net, trained.params, lr_nn.Batch(*source.test))["accuracy"]
    return {
        "first_gradients": first,
        "different": [different(*layer) for layer in trained.params[:-1]],
        "largest_weight": max(float(abs(w).max()) for w, _ in trained.params),
        "costs": trained.history["cost"],
        "accuracy": float(score),
        "params": jax.tree.map(np.asarray, trained.params),
    }


def different(w: Any, b: Any) -> int:
    """How many neurons of a layer differ from each other, in any bit of a weight or of the bias."""
    import numpy as np

    return len({neuron.tobytes() for neuron in np.ascontiguousarray(np.vstack([w, b]).T)})


def one_neuron(source: Dataset, options: Options) -> dict[str, np.ndarray]:
    """J - J* after every step of gradient descent on a logistic regression, odd digits from even, by its start."""
    import jax
    import numpy as np
    import optax

    import lr_nn

    x, data = source.train.x, lr_nn.Batch(source.train.x, source.train.y % 2)
    net, penalty = lr_nn.logistic_regression(x.shape[1]), lr_nn.penalties.l2(options.strength)
    best = lr_nn.fit(net, data, penalty=penalty)
    # The steepest curvature of the logistic loss is a quarter of that of x xᵀ, with the constant 1.
    inputs = np.hstack([x, np.ones((len(x), 1))])
    rate = 1 / (np.linalg.eigvalsh(inputs.T @ inputs / len(x))[-1] / 4 + options.strength)
    zeros = lr_nn.init(net, jax.random.key(options.seed))
    rng = np.random.default_rng(options.seed)
    random = jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), zeros)
    settings = {"optimizer": optax.sgd(rate, momentum=0.9, nesterov=True), "epochs": options.steps, "penalty": penalty}
    found = {}
    for start, params in {"zeros": zeros, "random weights": random}.items():
        costs = lr_nn.train(net, params, data, **settings).history["cost"]
        found[start] = costs.astype(float) - best.cost
    return found


def tell(
    options: Options, run: runner.Run, found: Mapping[str, Mapping[str, Any]], neurons: Mapping[str, np.ndarray]
) -> None:
    """The finding, the tables and the figures."""
    from experiments import network_figures

    zeros, random, still = (found[name] for name in ("sigmoid, zeros", "sigmoid, random weights", "tanh, zeros"))
    gap = {start: float(abs(excess[-1])) for start, excess in neurons.items()}
    finding = (
        f"Counted to the last bit, the two hidden layers of {options.width} sigmoids have {spoken(zeros)} different "
        f"neurons after {options.epochs} epochs from zeros, which are right on {zeros['accuracy']:.0%} of the test "
        f"images, and {spoken(random)} after as many from random weights, right on {random['accuracy']:.0%}. "
        f"From zeros the first layer's gradient is {zeros['first_gradients'][0][0]:g} at first, and {awakes(zeros)}; "
        f"of tanh, whose outputs at zero are zero, the largest weight is {still['largest_weight']:g} even at the end. "
        f"For one neuron zero is {'as good a start as any' if gap['zeros'] < 1e-6 else 'a start'}: descent ends "
        f"{gap['zeros']:.0e} from the certified optimum, and from random weights {gap['random weights']:.0e}."
    )
    rows = [(name, spoken(of), f"{of['costs'][-1]:.3f}", f"{of['accuracy']:.1%}") for name, of in found.items()]
    columns = ("start", "different neurons\na hidden layer", "last\ncost", "test\naccuracy")
    ends = Table(f"Networks 64-{options.width}-{options.width}-10 after {options.epochs} epochs", columns, rows)
    gradients = [
        (f"{name}, layer {layer + 1}", *("0" if g[layer] == 0 else f"{g[layer]:.0e}" for g in of["first_gradients"]))
        for name, of in found.items()
        for layer in range(3)
    ]
    steps = ("", *(f"step {step}" for step in range(FIRST_STEPS)))
    notes = ("0 is exactly zero; all rows at once",)
    first = Table("Largest entry of the gradient of a layer's weights before each step", steps, gradients, notes)
    weights = {
        f"sigmoids from {name}": of["params"][0].w.T.reshape(-1, 8, 8) for name, of in zip(neurons, (zeros, random))
    }
    pictures = (
        run.figure(
            "neurons",
            network_figures.neurons(weights),
            alt="Two rows of images, the weights of first-layer neurons. "
            f"From zeros {zeros['different'][0]} of them differ, from random weights {random['different'][0]}.",
            caption="Weights of the first hidden neurons after training, as images: red for, blue against, each row on "
            "a scale of its own.",
            wide=True,
        ),
        run.figure(
            "costs",
            network_figures.starts({name: of["costs"] for name, of in found.items()}, neurons),
            alt="Left, the costs of deep networks, at the end "
            + ", ".join(f"{of['costs'][-1]:.3f} of {name}" for name, of in found.items())
            + ". Right, the cost above the optimum of one neuron, at the end "
            + ", ".join(f"{end:.0e} from {start}" for start, end in gap.items())
            + ".",
            caption="Left, deep networks; right, one neuron (odd digits from even), down to the rounding of its cost. "
            "The starts have the same colours in both.",
            wide=True,
        ),
    )
    run.conclude(
        "Zero, symmetry and random starts", finding, [Section("Two starts", tables=(ends, first), figures=pictures)]
    )


def spoken(network: Mapping[str, Any]) -> str:
    """How many neurons of each hidden layer differ."""
    return " and ".join(map(str, network["different"]))


def awakes(network: Mapping[str, Any]) -> str:
    """When the first layer gets a gradient, in words."""
    gradients = network["first_gradients"]
    steps = [step for step, layers in enumerate(gradients) if layers[0] > 0]
    return f"{gradients[steps[0]][0]:.0e} after {steps[0]} steps" if steps else f"stays so for {FIRST_STEPS} steps"
