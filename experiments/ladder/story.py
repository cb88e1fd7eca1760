"""The words, tables and pictures of the ladder, from the results of its rungs."""

from __future__ import annotations

from collections.abc import Sequence

import lr_nn
from experiments.ladder import Options, pictures
from experiments.ladder.climb import Result
from experiments.ladder.rungs import (
    NAMES,
    ONE_QUESTION,
    PROTOCOLS,
    PUBLISHED_ACCURACIES,
    PUBLISHED_COSTS,
    RUNGS,
    WHY_NOT,
)
from experiments.report import Section, Table
from experiments.runner import Run

METHOD = (
    "The gradients are compared at random parameters (every entry drawn from N(0, 1/inputs), all training rows): at "
    "the start of training symmetry hides mistakes, and at its end what is left of a gradient is mostly rounding. "
    "The relative difference is ‖hand − jax.grad‖ / ‖jax.grad‖ in float32, the largest over the arrays of the "
    "parameters. An ulp is the distance from the largest entry of the array to the next float32; both gradients are "
    "measured against jax.grad in float64 from the same float32 inputs.",
    "A step is the cost and its gradient, on all training rows; both ways are compiled and warm and take turns. The "
    "ratio is the median over pairs, below 1 where the hand-written gradient is faster.",
)


def tell(options: Options, run: Run, results: Sequence[Result]) -> None:
    """The tables, the pictures and the finding."""
    learnt, gradients = _learnt(options, results), _gradients(results)
    published = _published(options, results)
    overview = Section("All rungs", tables=(learnt, *published), figures=pictures.depths(run, results))
    sections = [overview, *(_section(run, options.seed, result) for result in results)]
    sections.append(Section("The gradient written by hand", METHOD, tables=(gradients,)))
    run.conclude(f"The ladder on {NAMES[options.data]}", _lead(results), sections)


def _lead(results: Sequence[Result]) -> str:
    alike = [result for result in results if result.rung.number in ONE_QUESTION]
    scores = ", ".join(f"{result.rung.name} {result.score('test')}" for result in alike)
    learnt = f"{alike[0].task.question} Right answers on test rows: {scores}. " if alike else ""
    worst = max(result.difference.relative for result in results)
    held = all(result.holds for result in results)
    return (
        f"{learnt}Every network is trained with the gradient written by hand, which nowhere differs from jax.grad by "
        f"more than {worst:.1g} of its length: {'the rounding of float32' if held else 'MORE THAN ROUNDING'}."
    )


def _learnt(options: Options, results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        start, *_, end = result.curves["training"].costs
        steps = f"{result.protocol.label} × {result.training.steps:,}"
        cost = f"{start:.3f} → {end:.3f}"
        size = f"{lr_nn.n_parameters(result.net):,}"
        rows.append((result.rung.title, size, steps, cost, *(result.score(part) for part in ("training", "test"))))
    return Table(
        f"The ladder on {NAMES[options.data]}: what is learnt",
        ("rung", "parameters", "optimiser,\nrate × steps", "cost", "training", "test"),
        rows,
        tuple(_notes(options, results)),
    )


def _notes(options: Options, results: Sequence[Result]) -> list[str]:
    notes = [
        f"{result.rung.title}: RMSE {result.rmse('training'):.1f} (training), {result.rmse('test'):.1f} (test) {unit}"
        for result in results
        if (unit := result.task.source.unit)
    ]
    found = {result.rung.number for result in results}
    notes += [
        f"{result.rung.title}: {result.training.message}" for result in results if result.training.status != "completed"
    ]
    skipped = [rung.number for rung in RUNGS if rung.number in options.rungs and rung.number not in found]
    if skipped:
        notes.append(f"not climbed: {', '.join(map(str, skipped))} ({WHY_NOT[options.data]})")
    return notes


def _gradients(results: Sequence[Result]) -> Table:
    rows = [
        (
            result.rung.title,
            f"{result.difference.relative:.1e}",
            f"{result.difference.hand_ulp:.1f}",
            f"{result.difference.autodiff_ulp:.1f}",
            _duration(result.times.hand),
            _duration(result.times.autodiff),
            f"{result.times.ratio:.2f}",
        )
        for result in results
    ]
    columns = (
        "rung",
        "relative\ndifference",
        "ulp,\nhand",
        "ulp,\njax.grad",
        "step,\nhand",
        "step,\njax.grad",
        "time\nratio",
    )
    notes = tuple(f"{result.rung.title}: MORE THAN ROUNDING" for result in results if not result.holds)
    return Table("The gradient written by hand, beside jax.grad", columns, rows, notes)


def _published(options: Options, results: Sequence[Result]) -> tuple[Table, ...]:
    """The published figures of the first rung on the photographs, beside those of this run."""
    first = results[0]
    costs = first.curves["training"].costs
    if options.data != "cat" or first.rung.number != 1 or first.training.steps < PROTOCOLS["cat"][1].epochs:
        return ()
    rows = [(f"cost at step {step:,}", cost, f"{costs[step]:.6f}") for step, cost in PUBLISHED_COSTS.items()]
    for part, percent in PUBLISHED_ACCURACIES.items():
        rows.append((f"{part} accuracy", f"{percent} %", f"{100 * first.scores[part]['accuracy']:.2f} %"))
    return (Table("Rung 1 and the published figures", ("quantity", "published", "this run"), rows),)


def _section(run: Run, seed: int, result: Result) -> Section:
    net, task = result.net, result.task
    facts = {
        "question": task.question,
        "network": "–".join(map(str, net.sizes)),
        "output and loss": {
            "bernoulli": "sigmoid, cross-entropy",
            "categorical": "softmax, cross-entropy",
            "squared_error": "identity, half the squared error",
        }[net.loss.name],
        "parameters": f"{lr_nn.n_parameters(net):,}",
        "rows": f"{len(task.train.x):,} to train on, {len(task.test.x):,} for the test",
        "trained by": f"{result.protocol.label}, {result.training.steps:,} steps of "
        + (f"{result.protocol.batch_size} rows" if result.protocol.batch_size else "all rows"),
        "training": result.long_score("training"),
        "test": result.long_score("test"),
        "gradient": f"relative difference from jax.grad {result.difference.relative:.1e}; from float64 "
        f"{result.difference.hand_ulp:.1f} ulp by hand, {result.difference.autodiff_ulp:.1f} by jax.grad",
        "step": f"{_duration(result.times.hand)} by hand, {_duration(result.times.autodiff)} by jax.value_and_grad",
    }
    drawn = (pictures.cost(run, result), pictures.weights(run, result), pictures.predictions(run, seed, result))
    return Section(f"Rung {result.rung.number}: {result.rung.name}", (result.rung.lesson,), facts, figures=drawn)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"
