"""Data, a network and a penalty as a cost in good coordinates; the best constant model, and what converged means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from lr_nn.fitting import terms
from lr_nn.fitting.chunks import Frame
from lr_nn.fitting.descent import descend
from lr_nn.fitting.directions import LBFGS, Newton
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.sample import diagonal
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Look, Source, look, looked, refuse_what_is_not_finite
from lr_nn.network import Network
from lr_nn.penalties import Penalty, is_tree

__all__ = ["Problem", "posed", "strengths"]

# Entries beyond are not squared without overflow or underflow.
HUGE, TINY = 1e100, 1e-100


@dataclass(frozen=True)
class Problem:
    """The cost, the best constant model as a point of it, and `excess`: J₀ above the least that the targets allow.

    `trouble` says why the numbers of x cannot be computed with, if they cannot.
    """

    objective: Linear
    constant: Point
    excess: float
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


def posed(net: Network, source: Source, penalty: Penalty, settings: Settings, known: Look | None = None) -> Problem:
    """The first passes: the data are looked at, columns and offset centred where the bias is free, J₀ computed."""
    lasso, ridge = strengths(net, penalty)
    found = source.fold(look, looked) if known is None else known
    if not found.total > 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    if not (np.isfinite(found.most_x).all() and np.isfinite(found.least_x).all()):
        refuse_what_is_not_finite(source)
    d, k = net.sizes
    free_bias = bool(net.bias and not (lasso[-1].any() or ridge[-1].any()))
    largest = np.maximum(found.most_x, found.least_x)
    trouble = _trouble(largest)
    frame = _frame(found, free_bias, net.bias, settings)
    centred = np.maximum(found.most_x - frame.mean, found.least_x + frame.mean)
    extent = np.append(centred, np.ones(int(net.bias)))
    lowest = float(found.lowest) / float(found.total)
    objective = Linear(source.framed(frame), float(found.total), ridge, lasso, lowest, extent, np.inf)
    theta = np.zeros((d + net.bias, k))
    if net.bias:
        theta[d] = _constant(objective, found, free_bias, settings)
    point = objective.at(theta)
    excess = point.cost - lowest
    most = (1 + float(np.maximum(np.abs(found.most_y), np.abs(found.least_y)).max())) ** 2
    if not excess > np.finfo(float).eps * most:
        far = objective.at(np.zeros_like(theta)).cost - lowest
        excess = _achievable(max(excess, 0.0), far)
    return Problem(objective, point, excess, trouble)


def _trouble(largest: np.ndarray) -> str:
    """What to do about columns whose squares overflow or underflow."""
    for bad, size in ((largest > HUGE, "large"), ((largest > 0) & (largest < TINY), "small")):
        if bad.any():
            j = int(np.flatnonzero(bad)[0])
            return f"the entries of column {j} are too {size}, {largest[j]:.0e}, to be computed with: rescale it"
    return ""


def _frame(found: Look, free_bias: bool, bias: bool, settings: Settings) -> Frame:
    k = len(found.y)
    if not free_bias:
        return Frame(np.zeros_like(found.most_x), False, np.zeros(k), bias)
    mean = np.clip(found.x / found.total, -found.least_x, found.most_x)
    width = found.most_x + found.least_x
    far = bool((np.abs(mean) > settings.far * width).any())
    if not far:  # of columns about zero nothing is gained
        mean = np.where(np.abs(mean) > 0.01 * width, mean, 0)
    return Frame(mean, far, found.offset / found.total, bias)


def _constant(objective: Linear, found: Look, free_bias: bool, settings: Settings) -> np.ndarray:
    """The best biases (k,) of a model without features, given the offset: not farther out than is finite."""
    loss, source = objective.loss, objective.source
    k, far = objective.shape[1], settings.farthest
    mean = np.clip(found.y / found.total, -found.least_y, found.most_y)
    start = np.zeros(k)
    if loss.states("constant"):
        with jax.enable_x64(True):
            start = np.asarray(terms.constant(loss, mean))
        start = np.where(np.isfinite(start), start, np.clip(start, -far, far))
        if not source.has_offset and free_bias:
            return start
    d = source.net.sizes[0]
    few = replace(
        objective,
        source=source.columns(np.zeros(0, int)),
        ridge=objective.ridge[d:],
        lasso=np.zeros_like(objective.lasso[d:]),
        extent=objective.extent[d:],
    )
    point = few.at(start[None])
    if terms.curves(loss):
        direction: Any = Newton(few)
    else:
        direction = LBFGS(few, diagonal(few, start[None]), settings, scaled=True)
    near = 1e-14 * (1 + abs(point.cost))
    return np.clip(descend(few, direction, point, 0.0, int(far), settings, near=near).point.theta[0], -1e300, 1e300)


def _achievable(excess: float, far: float) -> float:
    """J₀, or, where a constant model is perfect, what rounding allows: the square of its errors."""
    eps = float(np.finfo(float).eps)
    return max(excess, 1e14 * eps**2 * (1 + far)) if excess <= eps * far else excess
