"""What a search has come to, in words: status, advice and parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.penalties import Penalty
from lr_nn.solvers import run, separation
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.proximal import WHOLE
from lr_nn.types import Params, Solution, Status

__all__ = ["recession", "solution", "spread"]


def solution(
    found: run.Found,
    penalty: Penalty,
    name: str,
    why: str,
    ceiling: float,
    dtype: np.dtype,
    most: int,
    recession: Callable[[np.ndarray], np.ndarray | None],
) -> Solution:
    """Status, message and parameters; `recession` looks for a direction (q, k) that moves the `free` rows of θ only."""
    problem, point = found.objective, found.point
    unpenalised = float(problem.l1) == 0 == float(problem.l2)
    free = np.full(problem.net.sizes[0] + problem.net.bias, unpenalised)
    free[problem.net.sizes[0] :] = True  # no penalty holds the bias
    direction = None
    if not np.isfinite(found.cost):
        status, advice = Status.non_finite, "the cost is not finite: look for huge features, offsets or counts"
    elif not found.bound <= ceiling:
        direction = recession(free) if free.any() else None
        what = "allow more steps" if found.steps >= most else "rounding allows no more, raise tol"
        status, advice = Status.max_steps, f"the bound {found.bound:.1e} is above {ceiling:.1e}: {what}"
        if found.flat and unpenalised:
            status = Status.rank_deficient
            advice = f"{found.flat} directions change predictions too little to be told: drop columns, or add a penalty"
        elif np.isinf(found.bound) and unpenalised and point.theta.size > WHOLE:
            advice = "without a penalty there is no bound on what is missing for so many parameters"
        if direction is not None:
            status, advice = Status.separated, f"the likelihood has no maximum: it grows along {_named(direction)}"
    elif found.flat and unpenalised:
        status = Status.rank_deficient
        advice = f"{found.flat} directions change no prediction: drop columns, or add a penalty"
    else:
        status, advice = Status.converged, ""
    return Solution(
        params=_host(problem, point.theta, dtype),
        status=status,
        steps=found.steps,
        cost=found.cost,
        gradient_norm=found.gradient_norm,
        certificate=found.bound,
        penalty=penalty,
        solver=name,
        message=f"{name}: {why}" + (f"; {advice}" if advice else ""),
        direction=None if direction is None else _host(problem, direction.reshape(-1), dtype),
    )


def recession(problem: OneLayer, free: np.ndarray) -> np.ndarray | None:
    """A direction (q, k) of the coefficients without a penalty along which no example grows less likely."""
    if not check.is_concrete(problem.x):  # no host has all rows
        return None
    counted = np.asarray(problem.share) > 0
    inputs, y = np.asarray(problem.inputs())[counted], np.asarray(problem.y)[counted]
    return spread(separation.recession_direction(problem.net.loss, inputs[:, free], y), free)


def spread(found: np.ndarray | None, free: np.ndarray) -> np.ndarray | None:
    """A direction of the free rows of θ as one of all."""
    if found is None:
        return None
    direction = np.zeros((len(free), found.shape[1]))
    direction[free] = found
    return direction


def _named(direction: np.ndarray) -> str:
    """The coefficients that a direction moves."""
    moved = np.argwhere(np.abs(direction) > 1e-6 * np.abs(direction).max())[:10]
    return ", ".join(f"coefficient {row} of output {column}" for row, column in moved)


def _host(problem: OneLayer, theta: ArrayLike, dtype: np.dtype) -> Params:
    """θ as parameters, in NumPy."""
    return (problem.split(np.asarray(theta, dtype)),)
