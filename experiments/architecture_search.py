"""How many layers, and how wide? Cross-validation chooses, all folds at once.

Networks of a grid of depths and widths learn scikit-learn's digits. Of every architecture `lr_nn.train_many` trains all
folds and seeds at once: they share the rows, and a fold is a weight of zeros on those that it leaves out. The fewest
parameters within one standard error of the lowest held-out error are chosen, and trained on all training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np
    import optax

    from experiments.data import Dataset
    from lr_nn.network import Network


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of architecture_search."""

    depths: tuple[int, ...] = (1, 2, 3)
    """Numbers of hidden layers."""
    widths: tuple[int, ...] = (4, 16, 32, 64)
    """Widths of all hidden layers."""
    folds: int = 5
    """Parts of the training rows, each of which is left out once."""
    seeds: int = 2
    """Networks that are trained of each fold, from different initial parameters."""
    epochs: int = 30
    """Epochs of Adam in mini-batches of 64 rows."""


def main(options: Options, run: runner.Run) -> None:
    """Score every architecture on its folds, choose, train again on all rows, and tell."""
    positive = (*options.depths, *options.widths, options.seeds, options.epochs)
    if not options.depths or not options.widths or min(positive) < 1 or not 2 <= options.folds <= 100:
        raise runner.UserError(
            "--depths, --widths, --seeds and --epochs must be at least 1, and --folds between 2 and 100"
        )

    import numpy as np
    import optax

    import lr_nn
    from experiments import data

    source, optimizer = data.digits(options.seed), optax.adam(5e-3)
    x, y = source.train
    rows = np.random.default_rng(options.seed).permutation(len(x)) % options.folds
    outside = np.repeat(rows[None] != np.arange(options.folds)[:, None], options.seeds, axis=0)
    nets, found = [], []
    for depth in options.depths:
        for width in options.widths:
            net = lr_nn.mlp((x.shape[1], *[width] * depth, 10), lr_nn.activations.tanh, lr_nn.losses.categorical)
            wrong = errors(net, source, outside, optimizer, options, x, y)
            lanes = (wrong * ~outside).sum(axis=1) / (~outside).sum(axis=1)
            scores = lanes.reshape(options.folds, options.seeds).mean(axis=1)
            numbers = {"parameters": lr_nn.n_parameters(net), "error": scores.mean()}
            numbers["standard_error"] = scores.std(ddof=1) / options.folds**0.5
            nets.append(net)
            found.append({"depth": depth, "width": width, **numbers})
            run.record(kind="architecture", **found[-1])
    best = min(found, key=lambda one: one["error"])
    bar = best["error"] + best["standard_error"]
    by_size = sorted(range(len(found)), key=lambda i: found[i]["parameters"])
    picked = {
        "smallest": by_size[0],
        "chosen": next(i for i in by_size if found[i]["error"] <= bar),
        "largest": by_size[-1],
    }
    finals = {}
    for name, i in picked.items():
        tested = errors(nets[i], source, np.ones_like(outside), optimizer, options, *source.test).mean(axis=1)
        finals[name] = {**found[i], "test_errors": tested}
        run.record(kind="final", name=name, **finals[name])
    tell(run, found, finals, best, bar)


def errors(
    net: Network,
    source: Dataset,
    weight: np.ndarray,
    optimizer: optax.GradientTransformation,
    options: Options,
    x: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Which rows of (x, y) the networks get wrong, (lanes, n), each trained on its weights of the training rows."""
    import jax
    import numpy as np

    import lr_nn

    # For every shape one program draws numbers, and those of the default generator take longest of all to compile.
    start, order = jax.random.split(jax.random.key(options.seed, impl="rbg"))
    params = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(start, len(weight)))
    trained = lr_nn.train_many(
        net,
        params,
        lr_nn.Batch(*source.train, weight.astype(np.float32)),
        optimizer=optimizer,
        epochs=options.epochs,
        batch_size=64,
        key=order,
    )
    predict = jax.jit(jax.vmap(lr_nn.predict, (None, 0, None)))
    return np.asarray(predict(net, trained.params, x)).argmax(axis=2) != y[None]


def tell(
    run: runner.Run, found: list[dict[str, Any]], finals: dict[str, dict[str, Any]], best: dict[str, Any], bar: float
) -> None:
    """The finding, the table and the figures."""
    import numpy as np

    from experiments import fit_figures

    chosen, largest, smallest = (finals[name] for name in ("chosen", "largest", "smallest"))
    tests = {name: f"{100 * final['test_errors'].mean():.1f} %" for name, final in finals.items()}
    narrow = max(found, key=lambda one: (-one["width"], one["depth"]))
    wide = max(found, key=lambda one: (one["width"], -one["depth"]))
    finding = (
        f"Of {len(found)} architectures, layers × width, {said(best)} has the lowest held-out error, {percent(best)}, "
        f"and the smallest within one standard error of it is {said(chosen)}, {percent(chosen)}. "
        f"Trained on all rows it errs on {tests['chosen']} of the test rows with {chosen['parameters']:,} parameters, "
        f"the largest, {said(largest)}, on {tests['largest']} with {largest['parameters']:,}, the smallest, "
        f"{said(smallest)}, on {tests['smallest']} with {smallest['parameters']:,}. "
        f"The held-out error of {said(narrow)}, deep and narrow, is {percent(narrow)}, that of {said(wide)}, wide and "
        f"shallow, {percent(wide)}."
    )
    of_size = {final["parameters"]: tests[name] for name, final in finals.items()}
    rows = [(said(one), f"{one['parameters']:,}", percent(one), of_size.get(one["parameters"], "")) for one in found]
    table = Table("Networks on the digits", ("network", "parameters", "held-out\nerror", "test\nerror"), rows)
    groups = {}
    for depth in sorted({one["depth"] for one in found}):
        own = [
            [one["parameters"], 100 * one["error"], 100 * one["standard_error"]]
            for one in found
            if one["depth"] == depth
        ]
        groups[f"{depth} hidden"] = np.array(own).T
    pictures = (
        run.figure(
            "held_out",
            fit_figures.choices(groups, 100 * bar, chosen["parameters"], "parameters"),
            alt=f"Held-out error against parameters, a line for each depth: falling, and level from {said(chosen)} on.",
            caption="Errors and standard errors over the folds. The line is the lowest error and one standard error; "
            "the ring, the smallest network below it.",
        ),
        run.figure(
            "test",
            fit_figures.strips(
                {f"{name}\n{said(final)}": 100 * final["test_errors"] for name, final in finals.items()},
                "test error (%)",
            ),
            alt="Test errors of " + ", ".join(f"{said(final)}: {tests[name]}" for name, final in finals.items()) + ".",
            caption="Trained on all training rows; a point is a network with its own start, a line their mean.",
        ),
    )
    run.conclude("How many layers, and how wide?", finding, [Section("The choice", tables=(table,), figures=pictures)])


def said(one: dict[str, Any]) -> str:
    """An architecture in words."""
    return f"{one['depth']} × {one['width']}"


def percent(one: dict[str, Any]) -> str:
    """A held-out error with its standard error."""
    return f"{100 * one['error']:.1f} ± {100 * one['standard_error']:.1f} %"
