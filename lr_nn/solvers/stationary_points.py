"""Fits without convexity: a stationary point, and its status."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike

from lr_nn.admission import admit
from lr_nn.network import Network, check_params, init
from lr_nn.penalties import Penalty
from lr_nn.solvers import run
from lr_nn.solvers.deep import Deep
from lr_nn.types import Batch, Params, Solution, Status

__all__ = ["stationary"]


def stationary(
    net: Network,
    batch: Batch,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
) -> Solution:
    """From `start`, or else `init` with a fixed key, to where the gradient vanishes."""
    work = jnp.dtype(dtype or jnp.float64)
    params = init(net, jax.random.key(0), work) if start is None else start
    check_params(net, params)
    params = jax.tree.map(lambda a: jnp.asarray(a, work), params)
    problem = Deep(admit(net, params, batch), Penalty(jnp.zeros((), work), jnp.asarray(penalty.l2, work)), net)
    theta, unravel = ravel_pytree(params)
    name = "lbfgs" if solver == "auto" else solver
    ceiling = tol**0.5 * abs(float(run.at(problem, theta).cost))
    # The step after the bound is met lowers the cost, and may lengthen the gradient: leave it room.
    found = run.stationary(problem, theta, ceiling / 10, max_steps, solver=name)
    slope = float(jnp.abs(found.point.gradient).max())
    status, message = (
        Status.converged,
        "a stationary point; there is no bound on J - J*, and other starts may end lower",
    )
    if not np.isfinite(float(found.point.cost)):
        status, message = Status.non_finite, "the cost is not finite: look for huge features or a start too far out"
    elif slope > ceiling:
        status, message = (
            Status.max_steps,
            f"an entry of the gradient, {slope:.1e}, is above {ceiling:.1e}: allow more steps",
        )
    return Solution(
        params=jax.tree.map(np.asarray, unravel(found.point.theta)),
        status=status,
        steps=int(found.steps),
        cost=float(found.point.cost),
        gradient_norm=slope,
        certificate=float("inf"),
        penalty=penalty,
        solver=name,
        message=f"{name}: {message}",
    )
