"""The arguments of many fits: which have a lane axis, their checks, and those of some lanes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from lr_nn.admission import admit_lanes, lane_axes, lane_axis, lane_params
from lr_nn.fitting.promises import has_certificate
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Batch, Params

__all__ = ["Lanes", "admit", "check_certificate"]


@dataclass(frozen=True)
class Lanes:
    """The arguments of m fits on n rows.

    `x` is (n, d) if all lanes share it, else (m, n, d). Every other argument has a leading axis: of length m, or of 1
    if all lanes share it. Their shapes are `y` (·, n) or (·, n, k), `weight` (·, n) or None, `offset` (·, n, k) or
    None, `penalty` (·,) for l1 and l2, and those of parameters for `start`. If `owner` has the name of an argument,
    lane i has entry owner[name][i] of it.
    """

    net: Network
    m: int
    n: int
    x: Any
    y: Any
    weight: Any
    offset: Any
    penalty: Penalty
    start: Params | None
    owner: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def shares_x(self) -> bool:
        """True if all lanes have one `x`."""
        return self.x.ndim == 2

    def take(self, name: str, ids: np.ndarray) -> Any:
        """The entries of the lanes `ids` in the argument `name`, with a leading axis; of 1 if all lanes share it."""
        value, ids = getattr(self, name), self.owner[name][ids] if name in self.owner else ids
        return jax.tree.map(lambda leaf: leaf if len(leaf) == 1 else leaf[ids], value)

    def entry(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Which entry of y, weight or offset the lanes `ids` have."""
        if len(getattr(self, name)) == 1:
            return np.zeros(len(ids), int)
        return self.owner[name][ids] if name in self.owner else np.asarray(ids)


def check_certificate(what: str, net: Network) -> None:
    """Raise ValueError if `what`, such as groups, is not for `net`, because its fits end without a certificate."""
    if not has_certificate(net):
        raise ValueError(
            f"{what} are for networks of one layer with a loss that promises a certificate, as those of lr_nn.losses "
            f"do; for others give train_many the {what} as weights"
        )


def admit(net: Network, data: Batch, penalty: Penalty | None, start: Params | None) -> Lanes:
    """The checked arguments of m fits. Raises ValueError if none has a lane axis, or two differ in their lanes."""
    check_network(net)
    check_penalty(penalty, lanes=True)
    batch, axes = lane_axes(net, jax.tree.map(_without_mesh, data))
    penalty = Penalty(*(np.asarray(strength, float) for strength in penalty or Penalty()))
    names = (*Batch._fields, "penalty l1", "penalty l2", "start")
    strengths = Penalty(*map(lane_axis, names[-3:-1], penalty, (0, 0)))
    start, starts = (None, None) if start is None else lane_params(net, start, "start")
    m = _lane_count(names, (*batch, *penalty, start), (*axes, *strengths, starts))
    x, y, weight, offset = admit_lanes(net, batch, axes, None)
    return Lanes(
        net=net,
        m=m,
        n=x.shape[-2],
        x=x,
        y=_leading(y, axes.y),
        weight=_leading(weight, axes.weight),
        offset=None if offset is None else offset.reshape(-1, x.shape[-2], net.sizes[-1]),
        penalty=_leading(penalty, strengths),
        start=_leading(start, starts),
    )


def _without_mesh(array: Any) -> Any:
    """An array over a mesh as one of NumPy, which any context can index."""
    return np.asarray(array) if isinstance(array, jax.Array) and isinstance(array.sharding, NamedSharding) else array


def _lane_count(names: tuple[str, ...], arguments: tuple[Any, ...], axes: tuple[Any, ...]) -> int:
    """m, the length of the lane axis of every leaf that has one."""
    counts = [
        (name, len(leaf))
        for name, argument, axis in zip(names, arguments, axes)
        for leaf, own in zip(_leaves(argument), _leaves(axis))
        if own == 0
    ]
    if not counts:
        raise ValueError(
            "nothing has a lane axis: pass x, y, weight or offset of the data, a strength of the penalty or a leaf of "
            "start with one axis more, or call lr_nn.fit"
        )
    if len({number for _, number in counts}) > 1:
        raise ValueError(
            "all arguments with lanes must have as many lanes; got "
            + ", ".join(f"{number} of {name}" for name, number in counts)
        )
    return counts[0][1]


def _leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, None among them."""
    return jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)


def _leading(tree: Any, axes: Any) -> Any:
    """The tree with a leading axis on every leaf: of 1 where its axis in `axes` is None, else its own."""
    leaves = [leaf if leaf is None or axis == 0 else leaf[None] for leaf, axis in zip(_leaves(tree), _leaves(axes))]
    return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=lambda leaf: leaf is None), leaves)
