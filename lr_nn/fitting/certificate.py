"""How far from the optimum at most: a bound on J(θ) - J*, from convexity, computed in float64 from sums of one pass.

Coefficients without a penalty are *free*. Let φ be J minimised over them. The gap is J - φ, which their Hessian
bounds, and φ - φ*, which the penalties of the others bound, by the gradient of φ.

Both steps rest on |D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u], c the loss's `concordance` (Bach, 2010): where no η_i moves by
more than r along h, the Hessian along h stays within e^{-cr} and e^{cr} of what it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from lr_nn.fitting import bounds
from lr_nn.fitting.bounds import diagonal
from lr_nn.fitting.chunks import Chunk
from lr_nn.fitting.directions import ridged
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.settings import Settings

__all__ = ["Certificate", "certify"]

EPS = float(np.finfo(float).eps)


class Certificate(NamedTuple):
    """A bound on J - J*, ∞ where there is none; the number of directions that change no prediction, and whether that is
    `sure`, or what rounding lets one say; and `low`, J less the least that the targets allow, which is a bound too,
    also where J has no minimum.
    """

    bound: float
    flat: int
    low: float
    sure: bool = True


class Free(NamedTuple):
    """The free coefficients: a bound on J - φ; their Newton step (q, k); how much of the way to their best values is
    not that step, `rest`, in the norm of their Hessian; and flat directions.
    """

    bound: float
    step: np.ndarray
    rest: float
    flat: int
    sure: bool = True


def certify(objective: Linear, point: Point, settings: Settings) -> Certificate:
    """The best bound that there is at a point, which a closing pass has seen."""
    assert point.closing is not None
    low = max(objective.composite(point) - objective.lowest, 0.0) + 8 * EPS * abs(objective.lowest)
    loss = objective.loss
    attained = not objective.free.any()
    attained |= loss.states("recession") and loss.recession(np.zeros((1, objective.shape[1]))) is None
    with np.errstate(over="ignore", invalid="ignore"):
        bound, flat, sure = _bound(objective, point, settings)
        bound += _of_the_rounded_parameters(objective, point)
    bound = np.inf if np.isnan(bound) else bound
    return Certificate(min(bound, low) if attained and low <= objective.ceiling else bound, flat, low, sure)


def _bound(objective: Linear, point: Point, settings: Settings) -> tuple[float, int, bool]:
    """By the penalties and the free coefficients; where that is too much, by the whole Hessian."""
    free, noise, closing = objective.free, _rounding(objective, point), point.closing
    bound, flat, sure = np.inf, 0, True
    d, dense = objective.source.features, objective.size <= settings.dense
    if not free.any():
        bound = objective.penalty_bound(point, point.gradient, noise)
    if closing.cross is None or objective.loss.concordance == np.inf:  # convex, and no more is known
        return (_by_slopes(objective, point, noise) if free.any() else bound), 0, True
    if not free.any():
        pass
    elif not free[:d].any() and free[-1].all():
        coupled, shifts = objective.loss.couples_outputs, bool(objective.shifts[-1])
        given = point.gradient[-1], noise[-1], closing.curvature
        biases = bounds.bias_bound(*given, coupled, shifts, objective.loss.concordance)
        moved = closing.curvature, closing.cross, closing.extent
        gradient, rest = bounds.at_best_bias(point.gradient, *moved, biases, coupled)
        bound = float(biases.bound) + objective.penalty_bound(point, gradient, noise + rest)
    elif dense and not free.all():
        hessian = objective.hessian(point)
        inner = _of_block(objective, point, hessian, free, noise, settings)
        bent = objective.unblocked(np.einsum("bij,bj->bi", hessian, objective.blocks(inner.step)))
        trace = diagonal(closing.curvature, objective.loss.couples_outputs).sum()
        rest = noise + closing.extent[:, None] * np.sqrt(trace) * inner.rest
        bound, flat = inner.bound + objective.penalty_bound(point, point.gradient + bent, rest), inner.flat
        sure = inner.sure
    if not bound <= objective.ceiling and dense:
        inner = _of_block(objective, point, objective.hessian(point), np.ones_like(free), noise, settings)
        bound, flat, sure = float(np.fmin(bound, inner.bound)), inner.flat, inner.sure
    elif not dense and free.all() and objective.loss.concordance == 0:
        flat = max(0, objective.size - objective.source.total_rows * objective.shape[1])
    return bound, flat, sure


def _of_the_rounded_parameters(objective: Linear, point: Point) -> float:
    """A bound on the increase of J by rounding the parameters when they are taken back to uncentred columns."""
    frame, closing = objective.source.frame, point.closing
    moved = np.zeros(objective.shape[1])
    if frame.bias:
        moved = 2 * EPS * (np.abs(frame.mean) @ np.abs(point.theta[:-1]) + np.abs(frame.offset))
    if objective.shifts.any():  # less their means over outputs
        moved = moved + EPS * (np.sqrt(objective.deviation) @ np.abs(point.theta))
    elif not frame.bias:
        return 0.0
    if closing.curvature is None:
        return float(moved @ closing.slopes)
    along = float(moved @ np.abs(point.gradient[-1])) + 2 * EPS * float(np.abs(point.gradient * point.theta).sum())
    growth = np.exp(min(objective.loss.concordance, 1e3) * np.linalg.norm(moved))
    return along + float(growth * (moved**2 @ diagonal(closing.curvature, objective.loss.couples_outputs)))


def _rounding(objective: Linear, point: Point) -> np.ndarray:
    """What every entry of the gradient may be wrong by, (q, k)."""
    closing, frame, coupled = point.closing, objective.source.frame, objective.loss.couples_outputs
    size = np.sqrt(objective.deviation)
    if frame.shift is not None:
        size[: len(frame.mean)] += np.abs(frame.mean)
    curvature = 0.0 if closing.curvature is None else diagonal(closing.curvature, coupled)
    return bounds.rounding(point.theta, size, closing.slopes, curvature, objective.source.total_rows, coupled)


def _local(decrement: float, m: float, step: np.ndarray, flat: int) -> Free:
    bound, rest = bounds.newton_bound(np.asarray(decrement), np.asarray(m))
    return Free(float(bound), step, float(rest) if m > 0 else 0.0, flat)


def _of_block(
    objective: Linear, point: Point, hessian: np.ndarray, chosen: np.ndarray, noise: np.ndarray, settings: Settings
) -> Free:
    """The `chosen` coefficients by their part of the Hessian, which is factored, or decomposed where that fails."""
    free = objective.blocks(chosen)
    gradient, error = objective.blocks(objective.subgradient(point)), objective.blocks(noise)
    inputs = objective.blocks(np.broadcast_to(point.closing.extent[:, None], objective.shape))
    loose = objective.shifts & chosen.all(axis=1) & (objective.ridge == 0).all(axis=1)
    shifts = objective.blocks(np.broadcast_to(loose[:, None], objective.shape))
    decrement, m, flat, sure = 0.0, 0.0, 0, True
    steps, held = np.zeros_like(gradient), objective.blocks(objective.ridge)
    for number, (block, own, g, e, reach, shift) in enumerate(zip(hessian, free, gradient, error, inputs, shifts)):
        if not own.any():
            continue
        part = block[np.ix_(own, own)]
        if shift.any():
            part = part + _along_shifts(part, own, shift, objective.shape[1])
        one = _factored(part, g[own], e[own], reach[own], settings)
        if one is None:
            one = _decomposed(objective, part, g[own], e[own], reach[own], own, held[number][own], settings)
        decrement = np.hypot(decrement, one[0])
        m, flat, sure = max(m, one[1]), flat + one[2], sure and one[3]
        steps[number][own] = one[4]
    step = objective.unblocked(steps)
    if not sure:  # the curvature has died out: whether columns depend on one another they say themselves
        outputs = objective.shape[1] - objective.loss.shift_invariant
        flat = objective.dependent(8 * objective.shape[0] * EPS).shape[1] * outputs
        return Free(np.inf, step, np.inf, flat, sure=False)
    return _local(decrement, objective.loss.concordance * m, step, flat)


def _along_shifts(part: np.ndarray, chosen: np.ndarray, shift: np.ndarray, k: int) -> np.ndarray:
    """A curvature along a number common to the outputs of a row, which changes nothing."""
    found, rows = np.zeros_like(part), np.flatnonzero(chosen) // k
    for row in np.unique(np.flatnonzero(shift) // k):
        own = np.flatnonzero(rows == row)
        found[np.ix_(own, own)] = np.diagonal(part)[own].mean() / k
    return found


Local = tuple[float, float, int, bool, np.ndarray]


def _factored(part, gradient, error, reach, settings: Settings) -> Local | None:
    """Of a Hessian that is surely definite: the decrement, M/c, flat directions, whether they change no prediction, and
    the Newton step.
    """
    diagonal = np.diagonal(part)
    if not (np.isfinite(part).all() and (diagonal > 0).all()):
        return None
    scale = 1 / np.sqrt(diagonal)
    try:
        lower = cholesky(scale[:, None] * part * scale[None], lower=True, check_finite=False)
    except LinAlgError:
        return None
    inverse = solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False)
    size = float((inverse**2).sum())
    if not size * len(lower) * EPS < settings.singular:
        return None
    decrement = np.linalg.norm(inverse @ (scale * gradient)) + np.sqrt(size) * np.linalg.norm(scale * error)
    step = -scale * (inverse.T @ (inverse @ (scale * gradient)))
    return float(decrement), float(np.linalg.norm(scale * reach) * np.sqrt(size)), 0, True, step


def _decomposed(objective: Linear, part, gradient, error, reach, chosen, ridge, settings: Settings) -> Local:
    """The same by eigenvalues: directions without curvature must change no prediction, and are counted."""
    if not np.isfinite(part).all():
        return 0.0, 0.0, 0, False, np.zeros_like(gradient)
    diagonal = np.diagonal(part)
    scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
    values, vectors, keep = ridged(*np.linalg.eigh(scale[:, None] * part * scale[None]), scale**2 * ridge)
    least = values[keep].min() if keep.any() else 1.0
    turned = vectors.T @ (scale * gradient)
    decrement = np.sqrt((turned[keep] ** 2 / values[keep]).sum()) + np.linalg.norm(scale * error) / np.sqrt(least)
    lengths = float(np.linalg.norm(scale * reach))
    flat = np.zeros((len(chosen), int((~keep).sum())))
    flat[chosen] = scale[:, None] * vectors[:, ~keep]
    moved = _moved(objective, flat)
    # Where the curvature vanishes no η may move: else the minimum may be far away, or at infinity. A curvature below
    # what numbers can say is none; its gradient must be none too.
    truly = moved <= settings.still * max(lengths, np.finfo(float).tiny)
    truly = truly and bool(((scale > 0) | (np.abs(gradient) <= error)).all())
    step = -scale * (vectors[:, keep] @ (turned[keep] / values[keep]))
    return float(decrement), lengths / np.sqrt(least), int((~keep).sum()), truly, step


def _moved(objective: Linear, directions: np.ndarray) -> float:
    """The most by which some η moves along directions of one block: (q, m), or (q k, m)."""
    q, k = objective.shape
    coupled = objective.loss.couples_outputs
    each = directions.reshape(q, k, -1).reshape(q, -1) if coupled else directions

    def most(chunk: Chunk) -> np.ndarray:
        chunk = chunk.fetched()
        x = chunk.inputs
        found = x @ each[: x.shape[1]]
        shift = chunk.frame.shift
        if shift is not None:
            found = found - (shift @ each[: x.shape[1]])[None]
        if chunk.frame.bias:
            found = found + each[-1:]
        return np.abs(found).max(initial=0.0)

    return float(objective.source.fold(most, np.maximum))


def _by_slopes(objective: Linear, point: Point, noise: np.ndarray) -> float:
    """The bound of a convex loss of which no curvature is known, with free biases: these by their slopes on two sides.

    The residuals of a loss that is a sum over outputs all move one way with its bias: their changes add up to that
    of the slope.
    """
    d = objective.source.features
    if objective.free[:d].any() or objective.loss.couples_outputs:
        return np.inf
    slope = np.abs(point.gradient[-1]) + noise[-1]
    width = 1e-9 * (1 + np.abs(point.theta[-1]))
    for _ in range(8):
        sides = [objective.at(_biased(point.theta, sign * width)).gradient[-1] for sign in (-1, 1)]
        if (sides[0] <= -noise[-1]).all() and (sides[1] >= noise[-1]).all():
            rest = noise + point.closing.extent[:, None] * slope[None]
            return float(slope @ width) + objective.penalty_bound(point, point.gradient, rest)
        width = 32 * width
    return np.inf


def _biased(theta: np.ndarray, by: np.ndarray) -> np.ndarray:
    moved = theta.copy()
    moved[-1] += by
    return moved
