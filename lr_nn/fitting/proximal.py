"""L1 penalties: proximal Newton, its quadratic model solved by the equations of its signs or by coordinate descent.

Lee, Sun & Saunders (2014); Kim & Park (2010); Friedman, Hastie & Tibshirani (2010). A sparse optimum needs few
columns: those in hand are solved for, and the gradient of all says which are missing: Johnson & Guestrin (2015),
Massias et al. (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from lr_nn.fitting.descent import State, descend
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.settings import Settings

TINY = np.finfo(float).tiny
Judge = Callable[[Point, int], tuple[float, Any]]

__all__ = ["Proximal", "model_minimum", "working_sets"]


@dataclass
class Proximal:
    """To the minimum of the quadratic model with its l1 term. The model is made anew where it has become stale."""

    objective: Linear
    settings: Settings
    hessian: np.ndarray | None = None
    begun: bool = False

    def propose(self, point: Point) -> np.ndarray:
        """u - θ, u the minimum."""
        objective = self.objective
        kept = objective.source.kept
        if self.hessian is None and "model" in kept and not self.begun:
            self.hessian = kept["model"]  # of another strength, and soon seen if it is no longer good
        elif self.hessian is None:
            self.hessian = kept["model"] = _lifted(objective, _model(objective, point, self.settings))
        self.begun = True
        accuracy = self.settings.inner * objective.length(point)
        blocks = [_blocks(each, self.hessian) for each in (point.theta, point.gradient, objective.lasso)]
        found = [
            model_minimum(hessian, start, gradient, thresholds, accuracy, self.settings)
            for hessian, start, gradient, thresholds in zip(self.hessian, *blocks)
        ]
        return _unblocked(np.stack(found), objective.shape) - point.theta

    def learn(self, old: Point, new: Point) -> None:
        """A step that left much of the subgradient asks for a new model."""
        if self.objective.length(new) > self.settings.stale * self.objective.length(old):
            self.hessian = None


def _model(objective: Linear, point: Point, settings: Settings) -> np.ndarray:
    """The Hessian, or of many parameters of coupled outputs a block for each output that is not below it."""
    if not objective.loss.couples_outputs or objective.size <= settings.dense:
        return objective.hessian(point)
    # diag(p) - p pᵀ ≤ 2 diag(p (1 - p)), by the sums of its rows: true of every matrix whose rows add up to zero.
    return 2 * objective.diagonal_blocks(point)


def _blocks(theta: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    return theta.reshape(1, -1) if len(hessian) == 1 else theta.T


def _unblocked(rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return rows.reshape(shape) if len(rows) == 1 else rows.T


def _lifted(objective: Linear, hessian: np.ndarray) -> np.ndarray:
    """With a little on its diagonal, also where the loss is so flat that it has no curvature."""
    diagonal = np.arange(hessian.shape[1])
    units = np.broadcast_to(objective.deviation[:, None], objective.shape)
    lifted = hessian.copy()
    lifted[:, diagonal, diagonal] = hessian[:, diagonal, diagonal] * (1 + 1e-6) + _blocks(1e-10 * units + TINY, hessian)
    return lifted


def model_minimum(
    hessian: np.ndarray,
    start: np.ndarray,
    gradient: np.ndarray,
    thresholds: np.ndarray,
    accuracy: float,
    settings: Settings,
) -> np.ndarray:
    """argmin_u g·(u - θ) + ½ (u - θ)ᵀ H (u - θ) + Σ thresholds |u|.

    By the equations of its signs, where these are found by trying; else a few sweeps of cyclic coordinate descent are
    to bring the signs nearer, until a sweep changes no gradient of the model by more than `accuracy`.
    """
    u, slope = start.copy(), gradient.copy()
    for _ in range(0, settings.sweeps, settings.few_sweeps):
        pivoted, found = _pivoted(hessian, u, slope, thresholds, accuracy, settings.patient)
        if found:
            return pivoted
        most = np.inf
        for _ in range(settings.few_sweeps):
            most = _sweep(hessian, u, slope, thresholds)
        if most <= accuracy:
            break
    return u


def _sweep(hessian: np.ndarray, u: np.ndarray, slope: np.ndarray, thresholds: np.ndarray) -> float:
    """One round over the coordinates, in place; the largest change of a gradient."""
    diagonal, most = np.diagonal(hessian), 0.0
    for a in range(len(u)):
        goal = u[a] - slope[a] / diagonal[a]
        new = np.sign(goal) * max(abs(goal) - thresholds[a] / diagonal[a], 0.0)
        if new != u[a]:
            change = new - u[a]
            u[a] = new
            slope += change * hessian[a]
            most = max(most, abs(change) * diagonal[a])
    return most


def _pivoted(
    hessian: np.ndarray,
    start: np.ndarray,
    gradient: np.ndarray,
    thresholds: np.ndarray,
    accuracy: float,
    patient: int,
) -> tuple[np.ndarray, bool]:
    """The minimum by the equations of its signs, and whether it was found.

    A coefficient that gets another sign than was asked for becomes zero, a zero whose slope is above its threshold
    gets a sign; where that leads to no fewer contradictions, only the last one of them is changed (Murty's rule).
    """
    bias = thresholds == 0
    signs = np.where(bias, 1.0, np.sign(start))
    least, idle = len(start) + 1, 0
    for _ in range(10 * patient + len(start)):
        chosen = np.flatnonzero(signs)
        try:
            factor = cho_factor(hessian[np.ix_(chosen, chosen)], lower=True, check_finite=False)
        except LinAlgError:
            break
        u = np.where(signs != 0, start, 0)
        slope = gradient + hessian @ (u - start)
        for _ in range(2):  # the second time for the digits that the first lost
            step = np.zeros_like(u)
            step[chosen] = -cho_solve(factor, (slope + thresholds * signs)[chosen], check_finite=False)
            u, slope = u + step, slope + hessian[:, chosen] @ step[chosen]
        leaves = (signs != 0) & ~bias & (np.sign(u) != signs)
        enters = (signs == 0) & (np.abs(slope) > thresholds + accuracy)
        wrong = np.flatnonzero(leaves | enters)
        if len(wrong) == 0:
            return u, bool(np.abs(slope + thresholds * signs)[chosen].max(initial=0) <= accuracy)
        idle = 0 if len(wrong) < least else idle + 1
        least = min(least, len(wrong))
        changed = wrong if idle < patient else wrong[-1:]
        signs[changed] = np.where(leaves, 0, -np.sign(slope))[changed]
    return start, False


def working_sets(objective: Linear, point: Point, max_steps: int, settings: Settings, judge: Judge) -> State:
    """Proximal Newton on the columns that matter, more of them until the gradient of all names no other."""
    d, steps = objective.source.features, 0
    state: State | None = None
    while True:
        wanted = _wanted(objective, point, settings)
        if wanted is None:
            break
        gap = objective.estimate(point, np.inf)
        if state is not None and (gap <= objective.ceiling or steps >= max_steps or state.steps == 0):
            found, verdict = judge(point, steps)
            if found <= objective.ceiling or steps >= max_steps or state.steps == 0:
                return State(point, steps, found <= objective.ceiling, verdict)
        few, chosen = _restricted(objective, wanted)
        rows = np.append(chosen, np.arange(d, objective.shape[0]))
        complete = not _pulled(objective, point).any()
        near = objective.ceiling if complete else max(objective.ceiling, settings.nearer * min(gap, 1e300))
        inner = replace(few, ceiling=near)
        begin = replace(point, theta=point.theta[rows], gradient=point.gradient[rows], closing=None)
        state = descend(inner, Proximal(inner, settings), begin, near / 2, max_steps - steps, settings)
        steps += state.steps
        theta = np.zeros(objective.shape)
        theta[rows] = state.point.theta
        point = objective.at(theta, closing=True)
    last = descend(
        objective, Proximal(objective, settings), point, objective.ceiling / 2, max_steps - steps, settings, judge
    )
    return replace(last, steps=steps + last.steps)


def _used(objective: Linear, point: Point) -> np.ndarray:
    """The columns with weights."""
    return np.asarray(point.theta[: objective.source.features].any(axis=1))


def _pulled(objective: Linear, point: Point) -> np.ndarray:
    """The columns without a weight that should have one."""
    d = objective.source.features
    return ~_used(objective, point) & np.asarray((objective.subgradient(point)[:d] != 0).any(axis=1))


def _wanted(objective: Linear, point: Point, settings: Settings) -> np.ndarray | None:
    """The columns with weights and those that want one the most, at most twice as many; None where all are taken."""
    if objective.source.rows is not None:
        return None
    d = objective.source.features
    free = ~objective.lasso[:d].all(axis=1)
    used = _used(objective, point) | free
    pull = np.abs(objective.subgradient(point)[:d]).max(axis=1)
    count = max(settings.least_columns, min(int(used.sum() + _pulled(objective, point).sum()), 2 * int(used.sum())))
    if 2 * count >= d:
        return None
    order = np.argsort(np.where(used, -np.inf, -pull), kind="stable")
    return np.sort(order[:count])


def _restricted(objective: Linear, wanted: np.ndarray) -> tuple[Linear, np.ndarray]:
    """The cost on these columns, or on those of the last time if they hold them all."""
    kept = objective.source.kept
    last = kept.get("columns")
    if last is not None and len(last[0]) <= 3 * len(wanted) and np.isin(wanted, last[0]).all():
        chosen, source = last
    else:
        chosen, source = wanted, objective.source.columns(wanted)
        kept["columns"] = chosen, source
    return objective.columns(chosen, source), chosen
