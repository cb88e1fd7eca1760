"""One fit for each group of rows; groups are padded to few sizes with rows of weight zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.many.failures import has_optimum
from lr_nn.many.lanes import check_certificate
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import COLUMNS, Solutions, admit, solve
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Batch, Status

__all__ = ["Groups", "fit_groups"]

# Groups are padded to at least this many rows.
MIN_ROWS = 16
# Groups of one padded size are compiled on their own if their padded rows hold more numbers than this.
MIN_NUMBERS = 2**22


@dataclass(frozen=True)
class Groups:
    """One fit for each group: lane i of `solutions` is that of `labels[i]` (m,), which has `sizes[i]` (m,) rows.

    `names` (q,) are those of the coefficients, as `inference.summary` names them.
    """

    net: Network
    labels: np.ndarray
    sizes: np.ndarray
    solutions: Solutions
    names: tuple[str, ...]

    @property
    def failed(self) -> np.ndarray:
        """The labels of the groups whose fit has no optimum: neither converged nor rank_deficient."""
        return self.labels[~has_optimum(self.solutions.status)]

    def predict(self, x: ArrayLike, groups: ArrayLike) -> np.ndarray:
        """The mean response of each row, (n, k), under the model of its group; NaN for the groups in `failed`.

        Raises ValueError for a label that was not fitted.
        """
        x = np.asarray(check.table("x", x, self.net.sizes[0]), float)
        check.finite("x", x)
        names, which = check.labels("groups", groups, len(x))
        unknown = np.setdiff1d(names, self.labels)
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} groups have no model: {', '.join(map(repr, unknown[:5].tolist()))}; "
                "predict only groups that were fitted"
            )
        lane = np.searchsorted(self.labels, names)[which]
        (layer,) = self.solutions.params
        eta = np.einsum("nd,ndk->nk", x, layer.w[lane]) + (0 if layer.b is None else layer.b[lane])
        with jax.enable_x64(True):
            mean = np.asarray(self.net.loss.mean(jnp.asarray(eta)))
        return np.where(has_optimum(self.solutions.status)[lane, None], mean, np.nan)

    def to_pandas(self) -> Any:
        """A table with one row a group: its number of rows, the status of its fit, and its coefficients."""
        table = self.solutions.to_pandas().set_index(self.labels).rename_axis("group")
        table.insert(0, "rows", self.sizes)
        found = self.solutions.coefficients
        for row, name in enumerate(self.names):
            for output in range(found.shape[2]):
                table[f"coefficient {name}" + (f" of {output}" if found.shape[2] > 1 else "")] = found[:, row, output]
        return table


def fit_groups(
    net: Network,
    data: Batch,
    groups: ArrayLike,
    *,
    penalty: Penalty | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    schedule: str = "auto",
    memory: int = 2**30,
    progress: Callable[[Progress], None] | None = None,
) -> Groups:
    """A `Groups`: one fit for each label in `groups` (n,), of the rows of `data` that have this label.

    Groups may have any size. data and penalty as in `fit`, the other keywords as in `fit_many`. A group without an
    optimum says so in its status. With an L2 penalty small groups have an optimum; a group of one class has none,
    because the bias is free. Raises ValueError for a group without weight, and for networks without a certificate.

    >>> import lr_nn, numpy as np
    >>> x, groups = np.arange(8.0)[:, None], np.array(["a", "a", "a", "b", "b", "b", "b", "b"])
    >>> data = lr_nn.Batch(x, np.where(groups == "a", 1, -2) * x[:, 0])
    >>> found = lr_nn.fit_groups(lr_nn.linear_regression(1), data, groups)
    >>> found.labels, found.solutions.coefficients[:, 0, 0].round(6)
    (array(['a', 'b'], dtype='<U1'), array([ 1., -2.]))
    """
    check.on_host("fit_groups", (data, groups, penalty), "lr_nn.many.solve")
    check_network(net)
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
    check_penalty(penalty)
    check_certificate("groups", net)
    with jax.enable_x64(True):
        x, y, weight, offset = jax.tree.map(np.asarray, admit_rows(net, data, np.float64))
    labels, which = check.labels("groups", groups, n := len(x))
    sizes = np.bincount(which)
    if net.loss.task == "classes" and y.ndim == 1:  # labels of k groups of k rows would look like one table (n, k)
        y = np.eye(net.sizes[1])[y]
    weight = np.ones(n) if weight is None else weight
    if len(empty := np.flatnonzero(np.bincount(which, weight) == 0)):
        raise ValueError(f"weight is zero for every row of group {labels[empty[0]]!r}; at least one must be positive")
    order, ends = np.argsort(which, kind="stable"), np.cumsum(sizes)
    found: list[tuple[np.ndarray, Solutions]] = []
    for size, members in _buckets(sizes, net.sizes[0]):
        begin, end = (ends - sizes)[members, None], ends[members, None]
        rows = begin + np.arange(size)[None]
        inside = rows < end
        rows = order[np.minimum(rows, end - 1)]  # a group is padded with its last row, at weight zero
        lanes = Batch(x[rows], y[rows], weight[rows] * inside, None if offset is None else offset[rows])
        part = replace(settings, progress=_of_all(progress, len(labels), found))
        found.append((members, solve(admit(net, lanes, penalty, None, part), part)))
    names = check.column_names(data.x, net.sizes[0]) + (("bias",) if net.bias else ())
    return Groups(net, labels, sizes, _in_order(found), names)


def _of_all(report: Any, m: int, found: list[tuple[np.ndarray, Solutions]]) -> Any:
    """`report` of the groups of one padded size as progress of all m groups, of which some were `found` before."""
    done = sum(len(members) for members, _ in found)
    failed = sum(int(np.sum(np.asarray(each.status) != Status.converged)) for _, each in found)
    return report and (lambda now: report(Progress(done + now.done, m, failed + now.failed)))


def _buckets(sizes: np.ndarray, d: int) -> list[tuple[int, np.ndarray]]:
    """Padded sizes, powers of two, each with its groups; groups with few numbers join the next larger size."""
    wanted = np.maximum(MIN_ROWS, 2 ** np.ceil(np.log2(sizes)).astype(int))
    buckets: list[tuple[int, np.ndarray]] = []
    members = np.zeros(0, int)
    for size in (distinct := np.unique(wanted)):
        members = np.concatenate([members, np.flatnonzero(wanted == size)])
        if size == distinct[-1] or len(members) * 2 * size * (d + 1) > MIN_NUMBERS:
            buckets.append((int(size), members))
            members = np.zeros(0, int)
    return buckets


def _in_order(found: list[tuple[np.ndarray, Solutions]]) -> Solutions:
    """The solutions of all padded sizes as one, in the order of the labels; each part comes with its groups."""
    parts = [each for _, each in found]
    order = np.argsort(np.concatenate([members for members, _ in found]))

    def join(*leaves: Any) -> np.ndarray:
        return np.concatenate(leaves)[order]

    columns: dict[str, Any] = {name: join(*(getattr(each, name) for each in parts)) for name in COLUMNS}
    direction = None
    if any(each.direction is not None for each in parts):
        direction = jax.tree.map(join, *(each.direction or jax.tree.map(np.zeros_like, each.params) for each in parts))
    return Solutions(
        params=jax.tree.map(join, *(each.params for each in parts)),
        direction=direction,
        penalty=parts[0].penalty,
        solver=parts[0].solver,
        **columns,
    )
