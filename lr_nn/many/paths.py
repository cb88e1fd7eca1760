"""Along the penalty: a path of fits from strong to weak, and folds that say how strong it should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import check_batch
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import posed
from lr_nn.fitting.promises import has_certificate
from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.threads import one_thread
from lr_nn.many.draws import generator
from lr_nn.many.lanes import Lanes
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import Solutions, admit, solve
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Batch, Status

__all__ = ["CrossValidation", "Path", "cross_validate", "largest_strength", "regularization_path", "strength_of"]


@dataclass(frozen=True)
class Path:
    """Fits along a penalty of strengths (t,): `solutions` in their order; `coefficients` (t, d + 1, k) to be drawn
    against `strengths`, l1 + l2.
    """

    penalty: Penalty
    solutions: Solutions

    @property
    def strengths(self) -> np.ndarray:
        """l1 + l2 of every fit."""
        return strength_of(self.penalty)

    @property
    def coefficients(self) -> np.ndarray:
        """Weights, and the bias last: (t, d + 1, k)."""
        return self.solutions.coefficients

    def to_pandas(self) -> Any:
        """One row a strength: how the fit ended, its cost, and how many weights are not zero."""
        nonzero = (np.asarray(self.solutions.params[0].w) != 0).sum(axis=(1, 2))
        return self.solutions.to_pandas().assign(nonzero=nonzero).rename_axis("strength")


@dataclass(frozen=True)
class CrossValidation:
    """Fits of every fold's other rows, along a penalty of strengths (t,).

    `scores` (f, t) the mean loss ℓ of the rows that fold f left out; `rows` (n,) the fold of each row; `solutions` of
    f · t lanes, fold by fold.
    """

    penalty: Penalty
    rows: np.ndarray
    scores: np.ndarray
    solutions: Solutions

    @property
    def strengths(self) -> np.ndarray:
        """l1 + l2 of every fit."""
        return strength_of(self.penalty)

    @property
    def mean(self) -> np.ndarray:
        """The mean score over folds, (t,)."""
        return self.scores.mean(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """Of that mean, (t,): the deviation between folds / √f."""
        return self.scores.std(axis=0, ddof=1) / len(self.scores) ** 0.5

    @property
    def failed(self) -> np.ndarray:
        """How many folds have no optimum there, (t,)."""
        ended = np.isin(self.solutions.status, (Status.converged, Status.rank_deficient))
        return (~ended).reshape(self.scores.shape).sum(axis=0)

    @property
    def best(self) -> int:
        """The strength whose mean score is the lowest, of those where the fewest folds failed."""
        return int(np.argmin(np.where(self.failed == self.failed.min(), self.mean, np.inf)))

    @property
    def simplest(self) -> int:
        """The largest strength whose mean score is within one standard error of the best: Breiman et al. (1984)."""
        near = self.mean <= self.mean[self.best] + self.standard_error[self.best]
        within = np.flatnonzero(near & (self.failed == self.failed.min()))
        return int(within[np.argmax(self.strengths[within])])

    def chosen(self, index: int | None = None) -> Penalty:
        """The penalty of one strength, the best if none is named: what to fit all rows with."""
        return Penalty(*(float(strength[self.best if index is None else index]) for strength in self.penalty))

    def to_pandas(self) -> Any:
        """One row a strength: scores of the folds, their mean and its standard error."""
        import pandas

        folds = {f"fold {f}": scores for f, scores in enumerate(self.scores)}
        columns = {
            "l1": self.penalty.l1,
            "l2": self.penalty.l2,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "failed": self.failed,
        }
        return pandas.DataFrame({**columns, **folds}).rename_axis("strength")


def strength_of(penalty: Penalty) -> np.ndarray:
    """l1 + l2."""
    return np.asarray(penalty.l1) + np.asarray(penalty.l2)


def largest_strength(net: Network, data: Batch) -> float:
    """λ_max = max |∂J/∂w| at the best constant model: from there on an L1 penalty leaves no weight."""
    check_batch(data)
    with jax.enable_x64(True), one_thread():
        problem = posed(net, of_arrays(net, [data], DEFAULT), Penalty(), DEFAULT)
        gradient = problem.objective.at(problem.constant).gradient
        rounding = 1 + 64 * np.finfo(float).eps  # of a solver that adds up in another order
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
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """One fit for each of the strengths (t,) of `penalty`; where fits are large, from where that of the next larger
    strength ended.

    data as in `fit`, the other keywords as in `fit_many`.

    >>> import lr_nn, numpy as np
    >>> data = lr_nn.Batch(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1]))
    >>> net = lr_nn.logistic_regression(1)
    >>> top = lr_nn.many.largest_strength(net, data)
    >>> path = lr_nn.regularization_path(net, data, penalty=lr_nn.penalties.l1(top * np.array([1.0, 0.5, 0.1])))
    >>> print(path.coefficients[:, 0, 0].round(3))
    [0.    0.411 0.795]
    """
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, devices, progress)
    penalty, lanes = _along(net, data, penalty, settings)
    chain = np.argsort(-strength_of(penalty), kind="stable")[None]
    return Path(penalty, solve(lanes, settings, chain))


def cross_validate(
    net: Network,
    data: Batch,
    *,
    penalty: Penalty,
    folds: int | ArrayLike = 5,
    key: jax.Array | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    schedule: str = "auto",
    memory: int = 2**30,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> CrossValidation:
    """Each of the strengths (t,) of `penalty` on the rows outside each fold, scored on the rows inside.

    folds: how many, drawn so that each has its share of every class; or the fold of each row, (n,). key: the random key
    of this draw, a fixed one by default. data as in `fit`, the other keywords as in `fit_many`. All fits share `x`.
    Raises ValueError for fewer than two folds, or more than rows.

    >>> import lr_nn, numpy as np
    >>> x = np.linspace(-2, 2, 40)[:, None]
    >>> y = (np.sin(9 * x[:, 0]) + x[:, 0] > 0).astype(int)
    >>> strengths = lr_nn.penalties.l2(np.geomspace(1, 1e-3, 4))
    >>> found = lr_nn.cross_validate(lr_nn.logistic_regression(1), lr_nn.Batch(x, y), penalty=strengths)
    >>> found.scores.shape, round(found.chosen().l2, 6)
    ((5, 4), 0.01)
    """
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, devices, progress)
    penalty, lanes = _along(net, data, penalty, settings)
    rows = _folds(net, lanes, folds, key)
    f, t = int(rows.max()) + 1, lanes.m
    mask = rows[None] != np.arange(f)[:, None]
    weight = np.ones((1, lanes.n)) if lanes.weight is None else np.asarray(lanes.weight, float)
    fold, strength = np.divmod(np.arange(f * t), t)
    if not (mask @ weight[0]).all() or not (~mask @ weight[0]).all():
        raise ValueError("every fold must have rows of positive weight, inside and outside")
    both = replace(lanes, m=f * t, weight=mask * weight, owner={"weight": fold, "penalty": strength})
    chains = np.argsort(-strength_of(penalty), kind="stable")[None] + t * np.arange(f)[:, None]
    found = solve(both, settings, chains)
    return CrossValidation(penalty, rows, _scores(lanes, rows, weight[0], found), found)


def _along(net: Network, data: Batch, penalty: Penalty, settings: Settings) -> tuple[Penalty, Lanes]:
    """Both strengths as (t,), and the lanes, which share all else."""
    check.on_host("a path", (data, penalty), "lr_nn.many.solve")
    check_penalty(penalty, lanes=True)
    if not isinstance(penalty, Penalty) or np.ndim(strength_of(penalty)) != 1:
        raise ValueError(
            "penalty must have strengths of shape (t,), such as lr_nn.penalties.l2(np.geomspace(1, 1e-4, 50)); "
            f"got {penalty!r:.100}"
        )
    l1, l2 = np.broadcast_arrays(np.asarray(penalty.l1, float), np.asarray(penalty.l2, float))
    penalty = Penalty(l1.copy(), l2.copy())
    lanes = admit(net, data, penalty, None, settings)
    if not has_certificate(net):
        raise ValueError(
            "paths and folds are for networks of one layer with a loss that promises a certificate, as those of the "
            "menu do; train_many takes folds of others as weights"
        )
    if not lanes.shares_x or any(len(each) > 1 for each in (lanes.y, lanes.weight, lanes.offset) if each is not None):
        raise ValueError("only the penalty has lanes along a path: the data are those of one fit")
    return penalty, lanes


def _folds(net: Network, lanes: Lanes, folds: int | ArrayLike, key: jax.Array | None) -> np.ndarray:
    """The fold of each row, 0 ... f - 1; of labels and classes each fold has its share."""
    n = lanes.n
    if np.ndim(folds) == 1:
        names, rows = check.labels("folds", folds, n)
        if len(names) < 2:
            raise ValueError(f"folds must name at least two folds; got only {names[0]!r}")
        return rows
    f = check.positive_integer("folds", folds)
    if not 2 <= f <= n:
        raise ValueError(f"folds must be between 2 and the {n} rows; got {f}")
    order = generator(key).permutation(n)
    if net.loss.task != "values":
        y = np.asarray(lanes.y[0])
        classes = np.unique(y.reshape(n, -1), axis=0, return_inverse=True)[1].reshape(-1)
        order = order[np.argsort(classes[order], kind="stable")]
    rows = np.empty(n, int)
    rows[order] = np.arange(n) % f
    return rows


def _scores(lanes: Lanes, rows: np.ndarray, weight: np.ndarray, found: Solutions) -> np.ndarray:
    """The mean loss of each fold's rows by each of its fits: (f, t)."""
    f, t = int(rows.max()) + 1, len(found) // (int(rows.max()) + 1)
    (layer,), y = found.params, np.asarray(lanes.y[0])
    most = np.bincount(rows).max()
    scores = np.empty((f, t))
    with jax.enable_x64(True):
        for fold in range(f):
            inside = np.flatnonzero(rows == fold)
            padded = np.resize(inside, most)  # one shape for all
            counted = np.where(np.arange(most) < len(inside), weight[padded], 0)
            own = slice(fold * t, (fold + 1) * t)
            offset = None if lanes.offset is None else lanes.offset[0][padded]
            scores[fold] = _held_out(
                lanes.net,
                lanes.x[padded],
                y[padded],
                counted,
                offset,
                layer.w[own],
                None if layer.b is None else layer.b[own],
            )
    return scores


@partial(jax.jit, static_argnames="net")
def _held_out(net: Network, x: Any, y: Any, weight: Any, offset: Any, w: Any, b: Any) -> jax.Array:
    """Σ s_i ℓ_i / Σ s_i for each (w, b) of a leading axis."""
    x, weight, w, b = jax.tree.map(lambda a: jnp.asarray(a, float), (x, weight, w, b))

    def one(of: Any) -> jax.Array:
        w, b = of
        eta = x @ w
        eta = eta if b is None else eta + b[None]
        eta = eta if offset is None else eta + jnp.asarray(offset, float)
        return (weight * net.loss.value(eta, y)).sum() / weight.sum()

    return jax.lax.map(one, (w, b))
