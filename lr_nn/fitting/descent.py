"""The one loop of all searches: steps along directions, one acceptance rule, until a bound is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn.fitting.directions import Direction
from lr_nn.fitting.settings import Settings

__all__ = ["State", "descend"]


# A step is not idle if the gradient became so much smaller.
SHRINKS = 0.95


@dataclass(frozen=True)
class State:
    """Where a search ended: the point, steps taken, and whether it was `met`: within the ceiling, by `judge`.

    `verdict` is what the judge said of the point.
    """

    point: Any
    steps: int
    met: bool
    verdict: Any = None


def descend(
    objective: Any,
    direction: Direction,
    point: Any,
    ceiling: float,
    max_steps: int,
    settings: Settings,
    judge: Callable[[Any, int], tuple[float, Any]] | None = None,
    near: float = 0.0,
) -> State:
    """Steps until the objective's estimate of J - J* before one is within `ceiling`, so that the last is a full step
    from where that was met already.

    Then `judge(point, steps)` gives a bound, and a verdict to be kept. If the bound is above the ceiling, steps go
    on with an estimate that must be a hundred times smaller. An estimate may be far above the gap: a step that
    leaves little of the gradient shows that the decrement before it was about the gap. Where an objective
    `ends_on_arrival` there is no further step. `near`: or until the
    decrement is that small, for an optimum that is only where the next search begins.

    A step is idle if neither cost nor gradient became smaller than ever before; a few in a row, and what rounding
    allows is reached.
    Where no step along a direction leads to finite numbers, the search ends at the point before.
    """
    steps = idle = 0
    best: State | None = None
    tolerance, tries = ceiling, 0
    lowest, shortest = objective.composite(point), objective.length(point)
    while steps < max_steps and idle < settings.idle and point.is_finite:
        along = objective.shortened(direction.propose(point))
        slope = float((along * point.gradient).sum()) + objective.bend(point, along)
        if not (np.isfinite(along).all() and slope <= 0):
            along = objective.steepest(point)
            slope = float((along * point.gradient).sum()) + objective.bend(point, along)
        before = objective.estimate(point, -slope)
        last = (before <= tolerance and not objective.ends_on_arrival) or -slope <= near
        new = _step(objective, point, along, slope, last, settings)
        if new is None:
            break
        steps += 1
        shrunk = objective.length(new) / max(objective.length(point), np.finfo(float).tiny)
        shown = (-slope <= tolerance and shrunk <= settings.shown) or objective.ends_on_arrival
        shown = shown and objective.estimate(new, before) <= tolerance
        cost, length = objective.composite(new), objective.length(new)
        gained = cost < lowest - 4 * np.finfo(float).eps * abs(lowest) or length < SHRINKS * shortest
        lowest, shortest = min(lowest, cost), min(shortest, length)
        direction.learn(point, new)
        point, idle = new, 0 if gained else idle + 1
        if last or shown:
            if judge is None:
                return State(point, steps, True)
            bound, verdict = judge(point, steps)
            if best is None or bound <= best.verdict[0]:
                best = State(point, steps, bound <= ceiling, (bound, verdict))
            tolerance, tries = tolerance / 100, tries + 1
            if bound <= ceiling or tries >= settings.certificates:
                break
    if judge is None:
        return State(point, steps, False)
    if best is None or not best.met:
        bound, verdict = judge(point, steps)
        if best is None or bound <= best.verdict[0]:
            best = State(point, steps, bound <= ceiling, (bound, verdict))
    return State(best.point, steps, best.met, best.verdict[1])


def _step(objective: Any, point: Any, along: np.ndarray, slope: float, closing: bool, settings: Settings) -> Any:
    """The point a full step along, or at a length that the cost and its slope accept; None if none is finite.

    J(t) ≤ J(0) + 1e-4 t J'(0), but for rounding, and |J'(t)| ≤ 0.9 |J'(0)|: secant steps on the slope inside a
    bracket, halving where the secant is of no use. Of a slope near rounding the cost says nothing: any decrease of
    the slope is enough.
    """
    here = objective.composite(point)
    slack = 16 * np.finfo(float).eps * (1 + abs(here))
    low, low_slope, high, step = 0.0, slope, np.inf, 1.0
    accepted = None
    for _ in range(settings.trials):
        theta = objective.moved(point, along, step)
        new = objective.at(theta, closing=closing)
        inclined = float((along * new.gradient).sum()) + objective.bend(new, along) if new.is_finite else np.inf
        lower = new.is_finite and objective.composite(new) <= here + settings.decrease * step * slope + slack
        if lower:
            accepted = new
        if lower and abs(inclined) <= settings.flat * abs(slope) + np.finfo(float).tiny:
            return new
        if objective.is_sparse and lower:
            return new
        if lower and inclined < 0:
            low, low_slope = step, inclined
        else:
            high = step
        bent = inclined - low_slope
        secant = low - low_slope * (step - low) / bent if np.isfinite(bent) and bent else np.nan
        top = high if np.isfinite(high) else max(4 * low, 1.0)
        margin = (top - low) / 20
        inside = low + margin < secant < top - margin
        step = secant if inside else ((low + high) / 2 if np.isfinite(high) else top)
        if low + margin == low:
            break
    return accepted
