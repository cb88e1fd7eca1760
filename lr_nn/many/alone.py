"""One lane after another by the solvers of `fit`: what lanes share in their data is posed once."""

from __future__ import annotations

import jax
import numpy as np

from lr_nn.fitting.model import fit
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import Problem, posed, with_strengths
from lr_nn.fitting.promises import has_certificate
from lr_nn.fitting.search import solved
from lr_nn.fitting.settings import DEFAULT
from lr_nn.many.lanes import Lanes
from lr_nn.many.settings import Settings
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Params, Solution

__all__ = ["Alone"]

ARGUMENTS = ("y", "weight", "offset")


class Alone:
    """The solvers of `fit` for lanes one by one."""

    def __init__(self, lanes: Lanes, settings: Settings) -> None:
        """Before the first lane."""
        self.lanes, self.settings = lanes, settings
        self.problem: Problem | None = None
        self.entries: tuple[int, ...] = ()

    def solve(self, lane: int, start: Params | None = None) -> Solution | None:
        """The solution of a lane, `fit`'s of a network without a certificate; None where its own x is not finite."""
        lanes, settings, one = self.lanes, self.settings, np.array([lane])
        penalty = Penalty(*(float(strength[0]) for strength in lanes.take("penalty", one)))
        if start is None and lanes.start is not None:
            start = jax.tree.map(lambda leaf: np.asarray(leaf[0]), lanes.take("start", one))
        if not lanes.shares_x and not np.isfinite(lanes.x[lane]).all():
            return None
        dtype = np.dtype(settings.dtype or np.float64)
        if not has_certificate(lanes.net):
            return fit(
                lanes.net,
                self._batch(one),
                penalty=penalty,
                start=start,
                tol=settings.tol,
                max_steps=settings.max_steps,
                solver=settings.solver,
                dtype=dtype,
            )
        problem = self._posed(one, penalty)
        return solved(problem, penalty, start, settings.tol, settings.max_steps, settings.solver, dtype, DEFAULT)

    def _posed(self, one: np.ndarray, penalty: Penalty) -> Problem:
        lanes = self.lanes
        entries = (
            -1 if lanes.shares_x else int(one[0]),
            *(-1 if getattr(lanes, name) is None else int(lanes.entry(name, one)[0]) for name in ARGUMENTS),
        )
        if self.problem is not None and entries == self.entries:
            self.problem = with_strengths(lanes.net, self.problem, penalty)
            return self.problem
        source = of_arrays(lanes.net, [self._batch(one)], DEFAULT)
        self.problem, self.entries = posed(lanes.net, source, penalty, DEFAULT), entries
        return self.problem

    def _batch(self, one: np.ndarray) -> Batch:
        lanes = self.lanes
        x = np.asarray(lanes.x if lanes.shares_x else lanes.x[one[0]])
        others = (None if getattr(lanes, name) is None else lanes.take(name, one)[0] for name in ARGUMENTS)
        return Batch(x, *others)
