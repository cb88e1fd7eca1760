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

from lr_nn.fitting.chunks import Chunk
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.settings import Settings

__all__ = ["Certificate", "certify", "quick"]

EPS = float(np.finfo(float).eps)


class Certificate(NamedTuple):
    """A bound on J - J*, ∞ where there is none; and the number of directions that change no prediction."""

    bound: float
    flat: int


class Free(NamedTuple):
    """The free coefficients: a bound on J - φ; their Newton step (q, k); how far in the norm of their Hessian the best
    values may be, `distance`, and how much of that is not the Newton step, `rest`; and flat directions.
    """

    bound: float
    step: np.ndarray
    distance: float
    rest: float
    flat: int


def quick(objective: Linear, point: Point) -> float:
    """The bound of the penalties as if the free coefficients were at their best."""
    return _penalised(objective, point, point.gradient, np.zeros(objective.shape))


def certify(objective: Linear, point: Point, settings: Settings) -> Certificate:
    """The best bound that there is at a point, which a closing pass has seen."""
    assert point.closing is not None
    low = objective.composite(point) - objective.lowest
    noise = _rounding(objective, point)
    free = objective.free
    if not free.any():
        return Certificate(min(low, _penalised(objective, point, point.gradient, noise)), 0)
    if point.closing.cross is None:  # convex, and no more is known
        return Certificate(min(low, _by_slopes(objective, point, noise)), 0)
    d = objective.source.features
    cross = None
    if not free[:d].any():
        inner = _of_biases(objective, point, noise)
        cross = point.closing.cross
    elif objective.size <= settings.dense:
        hessian = objective.hessian(point)
        inner = _all_free(objective, point, hessian, noise, settings)
        cross = None
    else:
        flat = max(0, objective.size - objective.source.length * objective.shape[1])
        return Certificate(low, flat if objective.loss.concordance == 0 else 0)
    if free.all():
        return Certificate(min(low, inner.bound), inner.flat)
    gradient = point.gradient.copy()
    if cross is not None:  # to first order, the gradient where the bias is at its best
        gradient = gradient + np.einsum("ajb,b->ja", cross, inner.step[d])
    spread = np.sqrt(np.trace(point.closing.curvature))
    rest = noise + point.closing.extent[:, None] * spread * inner.rest
    if cross is None:
        rest = rest + point.closing.extent[:, None] * spread * (inner.distance - inner.rest)
    bound = inner.bound + _penalised(objective, point, gradient, rest)
    return Certificate(min(low, bound), inner.flat)


def _penalised(objective: Linear, point: Point, gradient: np.ndarray, rest: np.ndarray) -> float:
    """φ - φ* at most, given the gradient of φ up to `rest`: by strong convexity, and by the l1 term where there is no
    ridge: Σ lasso |θ*| ≤ J - the least loss. What is free is at its best.
    """
    s = np.abs(objective.subgradient(_with_gradient(point, gradient))) + rest
    ridge, lasso, free = objective.ridge, objective.lasso, objective.free
    held = ridge > 0
    quadratic = float((s[held] ** 2 / ridge[held]).sum()) / 2
    only = (lasso > 0) & ~held
    least = np.inf
    sparse = lasso > 0
    if sparse.any() and not (held & ~sparse).any():
        above = objective.composite(point) - objective.lowest
        least = float((s * np.abs(point.theta))[sparse].sum()) + float((s[sparse] / lasso[sparse]).max()) * above
    if not only.any():
        return min(quadratic, least)
    above = objective.composite(point) - objective.lowest
    linear = float((s * np.abs(point.theta))[only].sum()) + float((s[only] / lasso[only]).max()) * above
    assert (held | only | free).all()
    return min(quadratic + linear, least)


def _with_gradient(point: Point, gradient: np.ndarray) -> Point:
    return Point(point.theta, point.cost, gradient)


def _rounding(objective: Linear, point: Point) -> np.ndarray:
    """What every entry of the gradient may be wrong by, (q, k): η by products of d numbers, sums over rows by theirs.

    Higham (2002), section 3.1.
    """
    q, closing = objective.shape[0], point.closing
    assert closing is not None
    frame, d = objective.source.frame, objective.source.features
    size = closing.extent @ np.abs(point.theta)
    if frame.shift is not None:
        size = size + np.abs(frame.mean) @ np.abs(point.theta[:d])
    eta = EPS * (8 + np.sqrt(q)) * size
    curvature = np.zeros_like(closing.slopes) if closing.cross is None else np.diagonal(closing.curvature)
    reach = closing.extent.copy()
    if frame.shift is not None:
        reach[:d] += np.abs(frame.mean)
    return reach[:, None] * (8 * EPS * closing.slopes + eta * curvature)[None]


def _of_biases(objective: Linear, point: Point, noise: np.ndarray) -> Free:
    """The biases alone, whose Hessian is Σ s ∂²ℓ/∂η²."""
    k, hessian = objective.shape[1], point.closing.curvature
    gradient, error = point.gradient[-1], noise[-1]
    if objective.shifts[-1]:
        hessian = hessian + np.full((k, k), np.trace(hessian) / k / k)
    step = np.zeros(objective.shape)
    try:
        lower = cholesky(hessian, lower=True)
    except (LinAlgError, ValueError):
        return Free(np.inf, step, np.inf, np.inf, 0)
    inverse = solve_triangular(lower, np.eye(k), lower=True)
    decrement = np.linalg.norm(inverse @ gradient) + np.linalg.norm(np.abs(inverse) @ error)
    step[-1] = -inverse.T @ (inverse @ gradient)
    reach = np.sqrt((inverse**2).sum(axis=0).max() if not objective.loss.couples_outputs else (inverse**2).sum())
    return _local(decrement, objective.loss.concordance * reach, step, 0)


def _local(decrement: float, m: float, step: np.ndarray, flat: int) -> Free:
    """½ e^u δ² for the smallest u = 2 δ M e^u, come to from above; ∞ where there is none below one.

    Within ‖h‖_H ≤ ρ every η_i moves by at most ρ M / c, so the Hessian stays above e^{-ρM} H; if ρ = 2 δ e^{ρM} has
    a solution, J is larger than here on the boundary, and the minimum lies inside. There ‖h* - h‖ ≤ (e^u - 1) ρ.
    """
    if not 2 * decrement * m * np.e < 1:
        return Free(np.inf, step, np.inf, np.inf, flat)
    u = 1.0
    for _ in range(6):
        u = 2 * decrement * m * np.exp(u)
    distance = 2 * decrement * np.exp(u)
    rest = 2 * np.expm1(u) * distance if m > 0 else 0.0
    return Free(float(np.exp(u) * decrement**2 / 2), step, distance, rest, flat)


def _all_free(objective: Linear, point: Point, hessian: np.ndarray, noise: np.ndarray, settings: Settings) -> Free:
    """All free coefficients by their part of the Hessian, which is factored, or decomposed where that fails."""
    free = objective.blocks(objective.free)
    gradient, error = objective.blocks(point.gradient), objective.blocks(noise)
    inputs = objective.blocks(np.broadcast_to(point.closing.extent[:, None], objective.shape))
    shifts = objective.blocks(
        np.broadcast_to((objective.shifts & objective.free.all(axis=1))[:, None], objective.shape)
    )
    decrement, m, flat, sure = 0.0, 0.0, 0, True
    for block, chosen, g, e, reach, shift in zip(hessian, free, gradient, error, inputs, shifts):
        if not chosen.any():
            continue
        part = block[np.ix_(chosen, chosen)]
        if shift.any():
            part = part + _along_shifts(part, shift[chosen], objective.shape[1])
        one = _factored(part, g[chosen], e[chosen], reach[chosen], settings)
        if one is None:
            one = _decomposed(objective, part, g[chosen], e[chosen], reach[chosen], chosen, settings)
        decrement = np.hypot(decrement, one[0])
        m, flat, sure = max(m, one[1]), flat + one[2], sure and one[3]
    step = np.zeros(objective.shape)
    if not sure:
        return Free(np.inf, step, np.inf, np.inf, flat)
    return _local(decrement, objective.loss.concordance * m, step, flat)


def _along_shifts(part: np.ndarray, shift: np.ndarray, k: int) -> np.ndarray:
    """A curvature along a number common to the outputs of a row, which changes nothing."""
    rows = np.where(shift.reshape(-1, k).all(axis=1), np.diagonal(part).reshape(-1, k).mean(axis=1), 0)
    return np.kron(np.diag(rows), np.full((k, k), 1 / k))


Local = tuple[float, float, int, bool]


def _factored(part, gradient, error, reach, settings: Settings) -> Local | None:
    """The decrement, M/c, flat directions, and whether they are known, of a Hessian that is surely definite."""
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
    return float(decrement), float(np.linalg.norm(scale * reach) * np.sqrt(size)), 0, True


def _decomposed(objective: Linear, part, gradient, error, reach, chosen, settings: Settings) -> Local:
    """The same by eigenvalues: directions without curvature must change no prediction, and are counted."""
    if not np.isfinite(part).all():
        return 0.0, 0.0, 0, False
    diagonal = np.diagonal(part)
    scale = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
    values, vectors = np.linalg.eigh(scale[:, None] * part * scale[None])
    keep = values > 8 * len(values) * EPS * values[-1]
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
    return float(decrement), lengths / np.sqrt(least), int((~keep).sum()), truly


def _moved(objective: Linear, directions: np.ndarray) -> float:
    """The most by which some η moves along directions of one block: (q, m), or (q k, m)."""
    q, k = objective.shape
    coupled = objective.loss.couples_outputs
    each = directions.reshape(q, k, -1).reshape(q, -1) if coupled else directions

    def most(chunk: Chunk) -> np.ndarray:
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
            return float(slope @ width) + _penalised(objective, point, point.gradient, rest)
        width = 32 * width
    return np.inf


def _biased(theta: np.ndarray, by: np.ndarray) -> np.ndarray:
    moved = theta.copy()
    moved[-1] += by
    return moved
