"""Which solver, on an ill-conditioned problem? Cost against passes and time.

Logistic regression on columns of very different scale and correlation: gradient descent, momentum, SGD and Adam of
optax run a fixed number of passes; L-BFGS and Newton of `lr_nn.fit` stop when their certificate is met.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of solvers."""

    rows: int = 4000
    """Rows of the data."""
    columns: int = 20
    """Columns of the data."""
    condition: float = 1e4
    """Condition number of their covariance."""
    passes: int = 200
    """Passes over the data that the first-order methods take."""


def main(options: Options, run: runner.Run) -> None:
    """Run every method from zero, and tell how near each came."""
    if min(options.rows, options.columns, options.passes) < 1 or options.condition < 1:
        raise runner.UserError("--rows, --columns, --passes and --condition must be at least 1")

    import jax.numpy as jnp
    import numpy as np
    import optax

    import lr_nn

    rng = np.random.default_rng(options.seed)
    turn = np.linalg.qr(rng.standard_normal((options.columns, options.columns)))[0]
    spread = np.logspace(0, -np.log10(options.condition) / 2, options.columns)
    x = 3 * rng.standard_normal((options.rows, options.columns)) @ (turn * spread) @ turn.T
    y = (rng.random(options.rows) < 1 / (1 + np.exp(-x @ rng.standard_normal(options.columns)))).astype(float)
    net, penalty = lr_nn.logistic_regression(options.columns), lr_nn.penalties.l2(1e-4)
    best = lr_nn.fit(net, lr_nn.Batch(x, y), penalty=penalty).cost
    steepest = 1 / (np.linalg.eigvalsh(x.T @ x / len(x))[-1] / 4 + 1e-4)
    methods = {
        "gradient descent": (optax.sgd(steepest), None),
        "momentum": (optax.sgd(steepest, momentum=0.9), None),
        "SGD, 64 rows": (optax.sgd(steepest / 4), 64),
        "Adam, 64 rows": (optax.adam(1e-2), 64),
    }
    data = lr_nn.Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    found = {name: descend(net, data, penalty, *method, options, best) for name, method in methods.items()}
    for name in ("lbfgs", "newton"):
        found[{"lbfgs": "L-BFGS", "newton": "Newton"}[name]] = certified(net, lr_nn.Batch(x, y), penalty, name, best)
    for name, curve in found.items():
        run.record(kind="method", name=name, **{key: np.asarray(value).tolist() for key, value in curve.items()})
    tell(options, run, found, best)


def descend(net, data, penalty, optimizer, batch_size, options: Options, best: float) -> dict[str, np.ndarray]:
    """Excess cost after each pass of `train`, and the seconds it took in all."""
    import jax
    import numpy as np

    import lr_nn

    settings = {"optimizer": optimizer, "epochs": options.passes, "penalty": penalty, "batch_size": batch_size}
    key = jax.random.key(options.seed)
    start = lr_nn.init(net, key)
    lr_nn.train(net, start, data, key=key, **settings)  # compiled before the clock starts
    began = time.perf_counter()
    trained = lr_nn.train(net, start, data, key=key, **settings)
    seconds = time.perf_counter() - began
    costs = np.asarray(trained.history["cost"], np.float64)
    passes = np.arange(1, len(costs) + 1)
    return {"passes": passes, "excess": np.maximum(costs - best, 1e-16), "seconds": seconds * passes / passes[-1]}


def certified(net, data, penalty, solver: str, best: float) -> dict[str, np.ndarray]:
    """Excess cost after each step of `fit`: a step reads the data twice, as a pass forward and back does."""
    import numpy as np

    import lr_nn

    steps = lr_nn.fit(net, data, penalty=penalty, solver=solver).steps
    excess, seconds = [], []
    for most in range(1, steps + 1):
        lr_nn.fit(net, data, penalty=penalty, solver=solver, max_steps=most)
        began = time.perf_counter()
        excess.append(max(lr_nn.fit(net, data, penalty=penalty, solver=solver, max_steps=most).cost - best, 1e-16))
        seconds.append(time.perf_counter() - began)
    return {"passes": np.arange(1, steps + 1), "excess": np.array(excess), "seconds": np.array(seconds)}


def tell(options: Options, run: runner.Run, found: dict[str, dict[str, Any]], best: float) -> None:
    """The finding, the table and the figures."""
    from experiments import figures

    first_order = [name for name in found if name not in ("L-BFGS", "Newton")]
    nearest = min(first_order, key=lambda name: found[name]["excess"][-1])
    finding = (
        f"After {options.passes} passes the best first-order method, {nearest}, is {found[nearest]['excess'][-1]:.1e} "
        f"above the optimum of {best:.4f}. L-BFGS with the curvature of the data is within "
        f"{found['L-BFGS']['excess'][-1]:.0e} after {len(found['L-BFGS']['passes'])} passes, Newton within "
        f"{found['Newton']['excess'][-1]:.0e} after {len(found['Newton']['passes'])}. "
        f"Gradient descent is {found['gradient descent']['excess'][-1]:.1e} away: its rate is set by the condition "
        f"number, {options.condition:g}."
    )
    rows = [
        (name, f"{curve['passes'][-1]}", f"{curve['excess'][-1]:.1e}", f"{1000 * curve['seconds'][-1]:,.0f}")
        for name, curve in found.items()
    ]
    table = Table("Where each method ended", ("method", "passes", "above the\noptimum", "milliseconds"), rows)
    pictures = [
        run.figure(
            key,
            figures.falls(
                [(name, curve[key], curve["excess"]) for name, curve in found.items()], label, "cost above the optimum"
            ),
            alt=f"Excess cost of {len(found)} methods against {label}. {finding}",
            caption=f"Cost above the optimum against {label}, both on logarithmic scales.",
        )
        for key, label in (("passes", "passes over the data"), ("seconds", "seconds"))
    ]
    run.conclude("Solvers", finding, [Section("One ill-conditioned problem", tables=(table,), figures=tuple(pictures))])
