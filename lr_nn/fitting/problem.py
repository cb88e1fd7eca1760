"""Data, a network and a penalty as a cost in good coordinates; the best constant model, and what converged means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lr_nn.fitting import terms
from lr_nn.fitting.bounds import diagonal
from lr_nn.fitting.chunks import Chunk, Frame
from lr_nn.fitting.descent import descend
from lr_nn.fitting.directions import LBFGS, Newton
from lr_nn.fitting.linear import Linear
from lr_nn.fitting.opening import Look, looked
from lr_nn.fitting.proximal import Proximal
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Source
from lr_nn.network import Network
from lr_nn.penalties import Penalty, is_tree

__all__ = ["Problem", "achievable", "column_frame", "mean_squares", "posed", "strengths", "with_strengths"]

# Entries beyond are not squared without overflow or underflow.
HUGE, TINY = 1e100, 1e-100


@dataclass(frozen=True)
class Problem:
    """The cost; the best constant model θ, its cost, and `excess`, that above the least that the targets allow.

    `curvature` (k,) is the mean of ∂²ℓ/∂η² at the constant model. `trouble` says why x must be rescaled, if it must.
    """

    objective: Linear
    constant: np.ndarray
    cost: float
    excess: float
    curvature: np.ndarray
    trouble: str = ""


def strengths(net: Network, penalty: Penalty) -> tuple[np.ndarray, np.ndarray]:
    """l1 and l2 of every coefficient, (q, k), zero for biases without strengths of their own."""
    return _of_coefficients(net, penalty.l1), _of_coefficients(net, penalty.l2)


def _of_coefficients(net: Network, strength: Any) -> np.ndarray:
    (d, k), q = net.sizes, net.sizes[0] + net.bias
    found = np.zeros((q, k))
    w, b = strength[0] if is_tree(strength) else (strength, None)
    found[:d] = np.asarray(0.0 if w is None else w, np.float64)
    if b is not None and net.bias:
        found[d] = np.asarray(b, np.float64)
    return found


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def posed(net: Network, source: Source, penalty: Penalty, settings: Settings) -> Problem:
    """Columns and offset are centred where the bias is free, by what some rows say; J₀ is computed from all rows."""
    lasso, ridge = strengths(net, penalty)
    seen = looked(source)
    d, k = net.sizes
    free_bias = bool(net.bias and not (lasso[-1].any() or ridge[-1].any()))
    frame = column_frame(seen, free_bias, net.bias, k, settings)
    few = source.framed(frame).targets()
    totals = _totals(few)
    total = float(totals.total)
    if not total > 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    frame = replace(frame, offset=totals.offset / total if free_bias else np.zeros(k))
    deviation = mean_squares(seen, frame)
    lowest = float(totals.lowest) / total
    objective = Linear(source.framed(frame), total, ridge, lasso, lowest, deviation, np.inf)
    biases = Linear(
        few.framed(replace(few.frame, offset=frame.offset)), total, ridge[d:], lasso[d:], lowest, deviation[d:], np.inf
    )
    constant = _constant(biases, totals, free_bias, settings) if net.bias else np.zeros((0, k))
    point = biases.at(constant, closing=True)
    cost = biases.composite(point)
    excess = cost - lowest
    most = (1 + float(np.maximum(np.abs(totals.most), np.abs(totals.least)).max())) ** 2
    if not excess > np.finfo(float).eps * most:
        far = biases.at(np.zeros_like(constant)).cost - lowest
        reach = 1 + float(np.maximum(np.abs(totals.highest), np.abs(totals.deepest)).max())
        excess = float(achievable(max(excess, 0.0), far, reach))
    theta = np.concatenate([np.zeros((d, k)), constant])
    curvature, coupled = point.closing.curvature, net.loss.couples_outputs
    curvature = np.ones(k) if curvature is None else diagonal(curvature, coupled)
    return Problem(objective, theta, cost, excess, curvature, _trouble(seen))


def with_strengths(net: Network, problem: Problem, penalty: Penalty) -> Problem:
    """The same data with other strengths, those of the bias zero."""
    lasso, ridge = strengths(net, penalty)
    return replace(problem, objective=replace(problem.objective, ridge=ridge, lasso=lasso))


class Totals(NamedTuple):
    """Σ s, Σ s y, Σ s offset, the least Σ s ℓ that targets allow; the largest of y, -y, offset and -offset."""

    total: Any
    y: Any
    offset: Any
    lowest: Any
    most: Any
    least: Any
    highest: Any
    deepest: Any


def _totals(source: Source) -> Totals:
    """Of all rows, without their features."""

    def of(chunk: Chunk) -> Totals:
        y, most, least, lowest = chunk.constants()
        offset = np.zeros((1, chunk.outputs)) if chunk.offset is None else chunk.offset
        total = chunk.weight @ offset if chunk.offset is not None else offset[0]
        return Totals(
            chunk.weight.sum(),
            y,
            total,
            lowest,
            most,
            least,
            np.max(offset, axis=0, initial=-np.inf),
            np.max(-offset, axis=0, initial=-np.inf),
        )

    return source.fold(of, lambda a, b: Totals(*map(np.add, a[:4], b[:4]), *map(np.maximum, a[4:], b[4:])))


def _trouble(seen: Look) -> str:
    """What to do about columns whose squares overflow or underflow."""
    largest = np.maximum(np.maximum(seen.most, seen.least), np.abs(seen.pivot))
    for bad, size in ((largest > HUGE, "large"), ((largest > 0) & (largest < TINY), "small")):
        if bad.any():
            j = int(np.flatnonzero(bad)[0])
            return f"the entries of column {j} are too {size}, {largest[j]:.0e}, to be computed with: rescale it"
    return ""


def mean_squares(seen: Look, frame: Frame) -> np.ndarray:
    """About the mean of x̃², (q,): 1 for the bias."""
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.maximum(seen.squares - seen.mean**2, 0) + (seen.pivot + seen.mean - frame.mean) ** 2
    return np.append(spread, np.ones(int(frame.bias)))


def column_frame(seen: Look, free_bias: bool, bias: bool, k: int, settings: Settings) -> Frame:
    """The frame with the means that are subtracted from the columns."""
    mean = np.zeros_like(seen.pivot)
    if not free_bias:
        return Frame(mean, False, np.zeros(k), bias)
    mean = seen.pivot + np.clip(seen.mean, -seen.least, seen.most)
    width = seen.most + seen.least
    far = bool((np.abs(mean) > settings.far * width).any())
    if not far:  # of columns about zero nothing is gained
        mean = np.where(np.abs(mean) > 0.01 * width, mean, 0)
    return Frame(mean, far, np.zeros(k), bias)


def _constant(biases: Linear, found: Totals, free_bias: bool, settings: Settings) -> np.ndarray:
    """The best biases (1, k) of a model without features, given the offset: not farther out than is finite."""
    loss, far = biases.loss, settings.farthest
    start = np.zeros(biases.shape)
    if loss.states("constant"):
        mean = np.clip(found.y / found.total, -found.least, found.most)
        start = np.asarray(terms.constant(loss, mean))[None]
        start = np.where(np.isfinite(start), start, np.clip(start, -far, far))
        if not biases.source.has_offset and free_bias:
            return start
    # Some rows may have offsets far from those of others: from wherever the cost is the lowest.
    mean = found.offset / found.total
    middle = _middle(biases.source)
    centres = (mean, found.highest, -found.deepest, *middle)
    starts = [start, np.zeros_like(start), *(start + biases.source.frame.offset - centre for centre in centres)]
    points = list(map(biases.at, starts))
    point = min(points, key=lambda point: biases.composite(point) if point.is_finite else np.inf)
    if terms.curves(loss):
        direction: Any = Proximal(biases, settings) if biases.is_sparse else Newton(biases)
    else:
        direction = LBFGS(biases, lambda v: v, settings, scaled=True)
    near = 1e-14 * (1 + abs(point.cost))
    return descend(biases, direction, point, 0.0, int(far), settings, near=near).point.theta


def _middle(source: Source) -> list[np.ndarray]:
    """The median offset of some rows, (1, k), if they have offsets."""
    some = source.some(source.settings.scouted)
    offsets = [chunk.offset for chunk in some.chunks() if chunk.offset is not None]
    return [np.median(np.concatenate(offsets), axis=0, keepdims=True)] if offsets else []


def achievable(excess: ArrayLike, far: ArrayLike, reach: ArrayLike) -> np.ndarray:
    """J₀, or, where a constant model is perfect, what the rounding of an η of such `reach` allows."""
    eps = float(np.finfo(float).eps)
    excess, far, reach = map(np.asarray, (excess, far, reach))
    return np.where(excess <= eps * far, np.maximum(excess, 1e14 * eps**2 * (1 + far) * reach**2), excess)
