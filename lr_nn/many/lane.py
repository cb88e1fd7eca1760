"""One fit of thousands: Newton's method as a state and a step, so that lanes run one after another or side by side.

Gradients are in float64. The factor of the Hessian is in float32, and made anew only where a step shortens the
gradient less than tenfold; costs, in float32, guard the steps far from the optimum, slopes those near it. A lane that
is not certified in the end is for a slower solver to judge.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from lr_nn.many import certificate
from lr_nn.many import proximal as sparse
from lr_nn.many.bounds import capped
from lr_nn.many.line_search import Point
from lr_nn.many.one_layer import OneLayer
from lr_nn.network import Network
from lr_nn.row_sums import weighted

__all__ = [
    "Lane",
    "Report",
    "State",
    "at",
    "begin",
    "columns_of",
    "direction",
    "factor",
    "goes_on",
    "inverse_factor",
    "narrowed",
    "proximal",
    "report",
    "smooth",
    "step",
]

# A step that shortens the gradient less asks for a new factor. A shorter trial, and trials in a row that gain nothing.
SLOW, SHORTER, IDLE = 0.1, 0.25, 10
ENOUGH, JITTER = 1e-4, 1e-6


class Lane(NamedTuple):
    """One problem: in float64, the same in float32, θ to begin with, and the bound on J - J* that is asked for.

    `columns` (q, n), of one output: x in float32 with the constant 1 of the bias last, transposed, for its Hessian is
    made of them at half the price.
    """

    objective: OneLayer
    narrow: OneLayer
    columns: jax.Array | None
    start: jax.Array
    ceiling: jax.Array


class State(NamedTuple):
    """The point (its cost in float32), L⁻¹ of each block of the Hessian, the next step's length, steps tried, those in
    a row that gained nothing, and whether the bound is met.
    """

    point: Point
    inverse: jax.Array
    length: jax.Array
    steps: jax.Array
    idle: jax.Array
    met: jax.Array


class Report(NamedTuple):
    """The end of a lane: θ, J with its penalties, the largest entry of the subgradient, a bound on J - J*, steps.

    The bound is `bounds.capped`: the largest number where there is none.
    """

    theta: jax.Array
    cost: jax.Array
    gradient_norm: jax.Array
    bound: jax.Array
    steps: jax.Array


def begin(lane: Lane) -> State:
    """At the start, with the factor there."""
    point, zero = at(lane, lane.start), jnp.zeros((), int)
    met = lane.objective.bound(point, jnp.full_like(lane.ceiling, jnp.inf)) <= lane.ceiling / 2
    return State(point, factor(lane, point.eta), jnp.ones_like(lane.ceiling), zero, zero, met)


def step(lane: Lane, state: State) -> State:
    """One trial: the point there if it gains, else the same point and a shorter step."""
    point = state.point
    along = direction(lane, state)
    slope = along @ point.gradient
    new = at(lane, point.theta + state.length * along)
    slack = 16 * jnp.finfo(new.cost.dtype).eps * (1 + jnp.abs(point.cost))
    lower = new.cost <= point.cost + (ENOUGH * state.length * slope).astype(slack.dtype) + slack
    gains = lower & (along @ new.gradient <= -slope) & jnp.isfinite(new.gradient).all()
    shrunk = jnp.sqrt((new.gradient @ new.gradient) / (point.gradient @ point.gradient))
    met = gains & (lane.objective.bound(new, -slope * shrunk**2) <= lane.ceiling / 2)
    inverse = lax.cond(gains & ~met & (shrunk > SLOW), lambda: factor(lane, new.eta), lambda: state.inverse)
    idle = jnp.where(gains & (shrunk < 1), 0, state.idle + 1)
    kept = jax.tree.map(lambda a, b: jnp.where(gains, a, b), new, point)
    return State(kept, inverse, jnp.where(gains, 1, SHORTER * state.length), state.steps + 1, idle, met)


def goes_on(state: State, max_steps: jax.Array) -> jax.Array:
    """Neither there, nor stuck, nor out of steps."""
    return ~state.met & (state.idle < IDLE) & (state.steps < max_steps)


def smooth(lane: Lane, max_steps: jax.Array) -> Report:
    """The lane by itself, from its start to its report."""
    last = lax.while_loop(lambda state: goes_on(state, max_steps), lambda state: step(lane, state), begin(lane))
    return report(lane, last.point, last.steps)


def report(lane: Lane, point: Point, steps: jax.Array) -> Report:
    """The cost in float64, and the certificate: of the L2 penalty, or of a Hessian that is definite."""
    objective, point = lane.objective, lane.objective.centred_point(point)
    cost = objective.cost(point.theta, point.eta)
    point = point._replace(cost=cost)

    def penalised() -> jax.Array:
        return certificate.strong(objective, point, lane.ceiling)

    bound = lax.cond(objective.l2.min() > 0, penalised, lambda: certificate.definite(objective, point))
    return _reported(lane, point, cost, jnp.abs(point.gradient).max(), bound, steps)


def proximal(lane: Lane, max_steps: jax.Array) -> Report:
    """A lane with an L1 penalty, by proximal Newton."""
    found = sparse.solve(lane.objective, lane.narrow, lane.start, lane.ceiling / 2, max_steps)
    cost = sparse.composite(lane.objective, found.point.cost, found.point.theta)
    bound = certificate.sparse(lane.objective, found.point)
    return _reported(lane, found.point, cost, found.residual, bound, found.steps)


def _reported(
    lane: Lane, point: Point, cost: jax.Array, largest: jax.Array, bound: jax.Array, steps: jax.Array
) -> Report:
    drift = certificate.drift(lane.objective, point, steps, lane.ceiling - bound)
    return Report(point.theta, cost, largest, capped(bound + drift), steps)


def at(lane: Lane, theta: jax.Array) -> Point:
    """The gradient in float64, the cost in float32, where its logarithms cost a fraction."""
    objective, narrow = lane.objective, lane.narrow
    eta = objective.eta(theta)
    residual = weighted(objective.net.loss.residual(eta, objective.y), objective.share)
    cost = narrow.cost(theta.astype(jnp.float32), eta.astype(jnp.float32))
    return Point(theta, eta, cost, objective.gradient(theta, residual), jnp.linalg.norm(theta))


def factor(lane: Lane, eta: jax.Array) -> jax.Array:
    """L⁻¹ of the blocks of the Hessian at η: (blocks, q, q)."""
    if lane.columns is None:
        return jax.vmap(inverse_factor)(sparse.model(lane.narrow, eta.astype(jnp.float32)))
    narrow = lane.narrow
    weight = narrow.share * narrow.net.loss.fisher_diagonal(eta.astype(jnp.float32))[:, 0]
    hessian = (lane.columns * weight[None]) @ lane.columns.T + jnp.diag(narrow.ridge())
    return inverse_factor(hessian)[None]


def inverse_factor(hessian: jax.Array) -> jax.Array:
    """L⁻¹, L Lᵀ the Hessian with a little added to its diagonal."""
    scale = lax.rsqrt(jnp.diagonal(hessian))
    eye = jnp.eye(len(scale), dtype=scale.dtype)
    lower = jnp.linalg.cholesky(scale[:, None] * hessian * scale[None] + JITTER * eye)
    return solve_triangular(lower, eye, lower=True) * scale[None]


def direction(lane: Lane, state: State) -> jax.Array:
    """-H⁻¹ ∇J, the gradient scaled for a precision whose range is smaller."""
    gradient, inverse = state.point.gradient, state.inverse
    size = jnp.maximum(jnp.abs(gradient).max(), jnp.finfo(gradient.dtype).tiny)
    blocks = (gradient / size).astype(inverse.dtype).reshape(-1, len(inverse)).T
    solved = jnp.einsum("bji,bj->bi", inverse, jnp.einsum("bij,bj->bi", inverse, blocks))
    return lane.objective.centred(-solved.T.reshape(-1).astype(gradient.dtype) * size)


def columns_of(x: jax.Array, net: Network) -> jax.Array | None:
    """The columns of a lane of one output."""
    if net.sizes[1] > 1:
        return None
    columns = x.astype(jnp.float32).T
    return jnp.concatenate([columns, jnp.ones((int(net.bias), columns.shape[1]), columns.dtype)])


def narrowed(objective: OneLayer) -> OneLayer:
    """The objective in float32."""
    return jax.tree.map(lambda a: a.astype(jnp.float32), objective)
