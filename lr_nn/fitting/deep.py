"""Costs without a certificate: any network's J over a flat θ, to a stationary point by the same loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike

from lr_nn import objective
from lr_nn.admission import admit
from lr_nn.backward import sweep
from lr_nn.curvature.gauss_newton import GaussNewton
from lr_nn.fitting.descent import descend
from lr_nn.fitting.directions import LBFGS, conjugate_gradients
from lr_nn.fitting.linear import Point
from lr_nn.fitting.settings import Settings
from lr_nn.network import Network, check_params, init
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Layer, Params, Solution, Status

__all__ = ["DIRECTIONS", "Deep", "stationary"]


@dataclass(frozen=True)
class Deep:
    """J(θ) of an admitted batch, its penalty without an l1 term; θ is ravelled parameters, in NumPy."""

    net: Network
    batch: Batch
    penalty: Penalty
    dtype: Any
    ceiling: float = np.inf
    is_sparse = False
    ends_on_arrival = True

    def params(self, theta: np.ndarray) -> Params:
        """θ as parameters, in NumPy."""
        found: list[Any] = []
        begin = 0
        for d_in, d_out in self.net.shapes:
            w: Any = theta[begin : begin + d_in * d_out].reshape(d_in, d_out)
            begin += w.size
            b: Any = theta[begin : begin + d_out] if self.net.bias else None
            begin += d_out * self.net.bias
            found.append(Layer(w, b))
        return tuple(found)

    def at(self, theta: np.ndarray, closing: bool = False) -> Point:
        """One pass forward and one back."""
        params = jax.tree.map(lambda a: a.astype(self.dtype), self.params(theta))
        cost, gradient = _evaluate(self.net, params, self.batch, self.penalty)
        return Point(theta, float(cost), np.asarray(gradient, np.float64))

    def multiply(self, point: Point, direction: np.ndarray) -> np.ndarray:
        """The Gauss-Newton matrix of J times a direction: positive semidefinite."""
        params, along = (jax.tree.map(lambda a: a.astype(self.dtype), self.params(a)) for a in (point.theta, direction))
        return np.asarray(_curve(self.net, params, along, self.batch, self.penalty), np.float64)

    def estimate(self, point: Point, decrement: float) -> float:
        """No bound on the cost: the largest entry of the gradient."""
        return float(np.abs(point.gradient).max())

    def composite(self, point: Point) -> float:
        """J."""
        return point.cost

    def bend(self, point: Point, along: np.ndarray) -> float:
        """There is no l1 term."""
        return 0.0

    def moved(self, point: Point, along: np.ndarray, step: float) -> np.ndarray:
        """θ a step along a direction."""
        return point.theta + step * along

    def shortened(self, along: np.ndarray) -> np.ndarray:
        """The direction as it is."""
        return along

    def steepest(self, point: Point) -> np.ndarray:
        """A direction of descent."""
        return -point.gradient

    def centred(self, theta: np.ndarray) -> np.ndarray:
        """θ: no two are one model for certain."""
        return theta

    def length(self, point: Point) -> float:
        """The size of the gradient."""
        return float(np.linalg.norm(point.gradient))


@partial(jax.jit, static_argnames="net")
def _evaluate(net: Network, params: Params, batch: Batch, penalty: Penalty) -> tuple[jax.Array, jax.Array]:
    cost, gradient = objective.evaluate(net, params, batch, penalty)
    return cost, ravel_pytree(gradient)[0]


@partial(jax.jit, static_argnames="net")
def _curve(net: Network, params: Params, along: Params, batch: Batch, penalty: Penalty) -> jax.Array:
    return ravel_pytree(GaussNewton(net, params, sweep(net, params, batch), penalty) @ along)[0]


@dataclass
class NewtonCG:
    """-G⁻¹ ∇J, G the Gauss-Newton matrix, by conjugate gradients: inexact far away, exact near (Dembo et al., 1982)."""

    objective: Deep
    settings: Settings

    def propose(self, point: Point) -> np.ndarray:
        """Stops at `deep_products` products, or at a relative residual of min(½, √‖∇J‖)."""
        accuracy = min(0.5, np.sqrt(np.linalg.norm(point.gradient)))
        most = self.settings.deep_products
        return conjugate_gradients(
            lambda v: self.objective.multiply(point, v), lambda r: r, -point.gradient, accuracy, most
        )

    def learn(self, old: Point, new: Point) -> None:
        """Nothing."""


DIRECTIONS = ("lbfgs", "newton_cg")


def stationary(
    net: Network,
    batch: Batch,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
    settings: Settings,
) -> Solution:
    """From `start`, or else `init` with a fixed key, to where no entry of ∇J is above √tol · J at the start."""
    work = np.dtype(dtype or np.float64)
    params = init(net, jax.random.key(0), work) if start is None else start
    check_params(net, params)
    params = jax.tree.map(lambda a: np.asarray(a, work), params)
    strengths = jax.tree.map(lambda a: np.asarray(a, work), Penalty(np.zeros(()), penalty.l2))
    problem = Deep(net, admit(net, params, batch), strengths, work)
    name = "lbfgs" if solver == "auto" else solver
    point = problem.at(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]).astype(np.float64))
    ceiling = tol**0.5 * abs(point.cost)
    if name == "newton_cg":
        direction: Any = NewtonCG(problem, settings)
    else:
        length = float(np.linalg.norm(point.gradient)) or 1.0
        direction = LBFGS(problem, lambda q: q / length, settings, scaled=True, most=settings.deep_pairs)
    found = descend(problem, direction, point, ceiling, max_steps, settings)
    slope = float(np.abs(found.point.gradient).max())
    status, message = (
        Status.converged,
        "a stationary point; there is no bound on J - J*, and other starts may end lower",
    )
    if not found.point.is_finite:
        status, message = Status.non_finite, "the cost is not finite: look for huge features or a start too far out"
    elif slope > ceiling:
        status = Status.max_steps
        what = "allow more steps" if found.steps >= max_steps else "rounding allows no more, raise tol"
        largest, before = (float(np.abs(theta).max()) for theta in (found.point.theta, point.theta))
        if largest > settings.grown * before:
            what += f"; the largest weight grew to {largest:.0f}, and where weights grow for ever there is no minimum: "
            what += "an l2 penalty holds them"
        message = f"an entry of the gradient, {slope:.1e}, is above {ceiling:.1e}: {what}"
    return Solution(
        params=jax.tree.map(lambda a: a.astype(work), problem.params(found.point.theta)),
        status=status,
        steps=found.steps,
        cost=found.point.cost,
        gradient_norm=slope,
        certificate=float("inf"),
        penalty=penalty,
        solver=name,
        message=f"{name}: {message}",
    )
