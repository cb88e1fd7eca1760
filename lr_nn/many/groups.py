"""A model for each group of rows: groups of any size, padded to few sizes with rows of weight zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.many.run import DEFAULTS, Settings
from lr_nn.many.solutions import COLUMNS, Solutions, admit, solve
from lr_nn.network import Network
from lr_nn.penalties import Penalty

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
        which = _labels("groups", groups, len(x))
        at = np.searchsorted(self.labels, which)
        known = self.labels[np.minimum(at, len(self.labels) - 1)] == which
        if not known.all():
            strange = np.unique(which[~known])
            raise ValueError(
                f"{len(strange)} groups have no model: {', '.join(map(repr, strange[:5].tolist()))}; "
                "predict only groups that were fitted"
            )
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
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    penalty: Penalty | None = None,
    settings: Settings = DEFAULTS,
) -> Groups:
    """One fit for each group of rows, `groups` (n,) their labels: segments, genes, shops.

    Groups may have any size. Other arguments as of `fit`, settings as of `fit_many`. Groups that have no optimum, of
    one class or of fewer rows than coefficients, say so in their status; a penalty gives them one.

    >>> import lr_nn, numpy as np
    >>> x, groups = np.arange(8.0)[:, None], np.array(["a", "a", "a", "b", "b", "b", "b", "b"])
    >>> found = lr_nn.fit_groups(lr_nn.linear_regression(1), x, np.where(groups == "a", 1, -2) * x[:, 0], groups)
    >>> found.labels, found.solutions.coefficients[:, 0, 0].round(6)
    (array(['a', 'b'], dtype='<U1'), array([ 1., -2.]))
    """
    x = np.asarray(check.table("x", x, net.sizes[0]))
    n = len(x)
    labels, which, sizes = np.unique(_labels("groups", groups, n), return_inverse=True, return_counts=True)
    y = np.asarray(check.numeric("y", y))
    if len(y) != n:
        raise ValueError(f"x has {n} rows but y has {len(y)}; they must be the same examples")
    weight = np.ones(n) if weight is None else np.asarray(check.weights(weight, n, np.float32), float)
    offset = None if offset is None else np.asarray(check.numeric("offset", offset)).reshape(n, -1)
    order, ends = np.argsort(which, kind="stable"), np.cumsum(sizes)
    m, found = len(labels), {}
    for size, members in _buckets(sizes, net.sizes[0]):
        rows = np.minimum((ends - sizes)[members, None] + np.arange(size)[None], n - 1)
        inside = np.arange(size)[None] < sizes[members, None]
        rows = order[rows]
        lanes = admit(
            net,
            x[rows],
            y[rows],
            weight[rows] * inside,
            None if offset is None else offset[rows],
            penalty,
            None,
            settings,
        )
        found[size] = members, solve(lanes, settings)
    return Groups(net, labels, sizes, _in_order(m, list(found.values())))


def _labels(name: str, groups: ArrayLike, n: int) -> np.ndarray:
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"{name} must name the group of each of the {n} rows; got shape {labels.shape}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{name} must not be NaN; got one at row {np.flatnonzero(np.isnan(labels))[0]}")
    return labels


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
    return Solutions(
        params=jax.tree.map(lambda *leaves: put(list(leaves)), *(each.params for each in parts)),
        penalty=parts[0].penalty,
        solver=parts[0].solver,
        lane_steps=sum(each.lane_steps for each in parts),
        **columns,
    )
