"""One example, a few, or all at a time? It depends on what is counted.

The same network learns digits by gradients of one row, of mini-batches and of all rows, each with the best of a few
learning rates. How soon the training cost is low is counted in updates, in passes over the data, and in seconds. The
gradient's noise is held against that of m of n rows drawn without replacement, √(tr Σ (n - m) / (m (n - 1))) / ‖G‖; and
test accuracies are compared where the training costs are alike, over random starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import jax
    import numpy as np
    import optax

    from lr_nn import Batch, Network
    from lr_nn.types import Params

SHUFFLES, REPEATS = 20, 10


class Descents(NamedTuple):
    """After every pass, (passes, starts): the training cost and the test accuracy; and the last parameters."""

    costs: np.ndarray
    accuracy: np.ndarray
    params: Params


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of batch_size."""

    batch_sizes: tuple[int, ...] = (1, 16, 128)
    """Rows of a mini-batch, growing; all rows at once come last of themselves."""
    target: float = 0.1
    """The training cost to be reached."""
    passes: int = 400
    """Passes over the data at most."""
    hidden: int = 32
    """Width of the hidden layer, of tanh neurons."""
    starts: int = 8
    """Random starts of every batch size; and so many learning rates are tried, from 0.02 to 5."""


def main(options: Options, run: runner.Run) -> None:
    """Train with every batch size, and tell what each costs and where it leads."""
    if not runner.growing(options.batch_sizes, above=0) or len(options.batch_sizes) > 3:
        raise runner.UserError(f"--batch-sizes must be one to three growing numbers; got {options.batch_sizes}")
    if min(options.passes, options.hidden) < 1 or options.target <= 0:
        raise runner.UserError("--passes and --hidden must be at least 1, and --target positive")
    if options.starts < 2:
        raise runner.UserError("--starts must be at least 2, for a spread and a choice of learning rates")

    import jax

    import lr_nn
    from experiments import data

    source = data.digits(options.seed)
    rows, test = (lr_nn.Batch(*part) for part in (source.train, source.test))
    n = len(rows.x)
    if options.batch_sizes[-1] >= n:
        raise runner.UserError(f"--batch-sizes must be below the {n} training rows; got {options.batch_sizes[-1]}")
    net = lr_nn.mlp((rows.x.shape[1], options.hidden, 10), lr_nn.activations.tanh, lr_nn.losses.categorical)
    sizes, found = (*options.batch_sizes, n), {}
    for m in sizes:
        rate, descents = best_descents(net, rows, test, m, options)
        seconds = seconds_per_pass(net, rows, m, rate, options)
        found[m] = summary(descents, -(-n // m), options.target) | {"rate": rate}
        run.record(kind="size", rows=m, **found[m])
        run.record(kind="timing", rows=m, seconds_per_pass=seconds)
        found[m]["seconds_per_pass"] = seconds
    begun = jax.tree.map(lambda leaf: leaf[0], starts(net, options)[0])
    noises = {at: noise(net, of, rows, sizes, options.seed) for at, of in (("start", begun), ("end", descents.params))}
    for at, of in noises.items():
        run.record(kind="noise", at=at, **of)
    tell(options, run, found, noises)


def starts(net: Network, options: Options) -> tuple[Params, jax.Array]:
    """Initial parameters with a leading axis of starts, and a key for each."""
    import jax

    import lr_nn

    first, orders = jax.random.split(jax.random.key(options.seed))
    drawn = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(first, options.starts))
    return drawn, jax.random.split(orders, options.starts)


def best_descents(net: Network, rows: Batch, test: Batch, m: int, options: Options) -> tuple[float, Descents]:
    """The learning rate that reaches the target in the fewest passes from one start, and its descents from all."""
    import jax
    import numpy as np
    import optax

    params, keys = starts(net, options)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
    rates = np.geomspace(0.02, 5, options.starts)
    same, order = jax.tree.map(lambda leaf: leaf[np.zeros(options.starts, int)], (params, keys))
    tried = descend(net, rows, test, m, optimizer, rates, same, order, options, any)
    rate = float(rates[np.nanargmin(tried.costs[-1])])
    return rate, descend(net, rows, test, m, optimizer, np.full_like(rates, rate), params, keys, options, all)


def descend(
    net: Network,
    rows: Batch,
    test: Batch,
    m: int,
    optimizer: optax.GradientTransformation,
    rates: np.ndarray,
    params: Params,
    keys: jax.Array,
    options: Options,
    enough: Callable[[np.ndarray], bool],
) -> Descents:
    """Networks side by side, each with its learning rate, until `enough` of them have reached the target."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import lr_nn

    def judge(params: Params) -> tuple[jax.Array, jax.Array]:
        return lr_nn.cost(net, params, rows), lr_nn.training.metrics(net, params, test)["accuracy"]

    judge_all, found = jax.jit(jax.vmap(judge)), []
    state = jax.vmap(optimizer.init)(params)._replace(hyperparams={"learning_rate": jnp.asarray(rates, jnp.float32)})
    for each in range(options.passes):
        orders = jax.vmap(jax.random.fold_in, (0, None))(keys, each)
        settings = {"optimizer": optimizer, "epochs": 1, "batch_size": m, "key": orders, "opt_state": state}
        trained = lr_nn.train_many(net, params, rows, **settings)
        params, state = trained.params, trained.opt_state
        found.append(np.asarray(judge_all(params), float))
        if enough(np.min([costs for costs, _ in found], axis=0) <= options.target):
            break
    costs, accuracy = np.stack(found, axis=1)
    return Descents(costs, accuracy, jax.tree.map(lambda leaf: leaf[0], params))


def seconds_per_pass(net: Network, rows: Batch, m: int, rate: float, options: Options) -> float:
    """Of a single training, compiled before: the least of some."""
    import jax
    import optax

    import lr_nn

    params, keys = jax.tree.map(lambda leaf: leaf[0], starts(net, options))
    passes = 1 + 100 * m // len(rows.x)
    settings = {"optimizer": optax.sgd(rate), "epochs": passes, "batch_size": m, "key": keys}
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        lr_nn.train(net, params, rows, **settings)
        seconds.append((time.perf_counter() - began) / passes)
    return min(seconds[1:])


def summary(descents: Descents, updates_per_pass: int, target: float) -> dict[str, Any]:
    """Passes and updates of every start to the target (∞ if it fails), and its test accuracy there."""
    import numpy as np

    there = descents.costs <= target
    at, which = there.argmax(axis=0), np.arange(there.shape[1])
    passes = np.where(there.any(axis=0), at + 1.0, np.inf)
    return {
        "updates_per_pass": updates_per_pass,
        "costs": descents.costs.T.tolist(),
        "passes": passes.tolist(),
        "median_passes": float(np.median(passes)),
        "median_updates": float(np.median(passes)) * updates_per_pass,
        "accuracy": descents.accuracy[np.where(there.any(axis=0), at, -1), which].tolist(),
    }


def noise(net: Network, params: Params, rows: Batch, sizes: Sequence[int], seed: int) -> dict[str, Any]:
    """The error of the gradient of m rows, √(mean ‖g - G‖²) / ‖G‖, over batches of some passes, and as predicted."""
    import jax
    import numpy as np

    import lr_nn

    each = lr_nn.per_example.gradients(lr_nn.backprop(net, params, rows))
    g = np.concatenate([np.asarray(leaf, float).reshape(len(rows.x), -1) for leaf in jax.tree.leaves(each)], axis=1)
    n, full, rng = len(g), g.mean(axis=0), np.random.default_rng(seed)
    length, trace = float(np.linalg.norm(full)), float(g.var(axis=0).sum())

    def error(m: int) -> float:
        orders = [rng.permutation(n)[: n // m * m] for _ in range(1 + SHUFFLES * m // n)]
        batches = np.concatenate(orders).reshape(-1, m)
        means = np.array([g[batch].mean(axis=0) for batch in batches])
        return float(np.sqrt(np.square(means - full).sum(axis=1).mean()) / length)

    return {
        "sizes": sizes,
        "errors": [error(m) for m in sizes],
        "predicted": [float(np.sqrt(trace * (n - m) / (m * (n - 1))) / length) for m in sizes],
        "noise_scale": trace / length**2,
    }


def tell(
    options: Options, run: runner.Run, found: Mapping[int, Mapping[str, Any]], noises: Mapping[str, Mapping[str, Any]]
) -> None:
    """The finding, the table and the figures."""
    import numpy as np

    from experiments import network_figures

    names = {m: f"{m:,} rows" if m > 1 else "one row" for m in found} | {max(found): "all rows"}
    counts = {
        "updates": {m: of["median_updates"] for m, of in found.items()},
        "passes": {m: of["median_passes"] for m, of in found.items()},
        "milliseconds": {m: 1e3 * of["median_passes"] * of["seconds_per_pass"] for m, of in found.items()},
        "milliseconds a pass": {m: 1e3 * of["seconds_per_pass"] for m, of in found.items()},
    }
    order = {count: sorted(values, key=values.__getitem__) for count, values in counts.items()}

    def ends(count: str) -> str:
        """Who needs least, and who most."""
        least, most = order[count][0], order[count][-1]
        low, high = (f"{counts[count][m]:,.{0 if counts[count][m] >= 100 else 1}f}" for m in (least, most))
        return f"{names[least]} ({low}; {high} with {names[most]})"

    means = {m: float(np.mean(of["accuracy"])) for m, of in found.items()}
    errors = {m: float(np.std(of["accuracy"], ddof=1) / options.starts**0.5) for m, of in found.items()}
    low, *_, high = sorted(means, key=means.__getitem__)
    apart = (means[high] - means[low]) / max(float(np.hypot(errors[high], errors[low])), 1e-9)
    one_winner = len({of[0] for of in order.values()}) == 1
    verdict = "one batch size wins by every count" if one_winner else "which is faster depends on what is counted"
    finding = (
        f"To a training cost of {options.target:g} it takes the fewest updates with {ends('updates')} and the fewest "
        f"passes over the data with {ends('passes')}. "
        f"The fewest milliseconds a pass are those of {ends('milliseconds a pass')}, and the fewest in all those of "
        f"{ends('milliseconds')}: {verdict}. "
        f"At that training cost the best test accuracy is {means[high]:.1%}, with {names[high]}, and the worst "
        f"{means[low]:.1%}, with {names[low]}, {apart:.1f} standard errors apart over {options.starts} starts."
    )
    rows = [
        (
            names[m],
            f"{of['rate']:.2g}",
            f"{of['median_updates']:,.0f}",
            f"{of['median_passes']:g}",
            f"{counts['milliseconds a pass'][m]:.2g}",
            f"{counts['milliseconds'][m]:.3g}",
            f"{means[m]:.1%} ± {errors[m]:.1%}",
        )
        for m, of in found.items()
    ]
    columns = ("gradients of", "rate", "updates", "passes", "ms\na pass", "ms", "test\naccuracy")
    notes = (
        "rate: the learning rate, of those tried, that reached the cost in the fewest passes",
        f"medians, and mean ± standard error, over {options.starts} starts",
    )
    table = Table(f"To a training cost of {options.target:g}", columns, rows, notes)
    pictures = (
        run.figure(
            "counts",
            network_figures.counts({names[m]: of for m, of in found.items()}, options.target),
            alt="The same curves of the training cost three times: against updates, passes over the data and seconds. "
            + " ".join(f"By {count} the order is {', '.join(names[m] for m in of)}." for count, of in order.items()),
            caption="The training cost after each pass, the median over the starts on a band from the least to the "
            "largest, by what is counted: updates, passes over the data, seconds on this machine.",
            wide=True,
        ),
        run.figure(
            "noise",
            network_figures.noise(noises, [np.array(of["accuracy"]) for of in found.values()], list(names.values())),
            alt="Left, the relative error of the gradient against the batch size, falling to zero for all rows. Right, "
            "test accuracies of every start: " + ", ".join(f"{names[m]} {mean:.1%}" for m, mean in means.items()) + ".",
            caption="Left, the error of the gradient as measured (dots) and predicted (lines), at the start and at the "
            "end; that of all rows is zero. Right, the test accuracy of every start where its training cost was "
            "reached, with their mean.",
            wide=True,
        ),
    )
    run.conclude("Batch sizes", finding, [Section("What is counted", tables=(table,), figures=pictures)])
