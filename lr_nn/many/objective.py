"""The cost of many lanes as a function of θ (m, q, k), and the bounds that certify its optima."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from lr_nn.fitting import bounds
from lr_nn.fitting.settings import Settings
from lr_nn.many.rows import Rows

__all__ = ["LAST", "Objective", "Points", "inverse_roots"]

EPS = float(np.finfo(float).eps)
LAST = (-2, -1)
# How far η moves in one step at most, roughly: beyond, no curvature says anything.
FARTHEST = 100.0


class Points(NamedTuple):
    """θ (m, q, k), J there without its l1 term (m,), and its gradient; if asked for, the Hessian of the mean loss in
    blocks, and the sums for a certificate.
    """

    theta: np.ndarray
    cost: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray | None = None
    closing: Any = None

    def take(self, ids: np.ndarray) -> Points:
        """Those of some lanes."""
        return jax.tree.map(lambda leaf: leaf[ids], self)

    @property
    def is_finite(self) -> Any:
        """Are cost and gradient numbers, (m,)?"""
        return np.isfinite(self.cost) & np.isfinite(self.gradient).all(axis=LAST)


@dataclass(frozen=True)
class Objective:
    """J(θ) = Σ s_i ℓ_i / `total` + Σ lasso |θ| + ½ Σ ridge θ² of m lanes, with strengths (m, q, k).

    `total` (m,) is Σ s, `worth` (m,) the number of rows of equal weight that say as much, (Σ s)² / Σ s² (Kish, 1965),
    `lowest` (m,) the least mean loss that the targets allow, and `ceiling` (m,) the bound on J - J* that is asked for.
    `deviation` (m, q) is about the mean of x̃². All lanes have the same coefficients without a penalty.

    `curved` is the dtype of products of the Hessian that passes make as well, None for no Hessian. `moving` (m, q, k)
    says which coefficients are searched, None all.
    """

    rows: Rows
    total: np.ndarray
    worth: np.ndarray
    ridge: np.ndarray
    lasso: np.ndarray
    lowest: np.ndarray
    deviation: np.ndarray
    ceiling: np.ndarray
    curved: Any = None
    moving: np.ndarray | None = None

    def __len__(self) -> int:
        """m."""
        return len(self.total)

    @property
    def is_sparse(self) -> bool:
        """Is there an l1 term?"""
        return bool(self.lasso.any())

    @property
    def is_coupled(self) -> bool:
        """Does the loss couple its outputs?"""
        return self.rows.loss.couples_outputs

    @property
    def is_free(self) -> bool:
        """Have weights no penalty?"""
        return not self.ridge.any() and not self.is_sparse

    def take(self, ids: np.ndarray) -> Self:
        """Some of the lanes."""
        if len(ids) == len(self) and (ids == np.arange(len(self))).all():
            return self
        names = ("total", "worth", "ridge", "lasso", "lowest", "deviation", "ceiling")
        some = {name: getattr(self, name)[ids] for name in names}
        return replace(self, rows=self.rows.take(ids), moving=None if self.moving is None else self.moving[ids], **some)

    def at(self, theta: np.ndarray, closing: bool = False, dtype: Any = np.float64) -> Points:
        """One pass: J and its gradient, of products and losses in `dtype`."""
        with np.errstate(all="ignore"):
            found = self.rows.sums(theta.astype(dtype, copy=False), closing, self.curved)
            means = (None if a is None else a / self.total.reshape(-1, *(1,) * (a.ndim - 1)) for a in found)
            found = type(found)._make(means)
            cost = found.cost + (self.ridge * theta * theta).sum(axis=LAST) / 2
            gradient = found.gradient + self.ridge * theta
        gradient = gradient if self.moving is None else np.where(self.moving, gradient, 0)
        return Points(theta, cost, gradient, found.hessian, found if closing else None)

    def hessian(self, point: Points) -> np.ndarray:
        """∇²J at a point, with the ridge, in blocks (m, b, s, s)."""
        with np.errstate(all="ignore"):
            found = np.array(point.hessian)
            if point.hessian is None:
                found = self.rows.hessian(point.theta) / self.total[:, None, None, None]
        diagonal = np.arange(found.shape[-1])
        found[..., diagonal, diagonal] += self.blocks(self.ridge, self.is_coupled)
        return found

    def blocks(self, theta: np.ndarray, whole: bool) -> np.ndarray:
        """θ in blocks of the Hessian: (m, k, q), or (m, 1, qk) of the whole."""
        return theta.reshape(len(theta), 1, -1) if whole else np.moveaxis(theta, 2, 1)

    def unblocked(self, blocks: np.ndarray, whole: bool) -> np.ndarray:
        """The inverse of `blocks`."""
        return blocks.reshape(-1, *self.ridge.shape[1:]) if whole else np.moveaxis(blocks, 1, 2)

    def centred(self, theta: np.ndarray) -> np.ndarray:
        """θ less its mean over outputs where a number common to these changes no loss."""
        if not self.rows.loss.shift_invariant or self.moving is not None:
            return theta
        rows = (self.lasso == 0).all(axis=(0, 2))[None, :, None]
        return theta - np.where(rows, theta.mean(axis=2, keepdims=True), 0)

    def subgradient(self, point: Points) -> np.ndarray:
        """The subgradient of J of the smallest norm, (m, q, k)."""
        return bounds.subgradient(point.theta, point.gradient, self.lasso)

    def composite(self, point: Points) -> Any:
        """J with its l1 term, (m,)."""
        return point.cost + (self.lasso * np.abs(point.theta)).sum(axis=LAST)

    def bend(self, theta: np.ndarray, along: np.ndarray) -> np.ndarray:
        """How much the l1 term changes on a full step along a direction, (m,)."""
        return (self.lasso * (np.abs(theta + along) - np.abs(theta))).sum(axis=LAST)

    def shortened(self, along: np.ndarray) -> np.ndarray:
        """Directions along which no log-odds or log-rate is likely to move by more than a number like 100."""
        if self.rows.loss.concordance == 0:
            return along
        moved = np.sqrt((self.deviation[..., None] * along**2).sum(axis=1).max(axis=1, initial=0))
        return along * np.where(moved > FARTHEST, FARTHEST / np.where(moved > 0, moved, 1), 1)[:, None, None]

    def estimate(self, point: Points, decrement: np.ndarray) -> np.ndarray:
        """J - J*, roughly from above, (m,): by the penalties as if the bias were at its best, else by the decrement."""
        return decrement if self.is_free else self._of_penalty(point, point.gradient, np.zeros(1))

    def certificate(self, point: Points, settings: Settings) -> np.ndarray:
        """A bound on J - J* at points that a closing pass has seen, (m,); ∞ where there is none."""
        with np.errstate(all="ignore"):
            noise = self._rounding(point)
            bound = np.full(len(self), np.inf) if self.is_free else self._by_penalties(point, noise)
            unsolved = np.flatnonzero(~(bound <= self.ceiling))
            if len(unsolved) and self.moving is None:
                some, own = self.take(unsolved), point.take(unsolved)
                bound[unsolved] = np.fmin(bound[unsolved], some._by_hessian(own, noise[unsolved], settings))
            bound = bound + self._of_rounded_parameters(point)
        return np.where(np.isnan(bound), np.inf, bound)

    def _of_penalty(self, point: Points, gradient: np.ndarray, rest: np.ndarray) -> np.ndarray:
        above = np.maximum(self.composite(point) - self.lowest, 0) + 8 * EPS * np.abs(self.lowest)
        return bounds.penalty_bound(point.theta, gradient, rest, self.ridge, self.lasso, above)

    def _by_penalties(self, point: Points, noise: np.ndarray) -> np.ndarray:
        """The bound by the penalty of the weights, with the biases at their best."""
        loss, closing, gradient = self.rows.loss, point.closing, point.gradient
        if not self.rows.inputs.bias:
            return self._of_penalty(point, gradient, noise)
        given = gradient[:, -1], noise[:, -1], closing.curvature
        biases = bounds.bias_bound(*given, self.is_coupled, loss.shift_invariant, loss.concordance)
        extent = np.broadcast_to(self.rows.inputs.extent, gradient.shape[:2])
        moved = closing.curvature, closing.cross, extent
        gradient, rest = bounds.at_best_bias(gradient, *moved, biases, self.is_coupled)
        return biases.bound + self._of_penalty(point, gradient, noise + rest)

    def _by_hessian(self, point: Points, noise: np.ndarray, settings: Settings) -> np.ndarray:
        """The bound by the whole Hessian, where it is definite: the l1 term has a subgradient and no curvature."""
        hessian = self.hessian(point)
        whole, (_, q, k) = self.is_coupled, self.ridge.shape
        if self.rows.loss.shift_invariant:  # a number common to the outputs of a coefficient has no curvature
            size = np.diagonal(hessian[:, 0], axis1=1, axis2=2).reshape(-1, q, k).mean(axis=2)
            size = np.where((self.ridge + self.lasso).any(axis=2), 0, size)
            own = hessian.reshape(-1, q, k, q, k)
            own[:, np.arange(q), :, np.arange(q)] += np.moveaxis(size, 1, 0)[..., None, None] / k
        curvature = np.diagonal(hessian, axis1=2, axis2=3)
        scale = np.where(curvature > 0, 1 / np.sqrt(curvature), np.nan)
        inverse = inverse_roots(scale[..., :, None] * hessian * scale[..., None, :])
        squares = (inverse**2).sum(axis=LAST)
        sure = squares * hessian.shape[-1] * EPS < settings.singular
        gradient, error = (scale * self.blocks(of, whole) for of in (self.subgradient(point), noise))
        decrement = np.linalg.norm((inverse @ gradient[..., None])[..., 0], axis=-1)
        decrement = decrement + np.sqrt(squares) * np.linalg.norm(error, axis=-1)
        extent = np.broadcast_to(self.rows.inputs.extent[..., None], self.ridge.shape)
        reach = np.linalg.norm(scale * self.blocks(extent, whole), axis=-1) * np.sqrt(squares)
        decrement = np.where(sure, decrement, np.inf)
        m = self.rows.loss.concordance * reach.max(axis=1)
        return bounds.newton_bound(np.sqrt((decrement**2).sum(axis=1)), m)[0]

    def _mean(self) -> np.ndarray:
        """What was taken off the columns, (m, d) or (1, d)."""
        return np.atleast_2d(self.rows.inputs.mean)

    def _rounding(self, point: Points) -> np.ndarray:
        """What every entry of the gradient may be wrong by, (m, q, k)."""
        size = np.sqrt(self.deviation)
        if self.rows.inputs.bias:
            size[:, :-1] += np.abs(self._mean())
        curvature = bounds.diagonal(point.closing.curvature, self.is_coupled)
        return bounds.rounding(point.theta, size, point.closing.slopes, curvature, self.worth[:, None], self.is_coupled)

    def _of_rounded_parameters(self, point: Points) -> np.ndarray:
        """A bound on the increase of J by rounding the parameters when they are taken back to columns as they came."""
        theta, curvature = point.theta, bounds.diagonal(point.closing.curvature, self.is_coupled)
        moved = np.zeros(theta[:, 0].shape) if theta.shape[1] else np.zeros((len(theta), theta.shape[2]))
        if self.rows.inputs.bias:
            moved = moved + 2 * EPS * (np.abs(self._mean())[:, None] @ np.abs(theta[:, :-1]))[:, 0]
        if self.rows.loss.shift_invariant:
            moved = moved + EPS * (np.sqrt(self.deviation)[:, None] @ np.abs(theta))[:, 0]
        along = 2 * EPS * np.abs(point.gradient * theta).sum(axis=LAST)
        if self.rows.inputs.bias:
            along = along + (moved * np.abs(point.gradient[:, -1])).sum(axis=1)
        growth = np.exp(self.rows.loss.concordance * np.linalg.norm(moved, axis=1))
        return along + growth * (moved**2 * curvature).sum(axis=1)


def inverse_roots(matrices: np.ndarray) -> np.ndarray:
    """L⁻¹ of positive definite matrices L Lᵀ, (..., s, s); NaN where one is not."""
    try:
        return np.linalg.inv(np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError:
        if matrices.ndim == 2:
            return np.full_like(matrices, np.nan)
        return np.stack([inverse_roots(matrix) for matrix in matrices])
