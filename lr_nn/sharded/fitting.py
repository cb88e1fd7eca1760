"""Fits on rows over devices, and fits over devices: the solvers of one device, on arrays that lie on many.

The solvers are written on whole arrays; of arrays that lie over a mesh the compiler makes the sums over rows in them
all-reduces.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.data.rows import Rows
from lr_nn.fitting import check_arguments, choose, has_certificate, one_thread, solved, started
from lr_nn.fitting import fit as fit_here
from lr_nn.many import Solutions, solutions
from lr_nn.many.lanes import Lanes
from lr_nn.many.run import Settings
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.sharded.mesh import replicated
from lr_nn.sharded.world import agree, digest, exchanged
from lr_nn.solvers.problem import make_problem
from lr_nn.types import Batch, Layer, Params, Solution, Status

if TYPE_CHECKING:
    from lr_nn.sharded.rows import RowParallel


def fit(
    parallel: RowParallel,
    net: Network,
    data: Batch | Rows,
    penalty: Penalty | None,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
) -> Solution:
    """`RowParallel.fit`."""
    check.on_host("fit", (data, start, penalty, tol), "lr_nn.solvers.solve")
    check_arguments(net, penalty, solver, tol, dtype)
    max_steps = check.positive_integer("max_steps", max_steps)
    if solver == "closed_form":
        raise ValueError("closed_form takes all rows to one host; over devices use newton or lbfgs")
    penalty = Penalty() if penalty is None else penalty
    agree(
        "the fit",
        network=repr(net),
        penalty=[float(strength) for strength in penalty],
        settings=[tol, max_steps, solver, str(dtype)],
        start=None if start is None else digest(jax.tree.map(np.asarray, start)),
    )
    work = np.dtype(dtype or np.float64)
    with jax.enable_x64(True), one_thread():
        batch = parallel.place(data)
        if not has_certificate(net):
            start = None if start is None else replicated(parallel.mesh, start)
            return fit_here(
                net, batch, penalty=penalty, start=start, tol=tol, max_steps=max_steps, solver=solver, dtype=dtype
            )
        x, y, weight, offset = admit_rows(net, batch, work)
        x = jnp.asarray(x, work)
        weight = jnp.ones_like(x[:, 0]) if weight is None else weight
        offset = offset[:, None] if offset is not None and offset.ndim == 1 else offset
        problem, constant, excess = make_problem(net, x, y, weight, offset, penalty)
        theta = constant if start is None else started(problem, start)
        if solver == "auto" and choose(problem)[0] == "closed_form":
            solver = "newton"
        place = partial(replicated, parallel.mesh)
        found = solved(problem, place(theta), penalty, tol * excess, max_steps, solver)
        if jax.process_count() > 1 and found.status in (Status.max_steps, Status.rank_deficient):
            unseen = "; of many processes none has all rows, to look whether they are separated"
            found = replace(found, message=found.message + unseen)
        return found


def fit_many(
    parallel: RowParallel,
    net: Network,
    data: Batch,
    penalty: Penalty | None,
    start: Params | None,
    settings: Settings,
) -> Solutions:
    """`RowParallel.fit_many`."""
    check.on_host("fit_many", (data, start, penalty, settings.tol), "lr_nn.solvers.lane.smooth")
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
