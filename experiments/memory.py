"""What does training keep in memory, and what does it cost to keep less?

The bytes of a training step are predicted by formula and read off the compiled program, for five optimisers at a small
and at a large batch. Then activations are made fewer: by `jax.checkpoint`, which computes them again on the way back,
and by taking the rows in blocks, forward and backward together.

Chen, Xu, Zhang & Guestrin, Training Deep Nets with Sublinear Memory Cost (2016): about √L segments of √L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments import runner
from experiments.report import Section, Table


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of memory."""

    batch_sizes: tuple[int, int] = (32, 2048)
    """A small and a large batch for the training steps."""
    segments: int = 4
    """Segments, of as many layers each, of the deep network whose activations are computed again."""
    rows: int = 4096
    """Rows of its batch."""
    rounds: int = 9
    """How often each way is timed, in turn with the others."""


def main(options: Options, run: runner.Run) -> None:
    """Predict and read off what a step of each optimiser keeps, then compare the ways of keeping less, and tell."""
    small, large = options.batch_sizes
    if not 1 <= small < large:
        raise runner.UserError(f"--batch-sizes must be a small and a larger one; got {options.batch_sizes}")
    if options.segments < 2 or options.rows < 32 or options.rounds < 2:
        raise runner.UserError("--segments and --rounds must be at least 2, --rows at least 32")

    from experiments import memory_programs as programs

    steps = [programs.step_bytes(name, n) for n in options.batch_sizes for name in programs.OPTIMIZERS]
    for row in steps:
        row["sum"] = sum(row["predicted"].values())
        run.record(kind="step", **row)
    ways, times = programs.ways_to_a_gradient(options.segments, options.rows, options.rounds, options.seed)
    for row, time in zip(ways, times):
        run.record(kind="way", **row)
        run.record(kind="timing", way=row["way"], **time)
    tell(options, run, steps, [{**row, **time} for row, time in zip(ways, times)])


def tell(options: Options, run: runner.Run, steps: list[dict[str, Any]], ways: list[dict[str, Any]]) -> None:
    """The finding, the tables and the figures."""
    from experiments import cost_figures

    small, large = options.batch_sizes
    at = {n: {row["optimizer"]: row for row in steps if row["rows"] == n} for n in (small, large)}
    kept = ", ".join(f"{mega(row['compiled'])} MB with {name}" for name, row in at[small].items())
    off = {n: max(abs(row["compiled"] / row["sum"] - 1) for row in rows.values()) for n, rows in at.items()}
    state, share = (
        at[n]["Adam"]["predicted"][part] / at[n]["Adam"]["sum"]
        for n, part in ((small, "optimiser's state"), (large, "activations and a δ"))
    )
    less_than_said = all(row["compiled"] <= row["sum"] for row in at[small].values())
    below = ", less: a gradient need not be whole at any time" if less_than_said else ""
    keep, in_a_row, in_a_loop, blocks = ways
    merged = ", for the compiler merges both computations" if in_a_row["flops"] < 1.01 * keep["flops"] else ""

    def less(row: dict[str, Any]) -> str:
        return f"{row['compiled'] / keep['compiled']:.2f} of the memory in {row['relative_time']:.2f} of the time"

    finding = (
        f"At {small} rows a training step keeps {kept}; of what it keeps with Adam the optimiser's state is "
        f"{state:.0%} there, and activations are {share:.0%} at {large:,} rows, where the program is within "
        f"{off[large]:.1%} of the formula's sum (at {small} rows {off[small]:.0%}{below}). "
        f"Computing activations again in a loop over segments (jax.checkpoint) takes {less(in_a_loop)}; of layers "
        f"written out in a row it takes {less(in_a_row)}{merged}. "
        f"Rows in {blocks['way']}, forward and backward together, take {less(blocks)}."
    )
    step_table = Table(
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
    way_table = Table(
        f"One gradient, {1 + options.segments**2} hidden layers, {options.rows:,} rows",
        ("way", "megabytes\npredicted", "megabytes\nmeasured", "time", "quartiles"),
        [
            (
                row["way"],
                *map(mega, (row["predicted"], row["compiled"])),
                f"{row['relative_time']:.2f}",
                f"{row['low']:.2f} to {row['high']:.2f}",
            )
            for row in ways
        ],
        ("Memory between arguments and result. A loop keeps copies of what it carries.",),
    )
    step_picture = run.figure(
        "step",
        cost_figures.stacks({f"{n:,} rows": list(rows.values()) for n, rows in at.items()}, list(at[small])),
        alt=f"Stacked bars of what a training step keeps, for five optimisers at two batch sizes: {kept}, at {small} "
        f"rows; activations are {share:.0%} of what Adam keeps at {large:,}.",
        caption="What a training step keeps by formula (bars) and in the compiled program (diamonds).",
        wide=True,
    )
    way_picture = run.figure(
        "ways",
        cost_figures.trade(ways, "relative to keeping all"),
        alt="Memory and time of four ways to one gradient: "
        + "; ".join(f"{row['way']}, {mega(row['compiled'])} MB, time {row['relative_time']:.2f}" for row in ways),
        caption="One gradient in four ways: the memory it takes, and its time as a median with quartiles.",
        wide=True,
    )
    sections = [
        Section("What a step keeps", tables=(step_table,), figures=(step_picture,)),
        Section("Keeping less", tables=(way_table,), figures=(way_picture,)),
    ]
    run.conclude("What training keeps in memory", finding, sections)


def mega(size: float) -> str:
    """Bytes in megabytes."""
    return f"{size / 1e6:.2f}"
