"""Solvers from the host: where to begin, when to go on, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.solvers import certificate, preconditioner
from lr_nn.solvers import proximal as sparse
from lr_nn.solvers.deep import Deep, NewtonCG, ScalarLBFGS
from lr_nn.solvers.line_search import Point
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.smooth import LBFGS, Newton, State, minimise

# A sample has so many rows a column: more where they are cheap beside a pass over all rows, whose number and that of
# the columns says so. Where there are fewer than twice the least, all are taken.
LEAST, SAMPLE, CHEAP = 40, 160, 16
# So many numbers stay near the processor: their whole Hessian is cheap, and rare categories are all in it.
FITS = 4e6
# The optimum of a sample is that far from the optimum of all, or farther: no use in coming nearer.
NEAR = 1e-4
# The whole Hessian is factored, for a certificate, up to so many parameters.
WHOLE = 2500
# So many products of numbers make the Hessian of all rows cheap.
DENSE = 2e9
ROUNDS, CLOSER = 3, 1e-2


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


@jax.jit
def _newton(objective: OneLayer, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array) -> State:
    return minimise(objective, Newton(objective), theta, tolerance, max_steps)


@jax.jit
def _lbfgs(direction: LBFGS, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array) -> State:
    return minimise(direction.objective, direction, theta, tolerance, max_steps)


@jax.jit
def _proximal(
    objective: OneLayer, sample: OneLayer, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array
) -> sparse.State:
    return sparse.minimise(objective, sample, theta, tolerance, max_steps)


_at = jax.jit(OneLayer.at)
_build = jax.jit(preconditioner.build)


_local = jax.jit(certificate.local)


@jax.jit
def _report(objective: OneLayer, point: Point) -> tuple[jax.Array, ...]:
    """The cost with its penalties, the largest entry of the subgradient, the bound that the penalties give, and what
    to add to every bound: η was carried from step to step, and may have drifted from that of θ by rounding.
    """
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(sparse.subgradient(objective, point))]).max()
    kind = jnp.where(objective.l1 > 0, 2, jnp.where(objective.l2 > 0, 1, 0))
    bound = jax.lax.switch(
        kind,
        [
            lambda: jnp.full_like(point.cost, jnp.inf),
            lambda: certificate.strong(objective, point),
            lambda: certificate.sparse(objective, point),
        ],
    )
    eta = objective.predictor(point.theta)
    eta = eta if objective.offset is None else eta + objective.offset
    residual = objective.share[:, None] * objective.net.loss.residual(eta, objective.y)
    drift = 2 * jnp.abs(eta - point.eta).max() * jnp.abs(residual).sum()
    return sparse.composite(objective, point.cost, point.theta), largest, bound, drift


def newton(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Damped Newton with the whole Hessian, for few parameters."""
    return _certified(partial(_newton, objective), objective, theta, ceiling, max_steps)


def lbfgs(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """L-BFGS, helped by the curvature of a sample of rows; on many rows begun at the optimum of that sample."""
    sample, few = _sample(objective)
    direction = LBFGS.nothing(objective, few)
    if sample is not objective:
        near = jnp.asarray(max(ceiling, NEAR))
        first = _lbfgs(LBFGS.nothing(sample, few), theta, near, jnp.asarray(max_steps))
        theta = first.point.theta
        factor = _build(few, theta) if bool(first.known.built) else first.known.factor
        direction = direction._replace(factor=factor, built=first.known.built)

    def go(theta: jax.Array, tolerance: jax.Array, steps: jax.Array) -> State:
        return _lbfgs(direction, theta, tolerance, steps)

    return _certified(go, objective, theta, ceiling, max_steps)


def proximal(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Proximal Newton, for L1 penalties; its model is the Hessian of all rows while that costs little."""
    few = _sample(objective)[1] if objective.x.size * objective.x.shape[1] > DENSE else _narrow(objective)
    return _certified(partial(_proximal, objective, few), objective, theta, ceiling, max_steps)


def closed_form(objective: OneLayer, theta: jax.Array, ceiling: float, max_steps: int) -> Found:
    """Least squares on centred rows: by singular values, or, with an L2 penalty and few rows, in their dual."""
    x, y = np.asarray(objective.x), np.asarray(objective.y)
    y = y if objective.offset is None else y - np.asarray(objective.offset)
    share, l2 = np.asarray(objective.share)[:, None], float(objective.l2)
    bias = objective.net.bias
    x_mean, y_mean = ((share * a).sum(axis=0) if bias else np.zeros(a.shape[1]) for a in (x, y))
    a, b = np.sqrt(share) * (x - x_mean), np.sqrt(share) * (y - y_mean)
    if l2 == 0:
        w = np.linalg.lstsq(a, b)[0]
    elif a.shape[0] < a.shape[1]:
        w = a.T @ np.linalg.solve(a @ a.T + l2 * np.eye(len(a)), b)
    else:
        ridge = np.concatenate([a, np.sqrt(l2) * np.eye(a.shape[1])])
        w = np.linalg.lstsq(ridge, np.concatenate([b, np.zeros((a.shape[1], b.shape[1]))]))[0]
    best = np.concatenate([w.reshape(-1), y_mean - x_mean @ w]) if bias else w.reshape(-1)
    return _certify(objective, _at(objective, jnp.asarray(best)), 1, ceiling)


@partial(jax.jit, static_argnames="solver")
def stationary(objective: Deep, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array, solver: str) -> State:
    """A point at which no entry of ∇J is larger than `tolerance`, by one of `DEEP`, and one full step after it."""
    direction = NewtonCG(objective) if solver == "newton_cg" else ScalarLBFGS()
    return minimise(objective, direction, theta, tolerance, max_steps)


DEEP = ("lbfgs", "newton_cg")
Solver = Callable[[OneLayer, jax.Array, float, int], Found]
SOLVERS: dict[str, Solver] = {"newton": newton, "lbfgs": lbfgs, "closed_form": closed_form, "proximal": proximal}


def _certified(
    go: Callable[[jax.Array, jax.Array, jax.Array], State | sparse.State],
    objective: OneLayer,
    theta: jax.Array,
    ceiling: float,
    max_steps: int,
) -> Found:
    """Go until the certificate is met: the loop's own bound is an estimate, and may have to be made smaller."""
    found: list[Found] = []
    steps, tolerance = 0, ceiling
    while len(found) < ROUNDS and steps < max_steps:
        state = go(theta, jnp.asarray(tolerance), jnp.asarray(max_steps - steps))
        steps += int(state.steps)
        found.append(_certify(objective, state.point, steps, ceiling))
        if found[-1].bound <= ceiling or not np.isfinite(float(state.point.cost)):
            break
        theta, tolerance = state.point.theta, CLOSER * tolerance
    return min(found, key=lambda each: each.bound)._replace(steps=steps)


def _certify(objective: OneLayer, point: Point, steps: int, ceiling: float) -> Found:
    """The bound in float64, whatever the precision of the search."""
    if objective.x.dtype != jnp.float64:
        objective = jax.tree.map(lambda a: a.astype(jnp.float64), objective)
        point = _at(objective, point.theta.astype(jnp.float64))
    cost, largest, bound, drift = map(float, _report(objective, point))
    flat = 0
    if bound + drift > ceiling and float(objective.l1) == 0 and point.theta.size <= WHOLE:
        local = _local(objective, point)
        bound, flat = min(bound, float(local.bound)), int(local.flat)
    return Found(objective, point, steps, cost, largest, bound + drift, flat)


def _sample(objective: OneLayer) -> tuple[OneLayer, OneLayer]:
    """Rows that stand for all, in the precision of the search and in float32."""
    n, q = objective.x.shape[0], objective.x.shape[1] + 1
    if n >= 2 * LEAST * q and n * q > FITS:
        rows = min(n // 2, max(LEAST * q, min(SAMPLE * q, CHEAP * n // q)))
        chosen = jnp.asarray(np.sort(np.random.default_rng(0).choice(n, rows, replace=False, shuffle=False)))
        picked = jax.tree.map(lambda a: a[chosen] if a.ndim else a, objective)
        objective = replace(picked, share=picked.share / picked.share.sum())
    return objective, _narrow(objective)


def _narrow(objective: OneLayer) -> OneLayer:
    return jax.tree.map(lambda a: a.astype(jnp.float32), objective)
