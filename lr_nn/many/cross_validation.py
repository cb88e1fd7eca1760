"""Cross-validation: fits outside each fold, scored inside it, which choose the strength of a penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.fitting.chunks import Frame
from lr_nn.fitting.threads import one_thread
from lr_nn.many.draws import generator
from lr_nn.many.failures import advice, has_optimum
from lr_nn.many.inputs import SharedInputs
from lr_nn.many.lanes import Lanes
from lr_nn.many.paths import strength_lanes
from lr_nn.many.problem import target_dtype
from lr_nn.many.rows import Rows, Targets, pairs_at_once
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import Solutions, solve
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Status

__all__ = ["CrossValidation", "cross_validate"]

# An error names this many failed fits one by one, and counts the others.
NAMED = 5


@dataclass(frozen=True)
class CrossValidation:
    """Scores of f folds at the strengths (t,) of `penalty`.

    `scores` (f, t) is the mean loss ℓ, without penalty, of the rows of a fold under the fit of all other rows. It is
    NaN where this fit failed, because its value would depend on where the search stopped. `rows` (n,) is the fold of
    each row. Lane fold · t + strength of `solutions` is the fit outside a fold at a strength.
    """

    penalty: Penalty
    rows: np.ndarray
    scores: np.ndarray
    solutions: Solutions

    @property
    def strengths(self) -> np.ndarray:
        """λ = l1 + l2 of each strength, (t,)."""
        return self.penalty.l1 + self.penalty.l2

    @property
    def mean(self) -> np.ndarray:
        """The mean score over folds, (t,); NaN where a fold failed, because the others score other rows."""
        return self.scores.mean(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """The standard error of `mean`, (t,): the standard deviation between folds / √f; NaN where a fold failed."""
        with np.errstate(invalid="ignore"):  # the loss of a fold may overflow to ∞
            return self.scores.std(axis=0, ddof=1) / len(self.scores) ** 0.5

    @property
    def failed(self) -> np.ndarray:
        """The number of folds whose fit has no optimum, (t,): neither converged nor rank_deficient."""
        return (~has_optimum(self._status)).sum(axis=0)

    @property
    def best(self) -> int:
        """The index of the strength with the lowest mean score, among those where no fold failed.

        Raises ValueError, which names the folds that failed, if there is no such strength.
        """
        if not (usable := np.isfinite(self.mean)).any():
            raise ValueError(f"no strength has an optimum and a finite score in every fold: {self._failures()}")
        return int(np.argmin(np.where(usable, self.mean, np.inf)))

    @property
    def simplest(self) -> int:
        """The index of the largest strength whose mean score is within one standard error of the best.

        Only strengths where no fold failed are compared. Raises ValueError as `best` does. Breiman et al. (1984).
        """
        within = np.flatnonzero(self.mean <= self.mean[self.best] + self.standard_error[self.best])
        return int(within[np.argmax(self.strengths[within])])

    def chosen(self, index: int | None = None) -> Penalty:
        """The penalty to fit all rows with: that of strength `index`, by default of `best`, which may refuse.

        A named `index` is returned even where a fold failed, because all rows may have an optimum there.
        """
        return Penalty(*(float(strength[self.best if index is None else index]) for strength in self.penalty))

    def to_pandas(self) -> Any:
        """A table with one row a strength: the scores of the folds, their mean, its standard error, and `failed`."""
        import pandas

        folds = {f"fold {f}": scores for f, scores in enumerate(self.scores)}
        names = ("mean", "standard_error", "failed")
        columns = {**self.penalty._asdict(), **{name: getattr(self, name) for name in names}, **folds}
        return pandas.DataFrame(columns).rename_axis("strength")

    @property
    def _status(self) -> np.ndarray:
        """The status of each fit, (f, t)."""
        return np.asarray(self.solutions.status).reshape(self.scores.shape)

    def _failures(self) -> str:
        """The folds and strengths without a finite score, the reasons, and what to do."""
        failed = np.argwhere(~np.isfinite(self.scores))
        named = ", ".join(
            f"fold {f} at strength {self.strengths[t]:.3g} ({Status(self._status[f, t])}, score {self.scores[f, t]})"
            for f, t in failed[:NAMED]
        )
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        return f"{named}{more}; {advice(self._status) or 'choose a stronger penalty'}; or choose other folds"


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
    progress: Callable[[Progress], None] | None = None,
) -> CrossValidation:
    """A `CrossValidation`: fits outside each fold at each strength (t,) of `penalty`, scored inside the fold.

    folds: their number, for folds drawn so that each has its share of the rows of positive weight of every class; or
    the fold of each row, (n,): whole numbers not negative, or text. key: the random key of the draw; None is a fixed
    key. data as in `fit`, the other keywords as in `fit_many`. All fits share `x`. A fit whose rows lack a class has no
    optimum if it has a bias: its status says separated, and its score is NaN. A fold itself may lack a class.
    Raises ValueError for fewer than two folds, for a fold without a row of positive weight, if `penalty` has no
    strengths (t,), and for networks without a certificate.

    >>> import lr_nn, numpy as np
    >>> x = np.linspace(-2, 2, 40)[:, None]
    >>> y = (np.sin(9 * x[:, 0]) + x[:, 0] > 0).astype(int)
    >>> strengths = lr_nn.penalties.l2(np.geomspace(1, 1e-3, 4))
    >>> found = lr_nn.cross_validate(lr_nn.logistic_regression(1), lr_nn.Batch(x, y), penalty=strengths)
    >>> found.scores.shape, round(found.chosen().l2, 6)
    ((5, 4), 0.01)
    """
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
    lanes = strength_lanes(net, data, penalty, settings)
    weight = np.ones(lanes.n) if lanes.weight is None else np.asarray(lanes.weight[0], float)
    rows = _folds(lanes, weight > 0, folds, key)
    f, t = int(rows.max()) + 1, lanes.m
    outside = rows[None] != np.arange(f)[:, None]
    fold, strength = np.divmod(np.arange(f * t), t)
    every = replace(lanes, m=f * t, weight=outside * weight, owner={"weight": fold, "penalty": strength})
    solutions = solve(every, settings)
    failed = ~has_optimum(solutions.status).reshape(f, t)
    scores = np.where(failed, np.nan, _scores(lanes, rows, weight, solutions))
    return CrossValidation(lanes.penalty, rows, scores, solutions)


def _folds(lanes: Lanes, positive: np.ndarray, folds: int | ArrayLike, key: jax.Array | None) -> np.ndarray:
    """The fold of each row, (n,) integers 0 ... f - 1; each fold has a row where `positive` (n,), the weight > 0."""
    if hasattr(folds, "__len__"):
        names, rows = check.labels("folds", folds, lanes.n)
        if names.dtype.kind in "fc":
            raise ValueError(f"folds must be whole numbers or text; got {names.dtype}: use folds.astype(int)")
        if names.dtype.kind == "i" and names[0] < 0:
            raise ValueError(f"folds must not be negative; got {names[0]} at row {np.argmin(rows)}")
        if len(names) < 2:
            raise ValueError(f"folds must name at least two folds; got only {names.tolist()[0]!r}")
        empty = names[np.bincount(rows, positive) == 0].tolist()
        if empty:
            raise ValueError(f"fold {empty[0]!r} has no row of positive weight: leave out its rows")
        return rows
    f = check.positive_integer("folds", folds)
    if not 2 <= f <= positive.sum():
        raise ValueError(f"folds must be between 2 and the {positive.sum()} rows of positive weight; got {f}")
    return _drawn_folds(lanes, positive, f, key)


def _drawn_folds(lanes: Lanes, positive: np.ndarray, f: int, key: jax.Array | None) -> np.ndarray:
    """A random fold for each row, (n,): rows are dealt to the folds in turn, class after class, weight zero last.

    Classes are in the order in which they are drawn, so that other names of the classes give the same folds.
    """
    n = lanes.n
    order = generator(key).permutation(n)
    block = np.zeros(n, int)
    if lanes.net.loss.task != "values":
        y = np.asarray(lanes.y[0]).reshape(n, -1)[order]
        _, first, label = np.unique(y, axis=0, return_index=True, return_inverse=True)
        block = first[label.reshape(-1)]
    order = order[np.argsort(np.where(positive[order], block, n), kind="stable")]
    rows = np.empty(n, int)
    rows[order] = np.arange(n) % f
    return rows


def _scores(lanes: Lanes, rows: np.ndarray, weight: np.ndarray, solutions: Solutions) -> np.ndarray:
    """The mean loss of each fold's rows under each of its fits, (f, t)."""
    net, k = lanes.net, lanes.net.sizes[1]
    frame = Frame(np.zeros(net.sizes[0]), False, np.zeros(k), net.bias)
    theta, t, scores = solutions.coefficients.astype(float), lanes.m, []
    lane = np.zeros(t, int)
    with jax.enable_x64(True), one_thread():
        for fold in range(int(rows.max()) + 1):
            inside = (rows == fold) & (weight > 0)
            inputs = SharedInputs.of(np.asarray(lanes.x)[inside], frame, pairs_at_once(net.loss, k))
            offset = None if lanes.offset is None else np.asarray(lanes.offset, float)[:, inside]
            targets = Targets(
                np.asarray(lanes.y)[:, inside], weight[None, inside], offset, lane, lane, lane, target_dtype(lanes)
            )
            held_out = Rows(inputs, targets, net.loss, k, True)
            sums = held_out.sums(theta[fold * t : (fold + 1) * t], False, None)
            scores.append(sums.cost / weight[inside].sum())
    return np.stack(scores)
