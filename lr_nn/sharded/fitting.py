"""Fits on rows over devices, and fits over devices: the solvers of one device, on arrays that lie on many.

The solvers are written on whole arrays; of arrays that lie over a mesh the compiler makes the sums over rows in them
all-reduces.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.fit import check_arguments, choose, convex, one_thread, solved, started
from lr_nn.fit import fit as fit_here
from lr_nn.many import Solutions
from lr_nn.many import fit_many as fit_many_here
from lr_nn.network import Network, admit_offset
from lr_nn.penalties import Penalty
from lr_nn.sharded.mesh import replicated
from lr_nn.sharded.world import agree, digest
from lr_nn.solvers.problem import posed
from lr_nn.types import Batch, Params, Solution, Status

if TYPE_CHECKING:
    from lr_nn.sharded.rows import RowParallel


def fit(
    parallel: RowParallel,
    net: Network,
    x: ArrayLike | Rows,
    y: ArrayLike | None,
    weight: ArrayLike | None,
    offset: ArrayLike | None,
    penalty: Penalty | None,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
) -> Solution:
    """`RowParallel.fit`."""
    check.on_host("fit", (x, y, weight, offset, start, penalty, tol), "lr_nn.solvers.solve")
    check_arguments(net, penalty, solver, tol, dtype)
    max_steps = check.positive_integer("max_steps", max_steps)
    if solver == "closed_form":
        raise ValueError("closed_form takes all rows to one host; over devices use newton or lbfgs")
    penalty = Penalty() if penalty is None else penalty
    agree(
        "the fit",
        network=repr(net),
        settings=[[float(s) for s in penalty], tol, max_steps, solver, str(dtype)],
        start=None if start is None else digest(jax.tree.map(np.asarray, start)),
    )
    work = np.dtype(dtype or np.float64)
    with jax.enable_x64(True), one_thread():
        batch = parallel.place(x if isinstance(x, Rows) else Batch(x, y, weight, offset))
        if not convex(net):
            start = None if start is None else replicated(parallel.mesh, start)
            return fit_here(
                net,
                batch.x,
                batch.y,
                weight=batch.weight,
                offset=batch.offset,
                penalty=penalty,
                start=start,
                tol=tol,
                max_steps=max_steps,
                solver=solver,
                dtype=dtype,
            )
        n, k = len(batch.x), net.sizes[1]
        table = check.table("x", batch.x, net.sizes[0]).astype(work)
        targets = net.loss.targets(batch.y, n, k, work)
        weights = jnp.ones_like(table[:, 0]) if batch.weight is None else check.weights(batch.weight, n, work)
        offsets = None if batch.offset is None else admit_offset(batch.offset, n, k, weights)
        problem, constant, excess = posed(net, table, targets, weights, offsets, penalty)
        theta = constant if start is None else started(problem, start)
        if solver == "auto" and choose(problem)[0] == "closed_form":
            solver = "newton"
        place = partial(replicated, parallel.mesh)
        return solved(problem, place(theta), penalty, tol * excess, max_steps, solver)


def fit_many(parallel: RowParallel, net: Network, x: ArrayLike, y: ArrayLike, **settings: Any) -> Solutions:
    """`RowParallel.fit_many`."""
    own = [device for device in parallel.mesh.devices.flat if device.process_index == jax.process_index()]
    if jax.process_count() == 1:
        return fit_many_here(net, x, y, devices=own, **settings)
    raise NotImplementedError
