"""Lanes as a cost with a place to begin: columns centred, the best constant models, and what converged means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from lr_nn.fitting import bounds
from lr_nn.fitting.chunks import Frame
from lr_nn.fitting.opening import looked
from lr_nn.fitting.problem import achievable, column_frame
from lr_nn.fitting.sample import is_tall
from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.source import Source
from lr_nn.fitting.terms import once
from lr_nn.losses import Loss
from lr_nn.many.descent import Ends, descend
from lr_nn.many.directions import ROWS_PER_COLUMN, Plan, hessian_plan, sample_rows
from lr_nn.many.inputs import OwnInputs, SharedInputs
from lr_nn.many.lanes import Lanes
from lr_nn.many.objective import EPS, Objective
from lr_nn.many.rows import Rows, Targets, pairs_at_once
from lr_nn.types import Batch

__all__ = [
    "Problem",
    "best_constants",
    "datasets",
    "make_problem",
    "shared_inputs",
    "starting_points",
    "target_dtype",
    "targets_of",
]


class Problem(NamedTuple):
    """The cost of lanes; the best constant models (m, q, k), their cost (m,), and which lanes have the same data."""

    objective: Objective
    constants: np.ndarray
    cost: np.ndarray
    dataset: np.ndarray

    def take(self, ids: np.ndarray) -> Problem:
        """The problem of some of the lanes."""
        return Problem(self.objective.take(ids), self.constants[ids], self.cost[ids], self.dataset[ids])


def targets_of(lanes: Lanes, ids: np.ndarray, counted: np.ndarray | None = None) -> Targets:
    """The targets of the lanes `ids`, of the rows `counted`; weights in units of the largest of each lane."""

    def of(name: str) -> tuple[np.ndarray | None, np.ndarray]:
        value = getattr(lanes, name)
        if value is None:
            return None, np.zeros(len(ids), int)
        value, owner = np.asarray(value), lanes.entry(name, ids)
        used, owner = np.unique(owner, return_inverse=True)
        value = value if len(used) == len(value) else value[used]
        return (value if counted is None else value[:, counted]), owner

    (y, y_of), (weight, weight_of), (offset, offset_of) = of("y"), of("weight"), of("offset")
    assert y is not None
    if weight is None:
        weight = np.ones((1, y.shape[1]))
    else:
        weight = np.asarray(weight, float)
        most = weight.max(axis=1, keepdims=True)
        weight = weight / np.where(most > 0, most, 1)
    offset = None if offset is None else np.asarray(offset, float)
    return Targets(y, weight, offset, y_of, weight_of, offset_of, target_dtype(lanes))


def target_dtype(lanes: Lanes) -> Any:
    """What targets are cast to: labels of classes stay integers."""
    return np.int64 if lanes.net.loss.task == "classes" and lanes.y.ndim == 2 else np.float64


def shared_inputs(lanes: Lanes, x: np.ndarray, weight: np.ndarray | None) -> tuple[SharedInputs, np.ndarray]:
    """x (n, d) in the coordinates of the search, and about the mean of x̃², (q,)."""
    net, (d, k) = lanes.net, lanes.net.sizes
    frame = Frame(np.zeros(d), False, np.zeros(k), net.bias)
    some = Source(net, frame, DEFAULT, (Batch(x, np.zeros(len(x)), weight, None),), length=len(x))
    with np.errstate(all="ignore"):
        seen = looked(some)
        frame = column_frame(seen, net.bias, net.bias, k, DEFAULT)
        inputs = SharedInputs.of(x, frame, pairs_at_once(net.loss, k))
        return inputs, inputs.mean_squares(np.ones(len(x)) if weight is None else weight)


def datasets(targets: Targets, own: bool) -> np.ndarray:
    """A number (m,) that lanes with the same x, targets, weights and offset share."""
    if own:
        return np.arange(len(targets.y_of))
    which = np.stack([targets.y_of, targets.weight_of, targets.offset_of], axis=1)
    return np.unique(which, axis=0, return_inverse=True)[1].reshape(-1)


def make_problem(
    lanes: Lanes,
    ids: np.ndarray,
    inputs: SharedInputs | OwnInputs,
    targets: Targets,
    deviation: np.ndarray,
    tol: float,
    threaded: bool,
) -> Problem:
    """The problem of the lanes `ids`, whose deviation is (q,) or (m, q)."""
    net, (m, q, k) = lanes.net, (len(ids), inputs.columns, lanes.net.sizes[1])
    rows = Rows(inputs, targets, net.loss, k, threaded)
    dataset = datasets(targets, isinstance(inputs, OwnInputs))
    first = np.unique(dataset, return_index=True)[1]
    biases, cost, excess, lowest, total, worth = best_constants(rows.take(first), net.bias)
    strengths = np.zeros((2, m, q, k))
    for strength, whole in zip(lanes.take("penalty", ids), strengths):
        whole[:, : net.sizes[0]] = np.asarray(strength).reshape(-1, 1, 1)
    lasso, ridge = strengths
    constants = np.zeros((m, q, k))
    constants[:, net.sizes[0] :] = biases[dataset]
    objective = Objective(
        rows,
        total[dataset],
        worth[dataset],
        ridge,
        lasso,
        lowest[dataset],
        np.broadcast_to(deviation, (m, q)).copy(),
        tol * np.where(np.isfinite(excess), excess, 0)[dataset],  # nothing is near an infinite cost
    )
    return Problem(objective, constants, cost[dataset], dataset)


def best_constants(rows: Rows, bias: bool) -> tuple[np.ndarray, ...]:
    """The best biases (m, 1, k), or (m, 0, k), of models without features, given the offset; and of each lane the cost
    there, J₀, the least mean loss that the targets allow, Σ s and (Σ s)² / Σ s².
    """
    loss, few, m, k = rows.loss, rows.constant(), len(rows), rows.outputs
    total, squares, y, least, most, lowest = rows.constants()
    worth = total**2 / squares
    lowest, one = lowest / total, int(bias)
    zeros = np.zeros((m, one, k))
    objective = Objective(few, total, worth, zeros, zeros, lowest, np.ones((m, one)), np.zeros(m))
    biases = zeros
    if bias:
        mean = np.clip(y / total[:, None], least, most)
        biases = _best_constants(loss, mean, rows.pairs)[:, None]
    if bias and rows.targets.offset is not None:
        biases = _given_offset(objective, biases)
    cost = objective.at(biases).cost
    excess = cost - lowest
    size = (1 + np.maximum(np.abs(most), np.abs(least)).max(axis=1)) ** 2
    if not (excess > EPS * size).all():
        far = objective.at(zeros).cost - lowest
        offset = rows.targets.offset
        reach = 1.0 if offset is None else 1 + np.abs(offset).max(axis=(1, 2))[rows.targets.offset_of]
        excess = np.where(excess > EPS * size, excess, achievable(np.maximum(excess, 0), far, reach))
    return biases, cost, excess, lowest, total, worth


def _best_constants(loss: Loss, mean: np.ndarray, size: int) -> np.ndarray:
    """The best η (m, k) of constant models without an offset, not farther out than is finite."""
    found = []
    for begin in range(0, len(mean), size):
        part = mean[begin : begin + size]
        padded = np.concatenate([part, np.broadcast_to(part[:1], (size - len(part), part.shape[1]))])
        found.append(np.asarray(once(_constant, loss, padded))[: len(part)])
    eta, far = np.concatenate(found), DEFAULT.farthest
    return np.where(np.isfinite(eta), eta, np.clip(eta, -far, far))


def _each_constant(loss: Loss, mean: jax.Array) -> jax.Array:
    return jax.vmap(loss.constant)(mean)


_constant = jax.jit(_each_constant, static_argnums=0)


def _given_offset(objective: Objective, biases: np.ndarray) -> np.ndarray:
    """The best biases with offsets, from the best of a few places: rows may have offsets far from those of others."""
    targets = objective.rows.targets
    offsets, weights = targets.offset, targets.weight
    assert offsets is not None
    pairs = list(zip(targets.weight_of, targets.offset_of))
    means = np.stack([weights[a] @ offsets[b] / weights[a].sum() for a, b in pairs])
    centres = (means, *(f(offsets, axis=1)[targets.offset_of] for f in (np.median, np.max, np.min)))
    starts = [biases, 0 * biases, *(biases - centre[:, None] for centre in centres)]
    costs = np.stack([np.nan_to_num(objective.at(start).cost, nan=np.inf) for start in starts])
    best, lane = costs.argmin(axis=0), np.arange(len(objective))
    near = 1e-14 * (1 + np.abs(costs[best, lane]))
    return descend(objective, None, np.stack(starts)[best, lane], int(DEFAULT.farthest), DEFAULT, near).theta


def starting_points(problem: Problem, start: np.ndarray | None, tol: float) -> np.ndarray:
    """θ (m, q, k) where lanes may begin: at `start`, or at the optimum of some rows, or at the constant model."""
    objective, constants = problem.objective, problem.constants
    n, q = objective.rows.n, objective.ridge.shape[1]
    if start is not None:
        return objective.centred(start)
    if not (objective.rows.shares_x and is_tall(n, q, DEFAULT)):
        return constants
    ends = _of_some_rows(problem, sample_rows(n, ROWS_PER_COLUMN * q), DEFAULT.sample_gap * objective.ceiling / tol)
    return np.where(np.isfinite(ends.cost)[:, None, None], ends.theta, constants)


def _of_some_rows(problem: Problem, numbers: np.ndarray, near: np.ndarray) -> Ends:
    """The optima of the rows `numbers` alone, to a decrement of `near` (m,).

    A column that few of them know may have none of its curvature in them, and its coefficient might go anywhere: it
    gets a ridge of about the curvature of one row.
    """
    objective, theta = problem.objective, problem.constants
    rows = objective.rows.some(numbers)
    total = rows.targets.weight.sum(axis=1)[rows.targets.weight_of]
    search = replace(objective, rows=rows, total=np.where(total > 0, total, np.nan), ceiling=near)
    extent = rows.inputs.extent
    rare = len(numbers) * objective.deviation < DEFAULT.known_rows * extent**2
    curvature = bounds.diagonal(search.at(theta, closing=True).closing.curvature, objective.is_coupled)
    if rare.any():
        extra = np.where(rare, extent**2 / len(numbers), 0)[:, :, None] * curvature[:, None]
        search = replace(search, ridge=objective.ridge + extra)
    plan = hessian_plan(search, problem.dataset)
    if plan is not None and rows.targets.offset is None and not objective.is_coupled:
        # At a constant model every row has the same curvature: lanes of the same weights share a Gram matrix.
        plan = Plan(rows, rows.targets.weight_of, curvature)
    return descend(search, plan, theta, 50, DEFAULT, near)
