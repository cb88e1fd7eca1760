"""The loop that takes many lanes to their optima: one pass a turn for all that are not there yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lr_nn.fitting.settings import Settings
from lr_nn.many.directions import Newton, Plan, Proximal, QuasiNewton
from lr_nn.many.objective import LAST, Objective, Points

__all__ = ["Ends", "descend"]

EPS, EPS32, TINY = (float(of) for of in (np.finfo(float).eps, np.finfo(np.float32).eps, np.finfo(float).tiny))
# Decrements, as multiples of the gap that is asked for, down to which products and losses in float32 are exact enough:
# their rounding is an error of the gradient, which counts with its square.
ROUGH = 1e4
# Kinds of points: with the sums for a certificate, and of products in float32.
CLOSING, FLOAT32 = 2, 1
# A step is not idle if the gradient became so much smaller.
SHRINKS = 0.95
# Number of turns with float32 Hessians for penalised lanes. Most lanes end sooner; the rest may be ill-conditioned.
NARROW = 7
# After a refused trial the secant step is taken if it is between these shares of the trial's length, else half of it.
SHORTEST, LONGEST = 0.05, 0.9


class Ends(NamedTuple):
    """Where searches ended: θ (m, q, k), J with its l1 term, the largest entry of the subgradient, the bound on J - J*,
    ∞ where none was met, and steps, (m,).
    """

    theta: np.ndarray
    cost: np.ndarray
    gradient_norm: np.ndarray
    bound: np.ndarray
    steps: np.ndarray


class _State:
    """What the loop knows of every lane."""

    def __init__(self, objective: Objective, point: Points) -> None:
        """At the first points."""
        m = len(objective)
        self.point, self.length = point._replace(theta=np.array(point.theta)), np.ones(m)
        self.rough = np.zeros(m, bool)
        self.tolerance, self.bound = objective.ceiling / 2, np.full(m, np.inf)
        self.steps, self.idle, self.trials, self.tries = np.zeros((4, m), int)
        self.lowest = objective.composite(point)
        self.shortest = np.linalg.norm(objective.subgradient(point), axis=LAST)


def descend(
    objective: Objective,
    plan: Plan | None,
    theta: np.ndarray,
    max_steps: int,
    settings: Settings,
    near: np.ndarray | None = None,
    fallback: tuple[np.ndarray, np.ndarray] | None = None,
) -> Ends:
    """Steps of every lane until its estimate of J - J* is within half its ceiling, and a bound certifies it.

    The rules are those of `fitting.descent`: the last step of a smooth cost is a full one from where the estimate was
    met, an estimate that the bound does not confirm must become a hundred times smaller, and a lane that gains nothing
    any more leaves. `plan` says how Hessians are made that lanes share, None that each has its own. `near` (m,): until
    the decrement is that small, without a certificate; then the bound is the last decrement. `fallback`: other θ and
    their costs (m,), where lanes begin that are not below it.
    """
    sparse, narrow = objective.is_sparse, not (objective.is_free or near is not None)
    curved = None if plan is not None else np.float32 if narrow else np.float64
    objective = some = replace(objective, curved=curved)
    direction: Any = Proximal(settings) if sparse else Newton() if plan is None else QuasiNewton(objective, plan)
    state = _State(objective, _first_points(objective, theta, fallback))
    active, turns = np.flatnonzero(state.point.is_finite), 0
    some = some.take(active)
    while len(active):
        if some.curved == np.float32 and turns == NARROW:
            some = _widened(some, state, active)
        here, turns = state.point.take(active), turns + 1
        along, slope = _downhill(some, here, direction.propose(active, some, here))
        before = some.estimate(here, -slope)
        last = before <= state.tolerance[active] if near is None else -slope <= near[active]
        last = last & (not sparse)
        trial = here.theta + state.length[active, None, None] * along
        if sparse:  # coefficients that a full step makes zero are zero, not a rounding from it
            trial = np.where(np.abs(trial) <= 4 * EPS * np.abs(along), 0, trial)
        # Where passes make the curvature anyway, the sums of a certificate cost little.
        closing = (last | (-slope <= state.tolerance[active]) & (plan is None)) & (near is None)
        rough = ((-slope > ROUGH * some.ceiling) | (near is not None)) & ~closing & (plan is not None)
        new, bound = _evaluated(some, trial, closing, rough, settings)
        taken = _accepted(some, here, new, along, slope, rough, state, active)
        confirmed = _is_confirmed(some, here, new, slope, before, state.tolerance[active])
        confirmed = confirmed & taken & ~last & (near is None)
        missing = np.flatnonzero(confirmed & ~closing)
        if len(missing):
            part = some.take(missing)
            exact = part.at(new.theta[missing], closing=True)
            bound[missing] = part.certificate(exact, settings)
            new.cost[missing], new.gradient[missing] = exact.cost, exact.gradient
        _learn(some, here, new, direction, state, active, taken)
        arrived = taken & (last | confirmed)
        state.bound[active[arrived]] = bound[arrived] if near is None else -slope[arrived]
        met = arrived & (np.full(len(active), near is not None) | (bound <= some.ceiling))
        unmet = active[arrived & ~met]
        state.tolerance[unmet] /= 100
        state.tries[unmet] += 1
        stuck = (state.idle[active] >= settings.idle) | (state.trials[active] >= settings.trials)
        out = (state.tries[active] >= settings.certificates) | (state.steps[active] >= max_steps)
        stay = np.flatnonzero(~(met | stuck | out))
        active, some = active[stay], some.take(stay)
    point = state.point
    gradient_norm = np.abs(objective.subgradient(point)).max(axis=LAST, initial=0)
    return Ends(point.theta, objective.composite(point), gradient_norm, state.bound, state.steps)


def _first_points(objective: Objective, theta: np.ndarray, fallback: tuple[np.ndarray, np.ndarray] | None) -> Points:
    """The points at θ, or at the other θ of `fallback` where these do not cost less."""
    point = objective.at(theta)
    if fallback is None:
        return point
    ids = np.flatnonzero(~(objective.composite(point) < fallback[1]))
    if len(ids):
        point = point._replace(theta=np.array(theta))
        _assign(point, ids, objective.take(ids).at(fallback[0][ids]))
    return point


def _widened(some: Objective, state: _State, active: np.ndarray) -> Objective:
    """The objective with Hessians in float64; those of the lanes `active` are computed again."""
    hessian = some.rows.hessian(state.point.theta[active]) / some.total[:, None, None, None]
    assert state.point.hessian is not None
    state.point.hessian[active] = hessian
    return replace(some, curved=np.float64)


def _assign(points: Points, ids: np.ndarray, some: Points) -> None:
    """Put the points of some lanes among those of all; a Hessian that was not made leaves the one before."""
    for whole, part in zip(points[:4], some[:4]):
        if whole is not None and part is not None:
            whole[ids] = part


def _downhill(some: Objective, here: Points, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions and their slopes (m,); the steepest where one leads nowhere."""
    along = some.shortened(along)
    if some.moving is not None:
        along = np.where(some.moving, along, 0)
    slope = (along * here.gradient).sum(axis=LAST) + some.bend(here.theta, along)
    uphill = ~(np.isfinite(along).all(axis=LAST) & (slope <= 0))
    if uphill.any():
        along = np.where(uphill[:, None, None], -some.subgradient(here), along)
        slope = (along * here.gradient).sum(axis=LAST) + some.bend(here.theta, along)
    return along, slope


def _evaluated(
    some: Objective, theta: np.ndarray, closing: np.ndarray, rough: np.ndarray, settings: Settings
) -> tuple[Points, np.ndarray]:
    """The points at θ, and bounds on J - J* of those that are `closing` (m,), ∞ for others; those that are `rough` (m,)
    by products and losses in float32.
    """
    if some.curved is not None and closing.any():
        # Penalised lanes need no Hessian at their last point; those that step on take that of the point before.
        needed = some.curved if some.is_free or not closing.all() else None
        point = replace(some, curved=needed).at(theta, closing=True)
        ids, bound = np.flatnonzero(closing), np.full(len(theta), np.inf)
        own = point.take(ids)
        own = own if some.curved == np.float64 else own._replace(hessian=None)  # a bound asks for all digits
        bound[ids] = some.take(ids).certificate(own, settings)
        return point, bound
    kinds = 2 * closing + rough
    bound, cost, gradient = np.full(len(theta), np.inf), np.empty(len(theta)), np.empty_like(theta)
    for kind in np.unique(kinds):
        ids = np.flatnonzero(kinds == kind)
        part = some.take(ids)
        point = part.at(theta[ids], closing=kind == CLOSING, dtype=np.float32 if kind == FLOAT32 else np.float64)
        if len(ids) == len(theta):
            return point, part.certificate(point, settings) if kind == CLOSING else bound
        cost[ids], gradient[ids] = point.cost, point.gradient
        bound[ids] = part.certificate(point, settings) if kind == CLOSING else np.inf
    return Points(theta, cost, gradient), bound


def _accepted(
    some: Objective,
    here: Points,
    new: Points,
    along: np.ndarray,
    slope: np.ndarray,
    rough: np.ndarray,
    state: _State,
    active: np.ndarray,
) -> np.ndarray:
    """Which trials are taken, (m,): J(t) ≤ J(0) + 1e-4 t J'(0), but for rounding, and, of smooth costs, J'(t) ≤ 0.9
    |J'(0)|. The others are tried again at the secant on the slope, or at half their length.
    """
    length, cost = state.length[active], some.composite(here)
    with np.errstate(all="ignore"):
        inclined = (along * new.gradient).sum(axis=LAST)
        slack = 16 * np.where(rough | state.rough[active], EPS32, EPS) * (1 + np.abs(cost))
        lower = new.is_finite & (some.composite(new) <= cost + 1e-4 * length * slope + slack)
        taken = lower & (some.is_sparse | (inclined <= 0.9 * np.abs(slope) + TINY))
        secant = slope / (slope - inclined)
    shorter = np.where((secant > SHORTEST) & (secant < LONGEST), secant, 0.5)
    state.length[active] = np.where(taken, 1, shorter * length)
    state.trials[active] = np.where(taken, 0, state.trials[active] + 1)
    state.rough[active] = np.where(taken, rough, state.rough[active])
    return taken


def _is_confirmed(
    some: Objective, here: Points, new: Points, slope: np.ndarray, before: np.ndarray, tolerance: np.ndarray
) -> np.ndarray:
    """Has a step that left little of the gradient confirmed that the decrement before it was about the gap?"""
    shrunk = np.linalg.norm(new.gradient, axis=LAST) / np.maximum(np.linalg.norm(here.gradient, axis=LAST), TINY)
    return (-slope <= tolerance) & (shrunk <= 0.1) & (some.estimate(new, before) <= tolerance)


def _learn(
    some: Objective, here: Points, new: Points, direction: Any, state: _State, active: np.ndarray, taken: np.ndarray
) -> None:
    """Move the lanes whose trial was taken."""
    ids = active[taken]
    cost, length = some.composite(new)[taken], np.linalg.norm(some.subgradient(new), axis=LAST)[taken]
    old = np.linalg.norm(some.subgradient(here), axis=LAST)[taken]
    direction.learn(
        ids,
        (new.theta - here.theta)[taken],
        (new.gradient - here.gradient)[taken],
        length / np.maximum(old, TINY),
    )
    gained = (cost < state.lowest[ids] - 4 * EPS * np.abs(state.lowest[ids])) | (length < SHRINKS * state.shortest[ids])
    state.idle[ids] = np.where(gained, 0, state.idle[ids] + 1)
    state.lowest[ids] = np.minimum(state.lowest[ids], cost)
    state.shortest[ids] = np.minimum(state.shortest[ids], length)
    state.steps[ids] += 1
    _assign(state.point, ids, new._replace(closing=None).take(taken))
