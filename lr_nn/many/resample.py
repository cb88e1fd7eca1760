"""The bootstrap: fits of rows drawn again and again, as weights of lanes that share one `x`."""

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
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import Solutions, admit, solve
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Solution, Status

__all__ = ["Bootstrap", "bootstrap"]


@dataclass(frozen=True)
class Bootstrap:
    """Fits of m resamples, and the fit of the rows as they are; what did not end at an optimum is left out below."""

    estimate: Solution
    solutions: Solutions

    @property
    def ended(self) -> np.ndarray:
        """Which resamples have an optimum, (m,)."""
        return np.isin(self.solutions.status, (Status.converged, Status.rank_deficient))

    @property
    def coefficients(self) -> np.ndarray:
        """Of those that have: weights, and the bias last, (·, d + 1, k)."""
        if self.ended.sum() < 2:
            raise ValueError(f"fewer than two resamples have an optimum ({self.solutions}): add a penalty")
        return self.solutions.coefficients[self.ended]

    @property
    def standard_errors(self) -> np.ndarray:
        """The deviation between resamples, (d + 1, k)."""
        return self.coefficients.std(axis=0, ddof=1)

    @property
    def bias(self) -> np.ndarray:
        """The mean over resamples less the estimate, (d + 1, k)."""
        return self.coefficients.mean(axis=0) - self.estimate.coefficients

    def intervals(self, level: float = 0.95, method: Literal["percentile", "basic"] = "percentile") -> np.ndarray:
        """Intervals (d + 1, k, 2): quantiles of the resamples, or these mirrored at the estimate.

        Davison & Hinkley (1997), sections 5.2 and 5.3.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level}")
        if method not in ("percentile", "basic"):
            raise ValueError(f"method must be percentile or basic; got {method!r}")
        tail = (1 - level) / 2
        low, high = np.quantile(self.coefficients, [tail, 1 - tail], axis=0)
        if method == "basic":
            low, high = 2 * self.estimate.coefficients - high, 2 * self.estimate.coefficients - low
        return np.stack([low, high], axis=-1)

    def to_pandas(self) -> Any:
        """One row a coefficient: the estimate, its standard error, bias and percentile interval."""
        import pandas

        estimate, interval = self.estimate.coefficients, self.intervals()
        index = pandas.MultiIndex.from_product(
            [range(size) for size in estimate.shape], names=["coefficient", "output"]
        )
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
    """Fits of `samples` resamples of the rows, each as weights: no row is copied.

    method: `rows` draws as many as there are, with replacement (multinomial weights, Efron 1979); `bayesian` gives them
    exponential weights (Rubin 1981), which leave no class out. groups (n,): whole groups are drawn, for rows that
    depend on each other. The weights of the data, which are frequencies, multiply those of a resample. key: a random
    key; None is a fixed one. data and penalty as in `fit`, the other keywords as in `fit_many`.

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
    check_batch(data)
    rng = generator(key)
    estimate = fit(net, data, penalty=penalty, tol=tol, max_steps=max_steps, dtype=dtype)
    n = np.shape(data.x)[0]
    weight = np.ones(n) if data.weight is None else np.asarray(data.weight, float)
    counted = np.flatnonzero(weight > 0)  # rows of weight zero are none that could be drawn
    units = np.arange(len(counted)) if groups is None else check.labels("groups", groups, n)[1][counted]
    units = np.unique(units, return_inverse=True)[1]
    count = int(units.max()) + 1
    if method == "rows":
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(float)
    else:
        drawn = rng.exponential(size=(samples, count))
    weights = np.zeros((samples, n))
    weights[:, counted] = drawn[:, units] * weight[counted]
    lanes = admit(net, data._replace(weight=weights), penalty, None, settings)
    return Bootstrap(estimate, solve(lanes, settings))
