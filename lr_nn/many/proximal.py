"""L1 penalties: proximal Newton, its quadratic model solved by coordinate descent on a Gram matrix.

Lee, Sun & Saunders (2014); the coordinate descent of Friedman, Hastie & Tibshirani (2010).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jax.typing import DTypeLike

from lr_nn.many.line_search import Point, not_yet
from lr_nn.many.one_layer import OneLayer
from lr_nn.types import Layer

__all__ = ["State", "bound", "composite", "descend", "model", "solve", "subgradient"]

SWEEPS, FEW, PATIENT, INNER, HALVINGS, JITTER = 1000, 4, 3, 1e-3, 30, 1e-6
# The model is made anew where a step shrinks the subgradient by less than that: more often where it costs little.
SLOW, CHEAP, QUICK = 0.25, 128, 0.01
# The whole Hessian of coupled outputs is made up to so many coefficients.
WHOLE = 2500


class State(NamedTuple):
    """The point (its cost without the L1 term), the model's Hessians (k, q, q), and why the loop may stop."""

    point: Point
    hessian: jax.Array
    residual: jax.Array
    steps: jax.Array
    met: jax.Array
    stalled: jax.Array


def subgradient(objective: OneLayer, point: Point) -> Layer:
    """The subgradient of smallest norm of F = J + l1 Σ|w|, as a layer: zero at the optimum only."""
    w, (g, g_b) = objective.split(point.theta).w, objective.split(point.gradient)
    at_zero = jnp.sign(g) * jnp.maximum(jnp.abs(g) - objective.l1, 0)
    return Layer(jnp.where(w == 0, at_zero, g + objective.l1 * jnp.sign(w)), g_b)


def composite(objective: OneLayer, cost: jax.Array, theta: jax.Array) -> jax.Array:
    """F, from J and θ."""
    return cost + objective.l1 * jnp.abs(objective.split(theta).w).sum()


def bound(objective: OneLayer, point: Point, slack: jax.Array) -> jax.Array:
    """max|s_w| (‖w‖₁ + (F - F_low)/l1) ≥ F - F*, s the subgradient: F* has ‖w*‖₁ ≤ (F - F_low)/l1.

    F_low is the smallest loss that the targets allow; `slack` adds to max|s_w| what the bias, not yet at its best
    for w, may change. With an L2 penalty also ‖s_w‖² / (2 l2), if that is less.
    """
    size = jnp.abs(objective.split(point.theta).w).sum()
    low = (objective.share * objective.net.loss.lowest(objective.y)).sum()
    s, least = subgradient(objective, point).w, objective.l2.min()
    linear = jnp.abs(s).max() + slack
    linear = linear * (size + (composite(objective, point.cost, point.theta) - low) / objective.l1)
    quadratic = (jnp.linalg.norm(s) + slack * s.size**0.5) ** 2 / (2 * jnp.where(least > 0, least, 1))
    return jnp.where(least > 0, jnp.minimum(linear, quadratic), linear)


def solve(objective: OneLayer, sample: OneLayer, theta: jax.Array, tolerance: jax.Array, max_steps: jax.Array) -> State:
    """Steps until the bound is within `tolerance`. The model's Hessian, of `sample` in float32, is made anew only
    where the subgradient shrinks slowly.
    """

    def step(state: State) -> State:
        point = state.point
        target = descend(objective, state.hessian, point, INNER * state.residual)
        along = target - point.theta
        before = composite(objective, point.cost, point.theta)
        slope = along @ point.gradient + composite(objective, point.cost, target) - before
        line = objective.line(point, along)
        slack = 16 * jnp.finfo(before.dtype).eps * (1 + jnp.abs(before))

        def too_long(at):
            t, found, tries = at
            new = composite(objective, found.cost, point.theta + t * along)
            return ~(new <= before + 1e-4 * t * slope + slack) & (tries < HALVINGS)

        def halve(at):
            t, _, tries = at
            return t / 2, line.at(t / 2), tries + 1

        two = jnp.full_like(before, 2)
        t, found, _ = lax.while_loop(too_long, halve, (two, not_yet(line.at, two * jnp.inf, slope), 0))
        new = line.land(t, found)
        # Coefficients that the model set to zero are zero, not a rounding away from it.
        new = new._replace(theta=jnp.where((t == 1) & (target == 0), 0, new.theta))
        residual = worst(new)
        fine = jnp.isfinite(new.cost) & jnp.isfinite(new.gradient).all()
        stalled = ~fine | ((composite(objective, new.cost, new.theta) >= before) & (residual >= state.residual))
        met = bound(objective, new, 0 * residual) <= tolerance
        slow = (residual > (QUICK if state.hessian.shape[1] <= CHEAP else SLOW) * state.residual) & ~met & fine
        hessian = lax.cond(slow, lambda: model(sample, eta(new.theta)), lambda: state.hessian)
        kept = jax.tree.map(lambda a, b: jnp.where(stalled, b, a), new, point)
        return State(kept, hessian, residual, state.steps + 1, met, stalled)

    def eta(theta: jax.Array) -> jax.Array:
        return sample.eta(theta.astype(jnp.float32))

    def worst(point: Point) -> jax.Array:
        return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(subgradient(objective, point))]).max()

    def goes_on(state: State) -> jax.Array:
        return ~state.met & ~state.stalled & (state.steps < max_steps)

    point, no = objective.at(theta), jnp.zeros((), bool)
    first = State(point, model(sample, eta(theta)), worst(point), jnp.zeros((), int), no, ~jnp.isfinite(point.cost))
    return lax.while_loop(goes_on, step, first)


def model(sample: OneLayer, eta: jax.Array) -> jax.Array:
    """The Hessian at η on the rows of `sample`, with a little added to its diagonal: blocks on a leading axis.

    One block for each output, (k, q, q), or the whole, (1, p, p), where the loss couples them and p is not too large:
    blocks alone know nothing of a shift common to all outputs, and make slow steps.
    """
    coupled = sample.net.loss.couples_outputs
    if coupled and sample.size <= WHOLE:
        return _lifted(sample.hessian(eta))[None]
    # diag(p) - p pᵀ ≤ 2 diag(p (1 - p)), by the sums of its rows.
    curvature = (2 if coupled else 1) * sample.net.loss.fisher_diagonal(eta)
    return lax.map(lambda c: _lifted(sample.weighted_gram(sample.share * c)), curvature.T)


def _lifted(hessian: jax.Array) -> jax.Array:
    return hessian + jnp.diag(JITTER * jnp.diagonal(hessian) + jnp.finfo(jnp.float32).tiny)


def descend(objective: OneLayer, hessian: jax.Array, point: Point, accuracy: jax.Array) -> jax.Array:
    """argmin_u g·(u - θ) + ½ (u - θ)ᵀ H (u - θ) + l1 Σ|u_w|, block by block.

    By the equations of its signs, where these are found by trying; else a few sweeps of cyclic coordinate descent are
    to bring the signs nearer, again and again, until a sweep changes no gradient of the model by more than `accuracy`,
    or 1,000 times.
    """
    w, b = objective.split(jnp.ones_like(point.theta))
    thresholds = objective.join(Layer(objective.l1 * w, None if b is None else 0 * b))

    def blocks(theta: jax.Array) -> jax.Array:
        """θ as one row a block: (k, q), or (1, p)."""
        return theta.reshape(-1, len(hessian)).T

    starts, gradients, limits = map(blocks, (point.theta, point.gradient, thresholds))
    found = lax.map(lambda of: _block(of[0], of[1], of[2], of[3], accuracy), (hessian, starts, gradients, limits))
    return found.T.reshape(-1)


class _Descent(NamedTuple):
    u: jax.Array
    slope: jax.Array
    most: jax.Array
    sweeps: jax.Array


def _block(
    hessian: jax.Array, start: jax.Array, gradient: jax.Array, thresholds: jax.Array, accuracy: jax.Array
) -> jax.Array:
    diagonal = jnp.diagonal(hessian).astype(start.dtype)

    def coordinate(a: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]):
        u, slope, most = state
        goal = u[a] - slope[a] / diagonal[a]
        new = jnp.sign(goal) * jnp.maximum(jnp.abs(goal) - thresholds[a] / diagonal[a], 0)
        change = new - u[a]
        return (
            u.at[a].set(new),
            slope + change * hessian[a].astype(slope.dtype),
            jnp.maximum(most, jnp.abs(change) * diagonal[a]),
        )

    def sweep(_: int, state: tuple[jax.Array, jax.Array, jax.Array]):
        u, slope, most = lax.fori_loop(0, len(start), coordinate, (*state[:2], jnp.zeros_like(state[2])))
        return u, slope, most

    def goes_on(state: _Descent) -> jax.Array:
        return (state.most > accuracy) & (state.sweeps < SWEEPS)

    def some(state: _Descent) -> _Descent:
        u, slope, found = _pivoted(hessian, state.u, state.slope, thresholds, accuracy)

        def ended() -> _Descent:
            return _Descent(u, slope, jnp.zeros_like(state.most), state.sweeps)

        def swept() -> _Descent:
            u, slope, most = lax.fori_loop(0, FEW, sweep, state[:3])
            return _Descent(u, slope, most, state.sweeps + FEW)

        return lax.cond(found, ended, swept)

    first = _Descent(start, gradient, jnp.full_like(accuracy, jnp.inf), jnp.zeros((), int))
    return lax.while_loop(goes_on, some, first).u


class _Pivots(NamedTuple):
    """The signs tried (of the bias, one), the minimum for them and its slope, the signs that it contradicts, and for
    how many tries these have not become fewer than `least`.
    """

    signs: jax.Array
    u: jax.Array
    slope: jax.Array
    wrong: jax.Array
    least: jax.Array
    idle: jax.Array


def _pivoted(
    hessian: jax.Array, start: jax.Array, gradient: jax.Array, thresholds: jax.Array, accuracy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The minimum by the equations of its signs, its slope, and whether it was found.

    From the signs of `start`: a coefficient that gets another sign than was asked for becomes zero, a zero whose slope
    is above its threshold gets a sign. It mostly ends after a few, but may not: Kim & Park (2010).
    """

    def apart(u: jax.Array, slope: jax.Array, signs: jax.Array) -> jax.Array:
        free, bias = signs != 0, thresholds == 0
        leaves = free & ~bias & (jnp.sign(u) != signs)
        enters = ~free & (jnp.abs(slope) > thresholds + accuracy)
        return jnp.where(leaves, 0, jnp.where(enters, -jnp.sign(slope), signs))

    def left(signs: jax.Array, slope: jax.Array) -> jax.Array:
        return jnp.where(signs != 0, jnp.abs(slope + thresholds * signs), 0).max()

    def pivot(state: _Pivots) -> _Pivots:
        signs = state.signs
        free = signs != 0
        both = free[:, None] & free[None]
        masked = jnp.where(both, hessian, jnp.diag(jnp.where(free, 0, 1).astype(hessian.dtype)))
        factor = lax.linalg.cholesky(masked, symmetrize_input=False)

        def move(u: jax.Array, slope: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
            return u + change, slope + _scaled(lambda v: hessian @ v, change, hessian.dtype)

        def solved(u: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
            wanted = jnp.where(free, slope + thresholds * signs, 0)
            return move(u, slope, -_scaled(lambda v: cho_solve((factor, True), v), wanted, hessian.dtype))

        u, slope = solved(*move(state.u, state.slope, jnp.where(free, 0, -state.u)))
        u, slope = lax.cond(left(signs, slope) > accuracy, solved, lambda *same: same, u, slope)
        after = apart(u, slope, signs)
        wrong = (after != signs).sum()
        idle = jnp.where(wrong < state.least, 0, state.idle + 1)
        return _Pivots(after, u, slope, wrong, jnp.minimum(wrong, state.least), idle)

    def goes_on(state: _Pivots) -> jax.Array:
        return (state.wrong > 0) & (state.idle < PATIENT)

    many, none = jnp.full((), len(start)), jnp.zeros((), int)
    signs = jnp.where(thresholds == 0, 1, jnp.sign(start))
    last = lax.while_loop(goes_on, pivot, _Pivots(signs, start, gradient, many, many + 1, none))
    return last.u, last.slope, (last.wrong == 0) & (left(last.signs, last.slope) <= accuracy)


def _scaled(linear: Callable[[jax.Array], jax.Array], vector: jax.Array, dtype: DTypeLike) -> jax.Array:
    """A linear map of `vector`, made in `dtype` whose range may be smaller."""
    size = jnp.maximum(jnp.abs(vector).max(), jnp.finfo(vector.dtype).tiny)
    return linear((vector / size).astype(dtype)).astype(vector.dtype) * size
