"""How slow is a loop over examples, and where does the bias go?

The gradient of ten logistic neurons on the same images in four formulations (`experiments.formulations`): by NumPy, by
JAX operation by operation, and compiled as a whole. Then the bias of the fitted neurons is added in the wrong places.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    from experiments.data import Part

NUMPY, EAGER, COMPILED = WAYS = ("NumPy", "JAX, op by op", "JAX, compiled")
UNROLLED = 32  # rows up to which a loop is compiled: every turn becomes a part of the program


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of vectorization."""

    batch_sizes: tuple[int, ...] = (1, 4, 32, 256)
    """Rows of the batches, growing."""
    rounds: int = 11
    """How often each formulation is timed, in turn with the others."""


def main(options: Options, run: runner.Run) -> None:
    """Fit the neurons, time their gradient in every formulation, misplace their bias, and tell."""
    sizes = options.batch_sizes
    if not runner.growing(sizes, above=0) or sizes[0] > UNROLLED or sizes[-1] > 1437:
        raise runner.UserError(f"--batch-sizes must grow, from {UNROLLED} rows at most to the 1437 images; got {sizes}")
    if options.rounds < 2:
        raise runner.UserError(f"--rounds must be at least 2, for a spread; got {options.rounds}")

    import jax
    import numpy as np
    import optax

    import lr_nn
    from experiments import data

    source = data.digits(options.seed)
    k = len(source.classes)
    net = lr_nn.logistic_regression(source.train.x.shape[1], k)
    train = lr_nn.Batch(source.train.x, np.eye(k, dtype=np.float32)[source.train.y])
    start = lr_nn.init(net, jax.random.key(options.seed))
    trained = lr_nn.train(net, start, train, optimizer=optax.sgd(0.3, momentum=0.9), epochs=300)
    w, b = map(np.asarray, trained.params[0])
    speeds = [row for n in sizes for row in race(run, net, (w, b, train.x[:n], train.y[:n]), options.rounds)]
    tell(options, run, speeds, misplaced(run, source.test, w, b))


def race(run: runner.Run, net: Any, arrays: tuple[Any, ...], rounds: int) -> list[dict[str, Any]]:
    """Every formulation on one batch: how far from `lr_nn`, and its time as a multiple of the compiled product's."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import lr_nn
    from benchmarks.harness import interleave, relative
    from experiments.compare import finished
    from experiments.formulations import FORMULATIONS

    on_device = tuple(map(jnp.asarray, arrays))
    layer, batch = lr_nn.Layer(*on_device[:2]), lr_nn.Batch(*on_device[2:])
    (by_lr_nn,) = lr_nn.value_and_gradient(net, (layer,), batch)[1]
    runs: dict[str, Callable[[], Any]] = {}
    compiling: dict[str, float] = {}
    operations: dict[str, int] = {}
    for name, function in FORMULATIONS.items():
        operations[name] = len(jax.make_jaxpr(partial(function, jnp))(*on_device).eqns)
        if name != "vmap of one":
            runs[f"{name}: {NUMPY}"] = partial(function, np, *arrays)
        runs[f"{name}: {EAGER}"] = partial(finished, function, jnp, *on_device)
        if name != "loop" or len(batch.x) <= UNROLLED:
            began = time.perf_counter()
            program = jax.jit(partial(function, jnp)).lower(*on_device).compile()
            compiling[f"{name}: {COMPILED}"] = time.perf_counter() - began
            runs[f"{name}: {COMPILED}"] = partial(finished, program, *on_device)
    found = []
    seconds = interleave(runs, rounds)
    for case, times in seconds.items():
        name, way = case.split(": ")
        key = {"formulation": name, "way": way, "rows": len(batch.x)}
        error = max(
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(runs[case](), map(np.asarray, by_lr_nn))
        )
        run.record(kind="agreement", **key, error=error, operations=operations[name])
        found.append(key | relative(times, seconds[f"one product: {COMPILED}"]) | {"compiling": compiling.get(case)})
        run.record(kind="timing", **found[-1])
    return found


def number(multiple: float) -> str:
    """Two digits, or all that stand before the point."""
    return f"{multiple:,.0f}" if multiple >= 10 else f"{multiple:.2g}"


def misplaced(run: runner.Run, test: Part, w: Any, b: Any) -> dict[str, dict[str, Any]]:
    """What the neurons make of the test images, in batches of as many rows as neurons, the bias added in three ways."""
    import numpy as np

    from lr_nn import losses

    d, k = w.shape
    rows = len(test.x) // k * k
    x, truth = test.x[:rows].reshape(-1, k, d), test.y[:rows]
    ways = {
        "once per neuron": x @ w + b[None, None],
        "once per feature": (x[..., None] * w[None, None] + b[None, None, None]).sum(axis=2),
        "once per row": x @ w + b[None, :, None],  # an error where there are not as many rows as neurons
    }
    found = {}
    for way, z in ways.items():
        eta = z.reshape(rows, k)
        found[way] = {
            "cost": float(losses.bernoulli.value(eta, np.eye(k, dtype=np.float32)[truth]).mean()),
            "accuracy": float((eta.argmax(axis=1) == truth).mean()),
            "answers": np.bincount(eta.argmax(axis=1), minlength=k),
        }
        run.record(kind="bias", added=way, **found[way], truth=np.bincount(truth, minlength=k))
    return found


def tell(options: Options, run: runner.Run, speeds: list[dict[str, Any]], biases: dict[str, dict[str, Any]]) -> None:
    """The finding, the tables and the figures."""
    from experiments import cost_figures

    at = {(row["formulation"], row["way"], row["rows"]): row for row in speeds}
    least, most = options.batch_sizes[0], options.batch_sizes[-1]
    small = max(n for name, way, n in at if (name, way) == ("loop", COMPILED))
    unrolled, single = (at[name, COMPILED, small]["compiling"] for name in ("loop", "one product"))
    right, per_feature, per_row = biases.values()

    def factor(name: str, way: str, n: int) -> str:
        row = at[name, way, n]
        return f"{number(row['relative_time'])} ({number(row['low'])} to {number(row['high'])})"

    finding = (
        f"In times of one compiled product with the same batch, a loop over {most} examples takes "
        f"{factor('loop', NUMPY, most)} in NumPy (quartiles in brackets) and {factor('loop', EAGER, most)} in JAX "
        f"operation by operation, over {least} it takes {factor('loop', NUMPY, least)} and "
        f"{factor('loop', EAGER, least)}. "
        f"Compiled, vmap of one example takes {factor('vmap of one', COMPILED, most)} and broadcasting "
        f"{factor('broadcast', COMPILED, most)}, while a loop of {small} rows becomes a program that takes "
        f"{unrolled / single:.0f} times as long to compile. "
        f"A bias added once per feature takes the accuracy from {right['accuracy']:.1%} to "
        f"{per_feature['accuracy']:.1%}; added once per row, it moves the cost from {right['cost']:.2f} to "
        f"{per_row['cost']:.2f}, and raises no error where there are as many rows as neurons."
    )
    names = list(dict.fromkeys(row["formulation"] for row in speeds))
    speed_table = Table(
        f"The gradient of ten neurons on {most} rows, in times of one compiled product",
        ("formulation", *WAYS),
        [(n, *(factor(n, way, most) if (n, way, most) in at else "" for way in WAYS)) for n in names],
    )
    bias_table = Table(
        "The fitted neurons on the test images",
        ("the bias is added", "cost", "accuracy"),
        [(way, f"{row['cost']:.2f}", f"{row['accuracy']:.1%}") for way, row in biases.items()],
    )
    panels = [
        cost_figures.Panel(
            way,
            "rows of the batch",
            [
                cost_figures.Band.of(name, rows, "rows", colour)
                for colour, name in enumerate(names)
                if (rows := [row for row in speeds if (row["formulation"], row["way"]) == (name, way)])
            ],
        )
        for way in WAYS
    ]
    speed = run.figure(
        "speed",
        cost_figures.growth(panels, "times of one compiled product"),
        alt=f"Times of four formulations against the rows of the batch, on logarithmic axes. {finding}",
        caption="One gradient in four formulations: medians and quartiles of the time. Where there are few rows, the "
        "time is that of starting an operation.",
        wide=True,
    )
    bias = run.figure(
        "bias",
        cost_figures.counts({f"bias {way}": row["answers"] for way, row in biases.items()}, "answer", "test images"),
        alt=f"Bars of the answers, digit by digit: with the bias added once per feature "
        f"{max(per_feature['answers'])} of {sum(per_feature['answers'])} test images are said to be the same digit.",
        caption="What the fitted neurons answer, the bias added in three ways.",
        wide=True,
    )
    sections = [
        Section("One gradient, four formulations", tables=(speed_table,), figures=(speed,)),
        Section("Where the bias goes", tables=(bias_table,), figures=(bias,)),
    ]
    run.conclude("Vectorisation", finding, sections)
