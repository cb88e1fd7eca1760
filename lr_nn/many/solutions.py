"""`fit_many`, and what it hands back: one Solution with a lane axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.fitting.promises import check_arguments
from lr_nn.fitting.threads import one_thread
from lr_nn.many import lanes
from lr_nn.many.found import COLUMNS
from lr_nn.many.lanes import Lanes
from lr_nn.many.run import SCHEDULES, run_lanes
from lr_nn.many.settings import Progress, Settings
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Params, Solution, Status

__all__ = ["Solutions", "admit", "fit_many", "solve"]


@dataclass(frozen=True)
class Solutions(Solution):
    """Many fits: every field of a Solution with a leading axis m; the strengths of `penalty` may have one of 1.

    `solver` is the schedule, one for all; `status` an int8 array, `message` an array of text; `direction` None where no
    lane is separated, else zero for those that are not.
    """

    def __len__(self) -> int:
        """The number of lanes."""
        return len(np.asarray(self.status))

    def lane(self, i: int) -> Solution:
        """Lane i as `fit` would return it."""
        own = {name: np.asarray(getattr(self, name))[i] for name in COLUMNS}
        return Solution(
            params=jax.tree.map(lambda leaf: leaf[i], self.params),
            status=Status(int(own["status"])),
            steps=int(own["steps"]),
            cost=float(own["cost"]),
            gradient_norm=float(own["gradient_norm"]),
            certificate=float(own["certificate"]),
            penalty=Penalty(*(np.broadcast_to(s, len(self))[i] for s in self.penalty)),
            solver=self.solver,
            message=str(own["message"]),
            direction=None if self.direction is None else jax.tree.map(lambda leaf: leaf[i], self.direction),
        )

    def __str__(self) -> str:
        """How many lanes ended how."""
        told = Counter(str(Status(int(status))) for status in np.asarray(self.status))
        ends = ", ".join(f"{count:,} {name}" for name, count in told.items())
        return f"{len(self):,} fits by {self.solver}: {ends}"

    def to_pandas(self) -> Any:
        """One row a lane: how it ended, and its strengths."""
        import pandas

        strengths = {name: np.broadcast_to(s, len(self)) for name, s in self.penalty._asdict().items()}
        names = ("steps", "cost", "gradient_norm", "certificate", "message")
        return pandas.DataFrame(
            {
                **strengths,
                "status": [str(Status(int(status))) for status in np.asarray(self.status)],
                **{name: getattr(self, name) for name in names},
            }
        ).rename_axis("lane")


def fit_many(
    net: Network,
    data: Batch,
    *,
    penalty: Penalty | None = None,
    start: Params | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    schedule: str = "auto",
    memory: int = 2**30,
    progress: Callable[[Progress], None] | None = None,
) -> Solutions:
    """m fits in one call: an argument with one axis more than in `fit` has a value for each lane, others are shared.

    data: Batch(x, y, weight, offset) with x (n, d) or (m, n, d); y (n,) or (m, n) for one output and for class labels,
    (n, k) or (m, n, k) otherwise; weight (n,) or (m, n); offset (n,) or (m, n) for one output, (n, k) or (m, n, k).
    A y of shape (n, k) is shared; where it may also be lanes of (n,), it is refused. Strengths are () or (m,), leaves
    of start have the shapes of parameters, or m first. Folds, bootstraps and targets share one `x`. No value of a
    strength compiles a new program. `tol`, `max_steps` and `solver` are those of `fit`, and so is every certificate;
    `dtype` is that of the coefficients, which are found in float64.

    schedule: `together` (one pass a step for all lanes that are not there yet: products of matrices over lanes),
    `compiled` (small lanes with an x of their own, by `many.solve`: compiled once, for thousands), `each` (by the
    solvers of `fit`, lanes of one penalty path after another from where the one before it ended), or `auto`, by shapes.
    memory: bytes that the lanes in hand may take beside the data. progress: called with a Progress now and then. An `x`
    that lies on an accelerator is read on the host, but for `compiled`.

    A lane that misses its certificate is solved again by the solvers of `fit`, with `max_steps` of its own; `steps` are
    those of that search.

    A lane that fails says so in its `status` and `message`, and disturbs no other. Raises ValueError where nothing has
    a lane axis, where lanes disagree in number, and where `memory` does not hold one; TypeError for Rows, which have to
    be read first.

    >>> import lr_nn, numpy as np
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> strengths = lr_nn.penalties.l2(np.array([1e-2, 1e-1, 1.0]))
    >>> solutions = lr_nn.fit_many(lr_nn.logistic_regression(1), lr_nn.Batch(x, y), penalty=strengths)
    >>> print(solutions, solutions.coefficients[:, 0, 0].round(4))
    3 fits by together: 3 converged [0.8679 0.6367 0.1908]
    """
    check.on_host("fit_many", (data, start, penalty, tol), "lr_nn.many.solve")
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
    return solve(admit(net, data, penalty, start, settings), settings)


def admit(net: Network, data: Batch, penalty: Penalty | None, start: Params | None, settings: Settings) -> Lanes:
    """The checked lanes; settings are checked, too, as far as they can be before anything runs."""
    check_arguments(net, penalty, settings.solver, settings.tol, settings.dtype, lanes=True)
    check.positive_integer("max_steps", settings.max_steps)
    check.positive_integer("memory", settings.memory)
    if settings.progress is not None and not callable(settings.progress):
        raise TypeError(f"progress must be a function of one Progress; got {settings.progress!r}")
    if settings.schedule not in ("auto", *SCHEDULES):
        raise ValueError(f"schedule must be one of auto, {', '.join(SCHEDULES)}; got {settings.schedule!r}")
    return lanes.admit(net, data, penalty, start)


def solve(lanes: Lanes, settings: Settings) -> Solutions:
    """The solutions of admitted lanes."""
    with one_thread():
        found, schedule = run_lanes(lanes, settings)
    dtype = np.dtype(settings.dtype or np.float64)
    params, direction = jax.tree.map(lambda leaf: leaf.astype(dtype), (found.params, found.direction))
    columns: dict[str, Any] = {name: getattr(found, name) for name in COLUMNS}
    penalty = lanes.take("penalty", np.arange(lanes.m))
    return Solutions(params=params, direction=direction, penalty=penalty, solver=schedule, **columns)
