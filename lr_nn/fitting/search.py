"""A posed problem to its solution: which solver, where to begin, and when it is certified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lr_nn import losses
from lr_nn.fitting import proximal, sample
from lr_nn.fitting.certificate import Certificate, certify, quick
from lr_nn.fitting.descent import State, descend
from lr_nn.fitting.directions import LBFGS, Newton, NewtonCG
from lr_nn.fitting.least_squares import closed_form
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.problem import Problem
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.status import Search, inward, outward, solution
from lr_nn.fitting.terms import curves
from lr_nn.penalties import Penalty
from lr_nn.types import Params, Solution

__all__ = ["SOLVERS", "choose", "solved"]

SOLVERS = ("newton", "lbfgs", "newton_cg", "closed_form", "proximal")


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
    """From the constant model, or from `start` if that is better, to a bound on J - J* within tol · J₀."""
    objective = replace(problem.objective, ceiling=tol * problem.excess)
    name, why = choose(objective, settings) if solver == "auto" else (solver, "asked for")
    point, started = problem.constant, False
    if start is not None:
        begun = inward(objective.source.frame, start)
        other = objective.at(begun if objective.is_sparse else objective.centred(begun))
        if other.is_finite and objective.composite(other) < objective.composite(point):
            point, started = other, True
    about = Search(name, why, max_steps, started)

    def judged(point: Point, steps: int) -> tuple[float, tuple[Point, Certificate]]:
        point = _closed(objective, point, dtype)
        certificate = certify(objective, point, settings) if point.is_finite else Certificate(np.inf, 0)
        return certificate.bound, (point, certificate)

    if problem.trouble or not point.is_finite:
        bad = Point(point.theta, np.nan, point.gradient)
        found = solution(objective, bad, Certificate(np.inf, 0), 0, about, penalty, dtype, settings)
        return replace(found, message=f"{name}: {problem.trouble}") if problem.trouble else found
    state = _ran(objective, point, name, max_steps, settings, judged, started, problem)
    end, certificate = state.verdict
    return solution(objective, end, certificate, state.steps, about, penalty, dtype, settings)


def _closed(objective: Linear, point: Point, dtype: np.dtype) -> Point:
    """A point with what closes, at parameters that `dtype` holds."""
    theta = point.theta
    if dtype != np.float64:
        frame = objective.source.frame
        theta = inward(frame, outward(frame, theta, dtype))
        return objective.at(theta, closing=True)
    return point if point.closing is not None else objective.at(theta, closing=True)


def choose(objective: Linear, settings: Settings) -> tuple[str, str]:
    """A solver by shape, and why."""
    source, (q, k) = objective.source, objective.shape
    n, p, loss = source.length, objective.size, objective.loss
    coupled = loss.couples_outputs
    here = source.rows is None and not source.shared
    if objective.is_sparse:
        return "proximal", "an L1 penalty"
    if loss == losses.squared_error and here and n * min(n, q) * q <= settings.closed_form_products:
        return "closed_form", "least squares of a size that is solved at once"
    if not curves(loss):
        return "lbfgs", "a loss that states no second derivative"
    grams = k * (k + 1) / 2 if coupled else k
    if p <= settings.newton_parameters and n * q * q * grams <= settings.newton_products:
        return "newton", f"{p} parameters and {n} rows: the whole Hessian costs little"
    if coupled and here and not sample.is_tall(n, q, settings):
        return "newton_cg", f"{p} parameters of coupled outputs"
    return "lbfgs", f"{p} parameters and {n} rows: the whole Hessian would cost more than it saves"


def _ran(
    objective: Linear,
    point: Point,
    name: str,
    max_steps: int,
    settings: Settings,
    judged: Any,
    started: bool,
    problem: Problem,
) -> State:
    ceiling = objective.ceiling
    if name == "closed_form":
        end = objective.at(closed_form(objective), closing=True)
        bound, verdict = judged(end, 1)
        return State(end, 1, bound <= ceiling, verdict)
    if name == "proximal":
        return proximal.working_sets(
            objective, point, max_steps, settings, lambda point: quick(objective, point), judged
        )
    if name == "newton":
        return descend(objective, Newton(objective), point, ceiling, max_steps, settings, judged)
    if name == "newton_cg":
        direction: Any = NewtonCG(objective, lambda theta: _guess(objective, objective, theta, settings), settings)
        return descend(objective, direction, point, ceiling, max_steps, settings, judged)
    few, begun, price = _sampled(objective, point, started, problem, settings)
    first = _guess(few, objective, begun.theta, settings)

    def renew(theta: np.ndarray) -> Any:
        return sample.guess(few, objective, theta, settings)

    direction = LBFGS(objective, first, settings, renew, price)
    return descend(objective, direction, begun, ceiling, max_steps, settings, judged)


def _guess(few: Linear, objective: Linear, theta: np.ndarray, settings: Settings) -> sample.Guess:
    """A factor, or the units of the columns where there is none."""
    found = sample.guess(few, objective, theta, settings) if curves(objective.loss) else None
    return found or sample.diagonal(few, theta)


def _sampled(
    objective: Linear, point: Point, started: bool, problem: Problem, settings: Settings
) -> tuple[Linear, Point, float]:
    """A sample, or all rows where they are few; the optimum of it if that is a better place to begin from; and the
    price of a factor from it, in passes over all rows.
    """
    n, q = objective.source.length, objective.shape[0]
    if not sample.is_tall(n, q, settings):
        return objective, point, 1 + q / settings.sample_price
    least = settings.sample_least * q
    count = int(min(n // 2, max(least, settings.sample_price * n / q)))
    few = sample.of_some_rows(objective, objective.source.some(count), settings)
    price = 1 + count / n * q / settings.sample_price
    search = few
    if count > 2 * least:
        search = sample.of_some_rows(objective, few.source.some(least), settings)
    near = max(objective.ceiling, settings.sample_gap * problem.excess)
    search = replace(search, ceiling=near)
    begin = search.at(point.theta)
    direction = LBFGS(search, _guess(search, search, point.theta, settings), settings)
    found = descend(search, direction, begin, near, 50, settings, near=near)
    end = objective.at(found.point.theta)
    return few, end if end.is_finite and end.cost < point.cost else point, price
