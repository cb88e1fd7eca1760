"""What each example does to the fit: leverage, residuals, Cook's distance, and the fit without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lr_nn import losses
from lr_nn.inference import admission, covariance
from lr_nn.inference.estimates import summary
from lr_nn.inference.fitted import Fitted, of_rows
from lr_nn.inference.likelihood import unit_deviance
from lr_nn.inference.refits import likelihood, refit
from lr_nn.network import Network
from lr_nn.types import Batch, Solution

__all__ = ["Influence", "fisher_blocks", "influence", "leave_one_out"]

# Fits without an example that are searched at once.
TOGETHER = 256


@dataclass(frozen=True, eq=False)
class Influence:
    """What `influence` returns, of n examples and k outputs.

    `leverage` (n,): tr(F_i x̃_iᵀ H⁻¹ x̃_i), which add up to the degrees of freedom. `cooks_distance` (n,):
    δᵀ H δ / (p φ) with δ the change of the coefficients in one step. `pearson_residuals` (n, k): y - μ over its
    standard error √(φ (F_i - F_i V_i F_i)), V_i the covariance of η_i over φ. `deviance_residuals` (n, k): signed
    roots of the deviance over √(φ (1 - h)); of classes those of the row, (n, 1), without a sign and not standardised.
    `one_step` (n, q, k): the coefficients after one Newton step on the cost without the example.
    """

    leverage: np.ndarray
    cooks_distance: np.ndarray
    pearson_residuals: np.ndarray
    deviance_residuals: np.ndarray
    one_step: np.ndarray


def influence(net: Network, solution: Solution, data: Batch, *, reference: int | None = None) -> Influence:
    """What each example does to a fit by `lr_nn.fit`, one fit at a time; arguments as in `summary`.

    Weights are frequencies: what is taken away is one example of the row, or the row where its weight is below one.
    Sums over examples are Σ s_i. The cost without it keeps the strength of its penalty, as `lr_nn.fit` without it
    would.

    Raises ValueError or TypeError as `summary` does, and for fits by `firth`. Sources: Pregibon (1981);
    Williams (1987); of classes, Lesaffre & Albert (1989).
    """
    fitted = _admitted(net, solution, data, reference)
    found = summary(net, solution, data, reference=reference)
    curvature = fisher_blocks(fitted)[:, fitted.free][:, :, fitted.free]
    along = _along(fitted.inputs, found.bread, len(fitted.free))
    leverage = np.einsum("ijl,ilj->ij", curvature, along)
    step = _one_step(fitted)
    change = step - fitted.coefficients[None]
    scaled = (change / np.sqrt(found.dispersion)[None, None]).reshape(len(change), -1)
    hessian = found.information + fitted.ridge
    cook = np.einsum("na,ab,nb->n", scaled, hessian, scaled) / fitted.coefficients.size
    return Influence(
        leverage=leverage.sum(axis=1),
        cooks_distance=cook,
        pearson_residuals=_pearson(fitted, along, found.dispersion),
        deviance_residuals=_deviance(fitted, leverage, found.dispersion),
        one_step=step,
    )


def leave_one_out(net: Network, solution: Solution, data: Batch, *, reference: int | None = None) -> np.ndarray:
    """The coefficients of the fit without one example of each row, (n, q, k); arguments as in `influence`.

    Exact: of least squares by their formula, else by Newton's method from the one step of `influence`, to 1e-8
    standard errors. Where the others have no maximum the coefficients are not numbers.

    Raises ValueError or TypeError as `influence` does.
    """
    fitted = _admitted(net, solution, data, reference)
    starts = _one_step(fitted)
    if fitted.loss == losses.squared_error:
        return starts
    taken, found = _taken(fitted), np.empty_like(starts)
    finite = np.isfinite(starts).all(axis=(1, 2))[:, None, None]
    starts = np.where(finite, starts, fitted.coefficients)
    for begin in range(0, len(starts), TOGETHER):
        ids = np.arange(begin, min(begin + TOGETHER, len(starts)))
        weight = np.repeat(fitted.weight[None], len(ids), axis=0)
        weight[ids - begin, ids] -= taken[ids]
        theta = np.zeros((len(ids), *fitted.theta.shape))
        theta[..., fitted.free] = starts[ids]
        problem = likelihood(fitted, weight, None, fitted.n - taken[ids])
        ends = refit(problem, problem.centre(theta))
        reached = (ends.bound <= 1e-16)[:, None, None]
        found[ids] = np.where(reached, problem.centre(ends.theta, -1)[..., fitted.free], np.nan)
    return found


def _admitted(net: Network, solution: Solution, data: Batch, reference: int | None) -> Fitted:
    fitted = admission.single(net, solution, data, reference)
    if fitted.jeffreys:
        raise ValueError("influence is of fits by lr_nn.fit; refit with firth on the rows that are to stay")
    return fitted


def fisher_blocks(fitted: Fitted) -> np.ndarray:
    """F_i, (n, k, k)."""
    k = fitted.net.sizes[1]
    columns = [
        of_rows(fitted.loss.fisher_multiply, fitted.eta, np.broadcast_to(e, fitted.eta.shape)) for e in np.eye(k)
    ]
    return np.stack(columns, axis=-1)


def _along(inputs: np.ndarray, bread: np.ndarray, k: int) -> np.ndarray:
    """V_i = x̃_iᵀ H⁻¹ x̃_i, the covariance of η_i before any dispersion, (n, k, k) of the k free outputs."""
    q = inputs.shape[1]
    return np.einsum("na,ajbl,nb->njl", inputs, bread.reshape(q, k, q, k), inputs, optimize=True)


def _taken(fitted: Fitted) -> np.ndarray:
    """What the weight of each row is lowered by, (n,): one example, or all where there is less."""
    return np.minimum(fitted.weight, 1)


def _one_step(fitted: Fitted) -> np.ndarray:
    """The coefficients after one Newton step on the cost without `_taken` of each row, (n, q, k)."""
    taken, found = _taken(fitted), np.empty((len(fitted.weight), *fitted.coefficients.shape))
    information, curvature = covariance.information(fitted), fisher_blocks(fitted)[:, fitted.free][:, :, fitted.free]
    for amount in np.unique(taken):
        rows = taken == amount
        found[rows] = _steps_without(fitted, information, curvature, rows, float(amount))
    return found


def _steps_without(
    fitted: Fitted, information: np.ndarray, curvature: np.ndarray, rows: np.ndarray, amount: float
) -> np.ndarray:
    """θ + H_i⁻¹ (t g_i + what the penalty gives way), H_i = H - t x̃_i F_i x̃_iᵀ and t = `amount`, for some rows.

    By Woodbury's identity.
    """
    q, k = fitted.coefficients.shape
    inputs, residual = fitted.inputs[rows], amount * fitted.residual[rows][:, fitted.free]
    curvature, away = amount * curvature[rows], fitted.ridge * (amount / fitted.n)
    bread = covariance.inverse(information + fitted.ridge - away)
    slope = np.einsum("na,nj->naj", inputs, residual).reshape(-1, q * k)
    slope = slope + (away @ fitted.coefficients.reshape(-1))[None]
    first = (slope @ bread).reshape(-1, q, k)
    moved = np.einsum("na,naj->nj", inputs, first)
    left = np.eye(k)[None] - curvature @ _along(inputs, bread, k)
    left[np.abs(np.linalg.det(left)) < 1e-12] = np.nan
    rest = np.linalg.solve(left, (curvature @ moved[..., None]))[..., 0]
    again = np.einsum("na,nj->naj", inputs, rest).reshape(-1, q * k) @ bread
    return fitted.coefficients[None] + first + again.reshape(-1, q, k)


def _pearson(fitted: Fitted, along: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    full = fisher_blocks(fitted)
    some = full[:, :, fitted.free]
    spread = np.einsum("njj->nj", full) - np.einsum("nja,nab,njb->nj", some, along, some)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = dispersion[None] if fitted.reference is None else 1.0
        return -fitted.residual / np.sqrt(scale * spread)


def _deviance(fitted: Fitted, leverage: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    roots = np.sqrt(unit_deviance(fitted))
    if fitted.loss == losses.categorical:
        return roots
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.sign(fitted.residual) * roots / np.sqrt(dispersion[None] * (1 - leverage))
