"""Standard errors, tests and intervals of fitted coefficients, and what is said of the fit as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from lr_nn import check, losses
from lr_nn.inference import admission, likelihood, table
from lr_nn.inference import covariance as covariances
from lr_nn.inference.fitted import Fitted
from lr_nn.network import Network
from lr_nn.types import Batch, Solution

__all__ = ["Covariance", "Summary", "summary"]

Covariance = Literal["fisher", "hc0", "hc1", "cluster"]


def summary(
    net: Network,
    solution: Solution,
    data: Batch,
    *,
    covariance: Covariance = "fisher",
    groups: ArrayLike | None = None,
    level: float = 0.95,
    names: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    reference: int | None = None,
    use_t: bool | None = None,
) -> Summary:
    """Inference about the coefficients of a one-layer fit: what is asked for is computed when it is read.

    net, data: those of the fit, data a Batch. solution: by `lr_nn.fit` without a penalty or with an L2 one, or by
    `firth`; or of many lanes: then every field has the lane axis first, and is NaN for a lane that did not converge.
    covariance, with F the Fisher information and H = F + n · (curvature of the penalty):

    - fisher: H⁻¹ F H⁻¹, of the squared error times its variance RSS / (n - degrees of freedom);
    - hc0, hc1: H⁻¹ M H⁻¹, M = Σ s_i g_i g_iᵀ of the scores g_i; hc1 times n / (n - p) for the squared error, and as
      hc0 for other losses, as in statsmodels;
    - cluster: M of scores summed over `groups` (n,), times G / (G - 1) · (n - 1) / (n - p).

    Weights are frequencies, n = Σ s_i: a row of weight s is s equal rows. If a row of the Bernoulli loss holds the
    proportion y of successes in s trials, the fisher covariance is that of the trials. hc0 and hc1 are not, and warn:
    M lacks Σ s_i y_i (1 - y_i) x̃_i x̃_iᵀ, the variation within rows, and is too small. For M of the trials pass rows
    of 0 and 1 with weights failures and successes. If trials of a row may depend on each other, use cluster with
    groups = np.arange(n). A proportion of weight one is a single observation.

    level: of the intervals. names: of the d features, by default the columns of a pandas DataFrame or pyarrow Table,
    else x0, x1, ...; for rows of a file pass `rows.features`. outputs: of the k outputs or classes. reference: the
    class of a categorical loss that the others are contrasted with, 0 by default; it is left out, and k is one less
    below. use_t: Student's t rather than the normal law; None is t for the squared error with its fisher covariance,
    else normal. t has n - degrees of freedom, but G - 1 for cluster, as in Stata, with G clusters of positive weight.
    Where n - degrees of freedom are wanted there, 2 * scipy.stats.t.sf(abs(found.z), freedom) are the p-values.

    Of a penalised fit the intervals hold for the expectation of the shrunken coefficients: the bias of shrinkage is
    not in them. Degrees of freedom are then tr(H⁻¹ F), R² is that of the shrunken coefficients, and F is NaN.

    >>> import lr_nn, numpy as np
    >>> data = lr_nn.Batch(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1]))
    >>> net = lr_nn.logistic_regression(1)
    >>> found = summary(net, lr_nn.fit(net, data), data)
    >>> print(found.standard_errors.round(6).ravel())
    [1.085192 1.974883]

    Raises ValueError or TypeError for networks with hidden layers, losses without a likelihood, an L1 penalty, a
    single fit that did not converge, and data that do not fit. Sources: McCullagh & Nelder (1989); White (1980);
    Liang & Zeger (1986).
    """
    fitted = admission.admit(net, solution, data, reference)
    d, k = net.sizes
    names = check.column_names(data.x, d) if names is None else admission.admit_names("names", names, d)
    outputs = [f"y{j}" for j in range(k)] if outputs is None else admission.admit_names("outputs", outputs, k)
    return Summary(
        fitted=fitted,
        covariance_type=covariance,
        groups=admission.admit_groups(fitted, covariance, groups),
        level=admission.admit_level(level),
        names=(*names, *(("bias",) if net.bias else ())),
        outputs=tuple(outputs[j] for j in fitted.free),
        use_t=(net.loss == losses.squared_error and covariance == "fisher") if use_t is None else bool(use_t),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """What `summary` returns, for coefficients (q, k), q = d + 1 with the bias last; lanes m lead. `print` it."""

    fitted: Fitted
    covariance_type: str
    groups: np.ndarray | None
    level: float
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    use_t: bool

    @cached_property
    def coefficients(self) -> np.ndarray:
        """(q, k), as in the solution; of classes less those of the reference class."""
        return self.fitted.coefficients

    @property
    def n(self) -> np.ndarray:
        """The number of examples, Σ s_i."""
        return self.fitted.n

    @cached_property
    def information(self) -> np.ndarray:
        """The Fisher information F (p, p), of the squared error at unit variance."""
        return covariances.information(self.fitted)

    @cached_property
    def bread(self) -> np.ndarray:
        """H⁻¹ (p, p)."""
        return covariances.inverse(self.information + self.fitted.ridge)

    @cached_property
    def degrees_of_freedom(self) -> np.ndarray:
        """tr(H⁻¹ F): the number of coefficients, less where a penalty shrinks them."""
        return self._freedom.sum(axis=-1)

    @cached_property
    def _freedom(self) -> np.ndarray:
        """The degrees of freedom of every output, (k,)."""
        q, k = self.coefficients.shape[-2:]
        if not np.any(self.fitted.strength > 0):
            return np.full((*self.fitted.lanes, k), float(q))
        diagonal = np.einsum("...ab,...ba->...a", self.bread, self.information)
        return diagonal.reshape(*self.fitted.lanes, q, k).sum(axis=-2)

    @cached_property
    def dispersion(self) -> np.ndarray:
        """RSS_j / (n - degrees of freedom) of every output of the squared error, (k,), else ones."""
        if self.fitted.loss != losses.squared_error:
            return np.ones((*self.fitted.lanes, self.coefficients.shape[-1]))
        left = self.n[..., None] - self._freedom
        return likelihood.squares(self.fitted, self.fitted.eta) / np.where(left > 0, left, np.nan)

    @cached_property
    def covariance(self) -> np.ndarray:
        """(p, p), in the order of coefficients.reshape(-1)."""
        if self.covariance_type == "fisher":
            penalised = np.any(self.fitted.strength > 0)
            model = self.bread @ self.information @ self.bread if penalised else self.bread
            if self.fitted.loss != losses.squared_error:
                return model
            scale = np.tile(np.sqrt(self.dispersion), self.coefficients.shape[-2])
            return scale[..., :, None] * model * scale[..., None, :]
        return covariances.sandwich(self.fitted, self.bread, self.groups, self._correction)

    @cached_property
    def clusters(self) -> np.ndarray | None:
        """G, the number of clusters with a positive weight; None without `groups`."""
        return None if self.groups is None else covariances.clusters(self.fitted, self.groups)

    @property
    def _correction(self) -> np.ndarray:
        """The factor that is to make up for few examples or clusters, p the coefficients of one likelihood."""
        n, (q, k) = self.n, self.coefficients.shape[-2:]
        p = q * k if self.fitted.loss.couples_outputs else q
        if self.clusters is not None:
            return self.clusters / (self.clusters - 1) * (n - 1) / (n - p)
        if self.covariance_type == "hc1" and self.fitted.loss == losses.squared_error:
            return n / (n - p)
        return np.ones_like(n)

    @cached_property
    def standard_errors(self) -> np.ndarray:
        """√ of the diagonal of the covariance, (q, k)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1)).reshape(self.coefficients.shape)

    @cached_property
    def z(self) -> np.ndarray:
        """Coefficients over their standard errors, (q, k); Student's t where `use_t`."""
        with np.errstate(divide="ignore", invalid="ignore"):  # lanes that failed, and data without noise
            return self.coefficients / self.standard_errors

    @cached_property
    def p_values(self) -> np.ndarray:
        """P(|Z| > |z|) of coefficients that are zero, (q, k)."""
        from scipy import stats

        return 2 * stats.t.sf(np.abs(self.z), self.residual_degrees_of_freedom[..., None, None])

    @cached_property
    def intervals(self) -> np.ndarray:
        """Wald intervals, coefficient ± quantile · standard error, (q, k, 2)."""
        from scipy import stats

        quantile = stats.t.ppf((1 + self.level) / 2, self.residual_degrees_of_freedom[..., None, None])
        return self.coefficients[..., None] + np.stack([-quantile, quantile], axis=-1) * self.standard_errors[..., None]

    @property
    def residual_degrees_of_freedom(self) -> np.ndarray:
        """n - degrees of freedom of one output, or G - 1 of clusters, for Student's t; ∞ for the normal law."""
        return self._residual_freedom if self.use_t else np.full_like(self._residual_freedom, np.inf)

    @property
    def _residual_freedom(self) -> np.ndarray:
        freedom = self._freedom.mean(axis=-1)
        return self.n - freedom if self.clusters is None else np.broadcast_to(self.clusters - 1.0, freedom.shape)

    @cached_property
    def odds_ratios(self) -> np.ndarray:
        """exp(coefficients), (q, k): by what one unit more multiplies the odds, or, of a Poisson, the rate."""
        self._require_least_squares(False, "coefficients")
        return np.exp(self.coefficients)

    @cached_property
    def odds_ratio_intervals(self) -> np.ndarray:
        """exp(intervals), (q, k, 2)."""
        self._require_least_squares(False, "intervals")
        return np.exp(self.intervals)

    @cached_property
    def log_likelihood(self) -> np.ndarray:
        """Σ s_i log p(y_i), with log y! of a Poisson, and at the variance RSS / n of the squared error."""
        return likelihood.log_likelihood(self.fitted)

    @cached_property
    def null_log_likelihood(self) -> np.ndarray:
        """That of the best constant model, which keeps the offset."""
        return likelihood.null_log_likelihood(self.fitted)

    @cached_property
    def aic(self) -> np.ndarray:
        """-2 log-likelihood + 2 degrees of freedom. Akaike (1974)."""
        return -2 * self.log_likelihood + 2 * self.degrees_of_freedom

    @cached_property
    def bic(self) -> np.ndarray:
        """-2 log-likelihood + log(n) degrees of freedom. Schwarz (1978)."""
        return -2 * self.log_likelihood + np.log(self.n) * self.degrees_of_freedom

    @cached_property
    def deviance(self) -> np.ndarray:
        """2 Σ s_i (ℓ_i - ℓ_i of the saturated model); RSS of the squared error."""
        return likelihood.deviance(self.fitted)

    @cached_property
    def pearson_chi2(self) -> np.ndarray:
        """Σ s_i (y_i - μ_i)² / V(μ_i); ValueError for the squared error."""
        self._require_least_squares(False, "dispersion, or deviance, the residual sum of squares")
        return likelihood.pearson_chi2(self.fitted)

    @cached_property
    def mcfadden_r2(self) -> np.ndarray:
        """1 - log-likelihood / that of the best constant model; ValueError for the squared error. McFadden (1974)."""
        self._require_least_squares(False, "r_squared")
        return 1 - self.log_likelihood / self.null_log_likelihood

    @cached_property
    def r_squared(self) -> np.ndarray:
        """1 - RSS_j / RSS_j of the best constant model (k,), of η = offset without a bias; squared error only."""
        self._require_least_squares(True, "mcfadden_r2")
        return likelihood.r_squared(self.fitted)

    @cached_property
    def adjusted_r_squared(self) -> np.ndarray:
        """1 - (1 - R²) (n - 1) / (n - degrees of freedom), (k,), without a bias n / (n - degrees of freedom)."""
        left = self.n[..., None] - self._freedom
        return 1 - (1 - self.r_squared) * (self.n[..., None] - self.fitted.net.bias) / np.where(left > 0, left, np.nan)

    @cached_property
    def f_statistic(self) -> np.ndarray:
        """F of the hypothesis that the d weights w of an output are zero, wᵀ V⁻¹ w / d, (k,), V their covariance.

        NaN for a penalised fit, where it does not follow F, and for G ≤ d clusters, where V is singular.
        """
        self._require_least_squares(True, "wald_test or likelihood_ratio_test")
        d = self.fitted.net.sizes[0]
        defined = ~(self.fitted.strength > 0) & (True if self.clusters is None else self.clusters > d)
        return likelihood.wald_of_outputs(self.coefficients, self.covariance, d, defined)

    @cached_property
    def f_p_value(self) -> np.ndarray:
        """The probability of a larger F with d and n - q degrees of freedom, (k,), or d and G - 1 of clusters."""
        from scipy import stats

        return stats.f.sf(self.f_statistic, self.fitted.net.sizes[0], self._residual_freedom[..., None])

    def _require_least_squares(self, wanted: bool, instead: str) -> None:
        if (self.fitted.loss == losses.squared_error) != wanted:
            raise ValueError(f"the {self.fitted.loss.name} loss has no such statistic: read {instead}")

    def __str__(self) -> str:
        """The table."""
        return table.text(self)

    __repr__ = __str__

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each coefficient, indexed by lane, output and name where there are many."""
        return table.frame(self)
