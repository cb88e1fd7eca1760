"""Checks of a solution and its data for inference: a network without a likelihood and unfit data are refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from lr_nn import check, losses
from lr_nn.admission import admit_lanes, lane_axes
from lr_nn.inference.fitted import Fitted
from lr_nn.network import Network, check_network, check_params
from lr_nn.penalties import is_tree
from lr_nn.types import Batch, Layer, Solution, Status

__all__ = ["admit", "admit_data", "admit_groups", "admit_level", "admit_names", "check_model", "single"]

LIKELIHOODS = (losses.squared_error, losses.bernoulli, losses.categorical, losses.poisson)
TRIALS = (
    "covariance={!r} takes a row of weight s for s copies of its proportion, not for s trials, and its standard errors "
    "are too small for trials: pass rows of 0 and 1 with weights failures and successes, or covariance='fisher', or "
    "'cluster' with groups=np.arange(n) if trials within a row depend on each other"
)


def admit(net: Network, solution: Solution, data: Batch, reference: int | None = None) -> Fitted:
    """The checked `Fitted`. The coefficients of lanes that did not converge are NaN.

    Raises ValueError or TypeError for a network without a likelihood, an L1 penalty, a single fit that did not
    converge, and data that do not fit.
    """
    check_model(net)
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be what lr_nn.fit returned; got {type(solution).__name__}")
    if any(map(is_tree, solution.penalty)):
        raise ValueError("inference takes one strength for all weights; this fit has one for each coefficient")
    if np.any(np.asarray(solution.penalty.l1) > 0):
        raise ValueError(
            "an l1 penalty selects columns by their size, and the usual standard errors do not hold after that; "
            "fit with an l2 penalty, or without one"
        )
    (layer,) = solution.params
    lanes = np.shape(layer.w)[:-2]
    check_params(net, (Layer(layer.w[0], None if layer.b is None else layer.b[0]),) if lanes else solution.params)
    theta = np.asarray(solution.coefficients, np.float64)
    converged = np.asarray(solution.status) == Status.converged
    if not lanes and not converged:
        raise ValueError(
            f"the fit is {Status(solution.status)} and has no standard errors ({solution.message}); drop columns, "
            "fit with an l2 penalty or more steps, or, of separated binary data, use lr_nn.inference.firth"
        )
    x, y, weight, offset = admit_data(net, data, *lanes)
    return Fitted(
        net=net,
        x=x,
        y=y,
        weight=weight,
        offset=offset,
        theta=np.where(converged[..., None, None], theta, np.nan),
        strength=np.broadcast_to(np.asarray(solution.penalty.l2, np.float64), lanes),
        reference=_reference(net, reference),
        jeffreys=solution.solver == "firth",
    )


def single(net: Network, solution: Solution, data: Batch, reference: int | None = None) -> Fitted:
    """`admit` for one fit; ValueError for lanes."""
    fitted = admit(net, solution, data, reference)
    if fitted.lanes:
        raise ValueError(f"this takes one fit at a time; got {fitted.lanes[0]} lanes: pass them one by one")
    return fitted


def check_model(net: Network) -> None:
    """Refuse a network that is no generalised linear model with a canonical link."""
    check_network(net)
    if len(net.sizes) != 2:
        raise ValueError(
            f"inference is for one-layer networks, whose likelihood has one maximum; got sizes {net.sizes}"
        )
    if net.loss not in LIKELIHOODS:
        known = ", ".join(loss.name for loss in LIKELIHOODS)
        raise ValueError(f"inference needs a likelihood: a loss of {known}; got {net.loss.name}")


def admit_data(net: Network, data: Batch, m: int = 0) -> tuple[Any, ...]:
    """x (n, d), y (n,) for class labels or (n, k), weight (n,) and offset (n, k) or None, in NumPy and float64.

    With m lanes each may have a lane axis first. Rows of weight zero become copies of a row that counts: their numbers
    may be anything.
    """
    check.on_host("inference", data)
    batch, axes = lane_axes(net, data, m)
    n, k = batch.x.shape[-2], net.sizes[1]
    batch = _without_dead_rows(jax.tree.map(np.asarray, batch), axes)
    with jax.enable_x64(True):
        x, y, weight, offset = jax.tree.map(np.asarray, admit_lanes(net, batch, axes, np.float64))
    labels = net.loss.task == "classes" and y.shape[-1:] == (n,) and y.ndim == (1 if axes.y is None else 2)
    y = (
        y.astype(np.int64)
        if labels
        else y.astype(np.float64, copy=False).reshape(*y.shape[: 0 if axes.y is None else 1], n, k)
    )
    if offset is not None:
        offset = offset.reshape(*offset.shape[: 0 if axes.offset is None else 1], n, k)
    return x.astype(np.float64, copy=False), y, np.ones(n) if weight is None else weight, offset


def _without_dead_rows(batch: Batch, axes: Batch) -> Batch:
    """The batch with a row that counts in place of every row of weight zero; unfit arrays are left for the checks."""
    n, weight = batch.x.shape[-2], batch.weight
    if weight is None or weight.shape[-1] != n or (weight != 0).all() or not (weight > 0).any():
        return batch
    arrays = {"weight": weight}
    for name in ("x", "y", "offset"):
        array, axis = getattr(batch, name), getattr(axes, name)
        lead = 1 if axis is None else 2
        fits = array is not None and array.shape[lead - 1 : lead] == (n,)
        arrays[name] = _without(weight == 0, array, array.ndim - lead + 1) if fits else array
    return Batch(**arrays)


def _without(dead: np.ndarray, array: np.ndarray, rank: int) -> np.ndarray:
    """`array` with a row that counts in place of those that count in no lane that has them."""
    lead = array.ndim - rank + 1
    dead = np.broadcast_to(dead if dead.ndim <= lead else dead.all(axis=0), array.shape[:lead])
    return np.where(dead.reshape(dead.shape + (1,) * (rank - 1)), array[~dead][0], array)


def admit_groups(fitted: Fitted, covariance: str, groups: ArrayLike | None) -> np.ndarray | None:
    """Clusters numbered from 0, (n,), for a clustered covariance; ValueError for choices that do not fit.

    Warns the caller's caller of a sandwich that takes trials for copies.
    """
    if covariance not in ("fisher", "hc0", "hc1", "cluster"):
        raise ValueError(f"covariance must be fisher, hc0, hc1 or cluster; got {covariance!r}")
    if covariance in ("hc0", "hc1") and _has_trials(fitted):
        warnings.warn(TRIALS.format(covariance), stacklevel=3)
    if (groups is None) == (covariance == "cluster"):
        raise ValueError(
            "covariance='cluster' needs groups, the cluster of every row"
            if groups is None
            else f"groups are for covariance='cluster'; got {covariance!r}"
        )
    if groups is None:
        return None
    names, numbers = check.labels("groups", groups, fitted.x.shape[-2])
    if len(names) < 2:
        raise ValueError("a clustered covariance needs at least 2 clusters; groups name only one")
    return numbers.astype(np.int64)


def _has_trials(fitted: Fitted) -> bool:
    """True if a row of the Bernoulli loss with a positive weight other than one holds a proportion within (0, 1)."""
    y, weight = fitted.targets, fitted.weight[..., None]
    return fitted.loss == losses.bernoulli and bool(((y > 0) & (y < 1) & (weight > 0) & (weight != 1)).any())


def admit_level(level: float) -> float:
    """The level of an interval; ValueError if it is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; got {level}")
    return float(level)


def admit_names(kind: str, names: Sequence[str], count: int) -> tuple[str, ...]:
    """The names as text; ValueError if they are not `count`."""
    if len(names) != count:
        raise ValueError(f"{kind} must be {count} names; got {len(names)}")
    return tuple(map(str, names))


def _reference(net: Network, reference: int | None) -> int | None:
    """The class that contrasts are taken with, 0 by default."""
    if net.loss.task != "classes":
        if reference is not None:
            raise ValueError(f"reference is for classes; a {net.loss.name} loss has none: leave it out")
        return None
    reference = 0 if reference is None else reference
    if isinstance(reference, bool) or not isinstance(reference, (int, np.integer)):
        raise TypeError(f"reference must be a class, an integer in [0, {net.sizes[1]}); got {reference!r}")
    if not 0 <= reference < net.sizes[1]:
        raise ValueError(f"reference must be a class in [0, {net.sizes[1]}); got {reference}")
    return int(reference)
