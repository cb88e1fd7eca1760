"""Any network's cost as a function of a flat θ, and directions that ask no more of it than products.

Its minima are many: what is found is a stationary point, and there is no bound on J - J*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lr_nn import objective
from lr_nn.backward import sweep
from lr_nn.curvature.conjugate_gradients import conjugate_gradients
from lr_nn.curvature.gauss_newton import GaussNewton
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.solvers import memory as pairs
from lr_nn.solvers.line_search import Line, OnLine, Point
from lr_nn.solvers.memory import Memory
from lr_nn.types import Batch, Layer, Params

MEMORY, PRODUCTS = 20, 50


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Deep:
    """J(θ) of an admitted batch, its penalty without an L1 term; θ is ravelled parameters."""

    batch: Batch
    penalty: Penalty
    net: Network = field(metadata={"static": True})

    def params(self, theta: jax.Array) -> Params:
        """θ as parameters."""
        return self._unravel()(theta)

    def at(self, theta: jax.Array) -> Point:
        """One pass forward and one back."""
        cost, gradient = objective.evaluate(self.net, self.params(theta), self.batch, self.penalty)
        return Point(theta, None, cost, ravel_pytree(gradient)[0], jnp.zeros_like(cost))

    def line(self, point: Point, direction: jax.Array) -> Line:
        """The cost along a direction: every trial is a pass, and the landing is the last of them."""

        def at(t: jax.Array) -> OnLine:
            there = self.at(point.theta + t * direction)
            return OnLine(there.cost, there.gradient @ direction, there)

        return Line(at, lambda _, found: found.carry)

    def bound(self, point: Point, decrement: jax.Array) -> jax.Array:
        """No bound on the cost: the largest entry of the gradient."""
        return jnp.abs(point.gradient).max()

    def curve(self, point: Point, direction: jax.Array) -> jax.Array:
        """The Gauss-Newton matrix of J times `direction`: positive semidefinite."""
        params = self.params(point.theta)
        return GaussNewton(self.net, params, sweep(self.net, params, self.batch), self.penalty) @ direction

    def _unravel(self):
        def leaf(*shape: int) -> jax.Array:
            return jnp.zeros(shape, self.batch.x.dtype)

        like = tuple(Layer(leaf(*shape), leaf(shape[1]) if self.net.bias else None) for shape in self.net.shapes)
        return ravel_pytree(like)[1]


class ScalarLBFGS(NamedTuple):
    """L-BFGS from the scalar ⟨s, y⟩ / ⟨y, y⟩."""

    def start(self, point: Point) -> Memory:
        """No pairs."""
        return pairs.empty(MEMORY, point.theta)

    def propose(self, point: Point, known: Memory) -> jax.Array:
        """-H ∇J, a step of length one at first."""
        scale = pairs.scale(known)
        scale = jnp.where(scale > 0, scale, 1 / jnp.linalg.norm(point.gradient))
        return -pairs.multiply(known, point.gradient, lambda q: scale * q)

    def learn(self, known: Memory, old: Point, new: Point) -> Memory:
        """One pair more."""
        return pairs.remember(known, new.theta - old.theta, new.gradient - old.gradient)


class NewtonCG(NamedTuple):
    """-G⁻¹ ∇J, G the Gauss-Newton matrix, by conjugate gradients: inexact far away, exact near (Dembo et al., 1982)."""

    objective: Deep

    def start(self, point: Point) -> None:
        """Nothing."""

    def propose(self, point: Point, known: None) -> jax.Array:
        """At most 50 products, or a residual of min(½, √‖∇J‖)."""
        accuracy = jnp.minimum(0.5, jnp.sqrt(jnp.linalg.norm(point.gradient)))
        target = -point.gradient
        return conjugate_gradients(lambda v: self.objective.curve(point, v), lambda r: r, target, accuracy, PRODUCTS)[0]

    def learn(self, known: None, old: Point, new: Point) -> None:
        """Nothing."""
