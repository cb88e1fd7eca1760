"""The engines of `fit_many`: each takes some lanes to their optimum, and has those judged that it cannot certify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.fitting import solved
from lr_nn.many.lanes import Lanes
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.solvers import certificate, lane, products, schedule
from lr_nn.solvers.bounds import capped, uncapped
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.problem import achievable, constant, encoded, shares
from lr_nn.types import Status

__all__ = ["Found", "Table", "alone", "each", "judged", "small", "stacked", "together"]

# Slots of a queue.
SLOTS = 512


class Table(NamedTuple):
    """`x` where lanes are solved: (n, d), and in float32 too; or that of each lane, (m, n, d)."""

    x: jax.Array
    narrow: Any


class Found(NamedTuple):
    """What some lanes found, in NumPy, lanes first; the directions of those that are separated, by lane; and the steps
    that were computed, those of idle lanes among them.
    """

    theta: np.ndarray
    status: np.ndarray
    steps: np.ndarray
    cost: np.ndarray
    gradient_norm: np.ndarray
    certificate: np.ndarray
    message: np.ndarray
    directions: dict[int, Any]
    computed: int


def stacked(lanes: Lanes, ids: np.ndarray, table: Table, tol: float) -> schedule.Stack:
    """The problems of the lanes `ids`, from the best constant models where no start was given."""
    net, n, k = lanes.net, lanes.n, lanes.net.sizes[1]
    y = lanes.take("y", ids)
    y = net.loss.targets(y.reshape(-1, *y.shape[2:]), len(y) * n, k, np.float64).reshape(len(y), n, *y.shape[2:])
    weight = jnp.asarray(np.ones((1, n)) if lanes.weight is None else lanes.take("weight", ids), float)
    offset = None if lanes.offset is None else jnp.asarray(lanes.take("offset", ids), float)
    y, share, eta, excess, far = _prepare(net, y, weight, offset)
    l1, l2 = (jnp.asarray(strength) for strength in lanes.take("penalty", ids))
    constants: Any = (np.zeros((1, *net.sizes)), np.asarray(eta) if net.bias else None)
    start = lanes.take("start", ids) or (constants,)
    leaves = [np.asarray(leaf, float).reshape(len(leaf), -1) for leaf in start[0] if leaf is not None]
    theta = np.concatenate([np.broadcast_to(leaf, (len(ids), leaf.shape[1])) for leaf in leaves], axis=1)
    ceiling = np.broadcast_to(tol * achievable(np.asarray(excess), np.asarray(far)), len(ids))
    objective = OneLayer(table.x, y, share, offset, l2, l1, net)
    owner = jnp.arange(len(ids))
    return schedule.Stack(objective, table.narrow, owner, jnp.asarray(theta), jnp.asarray(ceiling))


@partial(jax.jit, static_argnames="net")
def _prepare(net: Network, y: jax.Array, weight: jax.Array, offset: jax.Array | None) -> tuple[jax.Array, ...]:
    """Targets, shares and constant models over a leading axis, of lanes or of 1; what all share stays shared."""
    y = jax.lax.map(lambda y: encoded(net, y, weight.dtype), y)
    share = jax.lax.map(shares, weight)
    given = (y, share) if offset is None else (y, share, offset)

    def one(i: jax.Array) -> tuple[jax.Array, ...]:
        own = [each[i if len(each) > 1 else 0] for each in given]
        return constant(net, own[0], own[1], own[2] if offset is not None else None)

    return y, share, *jax.lax.map(one, jnp.arange(max(map(len, given))))


def small(stack: schedule.Stack, max_steps: int, order: str) -> Found:
    """Lanes that are small, by `solvers.lane`, in one of the orders of `solvers.schedule`."""
    solve = lane.proximal if (np.asarray(stack.objective.l1) > 0).any() else lane.smooth
    ran = schedule.ORDERS[order](stack, jnp.asarray(max_steps), solve, SLOTS)
    return judged(stack, ran.report, int(ran.computed), max_steps)


def judged(stack: schedule.Stack, report: lane.Report, computed: int, max_steps: int) -> Found:
    """The report in NumPy; lanes without a certificate go through `fit`'s solvers, which say what is the matter."""
    theta, cost, gradient_norm, bound, steps = (np.array(each) for each in report)
    bound = uncapped(bound)
    good = bound <= np.asarray(stack.ceiling)
    status = np.where(good, Status.converged, Status.max_steps).astype(np.int8)
    message = np.full(len(theta), "", object)
    found = Found(theta, status, steps, cost, gradient_norm, bound, message, {}, computed)
    for i in np.flatnonzero(~good):
        alone(found, i, stack, stack.start[i], max_steps, "auto")
    return found._replace(computed=computed + int(found.steps[~good].sum()))


def each(stack: schedule.Stack, max_steps: int, solver: str, chained: bool) -> Found:
    """One after another by `fit`'s solvers; where they are `chained`, each from where the one before it ended."""
    m, p = stack.start.shape
    status, steps = np.zeros(m, np.int8), np.zeros(m, int)
    cost, gradient_norm, bound = (np.full(m, np.inf) for _ in range(3))
    found = Found(np.zeros((m, p)), status, steps, cost, gradient_norm, bound, np.full(m, "", object), {}, 0)
    for i in range(m):
        after = chained and i > 0 and status[i - 1] == Status.converged
        alone(found, i, stack, jnp.asarray(found.theta[i - 1]) if after else stack.start[i], max_steps, solver)
    return found._replace(computed=int(steps.sum()))


def alone(found: Found, i: Any, stack: schedule.Stack, start: jax.Array, max_steps: int, solver: str) -> None:
    """Lane i from θ by one of `fit`'s solvers, written into what was found."""
    objective = stack.problem(i)
    penalty = Penalty(float(objective.l1), float(objective.l2))
    if stack.narrow is None and not jnp.isfinite(objective.x).all():
        found.status[i], found.message[i] = Status.non_finite, "x of this lane is not finite"
        found.theta[i] = found.cost[i] = found.gradient_norm[i] = found.certificate[i] = np.nan
        return
    solution = solved(objective, start, penalty, float(stack.ceiling[i]), max_steps, solver)
    found.theta[i] = np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(solution.params)])
    for name in ("status", "steps", "cost", "gradient_norm", "certificate", "message"):
        getattr(found, name)[i] = getattr(solution, name)
    if solution.direction is not None:
        found.directions[int(i)] = solution.direction


def together(
    lanes: Lanes, ids: np.ndarray, table: Table, tol: float, max_steps: int
) -> Iterator[tuple[np.ndarray, Found]]:
    """Chains (c, t) of lanes of one output on one large `x`, by `solvers.products`: some strengths after others, each
    beginning where the last one of its chain ended. Yields the ids and what was found.
    """
    loss, bias, t = lanes.net.loss, lanes.net.bias, ids.shape[1]
    heads = stacked(lanes, ids[:, 0], table, tol)
    group, theta = _group(heads, table, t), heads.start[:, None]
    width = min(t, products.TOGETHER)
    for begin in range(0, t, width):
        some = ids[:, np.minimum(np.arange(begin, begin + width), t - 1)]
        flat, chain = some.reshape(-1), np.repeat(np.arange(len(ids)), width)
        l2 = jnp.asarray(np.broadcast_to(lanes.take("penalty", flat).l2, flat.shape).reshape(some.shape))
        start = jnp.broadcast_to(theta[:, -1:], (*some.shape, theta.shape[2]))
        if lanes.start is not None:
            start = stacked(lanes, flat, table, tol).start.reshape(start.shape)
        group = group._replace(l2=l2)
        state = products.solve(loss, bias, group, start, jnp.asarray(max_steps))
        report, theta = products.report(loss, bias, group, state), state.theta
        report = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), report)

        objective, start = replace(heads.objective, l2=l2.reshape(-1)), start.reshape(len(flat), -1)
        stack = schedule.Stack(objective, heads.narrow, jnp.asarray(chain), start, heads.ceiling[chain])
        bound = np.array(report.bound)
        for i in np.flatnonzero(np.asarray(l2).reshape(-1) == 0):
            bound[i] = _unpenalised(stack.problem(i), report.theta[i])
        yield flat, judged(stack, report._replace(bound=bound), int(state.steps.max()) * some.size, max_steps)


def _group(heads: schedule.Stack, table: Table, t: int) -> products.Group:
    """The chains of these heads, of t lanes each, without their strengths."""
    objective, (n, q) = heads.objective, (len(table.x), heads.start.shape[1])
    sample, numbers = products.sampled(table.narrow, products.rows_of_factor(n, q, t))
    offset = None if objective.offset is None else objective.offset[..., 0]
    nothing, ceiling = jnp.zeros((0, 0)), heads.ceiling[:, None]
    reach = _reach(table.x)
    return products.Group(
        table.x, objective.y[..., 0], objective.share, offset, nothing, ceiling, sample, numbers, reach
    )


@jax.jit
def _reach(x: jax.Array) -> jax.Array:
    """max ‖x_i‖."""
    return jnp.sqrt((x * x).sum(axis=1).max())


@jax.jit
def _unpenalised(objective: OneLayer, theta: jax.Array) -> jax.Array:
    point = objective.at(theta)
    bound = certificate.definite(objective, point)
    return capped(bound + certificate.drift(objective, point, jnp.zeros((), int), jnp.full_like(bound, jnp.inf)))
