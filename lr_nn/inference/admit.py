"""Where a solution and its data enter inference: what has no likelihood or does not fit is refused."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lr_nn import check, losses
from lr_nn.inference.fitted import Fitted
from lr_nn.network import Network, check_params
from lr_nn.types import Batch, Layer, Solution, Status

LIKELIHOODS = (losses.squared_error, losses.bernoulli, losses.categorical, losses.poisson)


def admit(solution: Solution, net: Network, batch: Batch, reference: int | None = None) -> Fitted:
    """The checked `Fitted`. Of lanes, those that did not converge have coefficients that are not numbers.

    Raises ValueError or TypeError for a network without a likelihood, an L1 penalty, a single fit that did not
    converge, and data that do not fit.
    """
    check_model(net)
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be what lr_nn.fit returned; got {type(solution).__name__}")
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
    x, y, weight, offset = admit_rows(net, batch, lanes)
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


def single(solution: Solution, net: Network, batch: Batch, reference: int | None = None) -> Fitted:
    """`admit` for what is done one fit at a time."""
    fitted = admit(solution, net, batch, reference)
    if fitted.lanes:
        raise ValueError(f"this takes one fit at a time; got {fitted.lanes[0]} lanes: pass them one by one")
    return fitted


def check_model(net: Network) -> None:
    """Refuse a network that is no generalised linear model with a canonical link."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.logistic_regression(d); got {net!r:.100}")
    if len(net.sizes) != 2:
        raise ValueError(
            f"inference is for one-layer networks, whose likelihood has one maximum; got sizes {net.sizes}"
        )
    if net.loss not in LIKELIHOODS:
        known = ", ".join(loss.name for loss in LIKELIHOODS)
        raise ValueError(f"inference needs a likelihood: a loss of {known}; got {net.loss.name}")


def admit_rows(net: Network, batch: Batch, lanes: tuple[int, ...] = ()) -> tuple[Any, ...]:
    """x (n, d), y (n,) of class labels or (n, k), weight (n,) and offset (n, k) or None, of lanes where they came so.

    Rows of weight zero become copies of one that counts, so that whatever they held does no harm.
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be the Batch(x, y) of the fit; got {type(batch).__name__}")
    check.on_host("inference", batch, "nothing: it is host code")
    k = net.sizes[1]
    x = _axes("x", batch.x, 2, lanes)
    check.table("x", x.reshape(-1, x.shape[-1]), net.sizes[0])
    n = x.shape[-2]
    y = check.numeric("targets", batch.y)
    flat = y.ndim == 1 or (y.ndim == 2 and y.shape != (n, k) and (k == 1 or net.loss.task == "classes"))
    labels = flat and net.loss.task == "classes"
    y = _axes("targets", y[..., None] if flat and not labels else y, 1 if labels else 2, lanes)
    weight = np.ones(n) if batch.weight is None else _axes("weight", batch.weight, 1, lanes)
    if weight.shape[-1] != n:
        raise ValueError(f"weight must have shape ({n},), one a row of x; got {weight.shape}")
    check.require("weight", weight.reshape(-1), check.is_not_negative, "finite and not negative")
    if not (weight > 0).any(axis=-1).all():
        raise ValueError("weight is zero for every example of a fit; at least one must be positive")
    offset = batch.offset
    if offset is not None:
        offset = check.numeric("offset", offset)
        offset = _axes("offset", offset[..., None] if k == 1 and offset.shape[-1] == n else offset, 2, lanes)
        if offset.shape[-2:] != (n, k):
            raise ValueError(f"offset must have the shape of eta, ({n}, {k}); got {np.shape(batch.offset)}")
    if (dead := weight == 0).any():
        x, offset = _without(dead, x, 2), None if offset is None else _without(dead, offset, 2)
        y = _without(dead, y, 1 if labels else 2)
    rows = y.reshape(-1) if labels else y.reshape(-1, y.shape[-1])
    if y.shape[: y.ndim - (0 if labels else 1)][-1] != n:
        raise ValueError(f"x has {n} rows but y has shape {y.shape}; they must be the same examples")
    with jax.enable_x64(True):
        net.loss.targets(rows, len(rows), k, np.float64)
    if offset is not None:
        check.finite("offset", offset)
        offset = np.asarray(offset, np.float64)
    y = np.asarray(y, np.int64 if labels else np.float64)
    return np.asarray(x, np.float64), y, np.asarray(weight, np.float64), offset


def _axes(name: str, array: Any, rank: int, lanes: tuple[int, ...]) -> np.ndarray:
    """`array` in NumPy, of so many axes, or with the lanes before them."""
    array = np.asarray(check.numeric(name, array))
    if array.ndim == rank or (lanes and array.ndim == rank + 1 and array.shape[:1] == lanes):
        return array
    more = f", or {lanes[0]} lanes of them" if lanes else ""
    raise ValueError(f"{name} must have {rank} axes{more}; got shape {array.shape}")


def _without(dead: np.ndarray, array: np.ndarray, rank: int) -> np.ndarray:
    """`array` with a row that counts in place of those that count in no lane that has them."""
    lead = array.ndim - rank + 1
    dead = np.broadcast_to(dead if dead.ndim <= lead else dead.all(axis=0), array.shape[:lead])
    return np.where(dead.reshape(dead.shape + (1,) * (rank - 1)), array[~dead][0], array)


def _reference(net: Network, reference: int | None) -> int | None:
    """The class that contrasts are taken with: 0 unless told otherwise."""
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
