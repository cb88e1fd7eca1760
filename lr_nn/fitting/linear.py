"""The cost of a one-layer network over a source, as a function of θ (q, k): its sums, and what solvers know of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from lr_nn.fitting.chunks import Chunk
from lr_nn.fitting.source import Source
from lr_nn.fitting.terms import curves
from lr_nn.losses import Loss

__all__ = ["Closing", "Linear", "Point"]


class Closing(NamedTuple):
    """What a certificate needs of the last pass: Σ |s δ| (k,); Σ s ∂²ℓ/∂η² (k, k); and Σ s x̃ ∂²ℓ/∂η², (k, q, k), [a, j, b]
    of outputs a and b, both None where the loss states no curvature; and the largest |x̃| of every column, (q,).
    """

    slopes: np.ndarray
    curvature: np.ndarray | None
    cross: np.ndarray | None
    extent: np.ndarray


@dataclass(frozen=True)
class Point:
    """θ, J there without its l1 term, its gradient; what closes; and η and the curvature of every chunk, if kept."""

    theta: np.ndarray
    cost: float
    gradient: np.ndarray
    closing: Closing | None = None
    kept: dict[int, tuple[np.ndarray, np.ndarray | None]] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Are cost and gradient numbers?"""
        return bool(np.isfinite(self.cost) and np.isfinite(self.gradient).all())


@dataclass(frozen=True)
class Linear:
    """J(θ) = Σ s_i ℓ_i / `total` + Σ lasso |θ| + ½ Σ ridge θ², strengths (q, k), zero where a coefficient is free.

    `lowest` is the least mean loss that the targets allow, `deviation` (q,) about the mean of x̃², `ceiling` the bound
    on J - J* that is asked for. `keeps`: do points keep the η of rows in memory?
    """

    source: Source
    total: float
    ridge: np.ndarray
    lasso: np.ndarray
    lowest: float
    deviation: np.ndarray
    ceiling: float
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
        kept: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        keep = self.keeps and self.source.rows is None
        coupled, curved = self.loss.couples_outputs, curves(self.loss)

        def sums(chunk: Chunk) -> Any:
            eta = chunk.eta(theta)
            found = chunk.terms(eta)
            if keep:
                kept[id(chunk)] = eta, found.curvature
            if not closing:
                return found.cost, chunk.back(found.residual)
            slopes = np.abs(found.residual).sum(axis=0)
            curvature: Any = ()
            if curved and coupled:
                weights = chunk.curvatures(eta)
                curvature = weights.sum(axis=2), np.stack([chunk.back(rows.T) for rows in weights])
            elif curved:
                curvature = found.curvature.sum(axis=0), chunk.back(found.curvature)
            return found.cost, chunk.back(found.residual), slopes, curvature, chunk.extent

        with np.errstate(over="ignore", invalid="ignore"):
            cost, gradient, *more = self.source.fold(sums, _joined if closing else None)
            cost = float(cost) / self.total + float((self.ridge * theta * theta).sum()) / 2
            gradient = gradient / self.total + self.ridge * theta
        if not closing:
            return Point(theta, cost, gradient, kept=kept)
        slopes, curvature, extent = more
        if not curved:
            closing_sums = Closing(slopes / self.total, None, None, extent)
        elif coupled:
            closing_sums = Closing(slopes / self.total, *(each / self.total for each in curvature), extent)
        else:
            one = np.eye(self.shape[1])
            diagonal, cross = (each / self.total for each in curvature)
            closing_sums = Closing(
                slopes / self.total, np.diag(diagonal), one[:, None, :] * cross.T[:, :, None], extent
            )
        return Point(theta, cost, gradient, closing_sums, kept)

    def hessian(self, point: Point, dtype: Any = np.float64) -> np.ndarray:
        """∇²J without the l1 term, in blocks of outputs that do not couple: (k, q, q), or (1, p, p) in the order of θ.

        `dtype` is that of products.
        """
        q, k = self.shape
        coupled = self.loss.couples_outputs

        def grams(chunk: Chunk) -> np.ndarray:
            eta, curvature = point.kept.get(id(chunk), (None, None))
            eta = chunk.eta(point.theta) if eta is None else eta
            if not coupled:
                curvature = chunk.terms(eta).curvature if curvature is None else curvature
                return np.stack([chunk.gram(curvature[:, c], dtype) for c in range(k)])
            weights = chunk.curvatures(eta)
            found = np.empty((q, k, q, k))
            for a in range(k):
                for b in range(a + 1):
                    found[:, a, :, b] = found[:, b, :, a] = chunk.gram(weights[a, b], dtype)
            return found.reshape(1, q * k, q * k)

        with np.errstate(over="ignore", invalid="ignore"):
            hessian = self.source.fold(grams) / self.total
        diagonal = np.arange(hessian.shape[1])
        hessian[:, diagonal, diagonal] += self.blocks(self.ridge)
        return hessian

    def multiply(self, point: Point, direction: np.ndarray) -> np.ndarray:
        """∇²J at a point times a direction (q, k): one pass."""

        def sums(chunk: Chunk) -> np.ndarray:
            eta, _ = point.kept.get(id(chunk), (None, None))
            eta = chunk.eta(point.theta) if eta is None else eta
            return chunk.back(chunk.multiplied(eta, chunk.products(direction)))

        return self.source.fold(sums) / self.total + self.ridge * direction

    def blocks(self, theta: np.ndarray) -> np.ndarray:
        """θ as one row a block of the Hessian: (k, q), or (1, p)."""
        return theta.reshape(1, -1) if self.loss.couples_outputs else theta.T

    def unblocked(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `blocks`."""
        return rows.reshape(self.shape) if self.loss.couples_outputs else rows.T

    def subgradient(self, point: Point) -> np.ndarray:
        """The subgradient of J of the smallest norm: zero at the optimum only."""
        gradient, theta = point.gradient, point.theta
        at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - self.lasso, 0)
        return np.where(theta == 0, at_zero, gradient + self.lasso * np.sign(theta))

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

    def steepest(self, point: Point) -> np.ndarray:
        """A direction of descent if no other is one."""
        return -self.subgradient(point)

    def length(self, point: Point) -> float:
        """The size of the subgradient."""
        return float(np.linalg.norm(self.subgradient(point)))

    def diagonal_blocks(self, theta: np.ndarray, factor: float) -> np.ndarray:
        """`factor` times the blocks of single outputs of the Hessian of a loss that couples them, (k, q, q)."""

        def grams(chunk: Chunk) -> np.ndarray:
            weights = chunk.curvatures(chunk.eta(theta))
            return np.stack([chunk.gram(factor * weights[c, c]) for c in range(self.shape[1])])

        blocks = self.source.fold(grams) / self.total
        diagonal = np.arange(self.shape[0])
        blocks[:, diagonal, diagonal] += self.ridge.T
        return blocks

    def estimate(self, point: Point, decrement: float) -> float:
        """J - J*, roughly from above: by the penalties as if the rest were at its best, else by the decrement."""
        if not (self.ridge.any() or self.is_sparse):
            return decrement
        bound = self.penalty_bound(point, point.gradient, np.zeros(self.shape))
        return max(bound, decrement) if self.free[: self.source.features].any() else bound

    def penalty_bound(self, point: Point, gradient: np.ndarray, rest: np.ndarray) -> float:
        """φ - φ* at most, φ the cost minimised over what is free, whose gradient is `gradient` up to `rest`.

        By strong convexity where there is a ridge, and by the l1 term: Σ lasso |θ*| ≤ J - the least loss.
        """
        ridge, lasso = self.ridge, self.lasso
        size = np.abs(self.subgradient(replace(point, gradient=gradient))) + rest
        sparse, held = lasso > 0, ridge > 0
        above = self.composite(point) - self.lowest

        def linear(of: np.ndarray) -> float:
            if not of.any():
                return 0.0
            return float((size * np.abs(point.theta))[of].sum()) + float((size[of] / lasso[of]).max()) * above

        quadratic = float((size[held] ** 2 / ridge[held]).sum()) / 2 + linear(sparse & ~held)
        return min(quadratic, linear(sparse)) if sparse.any() and not (held & ~sparse).any() else quadratic

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


def _joined(a: Any, b: Any) -> Any:
    """Two chunks together: sums, and the larger extents."""
    return *jax.tree.map(np.add, a[:-1], b[:-1]), np.maximum(a[-1], b[-1])
