"""Lanes of one output that share a large `x`: their values and gradients are matrix products over blocks of rows.

Lanes come as (c, t): c chains, each with targets and weights of its own, of t strengths. L-BFGS from a float32 factor
of the Hessian of each chain's middle lane, with each lane's own penalty, made anew when it has served for long.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lr_nn.losses import Loss
from lr_nn.many import certificate, lane
from lr_nn.many import memory as pairs
from lr_nn.many.bounds import capped
from lr_nn.many.memory import Memory

__all__ = ["Group", "State", "Sums", "evaluate", "factors", "report", "rows_of_factor", "sampled", "solve"]

# Rows of a block; lanes and strengths of a chain that are solved at once; pairs of L-BFGS; steps that a factor serves
# at least, twice as long each time.
ROWS, LANES, TOGETHER, MEMORY, SERVES = 2048, 64, 10, 6, 4
# Rows of the factor: so many for what a lane's step costs, and at least so many a column.
WORTH, LEAST = 16, 40


class Group(NamedTuple):
    """Rows `x` (n, d), `y`, `share` and `offset` (c, n) or (1, n) (None: no offset), `l2` (c, t), `ceiling` (c, 1)
    or (c, t); `sample` some rows in float32 and their numbers, `reach` max ‖x_i‖.
    """

    x: jax.Array
    y: jax.Array
    share: jax.Array
    offset: jax.Array | None
    l2: jax.Array
    ceiling: jax.Array
    sample: jax.Array
    numbers: jax.Array
    reach: jax.Array


class Sums(NamedTuple):
    """Of every lane, (c, t): the cost, its gradient (c, t, q), Σ share ℓ″ and Σ share |ℓ′| at its η."""

    cost: jax.Array
    gradient: jax.Array
    curvature: jax.Array
    slopes: jax.Array


class State(NamedTuple):
    """Where the lanes are: θ and ∇J (c, t, q), the cost, the pairs and L⁻¹ of each, and as in `lane.State`."""

    theta: jax.Array
    gradient: jax.Array
    cost: jax.Array
    memory: Memory
    inverse: jax.Array
    length: jax.Array
    steps: jax.Array
    idle: jax.Array
    met: jax.Array
    age: jax.Array
    serves: jax.Array


def rows_of_factor(n: int, q: int, lanes: int) -> int:
    """How many rows the factor of a chain of so many lanes is made of."""
    return min(n, max(LEAST * q, WORTH * lanes * n // q))


@partial(jax.jit, static_argnames=("loss", "bias"))
def solve(loss: Loss, bias: bool, group: Group, theta: jax.Array, max_steps: jax.Array) -> State:
    """All lanes of a group, until each has met half its ceiling or can do no more."""
    at = partial(evaluate, loss, bias, group)
    first = at(theta)
    none, lanes = jnp.zeros(theta.shape[:2], int), theta.shape[:2]
    empty = jax.tree.map(lambda leaf: jnp.zeros((*lanes, *leaf.shape), leaf.dtype), pairs.empty(MEMORY, theta[0, 0]))
    met = _bound(group, bias, first.gradient, jnp.full(lanes, jnp.inf)) <= group.ceiling / 2
    state = State(
        theta,
        first.gradient,
        first.cost,
        empty,
        factors(loss, bias, group, theta),
        jnp.ones(lanes),
        none,
        none,
        met,
        jnp.zeros((), int),
        jnp.full((), SERVES),
    )

    def running(state: State) -> jax.Array:
        return ~state.met & (state.idle < lane.IDLE) & (state.steps < max_steps)

    def step(state: State) -> State:
        along = -_each(_multiply)(state.memory, state.gradient, state.inverse)
        slope = (along * state.gradient).sum(axis=2)
        new = at(state.theta + state.length[..., None] * along)
        slack = 16 * float(jnp.finfo(jnp.float32).eps) * (1 + jnp.abs(state.cost))
        lower = new.cost <= state.cost + lane.ENOUGH * state.length * slope + slack
        gains = lower & ((along * new.gradient).sum(axis=2) <= -slope) & jnp.isfinite(new.gradient).all(axis=2)
        shrunk = jnp.linalg.norm(new.gradient, axis=2) / jnp.linalg.norm(state.gradient, axis=2)
        on = running(state)
        gains, counted = gains & on, on.astype(state.steps.dtype)
        met = state.met | (gains & (_bound(group, bias, new.gradient, -slope * shrunk**2) <= group.ceiling / 2))
        moved = state.length[..., None] * along
        memory = _each(pairs.remember)(state.memory, moved, new.gradient - state.gradient)
        theta, gradient, cost, memory = jax.tree.map(
            partial(_where, gains),
            (state.theta + moved, new.gradient, new.cost, memory),
            (state.theta, state.gradient, state.cost, state.memory),
        )
        after = State(
            theta,
            gradient,
            cost,
            memory,
            state.inverse,
            jnp.where(gains, 1, lane.SHORTER * state.length),
            state.steps + counted,
            jnp.where(gains & (shrunk < 1), 0, state.idle + counted),
            met,
            state.age + 1,
            state.serves,
        )
        worn = (after.age >= after.serves) & running(after).any()
        return lax.cond(worn, renewed, lambda state: state, after)

    def renewed(state: State) -> State:
        inverse = factors(loss, bias, group, state.theta)
        return state._replace(memory=empty, inverse=inverse, age=jnp.zeros_like(state.age), serves=2 * state.serves)

    return lax.while_loop(lambda state: running(state).any(), step, state)


def _multiply(memory: Memory, gradient: jax.Array, inverse: jax.Array) -> jax.Array:
    def first(vector: jax.Array) -> jax.Array:
        size = jnp.maximum(jnp.abs(vector).max(), jnp.finfo(vector.dtype).tiny)
        scaled = (vector / size).astype(inverse.dtype)
        return (inverse.T @ (inverse @ scaled)).astype(vector.dtype) * size

    return pairs.multiply(memory, gradient, first)


def _each(function):
    """A function of one lane, for (c, t) of them."""
    return jax.vmap(jax.vmap(function))


def _where(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(chosen.reshape(*chosen.shape, *(1,) * (a.ndim - 2)), a, b)


def _bound(group: Group, bias: bool, gradient: jax.Array, decrement: jax.Array) -> jax.Array:
    """`certificate.strong` but for the distance of the bias; without an L2 penalty the decrement."""
    slope = jnp.linalg.norm(gradient[..., : group.x.shape[1]], axis=2)
    slope = slope + group.reach * jnp.abs(gradient[..., -1]) if bias else slope
    return jnp.where(group.l2 > 0, slope**2 / (2 * jnp.where(group.l2 > 0, group.l2, 1)), decrement)


def evaluate(loss: Loss, bias: bool, group: Group, theta: jax.Array, exact: bool = False) -> Sums:
    """The cost, of values in float32, and the gradient of every lane, by blocks of rows; if `exact`, the cost of
    values in float64, and the other sums, else zero.
    """
    (c, t, _), (n, d) = theta.shape, group.x.shape
    rows = min(ROWS, n)
    w = theta[..., :d].reshape(c * t, d)
    b = theta[..., -1:].reshape(c * t, 1) if bias else jnp.zeros((c * t, 1))
    width = jnp.float64 if exact else jnp.float32

    def block(i: jax.Array, sums: Sums) -> Sums:
        begin = jnp.minimum(i * rows, n - rows)
        x = lax.dynamic_slice_in_dim(group.x, begin, rows, axis=0)
        fresh = begin + jnp.arange(rows) >= i * rows

        def part(each: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(each, begin, rows, axis=1)[:, None]

        eta = (lax.dot_general(w, x, (((1,), (1,)), ((), ()))) + b).reshape(c, t, rows)
        eta = eta if group.offset is None else eta + part(group.offset)
        y = jnp.broadcast_to(part(group.y), eta.shape)
        share = jnp.where(fresh[None, None], part(group.share), 0)

        def flat(function, dtype, *others):
            found = function(eta.reshape(-1, 1).astype(dtype), *(o.reshape(-1, 1).astype(dtype) for o in others))
            return found.reshape(eta.shape).astype(eta.dtype)

        residual = share * flat(loss.residual, jnp.float64, y)
        values = flat(loss.value, width, y)
        by_weight = residual.reshape(c * t, rows) @ x
        gradient = by_weight.reshape(c, t, d)
        if bias:
            gradient = jnp.concatenate([gradient, residual.sum(axis=2, keepdims=True)], axis=2)
        curvature = (share * flat(loss.fisher_diagonal, width)).sum(axis=2) if exact else 0 * sums.curvature
        slopes = jnp.abs(residual).sum(axis=2) if exact else 0 * sums.slopes
        return jax.tree.map(jnp.add, sums, Sums((share * values).sum(axis=2), gradient, curvature, slopes))

    zero = jnp.zeros((c, t))
    sums = lax.fori_loop(0, -(-n // rows), block, Sums(zero, jnp.zeros_like(theta), zero, zero))
    ridge = group.l2[..., None] * theta.at[..., d:].set(0)
    cost = sums.cost + (ridge * theta).sum(axis=2) / 2
    return sums._replace(cost=cost, gradient=sums.gradient + ridge)


def factors(loss: Loss, bias: bool, group: Group, theta: jax.Array) -> jax.Array:
    """L⁻¹ (c, t, q, q), L Lᵀ the Hessian of the chain's middle lane on the sampled rows, and the lane's penalty."""
    c, t, q = theta.shape
    d = group.sample.shape[1]
    middle = theta[:, t // 2].astype(jnp.float32)

    def gram(i: jax.Array) -> jax.Array:
        def own(each: jax.Array) -> jax.Array:
            return each[i if len(each) > 1 else 0][group.numbers].astype(jnp.float32)

        eta = group.sample @ middle[i, :d] + (middle[i, -1] if bias else 0)
        eta = eta if group.offset is None else eta + own(group.offset)
        share = own(group.share)
        weight = share / share.sum() * loss.fisher_diagonal(eta[:, None])[:, 0]
        rows = weight[:, None] * group.sample
        whole = group.sample.T @ rows
        if bias:
            edge = rows.sum(axis=0)
            whole = jnp.block([[whole, edge[:, None]], [edge[None], weight.sum().reshape(1, 1)]])
        return whole

    def one(of: tuple[jax.Array, jax.Array]) -> jax.Array:
        hessian, l2 = of
        return lane.inverse_factor(hessian + jnp.diag(jnp.where(jnp.arange(q) < d, l2, 0)))

    grams = lax.map(gram, jnp.arange(c))
    own = jnp.broadcast_to(grams[:, None], (c, t, q, q)).reshape(-1, q, q)
    strengths = jnp.broadcast_to(group.l2, (c, t)).reshape(-1).astype(jnp.float32)
    return lax.map(one, (own, strengths)).reshape(c, t, q, q)


@partial(jax.jit, static_argnames=("loss", "bias"))
def report(loss: Loss, bias: bool, group: Group, state: State) -> lane.Report:
    """The report of every lane, (c, t): its bound is that of the penalty, `bounds.capped`."""
    sums = evaluate(loss, bias, group, state.theta, exact=True)
    error = jnp.abs(sums.gradient[..., -1]) if bias else jnp.zeros_like(sums.cost)
    distance = certificate.shift(loss.concordance, error, sums.curvature)
    slope = jnp.linalg.norm(sums.gradient[..., : group.x.shape[1]], axis=2)
    bound = certificate.ridge(slope, group.reach * error, group.l2) + error * distance
    far = jnp.sqrt(1 + group.reach**2) * jnp.linalg.norm(state.theta, axis=2)
    far = far if group.offset is None else far + jnp.abs(group.offset).max()
    drift = certificate.rounding(loss.concordance, group.x.shape[1], 0, far, sums.slopes, sums.curvature)
    bound = jnp.where(group.l2 > 0, bound + drift, jnp.inf)
    return lane.Report(
        state.theta,
        sums.cost,
        jnp.abs(sums.gradient).max(axis=2),
        capped(bound),
        state.steps,
    )


def sampled(narrow: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """So many rows and their numbers: all, or a fixed random choice."""
    n = len(narrow)
    if rows >= n:
        return narrow, jnp.arange(n)
    numbers = jnp.asarray(np.sort(np.random.default_rng(0).choice(n, rows, replace=False)))
    return narrow[numbers], numbers
