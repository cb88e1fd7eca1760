"""Lanes one after another by the solvers of `fit`."""

from __future__ import annotations

import jax
import numpy as np

from lr_nn.fitting.model import fit
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import Problem, posed, with_strengths
from lr_nn.fitting.promises import has_certificate
from lr_nn.fitting.search import solved
from lr_nn.fitting.settings import DEFAULT
from lr_nn.many.found import Found
from lr_nn.many.lanes import Lanes
from lr_nn.many.settings import Settings
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Params, Solution, Status

__all__ = ["solve_chain"]


def solve_chain(lanes: Lanes, settings: Settings, found: Found, ids: np.ndarray) -> np.ndarray:
    """Solve lanes that differ in strength and start only, and return them.

    The data are admitted once; without a start of its own each lane begins at the optimum of the one before it.
    """
    x = np.asarray(lanes.x if lanes.shares_x else lanes.x[ids[0]])
    others = (None if getattr(lanes, name) is None else lanes.take(name, ids[:1])[0] for name in Batch._fields[1:])
    batch, problem, last = Batch(x, *others), None, None
    with jax.enable_x64(True):
        for lane in ids:
            one = np.array([lane])
            penalty = Penalty(*(float(strength[0]) for strength in lanes.take("penalty", one)))
            start = last if lanes.start is None else jax.tree.map(lambda leaf: leaf[0], lanes.take("start", one))
            if not lanes.shares_x and not np.isfinite(x).all():
                found.store(int(lane), None)
                continue
            if has_certificate(lanes.net):
                problem = _with(lanes, batch, problem, penalty)
                solution = _solved(problem, penalty, start, settings)
            else:
                solution = _fitted(lanes, batch, penalty, start, settings)
            found.store(int(lane), solution)
            last = solution.params if solution.status == Status.converged else None
    return ids


def _with(lanes: Lanes, batch: Batch, problem: Problem | None, penalty: Penalty) -> Problem:
    if problem is not None:
        return with_strengths(lanes.net, problem, penalty)
    return posed(lanes.net, of_arrays(lanes.net, [batch], DEFAULT), penalty, DEFAULT)


def _solved(problem: Problem, penalty: Penalty, start: Params | None, settings: Settings) -> Solution:
    start = None if start is None else jax.tree.map(np.asarray, start)
    dtype = np.dtype(settings.dtype or np.float64)
    return solved(problem, penalty, start, settings.tol, settings.max_steps, settings.solver, dtype, DEFAULT)


def _fitted(lanes: Lanes, batch: Batch, penalty: Penalty, start: Params | None, settings: Settings) -> Solution:
    return fit(
        lanes.net,
        batch,
        penalty=penalty,
        start=start,
        tol=settings.tol,
        max_steps=settings.max_steps,
        solver=settings.solver,
        dtype=settings.dtype,
    )
