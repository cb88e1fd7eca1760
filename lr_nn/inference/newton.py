"""Newton's method on a few coefficients of a likelihood, the others held: for profiles, refits and Firth's fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.inference.covariance import fisher
from lr_nn.inference.fitted import Fitted
from lr_nn.losses import Loss
from lr_nn.many.bounds import capped, uncapped

__all__ = ["Found", "Objective", "Point", "minimise", "objective"]


class Point(NamedTuple):
    """The objective at θ: its value, gradient (p,) and curvature (p, p)."""

    value: float
    gradient: np.ndarray
    curvature: np.ndarray


@dataclass(frozen=True)
class Objective:
    """Σ s_i ℓ_i + ½ θᵀ P θ of one fit as a function of θ = coefficients.reshape(-1), those of the reference zero.

    `jeffreys`: less ½ log |F|, Jeffreys' prior of a bernoulli with one output; its curvature is that without.
    """

    loss: Loss
    reference: int | None
    inputs: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray | None
    ridge: np.ndarray
    jeffreys: bool

    def at(self, theta: np.ndarray) -> Point:
        """Value, gradient and curvature."""
        with jax.enable_x64(True):
            data = self.inputs, self.y, self.weight, self.offset
            found = _evaluate(self.loss, self.reference, self.jeffreys, *data, theta)
        value, gradient, curvature = map(np.asarray, found)
        pull = self.ridge @ theta
        whole = float(uncapped(value)) + float(theta @ pull) / 2
        return Point(whole, gradient + pull, curvature + self.ridge)


def objective(fitted: Fitted) -> Objective:
    """The objective that a single fit minimised, times n."""
    data = fitted.inputs, fitted.targets, fitted.weight, fitted.offset
    return Objective(fitted.loss, fitted.reference, *data, fitted.ridge, fitted.jeffreys)


class Found(NamedTuple):
    """Where Newton's method ended: θ, the value there, the last decrement √(gᵀH⁻¹g), the steps, and its `Point`."""

    theta: np.ndarray
    point: Point
    decrement: float
    steps: int


def minimise(
    objective: Objective, theta: np.ndarray, moving: np.ndarray, tol: float = 1e-8, max_steps: int = 100
) -> Found:
    """The minimum over the coefficients `moving` (p,), by steps that are halved until the value falls.

    It ends after the step from where the decrement, the distance to go in standard errors, is at most `tol`.
    """
    point, decrement, steps = objective.at(theta), np.inf, 0
    while steps < max_steps and np.isfinite(point.value) and decrement > tol:
        along = np.zeros_like(theta)
        curvature = point.curvature[np.ix_(moving, moving)]
        along[moving] = -_solved(curvature, point.gradient[moving])
        decrement = float(np.sqrt(max(-along @ point.gradient, 0.0)))
        theta, point, moved = _halved(objective, theta, point, along)
        steps += 1
        if not moved:
            break
    return Found(theta, point, decrement, steps)


def _solved(curvature: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """H⁺ g, of a Hessian scaled to a unit diagonal: columns may have any unit."""
    diagonal = np.diagonal(curvature)
    scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
    return scale * np.linalg.lstsq(scale[:, None] * curvature * scale, scale * gradient)[0]


def _halved(objective: Objective, theta: np.ndarray, point: Point, along: np.ndarray) -> tuple[np.ndarray, Point, bool]:
    slack = 8 * np.finfo(float).eps * (1 + abs(point.value))
    for _ in range(HALVINGS):
        new = objective.at(theta + along)
        if new.value <= point.value + slack:
            return theta + along, new, True
        along = along / 2
    return theta, point, False


HALVINGS = 40


@partial(jax.jit, static_argnums=(0, 1, 2))
def _evaluate(
    loss: Loss,
    reference: int | None,
    jeffreys: bool,
    inputs: jax.Array,
    y: jax.Array,
    weight: jax.Array,
    offset: jax.Array | None,
    theta: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    k = y.shape[1]
    free = np.array([j for j in range(k) if j != reference])
    columns = theta.reshape(inputs.shape[1], len(free))
    eta = jnp.zeros((len(inputs), k), inputs.dtype).at[:, free].set(inputs @ columns)
    eta = eta if offset is None else eta + offset
    residual = weight[:, None] * loss.residual(eta, y)
    value = (weight * loss.value(eta, y)).sum()
    curvature = fisher(loss, reference, inputs, weight, eta)
    if jeffreys:
        # ∂/∂θ of -½ log |F| is x̃ᵀ h (p - ½), h the leverages: Firth (1993), section 3.1.
        scale = jax.lax.rsqrt(jnp.diagonal(curvature))
        root = jnp.linalg.cholesky(scale[:, None] * curvature * scale[None])
        half = jax.scipy.linalg.solve_triangular(root, (inputs * scale[None]).T, lower=True)
        leverage = weight * loss.fisher_diagonal(eta)[:, 0] * (half * half).sum(axis=0)
        residual = residual + (leverage * (loss.mean(eta)[:, 0] - 0.5))[:, None]
        value = value - jnp.log(jnp.diagonal(root)).sum() + jnp.log(scale).sum()
    gradient = (inputs.T @ residual[:, free]).reshape(-1)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all() & jnp.isfinite(curvature).all()
    value = capped(jnp.where(finite, value, jnp.inf))
    return value, jnp.where(finite, gradient, 0), jnp.where(finite, curvature, 0)
