"""The cost of a one-layer network over a source, as a function of θ (q, k): its sums, and what solvers know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lr_nn.fitting.bounds import penalty_bound, subgradient
from lr_nn.fitting.chunks import Sums
from lr_nn.fitting.source import Source
from lr_nn.losses import Loss

__all__ = ["Linear", "Point"]

# How far η moves in one step at most, roughly: beyond, no curvature says anything.
FARTHEST = 100.0
# Linear dependence is looked for among at most this many columns.
WIDE = 3_000


@dataclass(frozen=True)
class Point:
    """θ, J there without its l1 term, its gradient; the Hessian if it was asked for, and what closes."""

    theta: np.ndarray
    cost: float
    gradient: np.ndarray
    hessian: np.ndarray | None = None
    closing: Any = None

    @property
    def is_finite(self) -> bool:
        """Are cost and gradient numbers?"""
        return bool(np.isfinite(self.cost) and np.isfinite(self.gradient).all())


@dataclass(frozen=True)
class Linear:
    """J(θ) = Σ s_i ℓ_i / `total` + Σ lasso |θ| + ½ Σ ridge θ², strengths (q, k), zero where a coefficient is free.

    `lowest` is the least mean loss that the targets allow, `deviation` (q,) about the mean of x̃², `ceiling` the bound
    on J - J* that is asked for. `curved`: do passes make the Hessian as well?
    """

    source: Source
    total: float
    ridge: np.ndarray
    lasso: np.ndarray
    lowest: float
    deviation: np.ndarray
    ceiling: float
    curved: bool = False
    keeps: bool = False

    @property
    def loss(self) -> Loss:
        """The loss of the network."""
        return self.source.loss

    @property
    def shape(self) -> tuple[int, int]:
        """(q, k)."""
        return self.ridge.shape[0], self.ridge.shape[1]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.ridge.size

    @property
    def free(self) -> np.ndarray:
        """Which coefficients have no penalty, (q, k)."""
        return (self.ridge == 0) & (self.lasso == 0)

    @property
    def is_sparse(self) -> bool:
        """Is there an l1 term?"""
        return bool(self.lasso.any())

    @property
    def ends_on_arrival(self) -> bool:
        """Is the estimate of a point so good that no further step is wanted once it is met?"""
        return self.is_sparse

    @property
    def shifts(self) -> np.ndarray:
        """The rows of θ (q,) to which a number common to all outputs may be added at no price but the ridge's."""
        if not self.loss.shift_invariant:
            return np.zeros(self.shape[0], bool)
        equal = (self.ridge == self.ridge[:, :1]).all(axis=1)
        return equal & ~self.lasso.any(axis=1)

    def centred(self, theta: np.ndarray) -> np.ndarray:
        """θ less its mean over outputs where a common number changes nothing, or where the ridge wants it zero."""
        rows = self.shifts[:, None]
        return theta - np.where(rows, theta.mean(axis=1, keepdims=True), 0) if rows.any() else theta

    def at(self, theta: np.ndarray, closing: bool = False) -> Point:
        """One pass: J and its gradient."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = self.source.fold(lambda chunk: chunk.sums(theta, closing, self.curved, self.keeps), Sums.joined)
            means = (None if a is None else a / self.total for a in found[:-1])
            found = Sums._make([*means, found.extent])
            cost = float(found.cost) + float((self.ridge * theta * theta).sum()) / 2
            hessian = None if found.hessian is None else self._held(found.hessian)
        return Point(theta, cost, found.gradient + self.ridge * theta, hessian, found if closing else None)

    def hessian(self, point: Point, dtype: Any = np.float64) -> np.ndarray:
        """∇²J without the l1 term, in blocks of outputs that do not couple: (k, q, q), or (1, p, p) in the order of θ.

        `dtype` is that of products.
        """
        if point.hessian is not None:
            return point.hessian
        with np.errstate(over="ignore", invalid="ignore"):
            found = self.source.fold(lambda chunk: chunk.hessian(point.theta, dtype))
            return self._held(found / self.total)

    def diagonal_blocks(self, point: Point, mean: bool = False) -> np.ndarray:
        """The blocks of single outputs of the Hessian of a loss that couples them, (k, q, q), or their mean."""
        found = self.source.fold(lambda chunk: chunk.diagonal_blocks(point.theta, mean)) / self.total
        diagonal = np.arange(self.shape[0])
        found[:, diagonal, diagonal] += self.ridge.mean(axis=1)[None] if mean else self.ridge.T
        return found

    def _held(self, hessian: np.ndarray) -> np.ndarray:
        """With the ridge on its diagonal."""
        diagonal = np.arange(hessian.shape[1])
        hessian[:, diagonal, diagonal] += self.ridge.reshape(1, -1) if len(hessian) == 1 else self.ridge.T
        return hessian

    def multiply(self, point: Point, direction: np.ndarray) -> np.ndarray:
        """∇²J at a point times a direction (q, k): one pass."""
        found = self.source.fold(lambda chunk: chunk.multiply(point.theta, direction))
        return found / self.total + self.ridge * direction

    def blocks(self, theta: np.ndarray) -> np.ndarray:
        """θ as one row a block of the Hessian: (k, q), or (1, p)."""
        return theta.reshape(1, -1) if self.loss.couples_outputs else theta.T

    def unblocked(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `blocks`."""
        return rows.reshape(self.shape) if self.loss.couples_outputs else rows.T

    def subgradient(self, point: Point) -> np.ndarray:
        """The subgradient of J of the smallest norm: zero at the optimum only."""
        return subgradient(point.theta, point.gradient, self.lasso)

    def composite(self, point: Point) -> float:
        """J with its l1 term."""
        return point.cost + float((self.lasso * np.abs(point.theta)).sum())

    def bend(self, point: Point, along: np.ndarray) -> float:
        """How much the l1 term changes on a full step along a direction."""
        if not self.is_sparse:
            return 0.0
        return float((self.lasso * (np.abs(point.theta + along) - np.abs(point.theta))).sum())

    def moved(self, point: Point, along: np.ndarray, step: float) -> np.ndarray:
        """θ a step along a direction. Coefficients that a full step makes zero are zero, not a rounding from it."""
        theta = point.theta + step * along
        if self.is_sparse and step == 1:
            theta = np.where(np.abs(theta) <= 4 * np.finfo(float).eps * np.abs(along), 0, theta)
        return theta

    def shortened(self, along: np.ndarray) -> np.ndarray:
        """A direction along which no log-odds or log-rate is likely to move by more than a number like 100."""
        if self.loss.concordance == 0:
            return along
        moved = float(np.sqrt((self.deviation[:, None] * along**2).sum(axis=0).max(initial=0.0)))
        return along * (FARTHEST / moved) if moved > FARTHEST else along

    def steepest(self, point: Point) -> np.ndarray:
        """A direction of descent if no other is one."""
        return -self.subgradient(point)

    def length(self, point: Point) -> float:
        """The size of the subgradient."""
        return float(np.linalg.norm(self.subgradient(point)))

    def estimate(self, point: Point, decrement: float) -> float:
        """J - J*, roughly from above: by the penalties as if the rest were at its best, else by the decrement."""
        if not (self.ridge.any() or self.is_sparse):
            return decrement
        bound = self.penalty_bound(point, point.gradient, np.zeros(self.shape))
        return max(bound, decrement) if self.free[: self.source.features].any() else bound

    def penalty_bound(self, point: Point, gradient: np.ndarray, rest: np.ndarray) -> float:
        """`bounds.penalty_bound` at a point."""
        above = np.maximum(self.composite(point) - self.lowest, 0) + 8 * np.finfo(float).eps * abs(self.lowest)
        return float(penalty_bound(point.theta, gradient, rest, self.ridge, self.lasso, above))

    def dependent(self, least: float) -> np.ndarray:
        """Directions (q, m) of the free rows of θ that change no prediction: of eigenvalues of the correlations of the
        columns, about their means if the bias is free, that are at most `least` times the largest.
        """
        free = np.flatnonzero(self.free.all(axis=1))
        if not len(free) or self.shape[0] > WIDE:
            return np.zeros((self.shape[0], 0))
        total = self.source.fold(lambda chunk: chunk.gram(chunk.weight)) / self.total
        part = total[np.ix_(free, free)]
        diagonal = np.diagonal(part)
        scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 1.0)
        values, vectors = np.linalg.eigh(scale[:, None] * part * scale[None])
        null = np.zeros((len(total), int((values <= least * values[-1]).sum())))
        null[free] = scale[:, None] * vectors[:, : null.shape[1]]
        return null

    def columns(self, chosen: np.ndarray, source: Source) -> Linear:
        """The cost of some columns, which `source` has, the others without weight."""
        d = self.source.features
        rows = np.append(chosen, np.arange(d, self.shape[0]))
        return replace(
            self,
            source=source,
            ridge=self.ridge[rows],
            lasso=self.lasso[rows],
            deviation=self.deviation[rows],
        )
