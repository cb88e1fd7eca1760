"""The exact Hessian of the mean loss, by a forward and a backward R-pass (Pearlmutter, 1994).

It uses the true ∂²ℓ/∂η² and σ'', and may be indefinite.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn.backward import check_backprop, contract, example_weights, squared
from lr_nn.curvature.dense import dense as _dense
from lr_nn.network import Network
from lr_nn.row_sums import bias_gradient, weight_gradient, weighted
from lr_nn.tangents import pushforward
from lr_nn.trees import divide
from lr_nn.types import Backprop, Layer, Params


def multiply(net: Network, params: Params, bp: Backprop, v: Params, weight: ArrayLike | None = None) -> Params:
    """(Σ_i s_i ∂²ℓ_i / Σ_i s_i) v, like the parameters.

    δ̇_L = (∂²ℓ/∂η²) η̇
    δ̇_l = (δ̇_{l+1} w_{l+1}ᵀ + δ_{l+1} v_{l+1}ᵀ) ∘ σ'(z_l) + (δ_{l+1} w_{l+1}ᵀ) ∘ σ''(z_l) ∘ ż_l
    R(∂ℓ/∂w_l) = ȧ_{l-1}ᵀ δ_l + a_{l-1}ᵀ δ̇_l
    """
    check_backprop(net, params, bp)
    weight, total = example_weights(bp, weight)
    deltas = tuple(weighted(delta, weight) for delta in bp.deltas)
    z_dots = pushforward(net, params, bp.activations, v)
    dots = [weighted(bp.loss.hessian_multiply(bp.eta, bp.y, z_dots[-1]), weight)]
    pairs: list[tuple[tuple[jax.Array, jax.Array], ...]] = []
    layers = zip(params[:0:-1], v[:0:-1], net.hidden[::-1], bp.activations[:0:-1], deltas[:0:-1], z_dots[-2::-1])
    for layer, tangent, activation, a, delta, z_dot in layers:
        slope, bend = activation.derivative(a), activation.second_derivative(a)
        pairs.append(((a, dots[-1]), (slope * z_dot, delta)))
        through_slope = (dots[-1] @ layer.w.T + delta @ tangent.w.T) * slope
        dots.append(through_slope + (delta @ layer.w.T) * bend * z_dot)
    pairs.append(((bp.activations[0], dots[-1]),))
    found = (
        Layer(weight_gradient(*both), bias_gradient(dot) if bp.bias else None)
        for both, dot in zip(pairs[::-1], dots[::-1])
    )
    return divide(tuple(found), total, bp.eta.dtype)


def dense(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> jax.Array:
    """The matrix itself, (p, p) in the order of `ravel_pytree(params)`. Raises ValueError above 8,192 parameters."""
    return _dense(lambda v: multiply(net, params, bp, v, weight), params, "hessian")


def diagonal(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """The exact diagonal of a model of one layer, Σ_i s_i a_i² (∂²ℓ_i/∂η²)_cc / Σ_i s_i, like the parameters.

    Raises ValueError for a deep network.
    """
    check_backprop(net, params, bp)
    if len(params) > 1:
        raise ValueError("the exact diagonal is for models of one layer; use hessian.dense, or ggn.diagonal")
    weight, total = example_weights(bp, weight)
    basis = jnp.broadcast_to(jnp.eye(bp.eta.shape[1], dtype=bp.eta.dtype)[:, None, :], (bp.eta.shape[1], *bp.eta.shape))
    columns = bp.loss.hessian_multiply(bp.eta, bp.y, basis)
    sweep = replace(squared(bp), deltas=(jnp.einsum("cnc->nc", columns),))
    return divide(contract(sweep, weight), total)
