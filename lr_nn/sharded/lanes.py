"""Many fits over devices: each takes some of the lanes, and the processes tell each other what they found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from lr_nn import check
from lr_nn.many import Solutions, solutions
from lr_nn.many.lanes import Lanes
from lr_nn.many.settings import Settings
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.sharded.world import agree, exchanged
from lr_nn.types import Batch, Layer, Params

__all__ = ["fit_many"]


def fit_many(net: Network, data: Batch, penalty: Penalty | None, start: Params | None, settings: Settings) -> Solutions:
    """`RowParallel.fit_many`."""
    check.on_host("fit_many", (data, start, penalty, settings.tol), "lr_nn.many.solve")
    lanes = solutions.admit(net, data, penalty, start, settings)
    if jax.process_count() == 1:
        return solutions.solve(lanes, settings)
    agree(
        "the fits",
        network=repr(net),
        lanes=[lanes.m, lanes.n],
        settings=[settings.tol, settings.max_steps, settings.solver, settings.schedule],
    )
    each = -(-lanes.m // jax.process_count())
    ids = np.minimum(jax.process_index() * each + np.arange(each), lanes.m - 1)
    own = {name: lanes.take(name, ids) for name in ("y", "weight", "offset", "penalty", "start")}
    part = replace(lanes, m=each, x=lanes.x if lanes.shares_x else lanes.x[ids], **own)
    return _joined(lanes, exchanged(_arrays(solutions.solve(part, settings))))


def _arrays(found: Solutions) -> dict[str, np.ndarray]:
    """What differs between lanes, and how the lanes were solved."""
    arrays = {name: np.asarray(getattr(found, name)) for name in solutions.COLUMNS}
    arrays["message"] = arrays["message"].astype(str)
    for name, tree in (("params", found.params), ("direction", found.direction)):
        arrays |= {f"{name}{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    return arrays | {"solver": np.array(found.solver), "lane_steps": np.array(found.lane_steps)}


def _joined(lanes: Lanes, parts: list[dict[str, np.ndarray]]) -> Solutions:
    """The lanes of all processes, less those that were solved twice to make parts equal."""
    leaves = len(lanes.net.shapes) * (1 + lanes.net.bias)

    def put(name: str) -> np.ndarray:
        shape = next(part[name].shape[1:] for part in parts if name in part)
        each = [part.get(name, np.zeros((len(part["status"]), *shape))) for part in parts]
        return np.concatenate(each)[: lanes.m]

    def tree(name: str) -> Params:
        each: Any = iter([put(f"{name}{i}") for i in range(leaves)])
        return tuple(Layer(next(each), next(each) if lanes.net.bias else None) for _ in lanes.net.shapes)

    columns: dict[str, Any] = {name: put(name) for name in solutions.COLUMNS}
    return Solutions(
        params=tree("params"),
        direction=tree("direction") if any("direction0" in part for part in parts) else None,
        penalty=lanes.take("penalty", np.arange(lanes.m)),
        solver=str(parts[0]["solver"]),
        lane_steps=sum(int(part["lane_steps"]) for part in parts),
        **columns,
    )
