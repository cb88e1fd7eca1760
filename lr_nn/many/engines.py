"""The engines of `fit_many`: each takes some lanes to their optimum, and has those judged that it cannot certify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import Problem, achievable, posed, with_strengths
from lr_nn.fitting.search import solved
from lr_nn.fitting.settings import DEFAULT
from lr_nn.many import certificate, lane, products, schedule
from lr_nn.many.bounds import capped, uncapped
from lr_nn.many.lanes import Lanes
from lr_nn.many.one_layer import OneLayer
from lr_nn.many.problem import constant, encoded, shares
from lr_nn.many.settings import Settings
from lr_nn.network import Network, n_parameters
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Params, Status

__all__ = ["Found", "Table", "each", "small", "together"]

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
    reach = 1.0 if offset is None else 1 + np.abs(np.asarray(offset)).max(axis=(1, 2))
    ceiling = np.broadcast_to(tol * achievable(excess, far, reach), len(ids))
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


def small(lanes: Lanes, ids: np.ndarray, table: Table, settings: Settings, order: str) -> Found:
    """Lanes that are small, by `lane`, in one of the orders of `schedule`."""
    stack = stacked(lanes, ids, table, settings.tol)
    solve = lane.proximal if (np.asarray(stack.objective.l1) > 0).any() else lane.smooth
    ran = schedule.ORDERS[order](stack, jnp.asarray(settings.max_steps), solve, SLOTS)
    return judged(lanes, ids, np.asarray(stack.ceiling), ran.report, int(ran.computed), settings)


def judged(
    lanes: Lanes, ids: np.ndarray, ceiling: np.ndarray, report: lane.Report, computed: int, settings: Settings
) -> Found:
    """The report in NumPy; lanes without a certificate go through `fit`'s solvers, which say what is the matter."""
    theta, cost, gradient_norm, bound, steps = (np.array(each) for each in report)
    bound = uncapped(bound)
    good = bound <= ceiling
    status = np.where(good, Status.converged, Status.max_steps).astype(np.int8)
    found = Found(theta, status, steps, cost, gradient_norm, bound, np.full(len(theta), "", object), {}, computed)
    alone = Alone(lanes, replace(settings, solver="auto"))
    for i in np.flatnonzero(~good):
        alone.solve(found, int(i), int(ids[i]))
    return found._replace(computed=computed + int(found.steps[~good].sum()))


def each(lanes: Lanes, ids: np.ndarray, settings: Settings, chained: bool) -> Found:
    """One after another by `fit`'s solvers; where they are `chained`, each from where the one before it ended."""
    m, p = len(ids), n_parameters(lanes.net)
    status, steps = np.zeros(m, np.int8), np.zeros(m, int)
    cost, gradient_norm, bound = (np.full(m, np.inf) for _ in range(3))
    found = Found(np.zeros((m, p)), status, steps, cost, gradient_norm, bound, np.full(m, "", object), {}, 0)
    alone, last = Alone(lanes, settings), None
    for i in range(m):
        last = alone.solve(found, i, int(ids[i]), last if chained else None)
    return found._replace(computed=int(steps.sum()))


class Alone:
    """`fit`'s solvers for one lane after another: what lanes share in their data is posed once."""

    def __init__(self, lanes: Lanes, settings: Settings) -> None:
        self.lanes, self.settings = lanes, settings
        self.problem: Problem | None = None
        self.owners: tuple[int, ...] = ()

    def solve(self, found: Found, i: int, lane_id: int, start: Params | None = None) -> Params | None:
        """Lane `lane_id`, written into place i of what was found; its parameters, where they are an optimum."""
        lanes, settings = self.lanes, self.settings
        one = np.array([lane_id])
        penalty = Penalty(*(float(strength[0]) for strength in lanes.take("penalty", one)))
        if start is None and lanes.start is not None:
            start = jax.tree.map(lambda leaf: np.asarray(leaf[0]), lanes.take("start", one))
        problem = self._posed(one, penalty)
        if problem is None:
            found.status[i], found.message[i] = Status.non_finite, "x of this lane is not finite"
            found.theta[i] = found.cost[i] = found.gradient_norm[i] = found.certificate[i] = np.nan
            return None
        solution = solved(
            problem, penalty, start, settings.tol, settings.max_steps, settings.solver, np.dtype(float), DEFAULT
        )
        found.theta[i] = np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(solution.params)])
        for name in ("status", "steps", "cost", "gradient_norm", "certificate", "message"):
            getattr(found, name)[i] = getattr(solution, name)
        if solution.direction is not None:
            found.directions[i] = solution.direction
        return solution.params if solution.status == Status.converged else None

    def _posed(self, one: np.ndarray, penalty: Penalty) -> Problem | None:
        """The problem of a lane; None where its x is not finite."""
        lanes = self.lanes
        owners = tuple(_owner(lanes, name, int(one[0])) for name in ("x", "y", "weight", "offset"))
        if self.problem is not None and owners == self.owners:
            self.problem = with_strengths(lanes.net, self.problem, penalty)
            return self.problem
        x = lanes.x if lanes.shares_x else lanes.take("x", one)[0]
        if not lanes.shares_x and not np.isfinite(x).all():
            return None
        others = (
            None if getattr(lanes, name) is None else lanes.take(name, one)[0] for name in ("y", "weight", "offset")
        )
        source = of_arrays(lanes.net, [Batch(np.asarray(x), *others)], DEFAULT)
        self.problem, self.owners = posed(lanes.net, source, penalty, DEFAULT), owners
        return self.problem


def _owner(lanes: Lanes, name: str, lane_id: int) -> int:
    """Which entry of an argument a lane has, -1 of what all share."""
    value = getattr(lanes, name)
    if value is None or (name == "x" and lanes.shares_x) or len(value) == 1:
        return -1
    return int(lanes.owner[name][lane_id]) if name in lanes.owner else lane_id


def together(lanes: Lanes, ids: np.ndarray, table: Table, settings: Settings) -> Iterator[tuple[np.ndarray, Found]]:
    """Chains (c, t) of lanes of one output on one large `x`, by `products`: some strengths after others, each
    beginning where the last one of its chain ended. Yields the ids and what was found.
    """
    loss, bias, t = lanes.net.loss, lanes.net.bias, ids.shape[1]
    tol, max_steps = settings.tol, settings.max_steps
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
        computed = int(state.steps.max()) * some.size
        yield flat, judged(lanes, flat, np.asarray(stack.ceiling), report._replace(bound=bound), computed, settings)


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
