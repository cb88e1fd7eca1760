"""L1 penalties: proximal Newton, its quadratic model solved by coordinate descent on a Gram matrix.

Lee, Sun & Saunders (2014); the coordinate descent of Friedman, Hastie & Tibshirani (2010).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve

from lr_nn.solvers.line_search import Point, not_yet
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Layer

SWEEPS, FEW, INNER, HALVINGS, JITTER = 1000, 4, 1e-3, 30, 1e-6
# The model is made anew where a step shrinks the subgradient by less than that: more often where it costs little.
SLOW, CHEAP, QUICK = 0.25, 128, 0.01


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
        hessian = lax.cond(slow, lambda: model(sample, new.theta), lambda: state.hessian)
        kept = jax.tree.map(lambda a, b: jnp.where(stalled, b, a), new, point)
        return State(kept, hessian, residual, state.steps + 1, met, stalled)

    def worst(point: Point) -> jax.Array:
        return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(subgradient(objective, point))]).max()

    def goes_on(state: State) -> jax.Array:
        return ~state.met & ~state.stalled & (state.steps < max_steps)

    point, no = objective.at(theta), jnp.zeros((), bool)
    first = State(point, model(sample, theta), worst(point), jnp.zeros((), int), no, ~jnp.isfinite(point.cost))
    return lax.while_loop(goes_on, step, first)


def model(sample: OneLayer, theta: jax.Array) -> jax.Array:
    """The Hessian at θ on the rows of `sample`, with a little added to its diagonal: blocks on a leading axis.

    One block for each output, (k, q, q), or the whole, (1, p, p), where the loss couples them: blocks alone know
    nothing of a shift common to all outputs, and would make slow steps.
    """
    theta = theta.astype(jnp.float32)
    eta = sample.predictor(theta) if sample.offset is None else sample.predictor(theta) + sample.offset
    if sample.net.loss.couples_outputs:
        return _lifted(sample.hessian(eta))[None]
    curvature = sample.net.loss.fisher_diagonal(eta)
    return lax.map(lambda c: _lifted(sample.weighted_gram(sample.share * c)), curvature.T)


def _lifted(hessian: jax.Array) -> jax.Array:
    return hessian + jnp.diag(JITTER * jnp.diagonal(hessian) + jnp.finfo(jnp.float32).tiny)


def descend(objective: OneLayer, hessian: jax.Array, point: Point, accuracy: jax.Array) -> jax.Array:
    """argmin_u g·(u - θ) + ½ (u - θ)ᵀ H (u - θ) + l1 Σ|u_w|, block by block.

    Cyclic coordinate descent says which coefficients are zero, and the signs of the others; every few sweeps the
    equations of those signs are solved, and if the solution has them it is the minimum. Else until a sweep changes no
    gradient of the model by more than `accuracy`, or for 1,000 sweeps.
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

    def some(state: _Descent) -> _Descent:
        u, slope, most = lax.fori_loop(0, FEW, sweep, (state.u, state.slope, state.most))
        better, its, fits = solved(u, slope)
        return _Descent(
            jnp.where(fits, better, u), jnp.where(fits, its, slope), jnp.where(fits, 0, most), state.sweeps + FEW
        )

    def solved(u: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The minimum for the signs of u, its slope, and whether it has them, and the slopes elsewhere allow zeros."""
        free = (u != 0) | (thresholds == 0)
        both = free[:, None] & free[None]
        factor = jnp.linalg.cholesky(jnp.where(both, hessian, jnp.diag(jnp.where(free, 0, 1).astype(hessian.dtype))))
        better, its = u, slope
        for _ in range(2):  # the second time, in the precision of u, mends the rounding of the first
            wanted = jnp.where(free, its + thresholds * jnp.sign(u), 0)
            size = jnp.maximum(jnp.abs(wanted).max(), jnp.finfo(wanted.dtype).tiny)
            change = -cho_solve((factor, True), (wanted / size).astype(hessian.dtype)).astype(u.dtype) * size
            better = better + change
            its = its + (hessian.astype(u.dtype) @ change)
        left = jnp.where(free, jnp.abs(its + thresholds * jnp.sign(u)), jnp.abs(its) - thresholds).max()
        return better, its, ((jnp.sign(better) == jnp.sign(u)) | (thresholds == 0)).all() & (left <= accuracy)

    def goes_on(state: _Descent) -> jax.Array:
        return (state.most > accuracy) & (state.sweeps < SWEEPS)

    first = _Descent(start, gradient, jnp.inf * accuracy, jnp.zeros((), int))
    return lax.while_loop(goes_on, some, first).u
