"""What does a gradient cost, and when is forward accumulation the cheaper way?

Forward accumulation (`jax.jvp`) gives one column of the Jacobian a sweep, reverse accumulation (`jax.vjp`, and the
backpropagation of this package) one row. Both are timed against one evaluation of the function, and their operations
counted on its graph: first for the cost of a network with ever more parameters, then for ever more outputs.

Griewank & Walther, Evaluating Derivatives (2008), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import jax

ROWS, HIDDEN = 2048, 2048  # so that an evaluation takes longer than calling it
FORWARD, REVERSE, HAND = "forward", "reverse", "reverse, by hand"


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of reverse_vs_forward."""

    widths: tuple[int, ...] = (1, 4, 16, 64)
    """Hidden widths of the network with one output, growing: 10 parameters a neuron, and one."""
    inputs: int = 16
    """Inputs of the network with many outputs."""
    outputs: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Its outputs, growing."""
    rounds: int = 15
    """How often each is timed, in turn with the others."""


def forward(function: Callable[[Any], Any], x: jax.Array) -> jax.Array:
    """The Jacobian of `function` at x (p,), column by column: p sweeps, each along one input."""
    import jax
    import jax.numpy as jnp

    return jax.lax.map(lambda direction: jax.jvp(function, (x,), (direction,))[1], jnp.eye(len(x))).T


def reverse(function: Callable[[Any], Any], x: jax.Array) -> jax.Array:
    """The Jacobian of `function` at x (p,), row by row: as many sweeps as outputs, each back from one."""
    import jax
    import jax.numpy as jnp

    value, back = jax.vjp(function, x)
    return jax.lax.map(lambda seed: back(seed)[0], jnp.eye(value.size).reshape(-1, *value.shape))


def main(options: Options, run: runner.Run) -> None:
    """Count and time both for many parameters, then for many outputs, and tell."""
    for name, sizes in (("--widths", options.widths), ("--outputs", options.outputs)):
        if not runner.growing(sizes, above=0) or len(sizes) < 2:
            raise runner.UserError(f"{name} must be at least two positive numbers, growing; got {sizes}")
    if options.inputs < 1 or options.rounds < 2:
        raise runner.UserError("--inputs must be at least 1, and --rounds at least 2 for a spread")
    deep = [of_one_output(options, width, run) for width in options.widths]
    wide = [of_many_outputs(options, k, run) for k in options.outputs]
    tell(run, options, deep, wide)


def of_one_output(options: Options, width: int, run: runner.Run) -> dict[str, Any]:
    """J(θ) of a network 8 - width - 1: as many inputs as parameters, one output."""
    import jax
    from jax.flatten_util import ravel_pytree

    import lr_nn

    net = lr_nn.mlp((8, width, 1))
    params = lr_nn.init(net, jax.random.key(options.seed))
    x = jax.random.normal(jax.random.key(options.seed + 1), (ROWS, 8))
    batch = lr_nn.Batch(x, (x.sum(axis=1) > 0).astype(x.dtype))
    theta, shaped = ravel_pytree(params)

    def cost(theta: jax.Array) -> jax.Array:
        return lr_nn.cost(net, shaped(theta), batch)

    def by_hand(theta: jax.Array) -> jax.Array:
        return ravel_pytree(lr_nn.value_and_gradient(net, shaped(theta), batch)[1])[0]

    methods: dict[str, Callable[[Any], Any]] = {FORWARD: partial(forward, cost), REVERSE: jax.grad(cost), HAND: by_hand}
    return measured(run, "one output", cost, methods, theta, options.rounds)


def of_many_outputs(options: Options, k: int, run: runner.Run) -> dict[str, Any]:
    """η(x) of a network inputs - 2048 - k, at one example."""
    import jax

    import lr_nn

    net = lr_nn.mlp((options.inputs, HIDDEN, k), lr_nn.activations.tanh, lr_nn.losses.squared_error)
    params = lr_nn.init(net, jax.random.key(options.seed))

    def eta(x: jax.Array) -> jax.Array:
        return lr_nn.forward(net, params, x[None]).eta[0]

    x = jax.random.normal(jax.random.key(options.seed + 1), (options.inputs,))
    methods = {FORWARD: partial(forward, eta), REVERSE: partial(reverse, eta)}
    return measured(run, "many outputs", eta, methods, x, options.rounds)


def measured(
    run: runner.Run,
    part: str,
    function: Callable[[Any], Any],
    methods: Mapping[str, Callable[[Any], Any]],
    x: jax.Array,
    rounds: int,
) -> dict[str, Any]:
    """Operations and times as multiples of one evaluation of `function` at x, and how far the methods agree."""
    import jax
    import numpy as np

    from benchmarks.harness import interleave, relative
    from experiments.compare import finished
    from lr_nn import graph

    counts = graph.trace(function, x).savings()
    found = {
        "part": part,
        "inputs": counts.inputs,
        "outputs": counts.outputs,
        "counted": {FORWARD: counts.forward_mode / counts.value, REVERSE: counts.reverse_mode / counts.value},
    }
    programs = {name: jax.jit(method).lower(x).compile() for name, method in {"value": function, **methods}.items()}
    jacobians = [np.ravel(programs[name](x)) for name in methods]
    spread = float(max(np.abs(j - jacobians[0]).max() for j in jacobians) / np.abs(jacobians[0]).max())
    run.record(kind="count", **found, disagreement=spread)
    seconds = interleave({name: partial(finished, program, x) for name, program in programs.items()}, rounds)
    found["measured"] = {name: relative(seconds[name], seconds["value"]) for name in methods}
    found["reverse_over_forward"] = relative(seconds[REVERSE], seconds[FORWARD])["relative_time"]
    run.record(kind="timing", **{key: value for key, value in found.items() if key != "counted"})
    return found


def crossing(wide: Sequence[dict[str, Any]]) -> float | None:
    """The number of outputs at which both take as long, between two that were measured; None if there is none."""
    import numpy as np

    at = np.log([row["outputs"] for row in wide])
    ratio = np.log([row["reverse_over_forward"] for row in wide])
    for i in range(len(at) - 1):
        if ratio[i] < 0 <= ratio[i + 1]:
            return float(np.exp(at[i] - ratio[i] * (at[i + 1] - at[i]) / (ratio[i + 1] - ratio[i])))
    return None


def tell(run: runner.Run, options: Options, deep: Sequence[dict[str, Any]], wide: Sequence[dict[str, Any]]) -> None:
    """The finding, the table and the figure."""
    import numpy as np

    from experiments import cost_figures

    def times(row: dict[str, Any], name: str) -> float:
        return row["measured"][name]["relative_time"]

    def ahead(row: dict[str, Any]) -> float:
        return times(row, FORWARD) / times(row, HAND)

    first, last, most = deep[0], deep[-1], wide[-1]
    at = crossing(wide)
    crossed = (
        f"they cross at about {at:.0f} outputs, where the count says {options.inputs}"
        if at
        else f"they do not cross from {wide[0]['outputs']} to {most['outputs']} outputs"
    )
    ratio = most["reverse_over_forward"]
    not_by_direction = "; with enough outputs it is the slower way" if ratio > 1 else ""
    finding = (
        f"The gradient of one cost by {last['inputs']:,} parameters takes {times(last, FORWARD):,.0f} evaluations of "
        f"the cost forward ({last['counted'][FORWARD]:,.0f} by count), {times(last, REVERSE):.1f} in reverse and "
        f"{times(last, HAND):.1f} by the backward pass written by hand; by {first['inputs']} parameters "
        f"{times(first, FORWARD):.1f}, {times(first, REVERSE):.1f} and {times(first, HAND):.1f}. "
        f"With {options.inputs} inputs and ever more outputs {crossed}, and at {most['outputs']} outputs "
        f"{'forward' if ratio > 1 else 'reverse'} accumulation is {max(ratio, 1 / ratio):.1f} times as fast as the "
        f"other. Reverse takes a sweep for each output and forward one for each input: the one output of a cost makes "
        f"backpropagation {ahead(first):,.1f} times as fast as forward accumulation by {first['inputs']} parameters, "
        f"and {ahead(last):,.0f} times by {last['inputs']:,}{not_by_direction}."
    )
    run.record(kind="timing", crossing=at)
    table = Table(
        "The Jacobian, in evaluations of the function",
        (
            "inputs × outputs",
            "forward\ncounted",
            "forward\nmeasured",
            "reverse\ncounted",
            "reverse\nmeasured",
            "by hand",
        ),
        [
            (
                f"{row['inputs']:,} × {row['outputs']:,}",
                *(f"{value:,.1f}" for name in (FORWARD, REVERSE) for value in (row["counted"][name], times(row, name))),
                f"{times(row, HAND):.1f}" if HAND in row["measured"] else "",
            )
            for row in (*deep, *wide)
        ],
        (
            f"Medians of {options.rounds} rounds, each against an evaluation of its own round.",
            "The count prices every operation alike; sweeps share the exponentials of one evaluation.",
        ),
    )

    def bands(rows: Sequence[dict[str, Any]], along: str) -> list[cost_figures.Band]:
        measured = [
            cost_figures.Band.of(name, [{along: row[along], **row["measured"][name]} for row in rows], along, colour)
            for colour, name in enumerate(rows[0]["measured"])
        ]
        counted = [
            cost_figures.Band(
                f"{name}, counted",
                np.array([row[along] for row in rows]),
                np.array([row["counted"][name] for row in rows]),
                colour=colour,
            )
            for colour, name in enumerate(rows[0]["counted"])
        ]
        return measured + counted

    panels = [
        cost_figures.Panel("one output", "parameters", bands(deep, "inputs")),
        cost_figures.Panel(
            f"{options.inputs} inputs", "outputs", bands(wide, "outputs"), (options.inputs, "as many\nof both")
        ),
    ]
    picture = run.figure(
        "sweeps",
        cost_figures.growth(panels, "evaluations of the function"),
        alt=f"Times of forward and reverse accumulation on logarithmic axes. {finding}",
        caption="What a full Jacobian takes, in evaluations of the function: medians and quartiles, and the operations "
        "counted on the graph, dashed. Left a network with one cost, right one with ever more outputs.",
        wide=True,
    )
    run.conclude(
        "Reverse and forward accumulation", finding, [Section("Two ways", tables=(table,), figures=(picture,))]
    )
