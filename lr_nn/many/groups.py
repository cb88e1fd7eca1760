"""A model for each group of rows: groups of any size, padded to few sizes with rows of weight zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.fitting.promises import has_certificate
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.solutions import COLUMNS, Solutions, admit, solve
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Batch

__all__ = ["Groups", "fit_groups"]

# The smallest size that groups are padded to, and numbers of a size that are no reason for a program of its own.
LEAST, FEW = 16, 2**22


@dataclass(frozen=True)
class Groups:
    """A fit for each of the `labels` (m,), in their order, of `sizes` (m,) rows."""

    net: Network
    labels: np.ndarray
    sizes: np.ndarray
    solutions: Solutions

    def predict(self, x: ArrayLike, groups: ArrayLike) -> np.ndarray:
        """The mean of the response of each row, (n, k), by the model of its group. ValueError for an unknown label."""
        x = np.asarray(check.table("x", x, self.net.sizes[0]), float)
        check.finite("x", x)
        names, which = check.labels("groups", groups, len(x))
        strange = np.setdiff1d(names, self.labels)
        if len(strange):
            raise ValueError(
                f"{len(strange)} groups have no model: {', '.join(map(repr, strange[:5].tolist()))}; "
                "predict only groups that were fitted"
            )
        at = np.searchsorted(self.labels, names)[which]
        (layer,) = self.solutions.params
        eta = np.einsum("nd,ndk->nk", x, layer.w[at]) + (0 if layer.b is None else layer.b[at])
        with jax.enable_x64(True):
            return np.asarray(self.net.loss.mean(jnp.asarray(eta)))

    def to_pandas(self) -> Any:
        """One row a group: its size, how its fit ended, and its coefficients."""
        table = self.solutions.to_pandas().set_index(self.labels).rename_axis("group")
        table.insert(0, "rows", self.sizes)
        found = self.solutions.coefficients
        for row in range(found.shape[1]):
            for output in range(found.shape[2]):
                table[f"coefficient {row}" + (f" of {output}" if found.shape[2] > 1 else "")] = found[:, row, output]
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
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Groups:
    """One fit for each group of rows, `groups` (n,) their labels: segments, genes, shops.

    Groups may have any size. data and penalty as in `fit`, the other keywords as in `fit_many`. Groups without an
    optimum, of one class or of too few rows, say so in their status. With an L2 penalty small groups have an optimum; a
    group of one class has none, because the bias is free.

    >>> import lr_nn, numpy as np
    >>> x, groups = np.arange(8.0)[:, None], np.array(["a", "a", "a", "b", "b", "b", "b", "b"])
    >>> data = lr_nn.Batch(x, np.where(groups == "a", 1, -2) * x[:, 0])
    >>> found = lr_nn.fit_groups(lr_nn.linear_regression(1), data, groups)
    >>> found.labels, found.solutions.coefficients[:, 0, 0].round(6)
    (array(['a', 'b'], dtype='<U1'), array([ 1., -2.]))
    """
    check.on_host("fit_groups", (data, groups, penalty), "lr_nn.many.solve")
    check_network(net)
    settings = Settings(tol, max_steps, solver, dtype, schedule, memory, devices, progress)
    check_penalty(penalty)
    if not has_certificate(net):
        raise ValueError(
            "groups are for networks of one layer with a loss that promises a certificate, as those of the menu do; "
            "train_many takes groups of others as weights"
        )
    with jax.enable_x64(True):
        x, y, weight, offset = jax.tree.map(np.asarray, admit_rows(net, data, np.float64))
    labels, which = check.labels("groups", groups, n := len(x))
    sizes = np.bincount(which)
    if net.loss.task == "classes" and y.ndim == 1:  # one-hot, so that groups of k rows are no table of k classes
        y = np.eye(net.sizes[1])[y]
    weight = np.ones(n) if weight is None else weight
    if len(empty := np.flatnonzero(np.bincount(which, weight) == 0)):
        raise ValueError(f"weight is zero for every row of group {labels[empty[0]]!r}; at least one must be positive")
    order, ends = np.argsort(which, kind="stable"), np.cumsum(sizes)
    found = []
    for size, members in _buckets(sizes, net.sizes[0]):
        begin, end = (ends - sizes)[members, None], ends[members, None]
        rows = begin + np.arange(size)[None]
        inside = rows < end
        rows = order[np.minimum(rows, end - 1)]  # a group is filled up with its own last row, of weight zero
        lanes = Batch(x[rows], y[rows], weight[rows] * inside, None if offset is None else offset[rows])
        found.append((members, solve(admit(net, lanes, penalty, None, settings), settings)))
    return Groups(net, labels, sizes, _in_order(len(labels), found))


def _buckets(sizes: np.ndarray, d: int) -> list[tuple[int, np.ndarray]]:
    """Sizes, powers of two, and the groups that are padded to each; few numbers go with the next."""
    wanted = np.maximum(LEAST, 2 ** np.ceil(np.log2(sizes)).astype(int))
    buckets: list[tuple[int, np.ndarray]] = []
    members = np.zeros(0, int)
    for size in (distinct := np.unique(wanted)):
        members = np.concatenate([members, np.flatnonzero(wanted == size)])
        if size == distinct[-1] or len(members) * 2 * size * (d + 1) > FEW:
            buckets.append((int(size), members))
            members = np.zeros(0, int)
    return buckets


def _in_order(m: int, found: list[tuple[np.ndarray, Solutions]]) -> Solutions:
    """The solutions of all buckets as one, in the order of the labels."""

    def put(leaves: list[np.ndarray]) -> np.ndarray:
        whole = np.zeros((m, *leaves[0].shape[1:]), leaves[0].dtype)
        for (members, _), leaf in zip(found, leaves):
            whole[members] = leaf
        return whole

    parts = [each for _, each in found]
    columns: dict[str, Any] = {name: put([getattr(each, name) for each in parts]) for name in COLUMNS}
    directions = None
    if any(each.direction is not None for each in parts):
        given = (each.direction or jax.tree.map(np.zeros_like, each.params) for each in parts)
        directions = jax.tree.map(lambda *leaves: put(list(leaves)), *given)
    return Solutions(
        params=jax.tree.map(lambda *leaves: put(list(leaves)), *(each.params for each in parts)),
        direction=directions,
        penalty=parts[0].penalty,
        solver=parts[0].solver,
        lane_steps=sum(each.lane_steps for each in parts),
        **columns,
    )
