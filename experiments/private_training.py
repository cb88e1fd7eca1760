"""What does privacy cost? Accuracy against ε for private training on digits.

DP-SGD (Abadi et al., 2016): every step draws a Poisson sample of the rows, clips the gradient of each to a norm, adds
Gaussian noise to their sum and divides by the expected number of rows. The clipped sum is one backward pass; ε for
adding or removing one image is that of the accountant of dp-accounting. The test images are not counted: they are
held out, and nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from lr_nn import Batch, Network


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of private_training."""

    noise_multipliers: tuple[float, ...] = (0.7, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    """Standard deviations of the noise, in units of max_norm; 0, no noise, is always run as well."""
    repeats: int = 10
    """Trainings for every noise multiplier, with seeds of their own."""
    steps: int = 300
    """Optimiser steps of a training."""
    batch_size: int = 128
    """Expected rows of a Poisson batch."""
    max_norm: float = 1.0
    """Norm to which the gradient of every example is clipped."""
    rate: float = 1.0
    """Learning rate of plain gradient steps, with and without privacy."""
    delta: float = 1e-5
    """The δ of (ε, δ)-differential privacy."""


def main(options: Options, run: runner.Run) -> None:
    """Train without and with privacy, all repeats and multipliers at once, and tell what was found."""
    multipliers = sorted({0.0, *options.noise_multipliers})
    if multipliers[0] < 0 or len(multipliers) < 3:
        raise runner.UserError("--noise-multipliers must be two or more above 0")
    if min(options.repeats, options.steps, options.batch_size, options.max_norm, options.rate) <= 0:
        raise runner.UserError("--repeats, --steps, --batch-size, --max-norm and --rate must be positive")
    if not 0 < options.delta < 1:
        raise runner.UserError(f"--delta must lie between 0 and 1; got {options.delta}")

    import jax
    import jax.numpy as jnp
    import numpy as np

    import lr_nn
    from experiments import data
    from lr_nn import private

    digits = data.digits(options.seed)
    train, test = (lr_nn.Batch(jnp.asarray(part.x), jnp.asarray(part.y)) for part in (digits.train, digits.test))
    n = len(train.x)
    if options.batch_size > n:
        raise runner.UserError(f"--batch-size must be at most the {n} training rows; got {options.batch_size}")
    net = lr_nn.softmax_regression(train.x.shape[1], 10)
    rate = options.batch_size / n
    capacity = private.poisson_capacity(n, rate)
    keys = jax.random.split(jax.random.key(options.seed), options.repeats)
    reference = np.asarray(plain(net, train, test, keys, options))
    run.record(kind="reference", accuracy=reference.mean(), accuracies=reference)
    train_all = jax.jit(private_accuracies, static_argnums=(5, 6))
    accuracies, most = train_all(net, train, test, keys, jnp.asarray(multipliers, jnp.float32), options, capacity)
    run.record(kind="sampling", rate=rate, capacity=capacity, most_drawn=most)
    levels = []
    for multiplier, scores in zip(multipliers, np.asarray(accuracies)):
        spent = private.epsilon(
            noise_multiplier=multiplier, sampling_rate=rate, steps=options.steps, delta=options.delta
        )
        levels.append({"noise_multiplier": multiplier, "epsilon": spent, "accuracy": float(scores.mean())})
        levels[-1]["accuracies"] = scores.tolist()
        run.record(kind="level", **levels[-1])
    tell(options, run, levels, reference, len(test.x))


def plain(net: Network, train: Batch, test: Batch, keys: jax.Array, options: Options) -> jax.Array:
    """Test accuracies (repeats,) of ordinary mini-batch training, for about as many steps at the same rate."""
    import jax
    import optax

    import lr_nn

    epochs = max(1, round(options.steps * options.batch_size / len(train.x)))
    start = jax.vmap(lambda key: lr_nn.init(net, key))(keys)
    settings = {"optimizer": optax.sgd(options.rate), "epochs": epochs, "batch_size": options.batch_size, "key": keys}
    trained = lr_nn.train_many(net, start, train, **settings)
    return jax.vmap(lambda params: lr_nn.training.metrics(net, params, test)["accuracy"])(trained.params)


def private_accuracies(
    net: Network, train: Batch, test: Batch, keys: jax.Array, multipliers: jax.Array, options: Options, capacity: int
) -> tuple[jax.Array, jax.Array]:
    """Test accuracies (multipliers, repeats) after DP-SGD, and the largest number of rows that a batch drew."""
    import jax
    import optax

    import lr_nn
    from lr_nn import private

    n, optimizer = len(train.x), optax.sgd(options.rate)
    settings = {"max_norm": options.max_norm, "expected_batch_size": options.batch_size}

    def one(multiplier: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            params, opt_state = state
            sampling, noise = jax.random.split(key)
            rows, weight, drawn = private.poisson_batch(sampling, n, options.batch_size / n, capacity)
            bp = lr_nn.backprop(net, params, lr_nn.Batch(train.x[rows], train.y[rows], weight))
            gradient = private.private_gradient(bp, noise, noise_multiplier=multiplier, **settings)
            updates, opt_state = optimizer.update(gradient, opt_state)
            return (optax.apply_updates(params, updates), opt_state), drawn

        start = lr_nn.init(net, key)
        steps = jax.random.split(jax.random.fold_in(key, 1), options.steps)
        (params, _), drawn = jax.lax.scan(step, (start, optimizer.init(start)), steps)
        return lr_nn.training.metrics(net, params, test)["accuracy"], drawn.max()

    accuracies, drawn = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(multipliers, keys)
    return accuracies, drawn.max()


def tell(options: Options, run: runner.Run, levels: Sequence[dict[str, Any]], reference: Any, test_rows: int) -> None:
    """The finding, the table and the figure, from the accuracies."""
    from experiments import figures

    clipped, *noisy = levels
    weakest, strictest = noisy[0], noisy[-1]
    base = float(reference.mean())
    near = [level for level in noisy if level["accuracy"] > clipped["accuracy"] - 0.01]
    finding = (
        f"Without privacy the training ends at {base:.1%} of the {test_rows} test images right (mean of "
        f"{options.repeats} trainings), and with clipped gradients but no noise at {clipped['accuracy']:.1%}. "
        + (
            f"Down to ε = {near[-1]['epsilon']:.2g} (δ = {options.delta:g}) the noise costs less than one point more: "
            f"{near[-1]['accuracy']:.1%}. "
            if near
            else f"Even at ε = {weakest['epsilon']:.2g} (δ = {options.delta:g}), the weakest tried, the noise costs "
            f"{100 * (clipped['accuracy'] - weakest['accuracy']):.1f} points more. "
        )
        + f"The strictest, ε = {strictest['epsilon']:.2g}, leaves {strictest['accuracy']:.1%}, with "
        f"{min(strictest['accuracies']):.1%} to {max(strictest['accuracies']):.1%} over the seeds; chance is 10 %."
    )
    rows = [
        (
            f"{level['noise_multiplier']:g}",
            f"{level['epsilon']:.3g}".replace("inf", "∞"),
            f"{level['accuracy']:.1%}",
            f"{min(level['accuracies']):.1%} – {max(level['accuracies']):.1%}",
        )
        for level in levels
    ]
    note = f"not private: {base:.1%} ({reference.min():.1%} – {reference.max():.1%})"
    columns = ("noise\nmultiplier", "ε", "test accuracy,\nmean", "least – most")
    table = Table(f"Accuracy against ε, δ = {options.delta:g}", columns, rows, (note,))
    figure = run.figure(
        "accuracy",
        figures.styled(draw)(noisy, base, clipped["accuracy"]),
        alt="Test accuracy against ε on a logarithmic axis: "
        + "; ".join(f"{level['accuracy']:.1%} at ε = {level['epsilon']:.2g}" for level in noisy)
        + f". Lines at {base:.1%}, not private, and {clipped['accuracy']:.1%}, clipped without noise.",
        caption=f"Test accuracy after {options.steps} private steps: the mean of {options.repeats} trainings, a bar "
        "from the least to the most. The number at a point is its noise multiplier.",
        wide=True,
    )
    facts = {
        "model": "softmax regression on 8×8 pixels",
        "training": f"{options.steps} steps of SGD, rate {options.rate:g}, {options.batch_size} rows expected a batch",
        "clipped to": f"{options.max_norm:g}",
    }
    run.conclude("What privacy costs", finding, [Section("Accuracy against ε", (), facts, (table,), (figure,))])


def draw(noisy: Sequence[dict[str, Any]], base: float, clipped: float) -> Figure:
    """Accuracy against ε, with the least and the most of the repeats, and the references as lines."""
    import numpy as np
    from matplotlib.figure import Figure

    from experiments.figures import COLOURS, INK, WIDE

    figure = Figure(figsize=(WIDE, 4.6))
    axes = figure.subplots()
    epsilon, mean = (np.array([level[name] for level in noisy]) for name in ("epsilon", "accuracy"))
    low, high = (np.array([end(level["accuracies"]) for level in noisy]) for end in (min, max))
    axes.axhline(100 * base, color=INK, linewidth=1.2, label="not private")
    axes.axhline(100 * clipped, color=COLOURS[1], linestyle="--", linewidth=1.2, label="clipped, no noise (ε = ∞)")
    spread = 100 * np.array([mean - low, high - mean])
    axes.errorbar(epsilon, 100 * mean, spread, fmt="o-", capsize=3, label="private: mean, least and most")
    for level in noisy:
        at = (level["epsilon"], 100 * level["accuracy"])
        axes.annotate(f"{level['noise_multiplier']:g}", at, (7, -14), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("ε (smaller is more private)")
    axes.set_title("test accuracy (%)")
    axes.legend(loc="lower right")
    return figure
