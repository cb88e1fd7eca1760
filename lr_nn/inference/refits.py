"""The likelihood of one fit as a cost of lanes: with coefficients held, without an example, with Jeffreys' prior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import expit

from lr_nn import check
from lr_nn.fitting.settings import DEFAULT
from lr_nn.inference.covariance import shared_inputs
from lr_nn.inference.fitted import Fitted
from lr_nn.many.descent import Ends, descend
from lr_nn.many.objective import Objective, Points, inverse_roots
from lr_nn.many.rows import Rows, Targets

__all__ = ["Likelihood", "likelihood", "refit"]


@dataclass(frozen=True)
class Likelihood(Objective):
    """Σ s_i ℓ_i / n + ½ θᵀ P θ / n of lanes with one x; in θ the coefficients of a reference class are zero.

    `quadratic` (qk, qk) is P / n of classes, which couples them; that of other losses is the ridge. `jeffreys`: less
    log |F| / 2n, Jeffreys' prior of a bernoulli with one output, in the value and the gradient.
    """

    quadratic: Any = field(default=0.0)
    jeffreys: bool = False

    def at(self, theta: np.ndarray, closing: bool = False, dtype: Any = np.float64) -> Points:
        """J, its gradient and Hessian."""
        point = super().at(theta, closing, dtype)
        flat = theta.reshape(len(theta), -1)
        if np.ndim(self.quadratic):
            pull = flat @ self.quadratic
            gradient = point.gradient + np.where(self._moving(theta), pull.reshape(theta.shape), 0)
            cost = point.cost + (flat * pull).sum(axis=1) / 2
            point = point._replace(cost=cost, gradient=gradient, hessian=point.hessian + self.quadratic)
        return self._with_prior(point) if self.jeffreys else point

    def centre(self, theta: np.ndarray, sign: int = 1) -> np.ndarray:
        """θ for columns less their mean, by θ for columns as they came; with `sign` -1 the inverse."""
        mean = self.rows.inputs.mean
        if not np.any(mean):
            return theta
        return np.concatenate([theta[:, :-1], theta[:, -1:] + sign * (mean @ theta[:, :-1])[:, None]], axis=1)

    def _moving(self, theta: np.ndarray) -> np.ndarray:
        return np.ones(theta.shape, bool) if self.moving is None else self.moving

    def _with_prior(self, point: Points) -> Points:
        """∂/∂θ of -½ log |F| is x̃ᵀ h (p - ½), h the leverages: Firth (1993), section 3.1."""
        assert point.hessian is not None and self.rows.shares_x
        inputs = self.rows.inputs.x - self.rows.inputs.mean
        inputs = np.concatenate([inputs, np.ones((self.rows.n, int(self.rows.inputs.bias)))], axis=1)
        information = point.hessian[:, 0] * self.total[:, None, None]
        with np.errstate(all="ignore"):
            scale = 1 / np.sqrt(np.diagonal(information, axis1=1, axis2=2))
            roots = inverse_roots(scale[:, :, None] * information * scale[:, None])
            half_log = -np.log(np.diagonal(roots, axis1=1, axis2=2) * scale).sum(axis=1)
        gradient = point.gradient.copy()
        for i, theta in enumerate(point.theta):
            _, weight, offset = self.rows.targets.block(slice(i, i + 1), slice(None))
            mean = expit(inputs @ theta[:, 0] + (0 if offset is None else offset[0, :, 0]))
            half = (inputs * scale[i]) @ roots[i].T
            leverage = weight[0] * mean * (1 - mean) * (half**2).sum(axis=1)
            gradient[i, :, 0] += inputs.T @ (leverage * (mean - 0.5)) / self.total[i]
        cost = np.where(np.isnan(half_log), np.inf, point.cost - half_log / self.total)
        return point._replace(cost=cost, gradient=np.where(self._moving(gradient), gradient, 0))


def likelihood(
    fitted: Fitted, weight: np.ndarray, moving: np.ndarray | None, n: Any = None, centred: bool = True
) -> Likelihood:
    """The cost of lanes of one fit with weights (m, n), or (1, n) shared, in the coefficients `moving` (m, q, k).

    n: Σ s (m,), if the weights do not say it. centred: θ is for columns less their mean, as `centre` takes it there;
    for coefficients held in `moving` that changes what a held bias means, and no held weight.
    """
    check.finite("x", fitted.x)
    m, (q, k) = len(weight) if moving is None else len(moving), fitted.theta.shape
    none = np.zeros(m, int)
    weight_of = np.arange(m) if len(weight) == m else none
    offset = None if fitted.offset is None else fitted.offset[None]
    targets = Targets(fitted.targets[None], weight, offset, none, weight_of, none, np.float64)
    mean = np.zeros(q - fitted.net.bias)
    if centred and fitted.net.bias:
        mean = fitted.weight @ fitted.x / fitted.weight.sum()
    rows = Rows(shared_inputs(fitted, mean), targets, fitted.loss, k, True)
    total = weight.sum(axis=1)[weight_of] if n is None else n
    ridge, quadratic = np.zeros((m, q, k)), np.zeros(())
    if fitted.reference is None:
        ridge[:, : fitted.net.sizes[0]] = fitted.strength
    elif fitted.strength > 0:
        kept = np.ix_(*2 * (np.arange(q * k).reshape(q, k)[:, fitted.free].reshape(-1),))
        quadratic = np.zeros((q * k, q * k))
        quadratic[kept] = fitted.ridge / fitted.n
    if moving is None and fitted.reference is not None:
        moving = np.ones((m, q, k), bool)
    if moving is not None and fitted.reference is not None:
        moving = moving & (np.arange(k) != fitted.reference)
    inputs = fitted.inputs - np.append(mean, np.zeros(q - len(mean)))
    deviation = np.broadcast_to((inputs**2).mean(axis=0), (m, q))
    zeros = np.zeros(m)
    given = total, total, ridge, np.zeros((m, q, k)), zeros, deviation, zeros, np.float64, moving
    return Likelihood(rows, *given, quadratic=quadratic, jeffreys=fitted.jeffreys)


def refit(problem: Likelihood, theta: np.ndarray, tol: float = 1e-8, max_steps: int = 100) -> Ends:
    """The minima by Newton's method from θ (m, q, k), until a step, √(n · decrement) standard errors, is at most `tol`.

    `bound` is the last decrement times n: above tol² where the minimum was not reached.
    """
    with np.errstate(all="ignore"):
        ends = descend(problem, None, theta, max_steps, replace(DEFAULT, trials=60), tol**2 / problem.total)
    return ends._replace(bound=ends.bound * problem.total)
