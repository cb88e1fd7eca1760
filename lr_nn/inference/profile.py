"""Confidence intervals by the profile likelihood: all values that a likelihood-ratio test would not reject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lr_nn import losses
from lr_nn.inference import admission, covariance
from lr_nn.inference.fitted import Fitted
from lr_nn.inference.refits import Likelihood, likelihood, refit
from lr_nn.network import Network
from lr_nn.types import Batch, Solution, Status

__all__ = ["profile_intervals"]

# Root-finding steps at most.
STEPS = 100
# A root this near to the goal is one Newton step from it.
NEAR = 1e-6
# An end is infinite this many units past zero, if the profile rises from there by less than `FLAT`.
FAR, FLAT = 20.0, 1e-6
# The squared length, in standard errors, of the last step of a refit that has reached its minimum.
REACHED = 1e-16


def profile_intervals(
    net: Network,
    solution: Solution,
    data: Batch,
    *,
    level: float = 0.95,
    coefficients: Iterable[int] | None = None,
    reference: int | None = None,
) -> np.ndarray:
    """The values t of a coefficient with 2 (max log-likelihood - max log-likelihood given t) ≤ χ²₁(level), (q, k, 2).

    The other coefficients are fitted anew at every t. Of a penalised fit, or one by `firth`, the likelihood is the
    penalised one; of the squared error its variance is profiled, too. Where the likelihood does not fall that far, as
    on one side of separated data, the end is infinite: the solution may be a separated one.

    net, solution, data, reference: as in `summary`, one fit at a time. coefficients: which entries of
    coefficients.reshape(-1) to take; the others are not numbers. The ends are exact to about 1e-8 standard errors.

    Raises ValueError or TypeError as `summary` does. Source: Venzon & Moolgavkar (1988).
    """
    from scipy import stats

    admission.admit_level(level)
    separated = isinstance(solution, Solution) and np.ndim(solution.status) == 0 and solution.status == Status.separated
    one = replace(solution, status=Status.converged) if separated else solution
    fitted = admission.single(net, one, data, reference)
    p = fitted.coefficients.size
    chosen = range(p) if coefficients is None else [int(c) for c in coefficients]
    if not all(0 <= c < p for c in chosen):
        raise ValueError(f"coefficients must be positions in [0, {p}) of coefficients.reshape(-1); got {list(chosen)}")
    fall = float(stats.chi2.ppf(level, 1))
    intervals = np.full((p, 2), np.nan)
    if fitted.loss == losses.squared_error:
        intervals[chosen] = _least_squares(fitted, fall)[chosen]
    else:
        weights = net.sizes[0] * len(fitted.free)
        for centred in (True, False):
            some = [c for c in chosen if (c < weights) == centred]
            if some:
                intervals[some] = _by_refits(fitted, some, fall, separated, centred)
    return intervals.reshape(*fitted.coefficients.shape, 2)


def _least_squares(fitted: Fitted, fall: float) -> np.ndarray:
    """Where n log(RSS(t) / RSS) = `fall`: RSS(t) = RSS + (t - θ)² / (F⁻¹)_cc."""
    if fitted.strength > 0:
        raise ValueError("penalised least squares have no likelihood of their variance: read summary(...).intervals")
    squares = (fitted.weight[:, None] * fitted.residual**2).sum(axis=0)
    width = np.diagonal(covariance.inverse(covariance.information(fitted))).reshape(fitted.coefficients.shape)
    half = np.sqrt(squares[None] * width * np.expm1(fall / fitted.n))
    return np.stack([fitted.coefficients - half, fitted.coefficients + half], axis=-1).reshape(-1, 2)


def _by_refits(fitted: Fitted, chosen: list[int], fall: float, separated: bool, centred: bool) -> np.ndarray:
    """The ends (c, 2) of the intervals of the coefficients `chosen`, both sides of all at once; `centred` of weights.

    The signed root r(u) = √(2 (profile - least)) of the distance u in standard errors is nearly linear: Newton's method
    on it, kept between the largest u that is inside and the least that is outside.
    """
    (q, k), free = fitted.theta.shape, fitted.free
    n, weight = float(fitted.n), fitted.weight[None]
    zeros = np.zeros((1, q, k))
    zeros[0, :, free] = fitted.coefficients.T
    whole = likelihood(fitted, weight, None, centred=centred)
    best = refit(whole, whole.centre(zeros))
    theta, least = best.theta[0], best.cost[0] * n
    entries = np.arange(q * k).reshape(q, k)[:, free].reshape(-1)[chosen]
    units, along = _steps(whole, theta, free, chosen, separated)
    unit, entry = np.stack([-units, units], axis=1).reshape(-1), np.repeat(entries, 2)
    along, m = np.repeat(along, 2, axis=0), len(unit)
    moving = np.ones((m, q * k), bool)
    moving[np.arange(m), entry] = False
    held = likelihood(fitted, weight, moving.reshape(m, q, k), centred=centred)
    start = np.repeat(theta.reshape(1, -1), m, axis=0)
    begin, far = start[np.arange(m), entry], FAR + 2 * np.abs(theta.reshape(-1)[entry] / unit)
    goal, ends, on = np.sqrt(fall), np.full(m, np.nan), np.arange(m)
    u, inside, outside = np.full(m, goal), np.zeros(m), np.full(m, np.inf)
    for _ in range(STEPS):
        change = begin[on] + u[on] * unit[on] - start[on, entry[on]]
        start[on] += change[:, None] * along[on]
        some = held.take(on)
        found = refit(some, start[on].reshape(-1, q, k))
        start[on] = found.theta.reshape(len(on), -1)
        root = np.sqrt(2 * np.maximum(found.cost * n - least, 0))
        gradient = replace(some, moving=None).at(found.theta).gradient.reshape(len(on), -1)
        with np.errstate(all="ignore"):
            slope = np.where(root > 0, gradient[np.arange(len(on)), entry[on]] * n * unit[on] / root, 0)
            newton = np.where(slope > 0, u[on] - (root - goal) / slope, np.inf)
        reached = found.bound <= REACHED
        near = reached & (np.abs(root - goal) <= NEAR)
        ends[on[near]] = (start[on, entry[on]] + (newton - u[on]) * unit[on])[near]
        inside[on] = np.where(root < goal, u[on], inside[on])
        outside[on] = np.where(root < goal, outside[on], u[on])
        # Convexity: from here the profile rises at least by its slope, which tells what can still be reached.
        flat = np.isinf(outside[on]) & (u[on] > far[on]) & (slope * root * u[on] <= FLAT) & ~near
        ends[on[flat]] = np.copysign(np.inf, unit[on[flat]])
        open_ended = np.isinf(outside[on])
        most = np.where(open_ended, 2 * inside[on] + goal, outside[on])
        between = np.where(open_ended, most, (inside[on] + outside[on]) / 2)
        u[on] = np.where((inside[on] < newton) & (newton < most), newton, between)
        on = on[reached & ~(near | flat)]
        if not len(on):
            break
    return ends.reshape(-1, 2)


def _steps(
    whole: Likelihood, theta: np.ndarray, free: list[int], chosen: list[int], separated: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The standard errors (c,) of the coefficients `chosen`, and ∂θ/∂θ_c of the profile to first order, (c, qk)."""
    (q, k), along = theta.shape, np.zeros((len(chosen), *theta.shape))
    if separated:  # there the curvature has died out, and says nothing of the distance to go
        units = np.repeat(1 / np.maximum(whole.rows.inputs.extent[0], 1e-300), len(free))[chosen]
        spread = np.eye(q * len(free))[chosen]
    else:
        covariances = covariance.inverse(_curvature(whole, theta[None], free) * float(whole.total[0]))
        units = np.sqrt(np.diagonal(covariances))[chosen]
        spread = covariances[chosen] / units[:, None] ** 2
    along[:, :, free] = spread.reshape(len(chosen), q, len(free))
    return units, along.reshape(len(chosen), q * k)


def _curvature(problem: Likelihood, theta: np.ndarray, free: list[int]) -> np.ndarray:
    """The Hessian at θ (1, q, k) of the coefficients as reported, (p, p)."""
    hessian, (_, q, k) = problem.hessian(problem.at(theta))[0], theta.shape
    if len(hessian) == 1:
        return hessian[0].reshape(q, k, q, k)[:, free][..., free].reshape(q * len(free), -1)
    found = np.zeros((q, k, q, k))
    found[:, np.arange(k), :, np.arange(k)] = hessian
    return found.reshape(q * k, q * k)
