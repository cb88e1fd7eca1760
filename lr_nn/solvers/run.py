"""Solvers from the host: where to begin, when to go on, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.solvers import bounds, certificate, deep, preconditioner, sample, working_set
from lr_nn.solvers import proximal as sparse
from lr_nn.solvers.compilation import fast_compile
from lr_nn.solvers.deep import Deep, ScalarLBFGS
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.smooth import LBFGS, Newton, NewtonCG, Objective, State, solve

__all__ = ["Found", "at", "closed_form", "lbfgs", "newton", "newton_cg", "proximal", "stationary"]

# So many numbers are searched in float32 first, beside a sample of the rows and without one.
FITS, NARROWED = 4e6, 2e7
# The optimum of a sample is that far from the optimum of all, or farther; nearer than that float32 does not come.
NEAR, NARROW = 1e-4, 1e-9
# So many products of numbers make the Hessian of all rows cheap.
DENSE = 1e10
ROUNDS, CLOSER, NEARER = 3, 1e-2, 0.2


class Found(NamedTuple):
    """The objective in float64 and the last point of it, steps over all rows, the cost with its penalties, the largest
    entry of the subgradient, the bound on J - J*, and the number of directions that change no prediction.
    """

    objective: OneLayer
    point: Point
    steps: int
    cost: float
    gradient_norm: float
    bound: float
    flat: int


# Few parameters: to compile takes longer than to run.
@fast_compile
def _newton(objective: OneLayer, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array) -> State:
    return solve(objective, Newton(objective), theta, tolerance, max_steps)


@jax.jit
def _lbfgs(direction: LBFGS, theta: jax.Array, near: jax.Array, max_steps: jax.Array) -> State:
    return solve(direction.objective, direction, theta, direction.tolerance, max_steps, near)


@jax.jit
def _newton_cg(direction: NewtonCG, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array) -> State:
    return solve(direction.objective, direction, theta, tolerance, max_steps)


@jax.jit
def _proximal(
    objective: OneLayer, sample: OneLayer, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array
) -> sparse.State:
    return sparse.solve(objective, sample, theta, tolerance, max_steps)


@jax.jit
def at(objective: Objective, theta: jax.Array) -> Point:
    """Everything at θ."""
    return objective.at(theta)


_centred = jax.jit(OneLayer.centred_point)
_build = jax.jit(preconditioner.build, static_argnames="rows")


_local = fast_compile(certificate.local)


@partial(jax.jit, static_argnames="penalised")
def _report(
    objective: OneLayer, point: Point, steps: jax.Array, enough: jax.Array, penalised: str | None
) -> tuple[jax.Array, ...]:
    """The cost with its penalties, the largest entry of the subgradient, the bound that the penalties give, and what
    to add to every bound for the rounding of η.
    """
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(sparse.subgradient(objective, point))]).max()
    if penalised == "l1":
        bound = certificate.sparse(objective, point)
    elif penalised == "l2":
        bound = certificate.strong(objective, point, enough)
    else:
        bound = jnp.full_like(point.cost, bounds.largest(point.cost))
    drift = certificate.drift(objective, point, steps, enough - bound)
    cost = sparse.composite(objective, point.cost, point.theta)
    return cost, largest, bounds.capped(bound), bounds.capped(drift)


def newton(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Damped Newton with the whole Hessian, for few parameters."""

    def go(theta: jax.Array, tolerance: float, steps: int) -> State:
        return _newton(objective, theta, jnp.asarray(tolerance), jnp.asarray(steps))

    return _certified(go, objective, theta, ceiling, max_steps)


def lbfgs(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """L-BFGS helped by curvature: begun on a sample of the rows, and then in float32, where that costs little."""
    few = sample.rows(objective, theta)
    whole = sample.narrow(objective) if objective.x.size <= (NARROWED if few is None else FITS) else None
    factor, built = preconditioner.identity(objective), jnp.zeros((), bool)
    if few is not None:
        near = max(ceiling, NEAR)
        state = _search(few, few, factor, built, theta, near, near, max_steps)
        start, theta, built = theta, state.point.theta, state.known.built
        factor = _build(few, theta, len(objective.y)) if bool(built) else factor
        if bool(jnp.any(objective.split(start).w != 0)):  # asked for, and it may be nearer
            theta = min(start, theta.astype(start.dtype), key=lambda each: float(at(objective, each).cost))
    steps = 0
    if whole is not None:
        near = max(ceiling, NARROW)
        state = _search(whole, whole, factor, built, theta, near, near, max_steps - 1)
        theta, factor, built, steps = state.point.theta, state.known.factor, state.known.built, int(state.steps)
    model = next((rows for rows in (whole, few) if rows is not None), objective)

    def go(theta: jax.Array, tolerance: float, steps: int) -> State:
        return _search(objective, model, factor, built, theta, tolerance, 0.0, steps)

    found = _certified(go, objective, theta, ceiling, max_steps - steps)
    return found._replace(steps=steps + found.steps)


def _search(
    objective: OneLayer,
    model: OneLayer,
    factor: preconditioner.Factor,
    built: jax.Array,
    theta: jax.Array,
    tolerance: float,
    near: float,
    max_steps: int,
) -> State:
    """`_lbfgs` in the precision of the objective."""
    dtype = objective.x.dtype
    direction = LBFGS(objective, model, jnp.asarray(tolerance, dtype), factor, built)
    return _lbfgs(direction, theta.astype(dtype), jnp.asarray(near, dtype), jnp.asarray(max_steps))


def newton_cg(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Newton by conjugate gradients, for outputs that are coupled."""
    model = sample.narrow(objective)

    def go(theta: jax.Array, tolerance: float, steps: int) -> State:
        return _newton_cg(NewtonCG(objective, model), theta, jnp.asarray(tolerance), jnp.asarray(steps))

    return _certified(go, objective, theta, ceiling, max_steps)


def proximal(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Proximal Newton, for L1 penalties, on the columns that matter; its model is the Hessian of all rows while that
    costs little.
    """
    point, steps, stalled = at(objective, theta), 0, False
    while (size := working_set.size(objective, point)) is not None:
        gap = float(working_set.bound(objective, point))
        if not gap > ceiling or steps >= max_steps or stalled:
            found = _certify(objective, point, steps, ceiling)
            if not found.bound > ceiling or steps >= max_steps or stalled:
                return found
        chosen = working_set.choose(objective, point, size)
        few, start = working_set.restrict(objective, point, chosen)
        # Not too near, before it is known which columns there will be.
        near = min(gap, ceiling if working_set.suffices(objective, point) else max(ceiling, NEARER * gap)) / 2
        state = _solve_sparse(few, start, near, max_steps - steps)
        steps += max(1, int(state.steps))
        stalled = bool(state.stalled)
        point = working_set.extend(objective, few, chosen, state.point)

    def go(theta: jax.Array, tolerance: float, steps: int) -> sparse.State:
        return _solve_sparse(objective, theta, tolerance, steps)

    if steps >= max_steps:
        return _certify(objective, point, steps, ceiling)
    found = _certified(go, objective, point.theta, ceiling, max_steps - steps)
    return found._replace(steps=steps + found.steps)


def _solve_sparse(objective: OneLayer, theta: jax.Array, tolerance: float, max_steps: int) -> sparse.State:
    few = sample.rows(objective, theta) if objective.x.size * objective.x.shape[1] > DENSE else None
    model = sample.narrow(objective) if few is None else few
    return _proximal(objective, model, theta, jnp.asarray(tolerance, objective.x.dtype), jnp.asarray(max_steps))


def closed_form(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Least squares on centred rows: by singular values, or, with an L2 penalty and few rows, in their dual."""
    x, y = np.asarray(objective.x), np.asarray(objective.y)
    y = y if objective.offset is None else y - np.asarray(objective.offset)
    share, l2 = np.asarray(objective.share)[:, None], float(objective.l2)
    bias = objective.net.bias
    x_mean, y_mean = ((share * a).sum(axis=0) if bias else np.zeros(a.shape[1]) for a in (x, y))
    a, b = np.sqrt(share) * (x - x_mean), np.sqrt(share) * (y - y_mean)
    if l2 > 0 and a.shape[0] < a.shape[1]:
        w = a.T @ np.linalg.solve(a @ a.T + l2 * np.eye(len(a)), b)
    else:
        if l2 > 0:
            a = np.concatenate([a, np.sqrt(l2) * np.eye(a.shape[1])])
            b = np.concatenate([b, np.zeros((a.shape[1], b.shape[1]))])
        units = np.linalg.norm(a, axis=0)
        units[units == 0] = 1
        w = np.linalg.lstsq(a / units, b)[0] / units[:, None]
    best = np.concatenate([w.reshape(-1), y_mean - x_mean @ w]) if bias else w.reshape(-1)
    return _certify(objective, at(objective, jnp.asarray(best, objective.x.dtype)), 1, ceiling)


@partial(jax.jit, static_argnames="solver")
def stationary(objective: Deep, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array, solver: str) -> State:
    """A point where no entry of ∇J is larger than `tolerance`, by one of `DEEP`, and mostly one full step after it."""
    direction = deep.NewtonCG(objective) if solver == "newton_cg" else ScalarLBFGS()
    return solve(objective, direction, theta, tolerance, max_steps)


DEEP = ("lbfgs", "newton_cg")
Solver = Callable[[OneLayer, jax.Array, float, int], Found]
SOLVERS: dict[str, Solver] = {
    "newton": newton,
    "lbfgs": lbfgs,
    "newton_cg": newton_cg,
    "closed_form": closed_form,
    "proximal": proximal,
}


def _certified(
    go: Callable[[jax.Array, float, int], State | sparse.State],
    objective: OneLayer,
    theta: jax.Array,
    ceiling: float,
    max_steps: int,
) -> Found:
    """Go until the certificate is met: the loop's own bound is an estimate, and may have to be made smaller."""
    found: list[Found] = []
    steps, tolerance = 0, ceiling
    while len(found) < ROUNDS and steps < max_steps:
        state = go(theta, tolerance, max_steps - steps)
        steps += int(state.steps)
        found.append(_certify(objective, state.point, steps, ceiling))
        if found[-1].bound <= ceiling or not np.isfinite(float(state.point.cost)):
            break
        theta, tolerance = state.point.theta, CLOSER * tolerance
    return min(found, key=lambda each: (each.bound, each.cost))._replace(steps=steps)


def _certify(objective: OneLayer, point: Point, steps: int, ceiling: float) -> Found:
    """The bound in float64, whatever the precision of the search, at what is handed back."""
    if float(objective.l1) == 0:
        point = _centred(objective, point)
    if objective.x.dtype != jnp.float64:
        objective = jax.tree.map(lambda a: a.astype(jnp.float64), objective)
        point = at(objective, point.theta.astype(jnp.float64))
    penalised = "l1" if float(objective.l1) > 0 else "l2" if float(objective.l2) > 0 else None
    report = _report(objective, point, jnp.asarray(steps), jnp.asarray(ceiling), penalised)
    cost, largest = map(float, report[:2])
    bound, drift = (float(bounds.uncapped(each)) for each in report[2:])
    flat = 0
    loose = not bound + drift <= ceiling and penalised != "l1"
    if loose and point.theta.size <= sparse.WHOLE:
        local = _local(objective, point)
        bound, flat = min(bound, float(bounds.uncapped(local.bound))), int(local.flat)
    elif loose and objective.net.loss.concordance == 0 and penalised is None:  # least squares may fit every row
        bound, flat = min(bound, cost), max(0, point.theta.size - objective.y.size)
    return Found(objective, point, steps, cost, largest, bound + drift, flat)
