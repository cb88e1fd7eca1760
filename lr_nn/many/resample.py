"""The bootstrap: fits of random resamples of the rows, which are weights of lanes that share `x`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import check_batch
from lr_nn.fitting.model import fit
from lr_nn.many.draws import generator
from lr_nn.many.failures import advice, has_optimum
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import Solutions, admit, solve
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Solution

__all__ = ["Bootstrap", "bootstrap"]


@dataclass(frozen=True)
class Bootstrap:
    """Fits of m resamples, the lanes of `solutions`, and `estimate`, the fit of the rows as they are.

    A resample whose fit failed is left out of every property below, and counted by `failed` and `str`. Properties that
    compare with the estimate raise ValueError if its fit failed, and all do if fewer than two resamples are left.
    `names` (d + 1,) are those of the coefficients, as `inference.summary` names them.
    """

    estimate: Solution
    solutions: Solutions
    names: tuple[str, ...]

    @property
    def ended(self) -> np.ndarray:
        """Which resamples have an optimum, (m,): converged or rank_deficient."""
        return has_optimum(self.solutions.status)

    @property
    def failed(self) -> int:
        """The number of resamples that are left out because their fit has no optimum."""
        return int((~self.ended).sum())

    def __str__(self) -> str:
        """The number of resamples, how their fits ended, and how many are left out."""
        return f"{self.solutions}; {self.failed:,} left out"

    @property
    def coefficients(self) -> np.ndarray:
        """The weights with the bias last of the resamples that are not left out, (m - failed, d + 1, k)."""
        if self.ended.sum() < 2:
            why = advice(self.solutions.status)
            raise ValueError(f"fewer than two resamples have an optimum ({self}); {why}")
        return self.solutions.coefficients[self.ended]

    @property
    def standard_errors(self) -> np.ndarray:
        """The standard deviation over resamples, (d + 1, k)."""
        return self.coefficients.std(axis=0, ddof=1)

    @property
    def bias(self) -> np.ndarray:
        """The mean over resamples minus the estimate, (d + 1, k)."""
        return self.coefficients.mean(axis=0) - self._estimated

    @property
    def _estimated(self) -> np.ndarray:
        """The coefficients of the estimate, (d + 1, k); ValueError if it is not an optimum."""
        status = self.estimate.status
        if not has_optimum(status):
            raise ValueError(f"the fit of all rows has no optimum ({status}); {advice(status)}")
        return self.estimate.coefficients

    def intervals(self, level: float = 0.95, method: Literal["percentile", "basic"] = "percentile") -> np.ndarray:
        """Confidence intervals, lower and upper end, (d + 1, k, 2).

        method: `percentile`, quantiles of the resamples; or `basic`, these quantiles mirrored at the estimate.
        Davison & Hinkley (1997), sections 5.2 and 5.3.
        """
        if not np.isscalar(level) or isinstance(level, str) or not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level!r}")
        if method not in ("percentile", "basic"):
            raise ValueError(f"method must be percentile or basic; got {method!r}")
        tail = (1 - level) / 2
        low, high = np.quantile(self.coefficients, [tail, 1 - tail], axis=0)
        if method == "basic":
            low, high = 2 * self._estimated - high, 2 * self._estimated - low
        return np.stack([low, high], axis=-1)

    def to_pandas(self) -> Any:
        """A table with one row a coefficient: the estimate, its standard error, bias and percentile interval."""
        import pandas

        estimate, interval = self._estimated, self.intervals()
        levels = [self.names, range(estimate.shape[1])]
        index = pandas.MultiIndex.from_product(levels, names=["coefficient", "output"])
        columns = {
            "estimate": estimate,
            "standard_error": self.standard_errors,
            "bias": self.bias,
            "low": interval[..., 0],
            "high": interval[..., 1],
        }
        return pandas.DataFrame({name: value.reshape(-1) for name, value in columns.items()}, index=index)


def bootstrap(
    net: Network,
    data: Batch,
    *,
    samples: int = 1000,
    key: jax.Array | None = None,
    method: Literal["rows", "bayesian"] = "rows",
    groups: ArrayLike | None = None,
    penalty: Penalty | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    schedule: str = "auto",
    memory: int = 2**30,
    progress: Callable[[Progress], None] | None = None,
) -> Bootstrap:
    """A `Bootstrap`: fits of `samples` resamples of the rows of `data`, each given as weights.

    method: `rows` draws n rows with replacement (multinomial weights, Efron 1979); `bayesian` draws exponential weights
    (Rubin 1981), which are positive, so that no class is lost. groups (n,): labels of groups of dependent rows, which
    are drawn as a whole. The weights of the data, which are frequencies, multiply those of a resample; rows of weight
    zero are not drawn. key: the random key of the draws; None is a fixed key. data and penalty as in `fit`, the other
    keywords as in `fit_many`.
    Raises ValueError for fewer than two samples or groups, and for networks of several layers.

    >>> import lr_nn, numpy as np
    >>> x = np.random.default_rng(0).standard_normal((200, 1))
    >>> data = lr_nn.Batch(x, 2 * x[:, 0] + np.cos(7 * x[:, 0]))
    >>> found = lr_nn.bootstrap(lr_nn.linear_regression(1), data, samples=200)
    >>> found.standard_errors.round(2).ravel()
    array([0.05, 0.05])
    """
    samples = check.positive_integer("samples", samples)
    if samples < 2:
        raise ValueError(f"samples must be at least 2; got {samples}")
    if method not in ("rows", "bayesian"):
        raise ValueError(f"method must be rows or bayesian; got {method!r}")
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
    check_network(net)
    if len(net.sizes) > 2:
        raise ValueError(f"a bootstrap is of the coefficients of one layer; got layers of sizes {net.sizes}")
    check_batch(data)
    rng = generator(key)
    estimate = fit(net, data, penalty=penalty, tol=tol, max_steps=max_steps, dtype=dtype)
    n = np.shape(data.x)[0]
    weight = np.ones(n) if data.weight is None else np.asarray(data.weight, float)
    counted = np.flatnonzero(weight > 0)
    labels = np.arange(n) if groups is None else check.labels("groups", groups, n)[1]
    units = np.unique(labels[counted], return_inverse=True)[1]
    count = int(units.max()) + 1
    if count < 2:
        raise ValueError("a bootstrap needs at least two rows, or groups, of positive weight; got 1")
    if method == "rows":
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(float)
    else:
        drawn = rng.exponential(size=(samples, count))
    weights = np.zeros((samples, n))
    weights[:, counted] = drawn[:, units] * weight[counted]
    lanes = admit(net, data._replace(weight=weights), penalty, None, settings)
    names = check.column_names(data.x, net.sizes[0]) + ("bias",) * net.bias
    return Bootstrap(estimate, solve(lanes, settings), names)
