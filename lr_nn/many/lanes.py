"""Where lanes enter: which arguments have a lane axis, checked, and taken a few lanes at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from lr_nn import check
from lr_nn.network import Network, check_params
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Layer, Params

# Targets are looked at so many numbers at a time.
AT_ONCE = 2**24


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


def admit(
    net: Network,
    x: Any,
    y: Any,
    weight: Any,
    offset: Any,
    penalty: Penalty | None,
    start: Params | None,
) -> Lanes:
    """The checked arguments. ValueError where none has a lane axis, or two disagree on the number of lanes."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.logistic_regression(d); got {net!r}")
    check_penalty(penalty, lanes=True)
    penalty = Penalty() if penalty is None else penalty
    d, k = net.sizes[0], net.sizes[-1]
    counts: dict[str, int] = {}

    def ranked(name: str, array: Any, rank: int) -> Any:
        """The array with a leading axis, and how many lanes it has if it came with one."""
        if array.ndim == rank + 1:
            counts[name] = len(array)
            return array
        if array.ndim != rank:
            raise ValueError(f"{name} must have {rank} axes, or {rank + 1} with lanes first; got shape {array.shape}")
        return array[None]

    x, y = _numeric("x", x), _numeric("y", y)
    check.table("x", ranked("x", x, 2)[0], d)
    n = x.shape[-2]
    # One number a row, (n,) or (m, n), where there is one output or a class; else k numbers.
    one_number = y.ndim == 1 or (y.ndim == 2 and y.shape != (n, k) and (k == 1 or net.loss.task == "classes"))
    y = ranked("y", y, 1 if one_number else 2)
    weight = None if weight is None else ranked("weight", _numeric("weight", weight), 1)
    if offset is not None:
        offset = _numeric("offset", offset)
        if k == 1 and offset.shape[-1:] == (n,) and offset.ndim < 3:
            offset = offset[..., None]
        offset = ranked("offset", offset, 2)
    strengths = Penalty(*(ranked(f"penalty {name}", np.asarray(s, float), 0) for name, s in penalty._asdict().items()))
    start = None if start is None else _start(net, start, ranked)
    if not counts:
        raise ValueError("nothing has a lane axis: give x, y, weight, a strength or start one, or call lr_nn.fit")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in counts.items())
        raise ValueError(f"all that have lanes must have as many; got {told}")
    name, m = counts.popitem()
    if m == 0:
        raise ValueError(f"{name} has no lanes; at least one is needed")
    lanes = Lanes(net, m, n, x, y, weight, offset, strengths, start)
    _look(lanes)
    return lanes


def _numeric(name: str, array: Any) -> Any:
    if isinstance(array, Sequence):
        if len({np.shape(lane) for lane in array}) > 1:
            raise ValueError(f"{name} has lanes of unequal shape; lr_nn.fit_groups takes groups of any size")
        kinds = sorted({str(lane.dtype) for lane in array if hasattr(lane, "dtype")})
        if len(kinds) > 1:
            raise TypeError(f"{name} has lanes of unequal data types, {' and '.join(kinds)}: convert them to one")
    return check.numeric(name, array)


def _start(net: Network, start: Params, ranked: Any) -> Params:
    if not isinstance(start, tuple) or not all(isinstance(layer, Layer) for layer in start):
        raise TypeError(f"start must be a tuple of Layer(w, b), such as Solution.params; got {type(start).__name__}")
    layers = []
    for layer in start:
        w = ranked("start.w", check.numeric("start.w", layer.w), 2)
        layers.append(Layer(w, None if layer.b is None else ranked("start.b", check.numeric("start.b", layer.b), 1)))
    for leaf in jax.tree.leaves(layers):
        check.finite("start", leaf)
    check_params(net, jax.tree.map(lambda leaf: leaf[0], tuple(layers)))
    return tuple(layers)


def _look(lanes: Lanes) -> None:
    """Every target, weight and offset, before anything runs."""
    n, (_, *_, k) = lanes.n, lanes.net.sizes
    for y in _parts(lanes.y):
        if y.shape[1] != n:
            raise ValueError(f"x has {n} rows but y has {y.shape[1]}; they must be the same examples")
        lanes.net.loss.targets(y.reshape(-1, *y.shape[2:]), len(y) * n, k, np.float32)
    for weight in () if lanes.weight is None else _parts(lanes.weight):
        if weight.shape[1] != n:
            raise ValueError(f"weight must have {n} entries a lane, one a row of x; got {weight.shape[1]}")
        check.require("weight", weight, check.is_not_negative, "finite and not negative")
    if lanes.weight is not None:
        empty = np.flatnonzero(~np.asarray((lanes.weight > 0).any(axis=1)))
        if len(empty):
            raise ValueError(f"weight is zero for every example of lane {empty[0]}; at least one must be positive")
    for offset in () if lanes.offset is None else _parts(lanes.offset):
        if offset.shape[1:] != (n, k):
            raise ValueError(f"offset must have the shape of eta, ({n}, {k}), a lane; got {offset.shape[1:]}")
        check.finite("offset", offset)


def _parts(value: Any) -> list[Any]:
    """Some lanes at a time."""
    some = max(1, AT_ONCE // max(1, value[0].size))
    return [value[begin : begin + some] for begin in range(0, len(value), some)]
