"""lr-nn fit: a regression at its optimum, its table of coefficients, the model and a report."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import lr_nn
from lr_nn import check, inference
from lr_nn.cli import leaving
from lr_nn.cli.again import words
from lr_nn.cli.judging import judge
from lr_nn.cli.options import Fit
from lr_nn.cli.report import Table, coefficients
from lr_nn.cli.sources import Source, Watched, held_in_memory, source
from lr_nn.cli.terminal import Terminal
from lr_nn.cli.world import joined
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.sharded import RowParallel
from lr_nn.types import Batch, Solution, Status

# Coefficients named in a message, and the share of the largest that they move by at least.
NAMED, TOLD = 6, 1e-6
# Up to so many parameters, and so many products of numbers.
FEW, CHEAP = 100, 2e9


def run(options: Fit, terminal: Terminal) -> int:
    """Fit, tell, and leave the model; the exit code."""
    with joined(options, terminal) as (own, parallel):
        return _run(own, terminal, parallel)


def _run(options: Fit, terminal: Terminal, parallel: RowParallel | None) -> int:
    leaving.admit(options)
    check.positive_integer("--max-steps", options.max_steps)
    if not 0 < options.tol < 1:
        raise ValueError(f"--tol must be between 0 and 1; got {options.tol:g}")
    learned = source(options, options.model)
    for note in learned.notes:
        terminal.warn(f"note: {note}")
    net = learned.network()
    began = time.perf_counter()
    solution, batch = _fitted(options, terminal, net, learned, parallel)
    seconds = time.perf_counter() - began
    found = _summary(solution, net, batch, learned)
    with np.errstate(all="ignore"):  # what has no value, as of targets that are all the same, is NaN
        table = coefficients(solution, found, learned)
        terminal.say(str(found) if found is not None else table.text())
    told = message(solution, learned, batch)
    terminal.say(f"{solution.status}: {told}")
    facts = {
        "model": learned.model,
        "rows": len(learned.rows),
        "features": len(learned.rows.features),
        "status": str(solution.status),
        "message": told,
        "steps": solution.steps,
        "cost": solution.cost,
        "certificate": solution.certificate,
        "penalty": {"l1": options.l1, "l2": options.l2},
        "devices": 1 if parallel is None else parallel.mesh.size,
        "seconds": seconds,
    }
    terminal.record(coefficients=_record(table))
    if not np.isfinite(solution.coefficients).all():
        raise ValueError(f"the fit found no finite coefficients, and no model is written: {told}")
    if terminal.speaks:
        held = learned.rows if learned.held_out is None else learned.held_out
        scores = judge(net, solution.params, held)
        leaving.leave(options, terminal, net, solution.params, learned, facts, scores, [table], words("fit", options))
    return 0 if solution.status is Status.converged else 1


def message(solution: Solution, learned: Source, batch: Batch | None) -> str:
    """What was found; a likelihood without a maximum in the names of the coefficients that grow."""
    if solution.status is Status.converged:
        missing = f"what is missing of the least cost is below {solution.certificate:.1e}"
        how = solution.message if batch is None else f"{solution.solver}, steps: {solution.steps}"
        return f"{how}; {missing}"
    if solution.direction is None:
        return solution.message
    (layer,) = solution.direction
    size, features, outputs = np.abs(layer.w), learned.rows.features, learned.outputs
    places = [divmod(int(at), len(outputs)) for at in np.argsort(-size, axis=None) if size.flat[at] > TOLD * size.max()]
    names = [features[a] + (f" ({outputs[j]})" if len(outputs) > 1 else "") for a, j in places] or ["the bias"]
    grows = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return (
        f"the likelihood has no maximum: it grows without end with the coefficients of {grows}; a penalty keeps them "
        "finite, such as --l2 1e-4, or leave columns out by --ignore"
    )


def _fitted(
    options: Fit, terminal: Terminal, net: Network, learned: Source, parallel: RowParallel | None
) -> tuple[Solution, Batch | None]:
    """The solution, and the rows where they are in memory and there is somebody to tell of them."""
    chosen: dict[str, Any] = {
        "penalty": Penalty(options.l1, options.l2),
        "tol": options.tol,
        "max_steps": options.max_steps,
    }
    found = None if parallel is None else parallel.fit(net, learned.rows, **chosen)
    with terminal.bar("reading") as show:
        rows = Watched(learned.rows, show)
        batch = held_in_memory(rows, options.memory) if terminal.speaks else None
        if found is not None:
            return found, batch
        if batch is None:
            return lr_nn.fit(net, rows, memory=options.memory * 2**20, **chosen), None
    chosen["solver"] = solver_for(net, len(batch.x), options.l1)
    return lr_nn.fit(net, batch, **chosen), batch


def solver_for(net: Network, n: int, l1: float) -> str:
    """Every command compiles anew, and Newton's method in a fifth of the time of L-BFGS: it may take some more steps of
    its own than `fit` would let it.
    """
    p = lr_nn.network.n_parameters(net)
    suits = net.loss.concordance > 0 and l1 == 0 and p <= FEW and n * p**2 * net.sizes[-1] <= CHEAP
    return "newton" if suits else "auto"


def _summary(solution: Solution, net: Network, batch: Batch | None, learned: Source) -> inference.Summary | None:
    """Standard errors, where there are rows in memory, an optimum, and no L1 penalty."""
    if batch is None or solution.status is not Status.converged or float(solution.penalty.l1) > 0:
        return None
    return inference.summary(net, solution, batch, names=learned.rows.features, outputs=learned.outputs)


def _record(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row)) for row in table.values]
