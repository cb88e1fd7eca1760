"""The exact Hessian of the cost, by a forward and a backward R-pass (Pearlmutter, 1994).

It uses the true ∂²ℓ/∂η² and σ'', and may be indefinite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lr_nn.backward import relative_weights, squared
from lr_nn.curvature.mean_curvature import MeanCurvature, keep
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.row_sums import bias_gradient, weight_gradient, weighted
from lr_nn.tangents import tangents
from lr_nn.trees import common_dtype, divide, register_class
from lr_nn.types import Backprop, Batch, Layer, Params


def hessian(net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> LossHessian:
    """The matrix H = Σ_i s_i ∂²ℓ_i/∂θ² / Σ_i s_i + P as an operator, P the l2 of the penalty on the weights.

    Without an l1 it is the Hessian of `cost`; l1 has no curvature. Raises ValueError or TypeError for data that do not
    fit the network, weights that are all zero, or a negative penalty.
    """
    return LossHessian(net, *keep(net, params, batch, penalty))


@register_class
@dataclass(frozen=True)
class LossHessian(MeanCurvature):
    """C_i = ∂²ℓ_i/∂θ². `diagonal`, `trace` and `traces` are for models of one layer, and raise ValueError else."""

    def _mean_product(self, v: Params) -> Params:
        """(Σ_i s_i ∂²ℓ_i/∂θ² / Σ_i s_i) v, in the dtype of sums.

        δ̇_L = (∂²ℓ/∂η²) η̇
        δ̇_l = (δ̇_{l+1} w_{l+1}ᵀ + δ_{l+1} v_{l+1}ᵀ) ∘ σ'(z_l) + (δ_{l+1} w_{l+1}ᵀ) ∘ σ''(z_l) ∘ ż_l
        R(∂ℓ/∂w_l) = ȧ_{l-1}ᵀ δ_l + a_{l-1}ᵀ δ̇_l
        """
        net, params, bp = self.net, self.params, self.bp
        weight, total = relative_weights(bp)
        deltas = tuple(weighted(delta, weight) for delta in bp.deltas)
        z_dots = tangents(net, params, bp.forward, v)
        dots = [weighted(bp.loss.hessian_multiply(bp.eta, bp.y, z_dots[-1]), weight)]
        pairs: list[tuple[tuple[jax.Array, jax.Array], ...]] = []
        layers = zip(params[:0:-1], v[:0:-1], net.hidden[::-1], bp.activations[:0:-1], deltas[:0:-1], z_dots[-2::-1])
        for layer, tangent, activation, a, delta, z_dot in layers:
            slope, bend = activation.derivative(a), activation.second_derivative(a)
            pairs.append(((a, dots[-1]), (slope * z_dot, delta)))
            through_slope = (_back(dots[-1], layer.w, a.dtype) + _back(delta, tangent.w, a.dtype)) * slope
            dots.append(through_slope + _back(delta, layer.w, a.dtype) * bend * z_dot)
        pairs.append(((bp.activations[0], dots[-1]),))
        found = (
            Layer(weight_gradient(*both), bias_gradient(dot) if bp.bias else None)
            for both, dot in zip(pairs[::-1], dots[::-1])
        )
        return divide(tuple(found), total)

    def _squares(self) -> Backprop:
        """a² and (∂²ℓ_i/∂η²)_cc, of a model of one layer."""
        if len(self.params) > 1:
            raise ValueError(
                "the exact diagonal of the Hessian is for models of one layer; use .dense(), or curvature.ggn"
            )
        bp, k = self.bp, self.bp.eta.shape[1]
        units = jnp.eye(k, dtype=bp.eta.dtype)[:, None, :] * jnp.ones_like(bp.eta)[None]
        columns = bp.loss.hessian_multiply(bp.eta, bp.y, units)
        return replace(squared(bp), deltas=(jnp.einsum("cnc->nc", columns),))


def _back(delta: jax.Array, w: jax.Array, dtype: DTypeLike) -> jax.Array:
    """δ wᵀ, (n, d_in), in `dtype`."""
    operands = common_dtype(dtype, w.dtype)
    return (delta.astype(operands) @ w.astype(operands).T).astype(dtype)
