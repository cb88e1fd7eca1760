"""Average marginal effects: by how much the mean response changes with each feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lr_nn import losses
from lr_nn.inference import admission
from lr_nn.inference.diagnostics import fisher_blocks
from lr_nn.inference.estimates import Covariance, Summary
from lr_nn.inference.fitted import Fitted
from lr_nn.network import Network
from lr_nn.types import Batch, Solution

__all__ = ["MarginalEffects", "marginal_effects"]


@dataclass(frozen=True, eq=False)
class MarginalEffects:
    """What `marginal_effects` returns: `effects`, `standard_errors`, `z`, `p_values` (d, k), `intervals` (d, k, 2)."""

    effects: np.ndarray
    standard_errors: np.ndarray
    z: np.ndarray
    p_values: np.ndarray
    intervals: np.ndarray


def marginal_effects(
    net: Network,
    solution: Solution,
    data: Batch,
    *,
    level: float = 0.95,
    covariance: Covariance = "fisher",
    groups: ArrayLike | None = None,
) -> MarginalEffects:
    """Σ s_i ∂μ_i/∂x_i / Σ s_i, (d, k): the slope of the mean response in each feature, a mean over examples.

    Of k classes the effects on the probability of every class, which sum to zero over classes. Standard errors by the
    delta method from the covariance of the summary; the normal law. Arguments as in `summary`, one fit at a time.

    Raises ValueError or TypeError as `summary` does. Source: Greene (2018), section 17.3.
    """
    from scipy import stats

    fitted = admission.single(net, solution, data)
    number = admission.admit_groups(fitted, covariance, groups)
    found = Summary(fitted, covariance, number, admission.admit_level(level), (), (), False)
    d, k = net.sizes
    w = fitted.theta[:d]
    share = fitted.weight / fitted.weight.sum()
    curvature = fisher_blocks(fitted)
    mean_curvature = np.einsum("n,njl->jl", share, curvature)
    effects = w @ mean_curvature
    # ∂effect_aj/∂θ_bl = mean F_jl where b is a, and the mean of x̃_b ∂(F w_a)_j/∂η_l.
    bend = np.einsum("n,najl,nb->ajbl", share, _bend(fitted, curvature, w), fitted.inputs, optimize=True)
    bend[np.arange(d), :, np.arange(d), :] += mean_curvature[None]
    slopes = bend[..., fitted.free].reshape(d * k, -1)
    errors = np.sqrt(np.einsum("ep,pq,eq->e", slopes, found.covariance, slopes)).reshape(d, k)
    z = effects / errors
    half = stats.norm.ppf((1 + level) / 2) * errors
    intervals = np.stack([effects - half, effects + half], axis=-1)
    return MarginalEffects(effects, errors, z, 2 * stats.norm.sf(np.abs(z)), intervals)


def _bend(fitted: Fitted, curvature: np.ndarray, w: np.ndarray) -> np.ndarray:
    """∂(F_i w_a)_j/∂η_l at the rows a of w, (n, d, k, k)."""
    k = w.shape[1]
    if fitted.loss == losses.categorical:  # (F w)_j = p_j (w_j - w̄)
        away = w[None] - np.einsum("nj,aj->na", fitted.mean, w)[..., None]
        shifted = fitted.mean[:, None] * away
        return curvature[:, None] * away[..., None] - fitted.mean[:, None, :, None] * shifted[:, :, None, :]
    if fitted.loss == losses.squared_error:
        third = np.zeros_like(fitted.mean)
    elif fitted.loss == losses.poisson:
        third = fitted.mean
    else:
        third = np.einsum("njj->nj", curvature) * (1 - 2 * fitted.mean)
    return np.einsum("nj,aj,jl->najl", third, w, np.eye(k))
