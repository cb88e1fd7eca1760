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

__all__ = ["Summary", "summary"]

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

    net, data: those of the fit, data a Batch; weights are frequencies, n = Σ s_i. solution: by `lr_nn.fit` without a
    penalty or with an L2 one, or by `firth`; or of many lanes: then every field has the lane axis first, and is NaN for
    a lane that did not converge. covariance, with F the Fisher information and H = F + n · (curvature of the penalty):

    - fisher: H⁻¹ F H⁻¹, of the squared error times its variance RSS / (n - degrees of freedom);
    - hc0, hc1: H⁻¹ M H⁻¹, M = Σ s_i g_i g_iᵀ of the scores g_i; hc1 times n / (n - p) for the squared error, and as
      hc0 for other losses, as in statsmodels;
    - cluster: M of scores summed over `groups` (n,), times G / (G - 1) · (n - 1) / (n - p).

    level: of the intervals. names: of the d features; outputs: of the k outputs or classes. reference: the class of a
    categorical loss that the others are contrasted with, 0 unless told otherwise; it is left out, and k is one less
    below. use_t: Student's t with n - degrees of freedom rather than the normal law; None is t for the squared error
    with its fisher covariance, else normal.

    Of a penalised fit the intervals hold for the expectation of the shrunken coefficients: the bias of shrinkage is
    not in them. Degrees of freedom are then tr(H⁻¹ F).

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
    if covariance not in ("fisher", "hc0", "hc1", "cluster"):
        raise ValueError(f"covariance must be fisher, hc0, hc1 or cluster; got {covariance!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level}")
    d, k = net.sizes
    return Summary(
        fitted=fitted,
        covariance_type=covariance,
        groups=_groups(groups, covariance, fitted.x.shape[-2]),
        level=float(level),
        names=_names("names", names, d, [f"x{a}" for a in range(d)]) + (("bias",) if net.bias else ()),
        outputs=tuple(_names("outputs", outputs, k, [f"y{j}" for j in range(k)])[j] for j in fitted.free),
        use_t=(net.loss == losses.squared_error and covariance == "fisher") if use_t is None else bool(use_t),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """What `summary` returns. Shapes are those of the coefficients (q, k), q = d + 1 with the bias last; with lanes a
    leading m. `print` shows the table.
    """

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
        penalised = np.any(self.fitted.strength > 0)
        return covariances.inverse(self.information + self.fitted.ridge if penalised else self.information)

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
        squares = (self.fitted.weight[..., None] * self.fitted.residual**2).sum(axis=-2)
        left = self.n[..., None] - self._freedom
        return np.where(left > 0, squares / np.where(left > 0, left, 1), np.nan)

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

    @property
    def _correction(self) -> np.ndarray:
        """The factor that is to make up for few examples or clusters, p the coefficients of one likelihood."""
        n, (q, k) = self.n, self.coefficients.shape[-2:]
        p = q * k if self.fitted.loss.couples_outputs else q
        if self.groups is not None:
            clusters = covariances.clusters(self.fitted, self.groups)
            return clusters / (clusters - 1) * (n - 1) / (n - p)
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
        """n - degrees of freedom of one output for Student's t, ∞ for the normal law."""
        left = self.n - self.degrees_of_freedom / self._freedom.shape[-1]
        return left if self.use_t else np.full_like(left, np.inf)

    @cached_property
    def odds_ratios(self) -> np.ndarray:
        """exp(coefficients), (q, k): by what one unit more multiplies the odds, or, of a Poisson, the rate."""
        return np.exp(self._of_ratios(self.coefficients))

    @cached_property
    def odds_ratio_intervals(self) -> np.ndarray:
        """exp(intervals), (q, k, 2)."""
        return np.exp(self._of_ratios(self.intervals))

    def _of_ratios(self, values: np.ndarray) -> np.ndarray:
        if self.fitted.loss == losses.squared_error:
            raise ValueError("a squared error has no odds: read coefficients and intervals")
        return values

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
        """Σ s_i (y_i - μ_i)² / V(μ_i)."""
        return likelihood.pearson_chi2(self.fitted)

    @cached_property
    def mcfadden_r2(self) -> np.ndarray:
        """1 - log-likelihood / that of the best constant model. McFadden (1974)."""
        return 1 - self.log_likelihood / self.null_log_likelihood

    def __str__(self) -> str:
        """The table."""
        return table.text(self)

    def __repr__(self) -> str:
        """The table."""
        return table.text(self)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each coefficient, indexed by lane, output and name where there are many."""
        return table.frame(self)


def _groups(groups: ArrayLike | None, covariance: str, n: int) -> np.ndarray | None:
    """Clusters numbered from 0, (n,)."""
    if (groups is None) == (covariance == "cluster"):
        raise ValueError(
            "covariance='cluster' needs groups, the cluster of every row"
            if groups is None
            else f"groups are for covariance='cluster'; got {covariance!r}"
        )
    if groups is None:
        return None
    names, numbers = check.labels("groups", groups, n)
    if len(names) < 2:
        raise ValueError("a clustered covariance needs at least 2 clusters; groups name only one")
    return numbers.astype(np.int64)


def _names(kind: str, given: Sequence[str] | None, count: int, default: list[str]) -> tuple[str, ...]:
    found = tuple(default if given is None else map(str, given))
    if len(found) != count:
        raise ValueError(f"{kind} must be {count} names; got {len(found)}")
    return found
