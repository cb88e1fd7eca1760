"""Where to go from a point: Newton, L-BFGS, Newton by conjugate gradients. All on numbers of the size of θ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky

from lr_nn.fitting.settings import Settings

__all__ = ["LBFGS", "Direction", "Newton", "NewtonCG", "Pairs", "conjugate_gradients", "factored", "ridged", "solve"]

Vector = np.ndarray
Guess = Callable[[Vector], Vector]


class Direction(Protocol):
    """Proposes directions, and learns from the steps that were taken."""

    def propose(self, point: Any) -> Vector:
        """A direction from a point, like θ."""

    def learn(self, old: Any, new: Any) -> None:
        """A step was taken."""


Factor = list[tuple[np.ndarray, np.ndarray]]


def factored(hessian: np.ndarray, lift: float = 0.0) -> Factor | None:
    """For each block a scale and the Cholesky factor of the block scaled to a unit diagonal; None where one has none.

    `lift` is added to the diagonal.
    """
    found = []
    for block in hessian:
        diagonal = np.diagonal(block)
        if not np.isfinite(block).all() or not (diagonal > 0).all():
            return None
        scale = 1 / np.sqrt(diagonal)
        scaled = scale[:, None] * block * scale[None]
        scaled[np.diag_indices(len(scaled))] += lift
        try:
            lower = cholesky(scaled, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            return None
        if np.diagonal(lower).min() ** 2 < len(scaled) * 8 * np.finfo(float).eps:
            return None
        found.append((scale, lower))
    return found


def solve(factor: Factor, rows: np.ndarray) -> np.ndarray:
    """The inverse of every block times its row."""
    each = [
        scale * cho_solve((lower, True), scale * row, check_finite=False) for (scale, lower), row in zip(factor, rows)
    ]
    return np.stack(each)


def ridged(values: np.ndarray, vectors: np.ndarray, ridge: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, vectors and which are more than rounding; of those that are not, what a `ridge` makes of them."""
    keep = values > 8 * len(values) * np.finfo(float).eps * values[-1]
    flat = vectors[:, ~keep]
    if flat.size and ridge.any():
        held, turn = np.linalg.eigh(flat.T @ (ridge[:, None] * flat))
        values, vectors, keep = values.copy(), vectors.copy(), keep.copy()
        values[~keep], vectors[:, ~keep] = held, flat @ turn
        keep[~keep] = held > 1e-14 * ridge.max()
    return values, vectors, keep


def pseudo_solve(hessian: np.ndarray, rows: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """The same by eigenvalues; directions in which a block vanishes but for rounding, the ridge too, are left out."""
    found = []
    for block, row, ridge in zip(hessian, rows, ridges):
        diagonal = np.diagonal(block)
        scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
        values, vectors, keep = ridged(*np.linalg.eigh(scale[:, None] * block * scale[None]), scale**2 * ridge)
        turned = vectors.T @ (scale * row)
        # Along a direction without curvature that has a slope, as if it were the most curved.
        sloping = np.abs(turned) > 1e-6 * np.linalg.norm(turned)
        curvature = np.where(keep, values, np.where(sloping, max(values[-1], np.finfo(float).tiny), np.inf))
        found.append(scale * (vectors @ (turned / curvature)))
    return np.stack(found)


@dataclass
class Newton:
    """-H⁻¹ ∇J with the whole Hessian, by Cholesky, or by eigenvalues where that fails: rank is no trouble here."""

    objective: Any

    def propose(self, point: Any) -> Vector:
        """One pass for the Hessian, one factor."""
        objective = self.objective
        hessian, gradient = objective.hessian(point), objective.blocks(point.gradient)
        if not np.isfinite(hessian).all():
            return -point.gradient
        lifted = with_shifts(objective, hessian)
        factor = factored(lifted)
        found = (
            solve(factor, gradient)
            if factor is not None
            else pseudo_solve(hessian, gradient, objective.blocks(objective.ridge))
        )
        return -objective.centred(objective.unblocked(found))

    def learn(self, old: Any, new: Any) -> None:
        """Nothing."""


def with_shifts(objective: Any, hessian: np.ndarray) -> np.ndarray:
    """The Hessian with a curvature along shifts common to all outputs, which change nothing and have none."""
    rows = objective.shifts & (objective.ridge == 0).all(axis=1)
    if not rows.any():
        return hessian
    k = objective.shape[1]
    size = np.diagonal(hessian[0]).reshape(-1, k).mean(axis=1)
    return hessian + np.kron(np.diag(np.where(rows, size, 0)), np.full((k, k), 1 / k))[None]


@dataclass
class Pairs:
    """The last steps s and changes of the gradient y: Nocedal & Wright (2006), algorithm 7.4."""

    most: int
    kept: list[tuple[Vector, Vector, float]] = field(default_factory=list)

    def remember(self, step: Vector, change: Vector) -> None:
        """One pair more, in place of the oldest; a pair without curvature, ⟨s, y⟩ ≤ 0 but for rounding, is left out."""
        step, change = step.reshape(-1), change.reshape(-1)
        product = float(step @ change)
        if product > 1e-12 * np.linalg.norm(step) * np.linalg.norm(change):
            self.kept = [*self.kept[-self.most + 1 :], (step, change, product)]

    def multiply(self, gradient: Vector, first: Callable[[Vector], Vector]) -> Vector:
        """H ∇J, `first` the guess of the inverse Hessian before any pair."""
        q, alphas = gradient.reshape(-1).copy(), []
        for step, change, product in reversed(self.kept):
            alphas.append(float(step @ q) / product)
            q -= alphas[-1] * change
        r = first(q.reshape(gradient.shape)).reshape(-1)
        for (step, change, product), alpha in zip(self.kept, reversed(alphas)):
            r = r + (alpha - float(change @ r) / product) * step
        return r.reshape(gradient.shape)


@dataclass
class LBFGS:
    """L-BFGS from `first`, a guess of H⁻¹, and a better one from `renew` where steps leave much of the gradient.

    `price` is what a new guess costs, in steps. `scaled`: the guess is right but for a number, which the newest pair
    tells.
    """

    objective: Any
    first: Guess
    settings: Settings
    renew: Callable[[Any], Guess | None] | None = None
    price: float = np.inf
    scaled: bool = False
    most: int | None = None

    def __post_init__(self) -> None:
        """Before the first step."""
        self.pairs = Pairs(self.most or self.settings.pairs)
        self.age, self.serves, self.since = 0, 2, np.nan

    def propose(self, point: Any) -> Vector:
        """-H ∇J."""
        first = self.first
        if self.scaled and self.pairs.kept:
            _, change, product = self.pairs.kept[-1]
            change = change.reshape(point.gradient.shape)
            length = float((change * self.first(change)).sum())
            size = product / length if length > 0 else 1.0
            return -self.objective.centred(self.pairs.multiply(point.gradient, lambda q: size * self.first(q)))
        return -self.objective.centred(self.pairs.multiply(point.gradient, first))

    def learn(self, old: Any, new: Any) -> None:
        """One pair more, or a new guess where, at the rate so far, it is sooner there than by steps."""
        self.pairs.remember(new.theta - old.theta, new.gradient - old.gradient)
        self.since = self.since if self.age else float(np.linalg.norm(old.gradient))
        self.age += 1
        if self.renew is None or self.age < self.serves:
            return
        length = np.linalg.norm(new.gradient)
        rate = float(np.log10(max(float(self.since / length), 1.0001))) / self.age if length > 0 else np.inf
        left = float(np.log10(max(float(length / goal(self.objective, new)), 1.0)))
        if rate < -np.log10(self.settings.slow) and left / rate > self.price:
            first = self.renew(new)
            if first is None:  # nor will there be one
                self.renew = None
            else:
                self.first, self.pairs = first, Pairs(self.settings.pairs)
                self.age, self.serves, self.scaled = 0, 2 * self.serves, False


def goal(objective: Any, point: Any) -> float:
    """The length of the gradient at which a search ends, roughly."""
    length = float(np.linalg.norm(point.gradient))
    far = objective.estimate(point, np.nan) / objective.ceiling
    return length / (np.sqrt(far) if far > 1 else 1e7)


@dataclass
class NewtonCG:
    """-H⁻¹ ∇J by conjugate gradients, with a preconditioner that is rebuilt after 3, 6, 12, ... steps."""

    objective: Any
    build: Callable[[Any], Guess]
    settings: Settings
    helped: Guess | None = None
    age: int = 0
    serves: int = 3

    def propose(self, point: Any) -> Vector:
        """Stops at a relative residual of `inexact`, or after `products` products."""
        if self.helped is None or self.age >= self.serves:
            self.serves = self.serves if self.helped is None else 2 * self.serves
            self.helped, self.age = self.build(point), 0
        helped, objective = self.helped, self.objective
        found = conjugate_gradients(
            lambda v: objective.multiply(point, v),
            lambda v: objective.centred(helped(v)),
            -point.gradient,
            self.settings.inexact,
            self.settings.products,
        )
        return objective.centred(found)

    def learn(self, old: Any, new: Any) -> None:
        """One step older."""
        self.age += 1


def conjugate_gradients(
    multiply: Callable[[Vector], Vector],
    helped: Callable[[Vector], Vector],
    target: Vector,
    accuracy: float,
    most: int,
) -> Vector:
    """H⁻¹ target, until the conditioned residual is `accuracy` of the first, or `most` products were made."""
    found, residual = np.zeros_like(target), target
    conditioned = helped(residual)
    along, size = conditioned, float((residual * conditioned).sum())
    first = size
    for _ in range(most):
        if not size > accuracy**2 * first:
            break
        product = multiply(along)
        curvature = float((along * product).sum())
        if not curvature > 0:
            return found if found.any() else target
        step = size / curvature
        found, residual = found + step * along, residual - step * product
        conditioned = helped(residual)
        new = float((residual * conditioned).sum())
        along, size = conditioned + new / size * along, new
    return found
