"""What does training keep in memory? Activations, gradients and the optimiser's state; and what keeping less costs.

The bytes of a training step are predicted by formula and read off the compiled program: for five optimisers at a small
and at a large batch. Then the activations are made fewer: by `jax.checkpoint`, which computes them again on the way
back, and by taking the rows in blocks, forward and backward together.

Chen, Xu, Zhang & Guestrin, Training Deep Nets with Sublinear Memory Cost (2016): segments of √L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Figure, Section, Table

if TYPE_CHECKING:
    import jax

    from lr_nn import Batch, Network

FLOAT = 4  # bytes
COPIES = {"SGD": 0, "momentum": 1, "Adagrad": 1, "Adam": 2, "AdamW": 2}  # of the parameters, in the optimiser's state
KEEP, IN_A_ROW, IN_A_LOOP = "keep all", "checkpoint, layers in a row", "checkpoint, segments in a loop"


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of memory."""

    batch_sizes: tuple[int, int] = (32, 2048)
    """A small and a large batch for the training steps."""
    segments: int = 4
    """Segments of as many layers each, for the deep network whose activations are computed again."""
    rows: int = 4096
    """Rows of its batch."""
    rounds: int = 9
    """How often each way is timed, in turn with the others."""


def main(options: Options, run: runner.Run) -> None:
    """Predict and read off what a step of each optimiser keeps, then time the ways of keeping less, and tell."""
    small, large = options.batch_sizes
    if not 1 <= small < large:
        raise runner.UserError(f"--batch-sizes must be a small and a larger one; got {options.batch_sizes}")
    if options.segments < 2 or options.rows < 32 or options.rounds < 2:
        raise runner.UserError("--segments and --rounds must be at least 2, --rows at least 32")

    import optax

    optimizers = {
        "SGD": optax.sgd(1e-2),
        "momentum": optax.sgd(1e-2, momentum=0.9),
        "Adagrad": optax.adagrad(1e-2),
        "Adam": optax.adam(1e-3),
        "AdamW": optax.adamw(1e-3),
    }
    steps = [step_bytes(run, *named, n) for n in options.batch_sizes for named in optimizers.items()]
    tell(run, options, steps, ways_to_keep_less(run, options))


def data(net: Network, n: int) -> Batch:
    """n random rows with the labels 0 to 9."""
    import jax
    import jax.numpy as jnp

    from lr_nn import Batch

    return Batch(jax.random.normal(jax.random.key(n), (n, net.sizes[0])), jnp.arange(n) % net.sizes[-1])


def step_bytes(run: runner.Run, name: str, optimizer: Any, n: int) -> dict[str, Any]:
    """What one training step keeps at n rows: predicted part by part, and of the compiled program.

    A network keeps n Σ_l d_l activations for the way back, and works on one δ at a time. The new parameters and the new
    state are written over the old ones (`donate_argnums`).
    """
    import jax

    import lr_nn

    net = lr_nn.mlp((64, 256, 256, 256, 256, 10), lr_nn.activations.tanh, lr_nn.losses.categorical)
    params, batch = lr_nn.init(net, jax.random.key(0)), data(net, n)
    state = optimizer.init(params)
    step = jax.jit(lr_nn.training.step, static_argnums=(0, 1), donate_argnums=(2, 3))
    stats = step.lower(net, optimizer, params, state, batch).compile().memory_analysis()
    parameters, hidden = FLOAT * lr_nn.n_parameters(net), net.sizes[1:-1]
    predicted = {
        "parameters": parameters,
        "optimiser's state": COPIES[name] * parameters,
        "gradient": parameters,
        "batch": FLOAT * n * (net.sizes[0] + 1),
        "activations and a δ": FLOAT * n * (sum(hidden) + max(hidden)),
    }
    found = {
        "optimizer": name,
        "rows": n,
        "predicted": predicted,
        "sum": sum(predicted.values()),
        "state": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "arguments": stats.argument_size_in_bytes,
        "compiled": total_bytes(stats),
    }
    run.record(kind="step", **found)
    return found


def total_bytes(stats: Any) -> int:
    """Arguments, results that are not written over them, and what is kept in between."""
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return kept + stats.temp_size_in_bytes


def recomputed(net: Network, segments: int, looped: bool) -> Callable[..., Any]:
    """J and its gradient by autodiff, activations kept only where a segment begins, and computed again from there.

    The first layer and the last stand alone. looped: the segments are turns of one `lax.scan`, or written out.
    """
    import jax
    import jax.numpy as jnp

    from lr_nn.network import affine

    def segment(a: jax.Array, layers: Any) -> tuple[jax.Array, None]:
        for layer in layers:
            a = net.hidden[0].value(affine(layer, a))
        return a, None

    def cost(params: Any, batch: Batch) -> jax.Array:
        a, _ = segment(batch.x, params[:1])
        length = len(params[1:-1]) // segments
        groups = [params[i : i + length] for i in range(1, len(params) - 1, length)]
        if looped:
            a, _ = jax.lax.scan(jax.checkpoint(segment), a, jax.tree.map(lambda *leaves: jnp.stack(leaves), *groups))
        else:
            for group in groups:
                a, _ = jax.checkpoint(segment)(a, group)
        eta = affine(params[-1], a)
        return net.loss.value(eta, net.loss.encode(batch.y, eta)).mean()

    return jax.value_and_grad(cost)


def ways_to_keep_less(run: runner.Run, options: Options) -> list[dict[str, Any]]:
    """Bytes between arguments and results, and time, of one gradient computed in several ways."""
    import jax
    import numpy as np

    import lr_nn
    from benchmarks.harness import interleave, relative

    n, segments = options.rows, options.segments
    depth = 1 + segments**2
    net = lr_nn.mlp((64, *(64,) * depth, 10), lr_nn.activations.tanh, lr_nn.losses.categorical)
    params, batch = lr_nn.init(net, jax.random.key(options.seed)), data(net, n)

    def by_hand(block_size: int) -> Callable[..., Any]:
        return lambda params, batch: lr_nn.value_and_gradient(net, params, batch, block_size=block_size)

    # Each with the layers of n rows that it should keep: activations for the way back, and a δ.
    ways = {
        KEEP: (by_hand(n), depth + 1),
        IN_A_ROW: (recomputed(net, segments, looped=False), 2 * segments + 1),
        IN_A_LOOP: (recomputed(net, segments, looped=True), 2 * segments + 1),
        **{f"blocks of {n // parts:,} rows": (by_hand(n // parts), (depth + 1) / parts) for parts in (4, 16)},
    }
    programs = {name: jax.jit(way).lower(params, batch).compile() for name, (way, _) in ways.items()}
    gradients = {name: jax.tree.leaves(program(params, batch)[1]) for name, program in programs.items()}
    runs = {name: lambda p=program: jax.block_until_ready(p(params, batch)) for name, program in programs.items()}
    seconds = interleave(runs, options.rounds)
    found = []
    for name, program in programs.items():
        row = {
            "way": name,
            "predicted": ways[name][1] * FLOAT * n * 64,
            "compiled": program.memory_analysis().temp_size_in_bytes,
            # Of a loop XLA counts one turn: no number to compare.
            "flops": program.cost_analysis()["flops"] if name in (KEEP, IN_A_ROW) else None,
            "difference": max(
                float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(gradients[name], gradients[KEEP])
            ),
        }
        times = relative(seconds[name], seconds[KEEP])
        run.record(kind="way", **row)
        run.record(kind="timing", way=name, **times)
        found.append(row | times)
    return found


def tell(run: runner.Run, options: Options, steps: list[dict[str, Any]], ways: list[dict[str, Any]]) -> None:
    """The finding, the tables and the figures."""
    small, large = options.batch_sizes
    at = {(row["optimizer"], row["rows"]): row["compiled"] for row in steps}
    adam = next(row for row in steps if (row["optimizer"], row["rows"]) == ("Adam", large))
    off = {n: max(abs(row["compiled"] / row["sum"] - 1) for row in steps if row["rows"] == n) for n in (small, large)}
    share = adam["predicted"]["activations and a δ"] / adam["sum"]
    keep, in_a_row, in_a_loop, *_, blocks = ways

    def less(row: dict[str, Any]) -> str:
        return f"{row['compiled'] / keep['compiled']:.2f} of the memory in {row['relative_time']:.2f} of the time"

    merged = ", for the compiler merges both computations" if in_a_row["flops"] < 1.01 * keep["flops"] else ""
    finding = (
        f"At {small} rows the optimiser's state tells: a step keeps {mega(at['SGD', small])} MB with SGD, "
        f"{mega(at['momentum', small])} with momentum, {mega(at['Adagrad', small])} with Adagrad, "
        f"{mega(at['Adam', small])} with Adam and {mega(at['AdamW', small])} with AdamW; at {large:,} rows activations "
        f"are {share:.0%} of what Adam keeps, and the formula's sum is right within {off[large]:.1%} (at {small} rows "
        f"{off[small]:.0%}: a gradient need not be whole at any time). "
        f"Computing activations again in a loop over segments (jax.checkpoint) takes {less(in_a_loop)}; of layers "
        f"written out in a row it takes {less(in_a_row)}{merged}. "
        f"Rows in {blocks['way']}, forward and backward together, take {less(blocks)} and compute nothing twice."
    )
    run.record(kind="finding", text=finding)
    tables = (steps_table(steps), ways_table(ways, options))
    for table in tables:
        run.print(table)
    run.console.print(finding)
    sections = [
        Section("What a step keeps", tables=tables[:1], figures=(steps_figure(run, steps, options, finding),)),
        Section("Keeping less", tables=tables[1:], figures=(ways_figure(run, ways),)),
    ]
    run.report("What training keeps in memory", finding, sections)


def mega(size: float) -> str:
    """Bytes in megabytes."""
    return f"{size / 1e6:.2f}"


def steps_table(steps: list[dict[str, Any]]) -> Table:
    """Bytes of the training steps."""
    return Table(
        "What a training step keeps, in megabytes",
        ("optimiser, rows", "state,\npredicted", "state,\nmeasured", "sum,\npredicted", "program,\nmeasured"),
        [
            (
                f"{row['optimizer']}, {row['rows']:,}",
                *map(mega, (row["predicted"]["optimiser's state"], row["state"], row["sum"], row["compiled"])),
            )
            for row in steps
        ],
        ("Below the sum: the program uses gradients up layer by layer, as they are made.",),
    )


def ways_table(ways: list[dict[str, Any]], options: Options) -> Table:
    """Bytes and times of the ways to a gradient."""
    return Table(
        f"One gradient, {1 + options.segments**2} hidden layers, {options.rows:,} rows",
        ("way", "megabytes\npredicted", "megabytes\nmeasured", "time", "quartiles"),
        [
            (
                row["way"],
                mega(row["predicted"]),
                mega(row["compiled"]),
                f"{row['relative_time']:.2f}",
                f"{row['low']:.2f} to {row['high']:.2f}",
            )
            for row in ways
        ],
        ("Memory between arguments and result. A loop keeps copies of what it carries.",),
    )


def steps_figure(run: runner.Run, steps: list[dict[str, Any]], options: Options, finding: str) -> Figure:
    """Stacked bars of the predicted bytes, with the compiled program's."""
    import numpy as np

    from experiments import cost_figures

    parts, measured = {}, {}
    for n in options.batch_sizes:
        rows = [row for row in steps if row["rows"] == n]
        parts[f"{n:,} rows"] = {
            part: np.array([row["predicted"][part] for row in rows]) / 1e6 for part in rows[0]["predicted"]
        }
        measured[f"{n:,} rows"] = np.array([row["compiled"] for row in rows]) / 1e6
    return run.figure(
        "step",
        cost_figures.stacks(parts, list(COPIES), measured),
        alt=f"Stacked bars of what a training step keeps, for five optimisers at two batch sizes. {finding}",
        caption="What a training step keeps by formula (bars) and in the compiled program (diamonds).",
        wide=True,
    )


def ways_figure(run: runner.Run, ways: list[dict[str, Any]]) -> Figure:
    """Time against memory."""
    from experiments import cost_figures

    points = [
        cost_figures.Way(
            row["way"], row["predicted"] / 1e6, row["compiled"] / 1e6, row["relative_time"], row["low"], row["high"]
        )
        for row in ways
    ]
    return run.figure(
        "ways",
        cost_figures.trade(points, "relative to keeping all"),
        alt="Memory and time of five ways to one gradient: "
        + "; ".join(f"{point.name}, {point.measured:.1f} MB in {point.time:.2f} of the time" for point in points),
        caption="One gradient, computed in five ways: the memory it takes, and its time as a median with quartiles.",
        wide=True,
    )
