"""What the likelihood says of the fit as a whole: log-likelihoods, deviance, Pearson's chi-square, dispersion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lr_nn import losses
from lr_nn.inference.covariance import over_lanes
from lr_nn.inference.fitted import Fitted, of_rows
from lr_nn.many.problem import best_constants

__all__ = [
    "deviance",
    "log_likelihood",
    "null_log_likelihood",
    "pearson_chi2",
    "r_squared",
    "squares",
    "unit_deviance",
    "variance",
    "wald_of_outputs",
]


def log_likelihood(fitted: Fitted, eta: np.ndarray | None = None) -> np.ndarray:
    """Σ s_i log p(y_i | η_i) at the fitted η, or another; of the squared error at the variances RSS_j / n.

    Of a Poisson with its log y!.
    """
    eta = fitted.eta if eta is None else eta
    if fitted.loss == losses.squared_error:
        n = fitted.n[..., None]
        with np.errstate(divide="ignore"):
            return (-n / 2 * (np.log(2 * np.pi * squares(fitted, eta) / n) + 1)).sum(axis=-1)
    rows = -of_rows(fitted.loss.value, eta, fitted.targets)
    if fitted.loss == losses.poisson:
        from scipy.special import gammaln

        rows = rows - gammaln(fitted.targets + 1).sum(axis=-1)
    return (fitted.weight * rows).sum(axis=-1)


def squares(fitted: Fitted, eta: np.ndarray) -> np.ndarray:
    """Σ s_i (η_ij - y_ij)² of every output, (k,)."""
    return (fitted.weight[..., None] * (eta - fitted.targets) ** 2).sum(axis=-2)


def r_squared(fitted: Fitted) -> np.ndarray:
    """1 - RSS / RSS of the best constant model, or without a bias of η = offset, (k,); NaN where y has no variance."""
    without = np.zeros(1) if fitted.offset is None else fitted.offset
    total = squares(fitted, _constant(fitted) if fitted.net.bias else without)
    return 1 - squares(fitted, fitted.eta) / np.where(total > 0, total, np.nan)


def wald_of_outputs(coefficients: np.ndarray, covariance: np.ndarray, d: int, defined: np.ndarray) -> np.ndarray:
    """wᵀ V⁻¹ w / d of the first d coefficients of every output, (k,); NaN where not `defined`, and for V of zeros."""
    lanes, (q, k) = coefficients.shape[:-2], coefficients.shape[-2:]
    w = np.swapaxes(coefficients[..., :d, :], -1, -2)
    v = np.einsum("...ajbj->...jab", covariance.reshape(*lanes, q, k, q, k)[..., :d, :, :d, :])
    defined = defined[..., None] & (np.diagonal(v, axis1=-2, axis2=-1) > 0).all(axis=-1)
    v = np.where(defined[..., None, None], v, np.nan)
    return (w * np.linalg.solve(v, w[..., None])[..., 0]).sum(axis=-1) / d


def deviance(fitted: Fitted) -> np.ndarray:
    """2 Σ s_i (ℓ_i - the ℓ_i of the saturated model); the residual sum of squares of the squared error."""
    return (fitted.weight[..., None] * unit_deviance(fitted)).sum(axis=(-2, -1))


def unit_deviance(fitted: Fitted) -> np.ndarray:
    """The deviance of each row and output, (n, k); of classes that of the row, (n, 1)."""
    from scipy.special import entr, rel_entr

    y, mean = fitted.targets, fitted.mean
    if fitted.loss == losses.squared_error:
        return (y - mean) ** 2
    if fitted.loss == losses.poisson:
        return 2 * (rel_entr(y, mean) - (y - mean))
    if fitted.loss == losses.categorical:
        return 2 * of_rows(fitted.loss.value, fitted.eta, y)[..., None]
    # From η, for the mean may round to 0 or 1.
    with np.errstate(invalid="ignore"):  # lanes that failed
        return 2 * np.maximum(np.logaddexp(0, fitted.eta) - y * fitted.eta - entr(y) - entr(1 - y), 0)


def pearson_chi2(fitted: Fitted) -> np.ndarray:
    """Σ s_i (y_i - μ_i)² / V(μ_i), over outputs too; of classes V(μ) = μ."""
    return (fitted.weight[..., None] * fitted.residual**2 / variance(fitted)).sum(axis=(-2, -1))


def variance(fitted: Fitted) -> np.ndarray:
    """V(μ), (n, k)."""
    if fitted.loss == losses.categorical:
        return fitted.mean
    return of_rows(fitted.loss.fisher_diagonal, fitted.eta)


def null_log_likelihood(fitted: Fitted) -> np.ndarray:
    """The log-likelihood of the best constant model: a bias for every output, and the offset."""
    return log_likelihood(fitted, _constant(fitted))


def _constant(fitted: Fitted) -> np.ndarray:
    """η of the best constant model, (n, k)."""
    with_bias = replace(fitted, net=replace(fitted.net, bias=True))
    biases = over_lanes(lambda rows, ids: best_constants(rows, True)[0], with_bias)
    biases = biases if fitted.lanes else biases[0]
    offset = np.zeros((fitted.x.shape[-2], 1)) if fitted.offset is None else fitted.offset
    return biases + offset
