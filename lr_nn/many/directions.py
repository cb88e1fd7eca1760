"""Directions of lanes: Newton's, quasi-Newton ones, or to the minima of quadratic models with l1 terms.

Arrays have the lane axis first. A Hessian is in blocks: one for each output, or one whole where outputs couple.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lr_nn.fitting.settings import Settings
from lr_nn.many.inputs import FEW_COLUMNS
from lr_nn.many.objective import Objective, Points
from lr_nn.many.rows import Rows, in_parts

__all__ = ["FEW_PARAMETERS", "Newton", "Plan", "Proximal", "QuasiNewton", "has_own_hessians", "hessian_plan"]

# Parameters of coupled outputs up to which every lane has a Hessian of its own.
FEW_PARAMETERS = 128
# Pairs of L-BFGS.
PAIRS = 8
# Steps for which a factor of all rows is kept at least, and one of a sample, whose rows are what slows it down, not its
# age; the number doubles each time the factor is renewed.
FACTOR_STEPS, SAMPLE_STEPS = 2, 8
# A factor is renewed if a step leaves more than this share of the gradient (the census folds chose it).
SLOW = 0.3
# Lanes of neighbouring strengths that share a Hessian.
SHARING_LANES = 10
# Rows of a shared Hessian: at least 40 for each column, or as many as cost what 16 / q passes of each lane cost.
ROWS_PER_COLUMN, PASSES_WORTH = 40, 16
# Added to a unit diagonal before it is factored, for products in float64 and in float32.
JITTER, JITTER32 = 1e-12, 1e-6
# Hessians that are made at once, which bounds memory.
HESSIANS_AT_ONCE = 64
# Matrices that a core inverts at once.
INVERSES_AT_ONCE = 16


def has_own_hessians(q: int, k: int, coupled: bool) -> bool:
    """True if a lane of q columns and k outputs computes its own Hessian at every point."""
    return q * k <= FEW_PARAMETERS if coupled else q <= FEW_COLUMNS


@dataclass(frozen=True)
class Plan:
    """How Hessians are made that lanes share: of `rows`, all or some, one for the lanes of the same `group` (m,).

    `curvature` (m, k): the Hessians of the outputs of a group are proportional to these numbers, None: they are equal.
    """

    rows: Rows
    group: np.ndarray
    curvature: np.ndarray | None = None


def hessian_plan(objective: Objective, dataset: np.ndarray) -> Plan | None:
    """The plan for lanes, None where each has a Hessian of its own.

    Lanes that differ in their strength only have the same number in `dataset` (m,).
    """
    rows, (m, q, k) = objective.rows, objective.ridge.shape
    if has_own_hessians(q, k, objective.is_coupled):
        return None
    order = np.lexsort((-objective.ridge[:, 0, 0], dataset))
    first = np.searchsorted(dataset[order], dataset[order])
    group = np.empty(m, int)
    group[order] = (np.arange(m) - first) // SHARING_LANES + first
    group = np.unique(group, return_inverse=True)[1].reshape(-1)
    together = min(SHARING_LANES, int(np.bincount(dataset).max()))
    count = max(ROWS_PER_COLUMN * q, PASSES_WORTH * together * rows.n // q)
    return Plan(rows.some(sample_rows(rows.n, count)) if rows.shares_x and 2 * count < rows.n else rows, group)


def sample_rows(n: int, count: int) -> np.ndarray:
    """The numbers of `count` of n rows, always the same, in ascending order."""
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False, shuffle=False))


class Newton:
    """-H⁻¹ ∇J, H the Hessian that a pass made."""

    def propose(self, ids: np.ndarray, some: Objective, point: Points) -> np.ndarray:
        """The directions of the lanes `ids`, whose objective is `some`, from their points."""
        scale, scaled = _scaled(some.hessian(point), some, JITTER if some.curved == np.float64 else JITTER32)
        gradient = scale * some.blocks(point.gradient, some.is_coupled)
        found = scale * np.linalg.solve(scaled, gradient[..., None])[..., 0]
        return -some.centred(some.unblocked(found, some.is_coupled))

    def learn(self, ids: np.ndarray, step: np.ndarray, change: np.ndarray, shrunk: np.ndarray) -> None:
        """Nothing."""


class QuasiNewton:
    """-H⁻¹ ∇J, H of other points, rows and lanes, corrected by the pairs of L-BFGS."""

    def __init__(self, objective: Objective, plan: Plan) -> None:
        """Before the first step."""
        self.objective, self.plan = objective, plan
        m, q, k = objective.ridge.shape
        self.age = np.zeros(m, int)
        self.serves = np.full(m, FACTOR_STEPS if plan.rows.n == objective.rows.n else SAMPLE_STEPS)
        self.fresh = np.zeros(m, bool)
        self.inverse = np.empty((m, 1 if objective.is_coupled else k, q, q), np.float32)
        self.steps, self.changes = np.zeros((2, PAIRS, m, q * k))
        self.products = np.zeros((PAIRS, m))
        self.newest = 0

    def propose(self, ids: np.ndarray, some: Objective, point: Points) -> np.ndarray:
        """The directions of the lanes `ids`, whose objective is `some`, from their points."""
        if not self.fresh[ids].all():
            self._build(ids, point.theta)
        gradient, shape = point.gradient.reshape(len(ids), -1), point.gradient.shape
        order = [(self.newest - i) % PAIRS for i in range(1, PAIRS + 1)]
        order = [j for j in order if self.products[j, ids].any()]
        alphas = []
        for j in order:
            product = self.products[j, ids]
            along = np.einsum("mp,mp->m", self.steps[j, ids], gradient)
            alphas.append(np.where(product > 0, along / np.where(product > 0, product, 1), 0))
            gradient = gradient - alphas[-1][:, None] * self.changes[j, ids]
        found = self._solved(ids, gradient.reshape(shape)).reshape(gradient.shape)
        for j, alpha in zip(reversed(order), reversed(alphas)):
            product = self.products[j, ids]
            along = np.einsum("mp,mp->m", self.changes[j, ids], found)
            beta = np.where(product > 0, along / np.where(product > 0, product, 1), 0)
            found = found + (alpha - beta)[:, None] * self.steps[j, ids]
        return -some.centred(found.reshape(shape))

    def learn(self, ids: np.ndarray, step: np.ndarray, change: np.ndarray, shrunk: np.ndarray) -> None:
        """The lanes `ids` took steps, which changed the gradient so, and left `shrunk` (·,) of its length."""
        self.age[ids] += 1
        self.fresh[ids[(self.age[ids] >= self.serves[ids]) & (shrunk > SLOW)]] = False
        step, change = (a.reshape(len(ids), self.steps.shape[2]) for a in (step, change))
        product = np.einsum("mp,mp->m", step, change)
        size = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
        self.products[self.newest] = 0
        self.steps[self.newest, ids], self.changes[self.newest, ids] = step, change
        self.products[self.newest, ids] = np.where(product > 1e-12 * size, product, 0)
        self.newest = (self.newest + 1) % PAIRS

    def _build(self, ids: np.ndarray, theta: np.ndarray) -> None:
        """Factors at these points, for lanes that ask for one and those that share it: of the middle one's Hessian."""
        stale = np.isin(self.plan.group[ids], self.plan.group[ids[~self.fresh[ids]]])
        ids, theta = ids[stale], theta[stale]
        _, member, counts = np.unique(self.plan.group[ids], return_inverse=True, return_counts=True)
        order, ends = np.argsort(member, kind="stable"), np.cumsum(counts)
        middle = order[ends - counts + counts // 2]
        for begin in range(0, len(middle), HESSIANS_AT_ONCE):
            groups = slice(begin, begin + HESSIANS_AT_ONCE)
            hessian = self._hessian(ids[middle[groups]], theta[middle[groups]])
            own = order[ends[groups][0] - counts[groups][0] : ends[groups][-1]]
            found = hessian[member[own] - begin]
            if self.plan.curvature is not None:
                size = self.plan.curvature[ids[own]] / self.plan.curvature[ids[middle[member[own]]]]
                found *= size[..., : found.shape[1], None, None]
            self._invert(ids[own], found)
        self.serves[ids] *= np.where(self.age[ids] > 0, 2, 1)
        self.fresh[ids], self.age[ids], self.products[:, ids] = True, 0, 0

    def _invert(self, ids: np.ndarray, hessian: np.ndarray) -> None:
        """The inverses of Hessians without their ridge, (·, b, q, q), with that of the lanes `ids`."""
        s = np.arange(hessian.shape[-1])

        def invert(part: slice) -> None:
            own, held = self.objective.take(ids[part]), hessian[part]
            held[..., s, s] += np.moveaxis(own.ridge, 2, 1)[:, : held.shape[1]]
            scale, scaled = _scaled(held, own, JITTER32)
            self.inverse[ids[part]] = scale[..., :, None] * np.linalg.inv(scaled) * scale[..., None, :]

        parts = [slice(begin, begin + INVERSES_AT_ONCE) for begin in range(0, len(ids), INVERSES_AT_ONCE)]
        in_parts(invert, parts, self.objective.rows.threaded)

    def _hessian(self, heads: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """The Hessians of the lanes `heads` at θ, without their ridge; of outputs that couple the mean over outputs."""
        objective, rows = self.objective, self.plan.rows.take(heads)
        total = objective.total[heads]
        if rows.n != objective.rows.n:
            total = np.maximum(rows.targets.weight.sum(axis=1)[rows.targets.weight_of], np.finfo(float).tiny)
        with np.errstate(all="ignore"):
            return rows.hessian(theta, objective.is_coupled, np.float32) / total[:, None, None, None]

    def _solved(self, ids: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """H⁻¹ times gradients, scaled for a precision whose range is smaller."""
        inverse = self.inverse if len(ids) == len(self.inverse) else self.inverse[ids]
        size = np.maximum(np.abs(gradient).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
        blocks = np.moveaxis(gradient / size, 2, 1).astype(np.float32)
        found = (inverse @ blocks[..., None])[..., 0]
        return size * np.moveaxis(found, 1, 2).astype(np.float64)


def _scaled(hessian: np.ndarray, some: Objective, jitter: float) -> tuple[np.ndarray, np.ndarray]:
    """Scales (m, b, s) and Hessians scaled to a unit diagonal with `jitter` more.

    Of coefficients that have no curvature, or are not searched, the scale is zero.
    """
    s = np.arange(hessian.shape[-1])
    diagonal = hessian[..., s, s]
    good = np.isfinite(hessian).all(axis=(-2, -1))[..., None] & (diagonal > 0)
    if some.moving is not None:
        good = good & some.blocks(some.moving, some.is_coupled)
    scale = np.where(good, 1 / np.sqrt(np.where(good, diagonal, 1)), 0)
    if good.all():
        scaled = scale[..., :, None] * hessian * scale[..., None, :]
    else:
        with np.errstate(all="ignore"):
            both = good[..., None] & good[..., None, :]
            scaled = np.where(both, scale[..., :, None] * hessian * scale[..., None, :], 0)
    if some.rows.loss.shift_invariant and some.moving is None and hessian.shape[-1] == some.ridge[0].size:
        # A number common to the outputs of a coefficient has no curvature, and is centred away.
        _, q, k = some.ridge.shape
        scaled.reshape(-1, q, k, q, k)[:, np.arange(q), :, np.arange(q)] += 1 / k
    scaled[..., s, s] += jitter
    scaled[..., s, s] += np.where(good, 0, 1)
    return scale, scaled


@dataclass(frozen=True)
class Proximal:
    """u - θ, u the minimum of the quadratic model with its l1 term."""

    settings: Settings

    def propose(self, ids: np.ndarray, some: Objective, point: Points) -> np.ndarray:
        """The directions of lanes, whose objective is `some`, from their points."""
        hessian = some.hessian(point)
        s = np.arange(hessian.shape[-1])
        unit = some.blocks(np.broadcast_to(some.deviation[..., None], some.ridge.shape), some.is_coupled)
        hessian[..., s, s] = hessian[..., s, s] * (1 + 1e-6) + 1e-10 * unit + np.finfo(float).tiny
        start, gradient, lasso = (some.blocks(a, some.is_coupled) for a in (point.theta, point.gradient, some.lasso))
        accuracy = self.settings.inner * np.linalg.norm(some.subgradient(point), axis=(1, 2))
        found = model_minima(hessian, start, gradient, lasso, accuracy[:, None], self.settings.sweeps)
        return some.unblocked(found, some.is_coupled) - point.theta

    def learn(self, ids: np.ndarray, step: np.ndarray, change: np.ndarray, shrunk: np.ndarray) -> None:
        """Nothing."""


def model_minima(
    hessian: np.ndarray,
    start: np.ndarray,
    gradient: np.ndarray,
    thresholds: np.ndarray,
    accuracy: np.ndarray,
    sweeps: int,
) -> np.ndarray:
    """argmin_u g·(u - θ) + ½ (u - θ)ᵀ H (u - θ) + Σ thresholds |u| of every block (..., s), by cyclic coordinate
    descent, until a sweep changes no gradient of a model by more than `accuracy`.
    """
    u, slope = np.array(start), np.array(gradient)
    diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
    for _ in range(sweeps):
        most = np.zeros(u.shape[:-1])
        for a in range(u.shape[-1]):
            goal = u[..., a] - slope[..., a] / diagonal[..., a]
            new = np.sign(goal) * np.maximum(np.abs(goal) - thresholds[..., a] / diagonal[..., a], 0)
            change = new - u[..., a]
            u[..., a] = new
            slope += change[..., None] * hessian[..., a, :]
            most = np.maximum(most, np.abs(change) * diagonal[..., a])
        if (most <= accuracy).all():
            break
    return u
