"""What a fit may assume of a network and a penalty, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn import losses
from lr_nn.fitting.deep import DIRECTIONS
from lr_nn.fitting.problem import strengths
from lr_nn.fitting.search import SOLVERS
from lr_nn.fitting.terms import curves
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty

__all__ = ["check_arguments", "has_bound", "has_certificate"]


def has_certificate(net: Network) -> bool:
    """True if lanes end with a bound on J - J*: one layer, and a loss that promises what the bound rests on.

    The solvers of lanes take the Fisher for the Hessian, bound its change by the concordance, begin at the best
    constant model, and centre the coefficients of outputs that are coupled.
    """
    loss = net.loss
    promised = loss.canonical and loss.concordance < np.inf and (loss.shift_invariant or not loss.couples_outputs)
    return (
        len(net.sizes) == 2
        and promised
        and all(map(loss.states, ("constant", "recession", "fisher_multiply", "fisher_factor")))
    )


def has_bound(net: Network, penalty: Penalty) -> bool:
    """True if `fit` ends with a bound on J - J*: a network of one layer with a convex loss that bounds its curvature,
    or one that is convex and no more, where an l2 penalty holds all weights.
    """
    loss = net.loss
    if len(net.sizes) != 2 or not loss.smooth or not loss.convex:
        return False
    if loss.concordance < np.inf and curves(loss):
        return True
    _, ridge = strengths(net, penalty)
    d = net.sizes[0]
    held = bool((ridge[:d] > 0).all())
    return held and (not net.bias or bool((ridge[d] > 0).all()) or not loss.couples_outputs)


def check_arguments(
    net: Network, penalty: Penalty | None, solver: str, tol: float, dtype: DTypeLike | None, lanes: bool = False
) -> None:
    """Refuse what no fit of the network can do."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.logistic_regression(d); got {net!r}")
    check_penalty(penalty, None if lanes else net, lanes=lanes)
    sparse = penalty is not None and any((np.asarray(leaf) > 0).any() for leaf in jax.tree.leaves(penalty.l1))
    bounded = has_certificate(net) if lanes else has_bound(net, penalty or Penalty())
    loss = net.loss
    if not loss.smooth:
        raise ValueError(f"fit takes smooth costs; use lr_nn.train for {loss.name}")
    if sparse and not (bounded and (lanes or curves(loss))):
        raise ValueError(
            f"an l1 penalty is for one layer and a convex loss that states its second derivative and, without an l2 "
            f"penalty on every weight, its concordance; use lr_nn.train for this one of {loss.name}"
        )
    known = ("auto", *(SOLVERS if bounded else DIRECTIONS))
    if solver not in known:
        raise ValueError(f"solver must be one of {', '.join(known)} for this network; got {solver!r}")
    if sparse and solver not in ("auto", "proximal"):
        raise ValueError(f"an l1 penalty needs solver='proximal'; got {solver!r}")
    if solver == "proximal" and not sparse:
        raise ValueError("solver='proximal' is for an l1 penalty; there is none")
    if solver == "closed_form" and net.loss != losses.squared_error:
        raise ValueError(f"closed_form is for the squared error; got a {net.loss.name} loss")
    if solver in ("newton", "newton_cg") and bounded and not curves(net.loss):
        raise ValueError(f"solver={solver!r} needs a second derivative, which the loss {net.loss.name} does not state")
    if dtype is not None and jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise TypeError(f"dtype must be float32 or float64; got {jnp.dtype(dtype)}")
    if not np.isscalar(tol) or isinstance(tol, str) or not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, a fraction of the cost of a constant model; got {tol}")
