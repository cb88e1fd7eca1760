"""Where lanes enter: which arguments have a lane axis, checked, and taken a few lanes at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from lr_nn.admission import admit_lanes, lane_axes, lane_axis, lane_params
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.trees import on_automatic_mesh
from lr_nn.types import Batch, Params

__all__ = ["Lanes", "admit"]


@dataclass(frozen=True)
class Lanes:
    """The arguments of m fits on n rows. `x` is (n, d), shared, or (m, n, d); the others have a leading axis, of m or,
    where they are shared, of 1: `y` (·, n) or (·, n, k), `weight` (·, n) and `offset` (·, n, k), None where there is
    none, the strengths (·,), and the leaves of `start`. Where `owner` names an argument, lane i has the entry
    owner[i] of it.
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
        """Is there one table for all?"""
        return self.x.ndim == 2

    def take(self, name: str, ids: np.ndarray) -> Any:
        """An argument of some lanes; of a shared one, the only."""
        value, ids = getattr(self, name), self.owner[name][ids] if name in self.owner else ids
        return jax.tree.map(lambda leaf: leaf if len(leaf) == 1 else leaf[ids], value)

    def entry(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Which entry of y, weight or offset the lanes `ids` have."""
        if len(getattr(self, name)) == 1:
            return np.zeros(len(ids), int)
        return self.owner[name][ids] if name in self.owner else np.asarray(ids)


def admit(net: Network, data: Batch, penalty: Penalty | None, start: Params | None) -> Lanes:
    """The checked arguments. ValueError where none has a lane axis, or two disagree on the number of lanes."""
    check_network(net)
    check_penalty(penalty, lanes=True)
    batch, axes = lane_axes(net, on_automatic_mesh(data))
    penalty = Penalty(*(np.asarray(strength, float) for strength in penalty or Penalty()))
    strengths = Penalty(*map(lane_axis, ("penalty l1", "penalty l2"), penalty, (0, 0)))
    start, starts = (None, None) if start is None else lane_params(net, start, "start")
    m = _number((*Batch._fields, "penalty", "start"), (*batch, penalty, start), (*axes, strengths, starts))
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


def _number(names: tuple[str, ...], arguments: tuple[Any, ...], axes: tuple[Any, ...]) -> int:
    """m, the number of lanes of every leaf that has a lane axis."""
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
    """The tree with a leading axis of 1 on every leaf that is shared."""
    leaves = [leaf if leaf is None or axis == 0 else leaf[None] for leaf, axis in zip(_leaves(tree), _leaves(axes))]
    return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=lambda leaf: leaf is None), leaves)
