"""Directions of lanes: quasi-Newton steps by factored Hessians, or to the minima of quadratic models with l1 terms.

Arrays have the lane axis first. A Hessian is in blocks: one for each output, or one whole where outputs couple.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn.fitting.settings import Settings
from lr_nn.many.objective import Objective, Points
from lr_nn.many.rows import Rows, in_parts

__all__ = ["Plan", "Proximal", "QuasiNewton", "planned"]

# Columns up to which every lane has a Hessian of all rows, and parameters up to which that of outputs that couple is
# whole; steps beyond which L-BFGS corrects it instead.
FEW_COLUMNS, FEW_PARAMETERS = 64, 300
# Pairs of L-BFGS; steps that a factor serves at least, twice as many each time.
PAIRS, SERVES = 8, 4
# A step that leaves more of the gradient asks for a new factor, of a lane's own or of a shared one.
SLOW, SLOW_SHARED = 0.1, 0.3
# Lanes of neighbouring strengths that share a Hessian; rows of it for what a step costs, and at least for each column.
TOGETHER, WORTH, LEAST = 10, 16, 40
# Added to a unit diagonal before a factor is made of products in float32.
JITTER = 1e-6
# Lanes whose matrices are inverted at once.
BATCH = 32


@dataclass(frozen=True)
class Plan:
    """How Hessians are made: of `rows`, all or some; lanes with the same number in `group` (m,) share one.

    `whole`: is the Hessian of outputs that couple whole, or the mean over outputs enough? `exact`: does every lane have
    its own, of all rows?
    """

    rows: Rows
    group: np.ndarray
    whole: bool
    exact: bool


def planned(objective: Objective, alike: np.ndarray) -> Plan:
    """The plan for lanes; those that differ in their strength only have the same number in `alike` (m,)."""
    rows, (m, q, k) = objective.rows, objective.ridge.shape
    whole = objective.is_coupled and q * k <= FEW_PARAMETERS
    exact = (whole or not objective.is_coupled) and (q <= FEW_COLUMNS or len(rows.inputs.chunks) == 1)
    if exact or objective.moving is not None:
        return Plan(rows, np.arange(m), whole, exact)
    strength = objective.ridge[:, 0, 0] + objective.lasso[:, 0, 0]
    order = np.lexsort((-strength, alike))
    first = np.searchsorted(alike[order], alike[order])
    group = np.empty(m, int)
    group[order] = (np.arange(m) - first) // TOGETHER + first
    group = np.unique(group, return_inverse=True)[1]
    together = min(TOGETHER, int(np.bincount(alike).max()))
    count = max(LEAST * q, WORTH * together * rows.n // q)
    return Plan(rows.some(sampled(rows.n, count)) if 2 * count < rows.n else rows, group, whole, exact)


def sampled(n: int, count: int) -> np.ndarray:
    """The numbers of `count` of n rows, always the same, in ascending order."""
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False, shuffle=False))


class QuasiNewton:
    """-H⁻¹ ∇J, H a Hessian at an earlier point, corrected by the pairs of L-BFGS where it is not each lane's own."""

    def __init__(self, objective: Objective, plan: Plan) -> None:
        """Before the first step."""
        self.objective, self.plan = objective, plan
        m, q, k = objective.ridge.shape
        self.age, self.serves = np.zeros(m, int), np.full(m, 1 if plan.exact else SERVES)
        self.fresh = np.zeros(m, bool)
        self.inverse: Any = None
        most = 0 if plan.exact else PAIRS
        self.steps, self.changes = np.zeros((2, most, m, q * k))
        self.products = np.zeros((most, m))
        self.newest = 0

    def propose(self, ids: np.ndarray, some: Objective, point: Points) -> np.ndarray:
        """The directions of the lanes `ids`, whose objective is `some`, from their points."""
        if not self.fresh[ids].all():
            self._build(ids, point.theta)
        gradient, shape = point.gradient.reshape(len(ids), -1), point.gradient.shape
        order = [(self.newest - i) % len(self.products) for i in range(1, len(self.products) + 1)]
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
        worn = self.age[ids] >= self.serves[ids]
        self.fresh[ids[worn & (shrunk > (SLOW if self.plan.exact else SLOW_SHARED))]] = False
        if not len(self.products):
            return
        step, change = step.reshape(len(ids), -1), change.reshape(len(ids), -1)
        product = np.einsum("mp,mp->m", step, change)
        size = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
        self.products[self.newest] = 0
        self.steps[self.newest, ids], self.changes[self.newest, ids] = step, change
        self.products[self.newest, ids] = np.where(product > 1e-12 * size, product, 0)
        self.newest = (self.newest + 1) % len(self.products)

    def _build(self, ids: np.ndarray, theta: np.ndarray) -> None:
        """Factors at these points, for lanes that ask for one and those that share theirs."""
        stale = np.isin(self.plan.group[ids], self.plan.group[ids[~self.fresh[ids]]])
        ids, theta = ids[stale], theta[stale]
        _, member, counts = np.unique(self.plan.group[ids], return_inverse=True, return_counts=True)
        order = np.argsort(member, kind="stable")
        middle = order[np.cumsum(counts) - counts + counts // 2]
        hessian = _hessian(self.plan, self.objective, ids[middle], theta[middle])
        if self.inverse is None:
            s = hessian.shape[1:]
            self.inverse = np.empty((len(self.objective), *s), np.float64 if self.plan.exact else np.float32)
        ridge = self.objective.ridge[ids]
        ridge = self.objective.blocks(ridge, self.plan.whole)[:, : hessian.shape[1]]
        held = None if self.objective.moving is None else ~self.objective.moving[ids]
        held = None if held is None else self.objective.blocks(held, self.plan.whole)
        parts = [slice(begin, begin + BATCH) for begin in range(0, len(ids), BATCH)]

        def invert(part: slice) -> None:
            own = None if held is None else held[part]
            self.inverse[ids[part]] = _inverses(hessian[member[part]], ridge[part], own)

        in_parts(invert, parts, self.objective.rows.threaded)
        self.serves[ids] *= np.where((self.age[ids] > 0) & (not self.plan.exact), 2, 1)
        self.fresh[ids], self.age[ids], self.products[:, ids] = True, 0, 0

    def _solved(self, ids: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """H⁻¹ times gradients, scaled for a precision whose range is smaller."""
        inverse = self.inverse if len(ids) == len(self.inverse) else self.inverse[ids]
        size = np.maximum(np.abs(gradient).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
        blocks = self.objective.blocks(gradient / size, self.plan.whole).astype(inverse.dtype)
        found = (inverse @ blocks[..., None])[..., 0]
        return size * self.objective.unblocked(found.astype(np.float64), self.plan.whole)


def _hessian(plan: Plan, objective: Objective, heads: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The Hessians of the lanes `heads` at θ, without their ridge."""
    rows = plan.rows.take(heads)
    total = objective.total[heads]
    if rows.n != objective.rows.n:
        total = np.maximum(rows.targets.weight.sum(axis=1)[rows.targets.weight_of], np.finfo(float).tiny)
    mean = objective.is_coupled and not plan.whole
    with np.errstate(all="ignore"):
        return rows.hessian(theta, mean, np.float32) / total[:, None, None, None]


def _inverses(hessian: np.ndarray, ridge: np.ndarray, held: np.ndarray | None) -> np.ndarray:
    """Inverses of Hessians with their ridge, scaled to a unit diagonal with a little more; zero where `held`."""
    s = np.arange(hessian.shape[-1])
    diagonal = hessian[..., s, s] + ridge
    good = np.isfinite(hessian).all(axis=(-2, -1))[..., None] & (diagonal > 0)
    good = good if held is None else good & ~held
    scale = np.where(good, 1 / np.sqrt(np.where(good, diagonal, 1)), 0)
    with np.errstate(all="ignore"):
        scaled = np.where(good[..., None] & good[..., None, :], scale[..., :, None] * hessian * scale[..., None, :], 0)
    scaled[..., s, s] = 1 + JITTER
    return scale[..., :, None] * np.linalg.inv(scaled) * scale[..., None, :]


class Proximal:
    """To the minimum of the quadratic model with its l1 term. A model is made anew where a step left much."""

    def __init__(self, objective: Objective, plan: Plan, settings: Settings) -> None:
        """Before the first step."""
        self.objective, self.plan, self.settings = objective, plan, settings
        self.fresh = np.zeros(len(objective), bool)
        self.hessian: Any = None

    def propose(self, ids: np.ndarray, some: Objective, point: Points) -> np.ndarray:
        """u - θ, u the minimum."""
        whole = self.plan.whole
        if not self.fresh[ids].all():
            stale = ~self.fresh[ids]
            hessian = _hessian(self.plan, self.objective, ids[stale], point.theta[stale])
            s = np.arange(hessian.shape[-1])
            ridge = some.blocks(some.ridge, whole)[stale]
            unit = some.blocks(np.broadcast_to(some.deviation[..., None], some.ridge.shape), whole)[stale]
            hessian[..., s, s] = (hessian[..., s, s] + ridge) * (1 + JITTER) + 1e-10 * unit + np.finfo(float).tiny
            if self.hessian is None:
                self.hessian = np.empty((len(self.objective), *hessian.shape[1:]))
            self.hessian[ids[stale]] = hessian
            self.fresh[ids] = True
        start, gradient, lasso = (some.blocks(a, whole) for a in (point.theta, point.gradient, some.lasso))
        accuracy = self.settings.inner * np.linalg.norm(some.subgradient(point), axis=(1, 2))
        found = model_minima(self.hessian[ids], start, gradient, lasso, accuracy[:, None], self.settings.sweeps)
        return some.unblocked(found, whole) - point.theta

    def learn(self, ids: np.ndarray, step: np.ndarray, change: np.ndarray, shrunk: np.ndarray) -> None:
        """Steps that left much of the subgradient ask for a new model."""
        self.fresh[ids[shrunk > self.settings.stale]] = False


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
