"""Smooth costs: directions, each a few lines, and the one loop that takes steps along them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from lr_nn.curvature.conjugate_gradients import conjugate_gradients
from lr_nn.solvers import memory as pairs
from lr_nn.solvers import preconditioner
from lr_nn.solvers.line_search import Line, Point, search
from lr_nn.solvers.memory import Memory
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.preconditioner import Factor

__all__ = ["LBFGS", "CurvatureGuess", "Direction", "Guess", "Newton", "NewtonCG", "Objective", "State", "solve"]

MEMORY = 10


class Objective(Protocol):
    """What the loop asks of a cost."""

    def at(self, theta: jax.Array) -> Point:
        """Everything at θ."""

    def line(self, point: Point, direction: jax.Array) -> Line:
        """The cost along a direction."""

    def bound(self, point: Point, decrement: jax.Array) -> jax.Array:
        """An estimate from above of J - J*, given -⟨direction, ∇J⟩."""


class Direction(Protocol):
    """Where to go from a point, and what to learn from having gone."""

    def start(self, point: Point) -> Any:
        """What is known before the first step."""

    def propose(self, point: Point, known: Any) -> jax.Array:
        """A direction."""

    def learn(self, known: Any, old: Point, new: Point) -> Any:
        """What is known after a step."""


class State(NamedTuple):
    """Where the loop is, and why it may stop: `met` the bound and taken the step after it, or `idle` for too long."""

    point: Point
    known: Any
    steps: jax.Array
    met: jax.Array
    idle: jax.Array


IDLE, SHOWN = 3, 0.1


def solve(
    objective: Objective,
    direction: Direction,
    theta: jax.Array,
    tolerance: jax.Array,
    max_steps: jax.Array,
    near: jax.Array | float = 0.0,
) -> State:
    """Steps until the objective's bound is within `tolerance`, and one full step more.

    A bound may be far above the gap: a step that shortens the gradient tenfold shows that the decrement before it was
    about the gap, and is the step more if that was within `tolerance`, and the bound is after it.
    Or until the decrement -⟨direction, ∇J⟩ is within `near`, for an optimum that is only where the next search begins.
    A step is idle if neither cost nor gradient became smaller: three in a row, and what rounding allows is reached.
    Where the cost is not finite along the direction the loop ends at the point before.
    """

    def step(state: State) -> State:
        point = state.point
        along = direction.propose(point, state.known)
        slope = along @ point.gradient
        along = jnp.where(jnp.isfinite(along).all() & (slope < 0), along, -point.gradient)
        slope = along @ point.gradient
        before = objective.bound(point, -slope)
        line = objective.line(point, along)
        t, found = search(line.at, point.cost, slope)
        new = line.land(t, found)
        fine = jnp.isfinite(new.cost) & jnp.isfinite(new.gradient).all()
        shrunk = jnp.linalg.norm(new.gradient) / jnp.linalg.norm(point.gradient)
        idle = ~fine | ((new.cost >= point.cost) & ~(shrunk < 1))
        shown = (-slope <= tolerance) & (shrunk <= SHOWN) & (objective.bound(new, before) <= tolerance)
        last = (before <= tolerance) | shown | (-slope <= near)
        known = direction.learn(state.known, point, new)
        kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, point)
        return State(kept, known, state.steps + 1, last, jnp.where(fine, jnp.where(idle, state.idle + 1, 0), IDLE))

    def goes_on(state: State) -> jax.Array:
        return ~state.met & (state.idle < IDLE) & (state.steps < max_steps)

    point, none = objective.at(theta), jnp.zeros((), int)
    idle = jnp.where(jnp.isfinite(point.cost), none, IDLE)
    first = State(point, direction.start(point), none, jnp.zeros((), bool), idle)
    return lax.while_loop(goes_on, step, first)


class Guess(NamedTuple):
    """Pairs of steps, the factor that they correct and whether one was built.

    `age`: steps since; `term`: how many it serves at least, twice as long each time: where no factor helps, the pairs
    must. `since` and `goal`: the length of the gradient when the factor was built, and that at which the search ends.
    """

    memory: Memory
    factor: Factor
    built: jax.Array
    age: jax.Array
    term: jax.Array
    since: jax.Array
    goal: jax.Array


class LBFGS(NamedTuple):
    """L-BFGS from a scalar, or, where that is slow, from the curvature of `sample`, rows that stand for all.

    `factor`, if it was `built`, comes from an earlier search; `tolerance` is that of the search. The direction is not
    that of optax, whose first guess can only be a scalar.
    """

    objective: OneLayer
    sample: OneLayer
    tolerance: jax.Array
    factor: Factor
    built: jax.Array

    def start(self, point: Point) -> Guess:
        """No pairs; a factor at once where it costs little, for it knows the units of the columns."""
        length, none = jnp.linalg.norm(point.gradient), jnp.zeros((), int)
        factor, built = self.factor, self.built
        if self.price() <= LITTLE:
            factor = lax.cond(built, lambda: factor, lambda: self.build(point.theta))
            built = jnp.ones((), bool)
        memory = pairs.empty(MEMORY, point.theta)
        far = self.objective.bound(point, jnp.zeros_like(length)) / self.tolerance
        goal = length / jnp.where(far > 1, jnp.sqrt(far), DIGITS)
        return Guess(memory, factor, built, none, jnp.full((), TERM), length, goal)

    def propose(self, point: Point, known: Guess) -> jax.Array:
        """-H ∇J."""

        def first(q: jax.Array) -> jax.Array:
            scale = pairs.scale(known.memory)
            scale = jnp.where(scale > 0, scale, 1 / jnp.maximum(jnp.linalg.norm(q), 1))
            solved = lax.cond(
                known.built, lambda: preconditioner.solve(self.objective, known.factor, q), lambda: scale * q
            )
            return self.objective.centred(solved)

        return -pairs.multiply(known.memory, point.gradient, first)

    def learn(self, known: Guess, old: Point, new: Point) -> Guess:
        """One pair more; or a new factor and no pairs, if at the rate so far more steps remain than it costs."""
        length, age = jnp.linalg.norm(new.gradient), known.age + 1
        gained = jnp.log10(known.since / length) / age.astype(length.dtype)
        remain = jnp.log10(length / known.goal) / jnp.maximum(gained, 1e-3)
        worn = known.built & (age >= known.term) & (gained < WORN)
        due = (remain > self.price()) & (worn | (~known.built & (age >= FEWEST)))

        def rebuild() -> Guess:
            factor, none = self.build(new.theta), jnp.zeros((), int)
            memory = pairs.empty(MEMORY, new.theta)
            return Guess(memory, factor, jnp.ones((), bool), none, 2 * known.term, length, known.goal)

        def remember() -> Guess:
            memory = pairs.remember(known.memory, new.theta - old.theta, new.gradient - old.gradient)
            return known._replace(memory=memory, age=age)

        return lax.cond(due, rebuild, remember)

    def build(self, theta: jax.Array) -> Factor:
        """The factor at θ."""
        return preconditioner.build(self.sample, theta, len(self.objective.y))

    def price(self) -> float:
        """What a factor costs, in steps: products of numbers, of which a core makes many while it reads one."""
        rows, q = self.sample.x.shape
        return CHEAPEST + q * rows * self.factor.scale.shape[0] / (PRODUCTS * self.objective.y.size)


# What the gradient is to be divided by where no penalty says so; the price of a factor on no rows, and one that is
# little; products made while one number is read.
DIGITS, CHEAPEST, LITTLE, PRODUCTS = 1e7, 3, 6, 64
# Steps before the first factor, and that the first serves; a factor that gains more digits a step is as good as new.
FEWEST, TERM, WORN = 1, 1, 0.4


class CurvatureGuess(NamedTuple):
    """A factor, the steps since it was built, and how many it serves."""

    factor: Factor
    age: jax.Array
    term: jax.Array


class NewtonCG(NamedTuple):
    """-H⁻¹ ∇J by conjugate gradients on products with the Hessian of `model`, all rows in float32.

    They are helped by the factor of `model`, made anew after 3, 6, 12, ... steps. Coupled outputs need it: a factor
    for one output knows little of the others.
    """

    objective: OneLayer
    model: OneLayer

    def start(self, point: Point) -> CurvatureGuess:
        """The factor at the start."""
        return CurvatureGuess(self.build(point.theta), jnp.zeros((), int), jnp.full((), SERVES))

    def propose(self, point: Point, known: CurvatureGuess) -> jax.Array:
        """To a tenth of the gradient, in at most 200 products."""
        size, eta = jnp.abs(point.gradient).max(), point.eta.astype(jnp.float32)
        size = jnp.where(size > 0, size, 1)

        def helped(vector: jax.Array) -> jax.Array:
            return self.objective.centred(preconditioner.solve(self.model, known.factor, vector))

        target = -(point.gradient / size).astype(jnp.float32)
        found, _ = conjugate_gradients(
            lambda v: self.model.curve(eta, v), helped, target, jnp.float32(INEXACT), PRODUCTS_AT_MOST
        )
        return self.objective.centred(found.astype(size.dtype) * size)

    def learn(self, known: CurvatureGuess, old: Point, new: Point) -> CurvatureGuess:
        """One step older, or a new factor."""

        def rebuild() -> CurvatureGuess:
            return CurvatureGuess(self.build(new.theta), jnp.zeros_like(known.age), 2 * known.term)

        older = known._replace(age=known.age + 1)
        return lax.cond(older.age >= known.term, rebuild, lambda: older)

    def build(self, theta: jax.Array) -> Factor:
        """The factor at θ."""
        return preconditioner.build(self.model, theta, len(self.model.y))


INEXACT, PRODUCTS_AT_MOST, SERVES = 0.1, 200, 3


class Newton(NamedTuple):
    """-H⁺ ∇J with the whole Hessian in the precision of the data, scaled to a unit diagonal.

    Directions in which it vanishes but for rounding are left out: a rank-deficient cost is no trouble.
    """

    objective: OneLayer

    def start(self, point: Point) -> None:
        """Nothing."""

    def propose(self, point: Point, known: None) -> jax.Array:
        """By an eigendecomposition."""
        hessian = self.objective.hessian(point.eta)
        diagonal = jnp.diagonal(hessian)
        scale = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
        values, vectors = jnp.linalg.eigh(scale[:, None] * hessian * scale[None])
        keep = values > len(values) * jnp.finfo(values.dtype).eps * values[-1]
        turned = (vectors.T @ (scale * point.gradient)) * jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
        return -scale * (vectors @ turned)

    def learn(self, known: None, old: Point, new: Point) -> None:
        """Nothing."""
