"""Lanes from where they begin to their optima: some strengths of a path first, the others from between them."""

from __future__ import annotations

import numpy as np

from lr_nn.fitting.settings import DEFAULT
from lr_nn.many.descent import Ends, descend
from lr_nn.many.directions import hessian_plan
from lr_nn.many.problem import Problem, starting_points

__all__ = ["search"]

# Along a path every tenth strength is solved first (measured on the census folds).
SPACING = 10
# A path of at least this many strengths is solved in two stages.
LONG = 20


def search(problem: Problem, start: np.ndarray | None, tol: float, max_steps: int) -> Ends:
    """The ends of all lanes, from `start` (m, q, k) or where there is none from better places."""
    first = np.ones(len(problem.cost), bool) if start is not None else _landmarks(problem)
    if first.all():
        return _descended(problem, starting_points(problem, start, tol), max_steps)
    ids, rest = np.flatnonzero(first), np.flatnonzero(~first)
    part = problem.take(ids)
    ends = _descended(part, starting_points(part, None, tol), max_steps)
    others = _descended(problem.take(rest), _between(problem, ids, ends.theta, rest), max_steps)
    order = np.argsort(np.concatenate([ids, rest]))
    return Ends(*(np.concatenate(pair)[order] for pair in zip(ends, others)))


def _descended(problem: Problem, theta: np.ndarray, max_steps: int) -> Ends:
    plan = hessian_plan(problem.objective, problem.dataset)
    return descend(problem.objective, plan, theta, max_steps, DEFAULT, fallback=(problem.constants, problem.cost))


def _landmarks(problem: Problem) -> np.ndarray:
    """Which lanes are solved first, (m,): all of those whose steps cost little, or whose path is short."""
    objective, first = problem.objective, np.ones(len(problem.cost), bool)
    strength = objective.ridge[:, 0, 0]
    if hessian_plan(objective, problem.dataset) is None or not (strength > 0).all():
        return first
    for dataset in np.unique(problem.dataset):
        own = np.flatnonzero(problem.dataset == dataset)
        if len(own) >= LONG:
            order = own[np.argsort(strength[own], kind="stable")]
            first[order] = False
            first[order[::SPACING]] = first[order[-1]] = True
    return first


def _between(problem: Problem, ids: np.ndarray, theta: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """θ of the lanes `rest` by a cubic spline in the logarithm of the strength through the optima of the lanes `ids`.

    NaN where these are not enough or not finite.
    """
    from scipy.interpolate import CubicSpline

    logs, found = np.log(problem.objective.ridge[:, 0, 0]), np.full((len(rest), *theta.shape[1:]), np.nan)
    for dataset in np.unique(problem.dataset[rest]):
        own, here = np.flatnonzero(problem.dataset[ids] == dataset), problem.dataset[rest] == dataset
        at, which = np.unique(logs[ids[own]], return_index=True)
        if len(at) > 1 and np.isfinite(theta[own]).all():
            found[here] = CubicSpline(at, theta[own[which]])(logs[rest[here]])
    return found
