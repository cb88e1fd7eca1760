"""What a search has come to, in words: status, advice and parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lr_nn.fitting import separation
from lr_nn.fitting.certificate import Certificate
from lr_nn.fitting.chunks import Chunk, Frame
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.settings import Settings
from lr_nn.penalties import Penalty
from lr_nn.types import Layer, Params, Solution, Status

# Columns are named as dependent up to such an eigenvalue of their correlations.
NEARLY = 1e-10
# Of more dependent columns no groups are named.
MANY = 100

__all__ = ["Search", "centred", "inward", "outward", "solution"]


class Search(NamedTuple):
    """Who searched and why, how many steps were allowed, and whether the start was somebody's choice."""

    solver: str
    why: str
    max_steps: int
    started: bool


def outward(frame: Frame, theta: np.ndarray, dtype: Any) -> Params:
    """θ (q, k) as parameters of the rows as they came."""
    d = len(frame.mean)
    w: Any = theta[:d]
    b: Any = (theta[d] - frame.mean @ w - frame.offset).astype(dtype) if frame.bias else None
    return (Layer(w.astype(dtype), b),)


def centred(params: Params, shifts: np.ndarray) -> Params:
    """Parameters whose rows sum to zero over outputs where a number common to these changes nothing."""
    (layer,) = params
    w: Any = layer.w - np.where(shifts[: len(layer.w), None], layer.w.mean(axis=1, keepdims=True), 0).astype(
        layer.w.dtype
    )
    b: Any = layer.b
    if b is not None and shifts[-1]:
        b = b - b.mean(dtype=b.dtype)
    return (Layer(w, b),)


def inward(frame: Frame, params: Params) -> np.ndarray:
    """The inverse of `outward`, in float64."""
    w = np.asarray(params[0].w, np.float64)
    if params[0].b is None:
        return w
    b = np.asarray(params[0].b, np.float64)
    return np.concatenate([w, (b + frame.mean @ w + frame.offset)[None]])


def solution(
    objective: Linear,
    point: Point,
    certificate: Certificate,
    steps: int,
    search: Search,
    penalty: Penalty,
    dtype: np.dtype,
    settings: Settings,
) -> Solution:
    """Status, message and parameters."""
    free_rows = np.asarray(objective.free.all(axis=1))
    unpenalised = bool(objective.free[: objective.source.features].any())
    bound, ceiling, direction = certificate.bound, objective.ceiling, None
    flat = certificate.flat if unpenalised else 0
    if point.is_finite and bound > ceiling and free_rows.any():
        direction, decided = _recession(objective, free_rows)
        if decided and direction is None and not flat:  # J has a minimum
            bound = certificate.low if certificate.low <= ceiling else bound
    if not point.is_finite:
        status, advice = Status.non_finite, "the cost is not finite: look for huge features, offsets or counts"
    elif direction is not None:
        null = _null(objective)
        direction = (
            direction if null.shape[1] > MANY else separation.sparsest(direction, null, _units(objective, point))
        )
        status = Status.separated
        advice = f"the likelihood has no maximum: it grows along {_named(direction)}"
        advice += f"; besides, {null.shape[1]} directions change no prediction{_groups(objective, point)}" * bool(
            null.size
        )
    elif flat and (bound <= ceiling or (not certificate.sure and steps < search.max_steps)):
        status = Status.rank_deficient
        what = "no prediction" if bound <= ceiling else "predictions too little to be told"
        advice = f"{flat} directions change {what}{_groups(objective, point)}: drop columns, or add a penalty"
    elif bound <= ceiling:
        status, advice = Status.converged, ""
    else:
        status, advice = Status.max_steps, _missed(objective, bound, steps, search, settings)
        advice += f"; {flat} directions change no prediction{_groups(objective, point)}" if flat else ""
    frame = objective.source.frame
    params = outward(frame, point.theta, dtype)
    if dtype == np.float64:  # those of float32 were centred before they were certified
        params = centred(params, objective.shifts)
    return Solution(
        params=params,
        status=status,
        steps=steps,
        cost=objective.composite(point),
        gradient_norm=float(np.abs(objective.subgradient(point)).max()),
        certificate=float(bound),
        penalty=penalty,
        solver=search.solver,
        message=f"{search.solver}: {_why(objective, search)}" + (f"; {advice}" if advice else ""),
        direction=None if direction is None else _as_params(direction, frame, dtype),
    )


def _why(objective: Linear, search: Search) -> str:
    """Why the solver was chosen, and how often a file was read."""
    source = objective.source
    if source.rows is None:
        return search.why
    passes = f"{source.log['passes']} passes of blocks of {source.block}"
    return f"{objective.size} parameters and {source.length} rows, {passes}"


def _missed(objective: Linear, bound: float, steps: int, search: Search, settings: Settings) -> str:
    """Why the certificate was not met, and what to do."""
    if objective.source.shared:
        return (
            f"the bound {bound:.1e} is above {objective.ceiling:.1e}: allow more steps; of many processes none has all "
            "rows, to look whether they are separated"
        )
    said = f"the bound {bound:.1e} is above {objective.ceiling:.1e}: "
    if search.started and steps >= search.max_steps:
        return said + "allow more steps, or start elsewhere"
    if steps >= search.max_steps:
        return said + "allow more steps"
    if np.isinf(bound) and objective.free.any() and objective.size > settings.dense:
        return "without a penalty there is no bound on what is missing for so many parameters"
    return said + "rounding allows no more, raise tol"


def _recession(objective: Linear, free: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """A direction (q, k) of the coefficients without a penalty along which no example grows less likely, None if there
    is none; and whether that could be decided.
    """
    loss, source = objective.loss, objective.source
    if source.shared or not loss.states("recession"):
        return None, False

    def rows(chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        chunk = chunk.fetched()
        counts = chunk.weight > 0
        x = np.asarray(chunk.x, np.float64)[counts]
        inputs = np.concatenate([x, np.ones((len(x), int(source.frame.bias)))], axis=1)[:, free]
        return inputs, chunk.encoded()[counts]

    if loss.recession(np.zeros((1, objective.shape[1]))) is None:
        return None, True
    few = source.some(min(source.length, separation.ROWS))
    inputs, y = (np.concatenate(each) for each in zip(*few.each(rows)))
    try:
        found = separation.over(loss, inputs, y, lambda: source.each(rows))
    except separation.UndecidedError:
        return None, False
    if found is None:
        return None, True
    direction = np.zeros((len(free), found.shape[1]))
    direction[free] = found
    return direction, True


def _null(objective: Linear) -> np.ndarray:
    """The directions (q, m) of the rows of θ, as they came, that change no prediction."""
    null, frame = objective.dependent(NEARLY), objective.source.frame
    if frame.bias:
        null[-1] -= frame.mean @ null[: len(frame.mean)]
    return null


def _units(objective: Linear, point: Point) -> np.ndarray:
    """The size of the columns of x as they came, (q,)."""
    frame = objective.source.frame
    sizes = point.closing.extent.copy()
    sizes[: len(frame.mean)] += np.abs(frame.mean)
    return np.maximum(sizes, np.finfo(float).tiny)


def _groups(objective: Linear, point: Point) -> str:
    """The collinear columns in words, in brackets."""
    d, null = len(objective.source.frame.mean), _null(objective)
    if null.shape[1] > MANY:
        return ""
    groups = [_runs(group, d) for group in separation.groups(null, _units(objective, point))]
    if any(len(runs) > 10 for runs in groups):
        return ""
    some = "; ".join(" and ".join(runs) for runs in groups[:10]) + ("; ..." if len(groups) > 10 else "")
    return f" (columns {some})" if some else ""


def _runs(group: list[int], d: int) -> list[str]:
    """Columns in words, those that follow one another as one, and the bias."""
    runs: list[list[int]] = []
    for j in group:
        if runs and j == runs[-1][-1] + 1 < d:
            runs[-1].append(j)
        elif j < d:
            runs.append([j])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return [*words, *(["the bias"] if group[-1] == d else [])]


def _named(direction: np.ndarray) -> str:
    """The coefficients that a direction moves."""
    moved = np.argwhere(np.abs(direction) > 1e-6 * np.abs(direction).max())[:10]
    return ", ".join(f"coefficient {row} of output {column}" for row, column in moved)


def _as_params(direction: np.ndarray, frame: Frame, dtype: Any) -> Params:
    d = len(frame.mean)
    w: Any = direction[:d].astype(dtype)
    b: Any = direction[d].astype(dtype) if frame.bias else None
    return (Layer(w, b),)
