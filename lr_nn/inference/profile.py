"""Confidence intervals by the profile likelihood: all values that a likelihood-ratio test would not reject."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lr_nn import losses
from lr_nn.inference import admission, covariance
from lr_nn.inference.fitted import Fitted
from lr_nn.inference.newton import Objective, minimise, objective
from lr_nn.network import Network
from lr_nn.types import Batch, Solution, Status

__all__ = ["profile_intervals"]


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

    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level}")
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
        problem = objective(fitted)
        best = minimise(problem, fitted.coefficients.reshape(-1), np.ones(p, bool))
        if separated:  # there the curvature has died out, and says nothing of the distance to go
            units = np.repeat(1 / np.maximum(np.abs(problem.inputs).max(axis=0), 1e-300), fitted.coefficients.shape[1])
        else:
            units = np.sqrt(np.diagonal(covariance.inverse(best.point.curvature)))
        for c in chosen:
            ends = (_end(problem, best.theta, best.point.value, c, sign * units[c], fall) for sign in (-1, 1))
            intervals[c] = list(ends)
    return intervals.reshape(*fitted.coefficients.shape, 2)


def _least_squares(fitted: Fitted, fall: float) -> np.ndarray:
    """Where n log(RSS(t) / RSS) = `fall`: RSS(t) = RSS + (t - θ)² / (F⁻¹)_cc."""
    if fitted.strength > 0:
        raise ValueError("penalised least squares have no likelihood of their variance: read summary(...).intervals")
    squares = (fitted.weight[:, None] * fitted.residual**2).sum(axis=0)
    width = np.diagonal(covariance.inverse(covariance.information(fitted))).reshape(fitted.coefficients.shape)
    half = np.sqrt(squares[None] * width * np.expm1(fall / fitted.n))
    return np.stack([fitted.coefficients - half, fitted.coefficients + half], axis=-1).reshape(-1, 2)


def _end(problem: Objective, theta: np.ndarray, least: float, c: int, unit: float, fall: float) -> float:
    """The end of the interval of coefficient `c` on the side of `unit`, a standard error with a sign.

    The signed root r(u) = √(2 (profile - least)) of the distance u in units is nearly linear: Newton's method on it,
    kept between the largest u that is inside and the least that is outside.
    """
    moving = np.ones(theta.size, bool)
    moving[c] = False
    goal, inside, outside = np.sqrt(fall), 0.0, np.inf
    u, start = goal, theta
    far = FAR + 2 * abs(theta[c] / unit)
    for _ in range(STEPS):
        start = start.copy()
        start[c] = theta[c] + u * unit
        found = minimise(problem, start, moving)
        start = found.theta
        root = np.sqrt(2 * max(found.point.value - least, 0.0))
        slope = found.point.gradient[c] * unit / root if root > 0 else 0.0
        if abs(root - goal) <= NEAR:
            return float(start[c] - (root - goal) / slope * unit)
        if root < goal:
            inside = u
        else:
            outside = u
        # Convexity: from here the profile rises at least by its slope, which tells what can still be reached.
        if np.isinf(outside) and u > far and slope * root * u <= FLAT:
            return float(np.copysign(np.inf, unit))
        newton = u - (root - goal) / slope if slope > 0 else np.inf
        most = 2 * inside + goal if np.isinf(outside) else outside
        u = newton if inside < newton < most else (most if np.isinf(outside) else (inside + outside) / 2)
    return float("nan")


# Roots this near to the goal are one Newton step from it; units past zero that are far, and what is no rise any more.
STEPS, NEAR, FAR, FLAT = 100, 1e-6, 20.0, 1e-6
