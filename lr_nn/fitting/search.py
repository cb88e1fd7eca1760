"""A posed problem to its solution: which solver, where to begin, and when it is certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lr_nn import losses
from lr_nn.fitting import proximal, sample
from lr_nn.fitting.certificate import Certificate, certify
from lr_nn.fitting.descent import State, descend
from lr_nn.fitting.directions import LBFGS, Newton, NewtonCG
from lr_nn.fitting.least_squares import closed_form
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.opening import refuse_what_is_not_finite
from lr_nn.fitting.problem import Problem
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.status import Search, centred, inward, outward, solution
from lr_nn.fitting.terms import curves
from lr_nn.penalties import Penalty
from lr_nn.types import Params, Solution

Judge = Callable[[Point, int], tuple[float, Any]]

__all__ = ["SOLVERS", "choose", "solved"]

SOLVERS = ("newton", "lbfgs", "newton_cg", "closed_form", "proximal")


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def solved(
    problem: Problem,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: np.dtype,
    settings: Settings,
) -> Solution:
    """From the constant model, or from `start` if that is better, to a bound on J - J* within tol · J₀.

    The last point is kept with the problem: a `start` that is the end of the search before, of other l1 strengths,
    needs no pass.
    """
    objective = replace(problem.objective, ceiling=tol * problem.excess)
    name, why = choose(objective, settings) if solver == "auto" else (solver, "asked for")
    objective = replace(objective, curved=name == "newton", keeps=name == "newton_cg")
    problem = replace(problem, objective=objective)
    point = _begun(problem, start)
    about = Search(name, why, max_steps, point is not None)

    def judged(point: Point, steps: int) -> tuple[float, tuple[Point, Certificate]]:
        point = _closed(objective, point, dtype)
        certificate = certify(objective, point, settings) if point.is_finite else Certificate(np.inf, 0, np.inf)
        return certificate.bound, (point, certificate)

    if problem.trouble or not np.isfinite(problem.cost):
        bad = Point(problem.constant, np.nan, np.full(objective.shape, np.nan))
        if not problem.trouble:
            refuse_what_is_not_finite(objective.source)
        found = solution(objective, bad, Certificate(np.inf, 0, np.inf), 0, about, penalty, dtype, settings)
        return replace(found, message=f"{name}: {problem.trouble}") if problem.trouble else found
    state = _ran(problem, point, name, max_steps, settings, judged)
    end, certificate = state.verdict
    if not end.is_finite:
        refuse_what_is_not_finite(objective.source)
    found = solution(objective, end, certificate, state.steps, about, penalty, dtype, settings)
    objective.source.kept["end"] = found.params, end, objective.ridge
    return found


def _begun(problem: Problem, start: Params | None) -> Point | None:
    """The start, if it is better than the constant model."""
    if start is None:
        return None
    objective = problem.objective
    params, end, ridge = objective.source.kept.get("end", (None, None, None))
    if params is start and np.array_equal(ridge, objective.ridge):
        return replace(end, hessian=None) if objective.composite(end) < problem.cost else None
    theta = inward(objective.source.frame, start)
    point = objective.at(theta if objective.is_sparse else objective.centred(theta))
    return point if point.is_finite and objective.composite(point) < problem.cost else None


def _closed(objective: Linear, point: Point, dtype: np.dtype) -> Point:
    """A point with what closes, at parameters that `dtype` holds."""
    theta = point.theta
    if dtype != np.float64:
        frame = objective.source.frame
        theta = inward(frame, centred(outward(frame, theta, dtype), objective.shifts))
        return objective.at(theta, closing=True)
    return point if point.closing is not None else objective.at(theta, closing=True)


def choose(objective: Linear, settings: Settings) -> tuple[str, str]:
    """A solver by shape, and why."""
    source, (q, k) = objective.source, objective.shape
    n, p, loss = source.total_rows, objective.size, objective.loss
    coupled = loss.couples_outputs
    here = source.rows is None and not source.shared
    if objective.is_sparse:
        return "proximal", "an L1 penalty"
    if loss == losses.squared_error and here and n * min(n, q) * q <= settings.closed_form_products:
        return "closed_form", "least squares of a size that is solved at once"
    if not curves(loss):
        return "lbfgs", "a loss that states no second derivative"
    grams = k * (k + 1) / 2 if coupled else k
    if source.rows is None and p <= settings.newton_parameters and n * q * q * grams <= settings.newton_products:
        return "newton", f"{p} parameters and {n} rows: the whole Hessian costs little"
    if coupled and here and not sample.is_tall(n, q, settings):
        return "newton_cg", f"{p} parameters of coupled outputs"
    return "lbfgs", f"{p} parameters and {n} rows: the whole Hessian would cost more than it saves"


def _ran(problem: Problem, start: Point | None, name: str, max_steps: int, settings: Settings, judged: Judge) -> State:
    """The search by name, from `start` or a better place."""
    objective = problem.objective
    ceiling = objective.ceiling
    if name == "closed_form":
        if objective.source.shared or objective.source.rows is not None:
            raise ValueError("closed_form needs all rows in the memory of one process; use newton or lbfgs")
        refuse_what_is_not_finite(objective.source)
        end = objective.at(closed_form(objective), closing=True)
        bound, verdict = judged(end, 1)
        return State(end, 1, bound <= ceiling, verdict)
    if name == "lbfgs":
        few, begun, price = _sampled(problem, start, settings)

        def renew(point: Point) -> Any:
            return sample.guess(few, objective, point, settings)

        if not curves(objective.loss):
            direction: Any = LBFGS(objective, sample.diagonal(problem), settings, scaled=True)
        elif price > settings.dear:
            direction = LBFGS(objective, sample.diagonal(problem), settings, renew, price, scaled=True)
        else:
            direction = LBFGS(objective, _guess(problem, few, begun, settings), settings, renew, price)
        return descend(objective, direction, begun, ceiling, max_steps, settings, judged)
    begun = objective.at(problem.constant) if start is None else start
    if name == "proximal":
        return proximal.working_sets(objective, begun, max_steps, settings, judged)
    if name == "newton":
        direction = Newton(objective)
    else:
        direction = NewtonCG(objective, lambda point: _guess(problem, objective, point, settings), settings)
    return descend(objective, direction, begun, ceiling, max_steps, settings, judged)


def _guess(problem: Problem, few: Linear, point: Point, settings: Settings) -> sample.Guess:
    """A factor, or the units of the columns where there is none."""
    return sample.guess(few, problem.objective, point, settings) or sample.diagonal(problem)


def _sampled(problem: Problem, start: Point | None, settings: Settings) -> tuple[Linear, Point, float]:
    """Rows for factors, the place to begin from, and the price of a factor in passes over all rows."""
    objective = problem.objective
    n, q = objective.source.total_rows, objective.shape[0]
    every = q / settings.hessian_price
    if not curves(objective.loss) or not sample.is_tall(n, q, settings):
        return objective, start or objective.at(problem.constant), 1 + every
    least = settings.sample_least * q
    count = int(max(least, min(settings.sample_most * q, settings.hessian_passes / every * n)))
    whole = objective.source.rows is None and 2 * count > n
    few = objective if whole else sample.of_some_rows(problem, objective.source.some(count), settings)
    price = 1 + (1.0 if whole else count / n) * every
    if start is not None:
        return few, start, price
    search = few
    if whole or count > 2 * least:
        fewer = (objective if whole else few).source.some(least)
        fewer = fewer if whole else replace(fewer, block=few.source.chunk_size)  # one program for both samples
        search = sample.of_some_rows(problem, fewer, settings)
    near = max(objective.ceiling, settings.sample_gap * problem.excess)
    search = replace(search, ceiling=near)
    begin = search.at(problem.constant)
    direction = LBFGS(search, _guess(replace(problem, objective=search), search, begin, settings), settings)
    found = descend(search, direction, begin, near, 50, settings, near=near)
    end = objective.at(found.point.theta)
    better = end.is_finite and end.cost < problem.cost
    return few, end if better else objective.at(problem.constant), price
