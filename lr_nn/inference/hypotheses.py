"""Tests of hypotheses about coefficients: Wald, likelihood ratio, score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from lr_nn import check
from lr_nn.inference import admission, covariance
from lr_nn.inference.estimates import Summary, summary
from lr_nn.network import Network
from lr_nn.types import Batch, Solution

__all__ = ["Test", "likelihood_ratio_test", "score_test", "wald_test"]


@dataclass(frozen=True, eq=False)
class Test:
    """A statistic that is χ² with `degrees_of_freedom` if the hypothesis holds, and the probability of a larger one.

    Where `residual_degrees_of_freedom` are finite, statistic / degrees_of_freedom follows Fisher's F of both.
    Of lanes, arrays (m,).
    """

    __test__ = False  # no case of pytest's

    statistic: np.ndarray
    degrees_of_freedom: np.ndarray
    p_value: np.ndarray
    residual_degrees_of_freedom: np.ndarray


def wald_test(summary: Summary, restriction: ArrayLike, value: ArrayLike = 0.0) -> Test:
    """Is R θ = value, θ = coefficients.reshape(-1)? By (R θ - value)ᵀ (R V Rᵀ)⁻¹ (R θ - value), V the covariance.

    restriction: R (r, p), its rows independent, or one row (p,). value: (r,), or a number for all. Where the summary
    uses Student's t the test is Fisher's F with r and the residual degrees of freedom of the summary: n - degrees of
    freedom, or G - 1 of G clusters.

    Raises ValueError for other shapes, for rows that depend on each other, and for G rows or more, of which a
    clustered V is singular.
    """
    _check_summaries(summary)
    p = summary.covariance.shape[-1]
    rows = np.atleast_2d(np.asarray(check.numeric("restriction", restriction), np.float64))
    if rows.ndim != 2 or rows.shape[1] != p or not len(rows):
        raise ValueError(f"restriction must have shape (r, {p}), a column a coefficient; got {np.shape(restriction)}")
    check.finite("restriction", rows)
    if np.linalg.matrix_rank(rows) < len(rows):
        raise ValueError(f"the {len(rows)} rows of restriction depend on each other; leave out those that do")
    if summary.clusters is not None and len(rows) >= summary.clusters.min():
        raise ValueError(f"{summary.clusters.min()} clusters can test fewer restrictions than that; got {len(rows)}")
    value = np.asarray(check.numeric("value", value), np.float64)
    if value.shape not in ((), (len(rows),)):
        raise ValueError(f"value must be a number or have shape ({len(rows)},), one a row; got {value.shape}")
    gap = np.einsum("rp,...p->...r", rows, summary.coefficients.reshape(*summary.fitted.lanes, p)) - value
    spread = rows @ summary.covariance @ rows.T
    statistic = (gap * np.linalg.solve(spread, gap[..., None])[..., 0]).sum(axis=-1)
    return _test(statistic, np.full_like(statistic, len(rows)), summary.residual_degrees_of_freedom)


def likelihood_ratio_test(larger: Summary, smaller: Summary) -> Test:
    """Is the smaller of two nested models enough? 2 (log-likelihood - that of the smaller), both fits of the same data.

    Of the squared error, n log(RSS of the smaller / RSS). Raises ValueError for models that cannot be nested, and for
    penalised fits and those by `firth`, whose statistic has no χ² law.
    """
    _check_summaries(larger, smaller)
    for each in (larger, smaller):
        if each.fitted.jeffreys or np.any(each.fitted.strength > 0):
            raise ValueError(
                "the likelihood-ratio test is for fits without a penalty; after firth use profile_intervals"
            )
    if larger.fitted.loss != smaller.fitted.loss:
        raise ValueError(f"nested models have one loss; got {larger.fitted.loss.name} and {smaller.fitted.loss.name}")
    if not np.array_equal(larger.n, smaller.n):
        raise ValueError(f"both models must be fitted to the same examples; got n = {larger.n} and {smaller.n}")
    freedom = larger.degrees_of_freedom - smaller.degrees_of_freedom
    if not (freedom > 0).all():
        raise ValueError("the first model must have more coefficients than the second: larger, then smaller")
    statistic = 2 * (larger.log_likelihood - smaller.log_likelihood)
    return _test(statistic, freedom, np.full_like(statistic, np.inf))


def score_test(net: Network, solution: Solution, data: Batch, extra: ArrayLike) -> Test:
    """Are the coefficients of more columns zero? From the fit without them: gᵀ (F_ee - F_eo F_oo⁻¹ F_oe)⁻¹ g.

    g is the score of the coefficients of `extra` at zero, F the information of all, o the old ones. net, solution,
    data: the smaller model, one fit without a penalty. extra: (n, e), or (n,) for one column. For the squared error the
    statistic is divided by the dispersion.

    Raises ValueError for penalised fits and for data that do not fit. Source: Rao (1948).
    """
    fitted = admission.single(net, solution, data)
    if fitted.jeffreys or fitted.strength > 0:
        raise ValueError(
            "the score test is for fits without a penalty, where the score of the old coefficients is zero"
        )
    columns = np.asarray(check.numeric("extra", extra), np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    n = len(fitted.x)
    if columns.ndim != 2 or len(columns) != n or not columns.size:
        raise ValueError(f"extra must have shape ({n}, e), a column or more with the rows of x; got {np.shape(extra)}")
    check.finite("extra", columns)
    d, e, k = net.sizes[0], columns.shape[1], len(fitted.free)
    theta = np.concatenate([fitted.theta[:d], np.zeros((e, net.sizes[1])), fitted.theta[d:]])
    larger = replace(
        fitted,
        net=replace(net, sizes=(d + e, net.sizes[1])),
        x=np.concatenate([fitted.x, columns], axis=1),
        theta=theta,
    )
    information = covariance.information(larger)
    new = np.repeat((np.arange(len(theta)) >= d) & (np.arange(len(theta)) < d + e), k)
    across = information[np.ix_(~new, new)]
    spread = information[np.ix_(new, new)] - across.T @ covariance.inverse(information[np.ix_(~new, ~new)]) @ across
    score = columns.T @ (fitted.weight[:, None] * fitted.residual[:, fitted.free])
    score = score.reshape(-1) / np.tile(np.sqrt(summary(net, solution, data).dispersion), e)
    statistic = score @ covariance.inverse(spread) @ score
    return _test(statistic, np.asarray(float(new.sum())), np.asarray(np.inf))


def _check_summaries(*summaries: Summary) -> None:
    for each in summaries:
        if not isinstance(each, Summary):
            raise TypeError(f"a test takes what inference.summary returns; got {type(each).__name__}")


def _test(statistic: np.ndarray, freedom: np.ndarray, residual: np.ndarray) -> Test:
    from scipy import stats

    chi = stats.chi2.sf(statistic, freedom)
    with np.errstate(invalid="ignore"):
        fisher = stats.f.sf(statistic / freedom, freedom, residual)
    return Test(statistic, freedom, np.where(np.isfinite(residual), fisher, chi), residual)
