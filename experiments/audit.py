"""Is this gradient right? The referee at work, on one right and five wrong.

Five mistakes are planted in the backward pass of a sigmoid network, each by one change to its activations, errors or
result. `lr_nn.audit` sees a value and a gradient and nothing else. Where the gradient is right, the Taylor remainder
of first order falls as h² with the step h; where it is wrong, as h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    from lr_nn.network import Network
    from lr_nn.referee import Report
    from lr_nn.types import Backprop, Batch, Params

RIGHT = "right"


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of audit."""

    rows: int = 100
    """Examples."""
    width: int = 12
    """Neurons of each of the two hidden layers."""


def main(options: Options, run: runner.Run) -> None:
    """Audit the right gradient and the wrong ones, and tell what was found."""
    if options.rows < 2 or options.width < 1:
        raise runner.UserError(f"--rows must be at least 2 and --width 1; got {options.rows} and {options.width}")

    import lr_nn

    net, params, batch = problem(options)
    found = []
    with run.progress() as progress:
        for name, (leaf, gradient) in progress.track(list(gradients(net).items()), description="audits"):
            report = lr_nn.audit(lambda params, batch: lr_nn.cost(net, params, batch), gradient, params, batch)
            found.append(numbers(name, leaf, report))
            run.record(kind="audit", **{key: value for key, value in found[-1].items() if key != "remainders"})
    tell(run, found)


def problem(options: Options) -> tuple[Network, Params, Batch]:
    """A network of two hidden layers for three classes, away from its initial point, and random rows."""
    import jax
    import numpy as np

    import lr_nn
    from lr_nn import activations, losses

    net = lr_nn.mlp((8, options.width, options.width, 3), activations.sigmoid, losses.categorical)
    rng = np.random.default_rng(options.seed)
    start = lr_nn.init(net, jax.random.key(options.seed))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape).astype(leaf.dtype), start)
    x, y = rng.normal(size=(options.rows, 8)), rng.integers(0, 3, options.rows)
    return net, params, lr_nn.Batch(x.astype(np.float32), y)


def gradients(net: Network) -> dict[str, tuple[str, Callable[[Params, Batch], Params]]]:
    """By what is wrong with it: the layer in which it is wrong, and the gradient."""
    import jax
    import jax.numpy as jnp

    import lr_nn

    def of(change: Callable[[Backprop, Params], Params]) -> Callable[[Params, Batch], Params]:
        return lambda params, batch: change(lr_nn.backprop(net, params, batch), params)

    def first_errors(bp: Backprop, delta: jax.Array) -> Params:
        return lr_nn.gradient(replace(bp, deltas=(delta, *bp.deltas[1:])))

    def without_slope(bp: Backprop, params: Params) -> Params:
        return first_errors(bp, bp.deltas[1] @ params[1].w.T)

    def saturation_left_out(bp: Backprop, params: Params) -> Params:
        saturated = (bp.activations[1] == 0) | (bp.activations[1] == 1)
        return first_errors(bp, jnp.where(saturated, bp.deltas[1] @ params[1].w.T, bp.deltas[0]))

    def in_half_precision(bp: Backprop, params: Params) -> Params:
        return first_errors(bp, bp.deltas[0].astype(jnp.float16).astype(bp.eta.dtype))

    def last_example_left_out(bp: Backprop, params: Params) -> Params:
        return lr_nn.gradient(replace(bp, weight=jnp.ones_like(bp.eta[:, 0]).at[-1].set(0)))

    def last_bias_scaled(bp: Backprop, params: Params) -> Params:
        *below, last = lr_nn.gradient(bp)
        assert last.b is not None
        return (*below, last._replace(b=1.01 * last.b))

    return {
        RIGHT: ("", of(lambda bp, params: lr_nn.gradient(bp))),
        "σ' left out of layer 1": ("params[0]", of(without_slope)),
        "last example left out": ("params", of(last_example_left_out)),
        "last bias 1 % too large": ("params[2].b", of(last_bias_scaled)),
        "δ of layer 1 in float16": ("params[0]", of(in_half_precision)),
        "σ' left out at 0 and 1": ("params[0]", of(saturation_left_out)),
    }


def numbers(name: str, leaf: str, report: Report) -> dict[str, Any]:
    """What a report says of its worst leaf, with the Taylor remainder there at the given point."""
    worst = report.worst
    finding = worst.worst
    given = next(each.findings[0] for each in report.leaves if each.name == worst.name and each.findings[0].evidence)
    assert given.evidence is not None
    taylor = given.evidence.by_hand
    return {
        "gradient": name,
        "ok": report.ok,
        "leaf": worst.name,
        "named": worst.name.startswith(leaf),
        "point": finding.point,
        "dtype": worst.dtype,
        "ratio": finding.bound_ratio,
        "given_ratio": max(each.findings[0].bound_ratio for each in report.leaves),
        "slope": taylor.slopes[1],
        "remainders": (taylor.steps, taylor.remainders[1]),
    }


def tell(run: runner.Run, found: list[dict[str, Any]]) -> None:
    """The finding, the table and the figure."""
    import numpy as np

    from experiments import figures

    right, *wrong = found
    hidden = [row for row in wrong if row["given_ratio"] <= 1]
    shown = [row["slope"] for row in wrong if row not in hidden]
    range_of = f", with remainders that fall as h^{min(shown):.2f} to h^{max(shown):.2f}" if shown else ""
    unseen = ", ".join(f"{row['gradient']}, whose worst error is at {row['point']}" for row in hidden)
    finding = (
        f"The right gradient {'passes' if right['ok'] else 'fails'}, its largest error {right['ratio']:.2f} of the "
        f"rounding bound, with a Taylor remainder that falls as h^{right['slope']:.2f}. "
        f"Of {len(wrong)} wrong ones {sum(not row['ok'] for row in wrong)} are found, and the leaf that is wrong is "
        f"named for {sum(row['named'] for row in wrong)}. "
        f"At the given point {len(shown)} of them show{range_of}"
        + (f", and {len(hidden)} cannot be seen: {unseen}." if hidden else ".")
    )
    columns = ("gradient", "verdict", "worst leaf", "where", "error over\nits bound", "remainder\nfalls as")
    rows = [
        (
            row["gradient"],
            "right" if row["ok"] else "wrong",
            row["leaf"],
            row["point"].removeprefix("parameters "),
            f"{row['ratio']:.2g}",
            f"h^{row['slope']:.2f}",
        )
        for row in found
    ]
    table = Table("Six gradients before the referee", columns, rows)
    curves = [(row["gradient"], h, np.where(r > 0, r, np.nan)) for row in found for h, r in [row["remainders"]]]
    picture = run.figure(
        "slopes",
        figures.falls(curves, "step h", "remainder |J(h) - J(0) - h s|, at the worst leaf"),
        alt=f"Taylor remainders of six gradients against the step, on logarithmic axes; {finding}",
        caption="A right slope s leaves h², a wrong one h, until the rounding of J is reached.",
    )
    run.conclude("The audit of a gradient", finding, [Section("One network", tables=(table,), figures=(picture,))])
