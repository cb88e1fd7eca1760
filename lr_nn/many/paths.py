"""Fits of one model at several strengths of a penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.admission import check_batch
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import posed
from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.threads import one_thread
from lr_nn.many.lanes import Lanes, check_certificate
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import Solutions, admit, solve
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Batch

__all__ = ["Path", "largest_strength", "regularization_path", "strength_lanes"]


@dataclass(frozen=True)
class Path:
    """Fits at the strengths (t,) of `penalty`: lane i of `solutions` has strength i.

    A fit that failed says so in `solutions.status`; its coefficients are those where its search stopped.
    """

    penalty: Penalty
    solutions: Solutions

    @property
    def strengths(self) -> np.ndarray:
        """λ = l1 + l2 of each fit, (t,)."""
        return self.penalty.l1 + self.penalty.l2

    @property
    def coefficients(self) -> np.ndarray:
        """The weights of each fit with the bias last, (t, d + 1, k); (t, d, k) without a bias."""
        return self.solutions.coefficients

    def to_pandas(self) -> Any:
        """A table with one row a strength: status, steps and cost of the fit, and `nonzero`, its nonzero weights."""
        nonzero = (np.asarray(self.solutions.params[0].w) != 0).sum(axis=(1, 2))
        return self.solutions.to_pandas().assign(nonzero=nonzero).rename_axis("strength")


def largest_strength(net: Network, data: Batch) -> float:
    """λ_max = max |∂J/∂w| at the best constant model: at this L1 strength and above, every weight is zero."""
    check_batch(data)
    with jax.enable_x64(True), one_thread():
        problem = posed(net, of_arrays(net, [data], DEFAULT), Penalty(), DEFAULT)
        gradient = problem.objective.at(problem.constant).gradient
        rounding = 1 + 64 * np.finfo(float).eps  # a solver may sum the gradient in another order
        return float(np.abs(gradient[: net.sizes[0]]).max() * rounding)


def regularization_path(
    net: Network,
    data: Batch,
    *,
    penalty: Penalty,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    schedule: str = "auto",
    memory: int = 2**30,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """A `Path`: one fit of `data` at each strength (t,) of `penalty`.

    Large fits start at the optimum of the next larger strength. data as in `fit`, the other keywords as in `fit_many`.
    Raises ValueError if `penalty` has no strengths (t,), and for networks without a certificate.

    >>> import lr_nn, numpy as np
    >>> data = lr_nn.Batch(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1]))
    >>> net = lr_nn.logistic_regression(1)
    >>> top = lr_nn.many.largest_strength(net, data)
    >>> path = lr_nn.regularization_path(net, data, penalty=lr_nn.penalties.l1(top * np.array([1.0, 0.5, 0.1])))
    >>> print(path.coefficients[:, 0, 0].round(3))
    [0.    0.411 0.795]
    """
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
    lanes = strength_lanes(net, data, penalty, settings)
    return Path(lanes.penalty, solve(lanes, settings))


def strength_lanes(net: Network, data: Batch, penalty: Penalty, settings: Settings) -> Lanes:
    """One lane a strength, which all share the data; both strengths of `penalty` become (t,)."""
    check.on_host("a path", (data, penalty), "lr_nn.many.solve")
    check_penalty(penalty, lanes=True)
    if penalty is None or max(map(np.ndim, penalty)) != 1 or min(map(np.size, penalty)) == 0:
        raise ValueError(
            "penalty must have strengths of shape (t,), t > 0, such as lr_nn.penalties.l2(np.geomspace(1, 1e-4, 50)); "
            f"got {penalty!r:.100}"
        )
    check_certificate("folds and paths", net)
    lanes = admit(net, data, penalty, None, settings)
    if not lanes.shares_x or any(len(each) > 1 for each in (lanes.y, lanes.weight, lanes.offset) if each is not None):
        raise ValueError("only the penalty may have lanes here; x, y, weight and offset must be those of one fit")
    return replace(lanes, penalty=Penalty(*(np.broadcast_to(each, lanes.m).copy() for each in lanes.penalty)))
