"""The exact Hessian of the cost, by a forward and a backward R-pass (Pearlmutter, 1994).

It uses the true ∂²ℓ/∂η² and σ'', and may be indefinite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from lr_nn.backward import loss_part, relative_weights, squared
from lr_nn.curvature.mean_curvature import MeanCurvature, pass_over_batch
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty
from lr_nn.row_sums import bias_gradient, map_row_blocks, weight_gradient, weighted
from lr_nn.tangents import tangents
from lr_nn.trees import accumulator, common_dtype, divide, register_class, unit_seeds
from lr_nn.types import Backprop, Batch, Layer, Params

# Numbers in the largest array that the diagonal makes for a block of rows, 4 MiB in float32: on a CPU 2**22 took 1.5
# times as long at widths of 256, and smaller ones no less.
BLOCK_SIZE = 2**20


def hessian(net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> LossHessian:
    """The matrix H = Σ_i s_i ∂²ℓ_i/∂θ² / Σ_i s_i + P as an operator, P the l2 of the penalty on the weights.

    Without an l1 it is the Hessian of `cost`; l1 has no curvature. Raises ValueError or TypeError for data that do not
    fit the network, weights that are all zero, or a negative penalty, and NotImplementedError where the loss or an
    activation states no second derivative.
    """
    check_network(net)
    net.loss.require("hessian_multiply")
    for activation in net.hidden:
        activation.require("second_derivative")
    return LossHessian(net, *pass_over_batch(net, params, batch, penalty))


@register_class
@dataclass(frozen=True, eq=False)
class LossHessian(MeanCurvature):
    """C_i = ∂²ℓ_i/∂θ².

    `diagonal`, `trace` and `traces` are exact at every depth, from the matrices ∂²ℓ_i/∂z_l², (d_l, d_l), of every
    example. These take d_1 d_2² + Σ_{l=2}^{L-1} d_l d_{l+1} (d_l + d_{l+1}) multiplications an example, in layers of
    one width d about as many as d backward passes, and are made for a block of rows at a time.
    `hutchinson_diagonal` estimates the diagonal for the price of a few products.
    """

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
        curved = loss_part(net, "hessian_multiply", bp.eta.shape, bp.eta, bp.y, z_dots[-1])
        dots = [weighted(curved, weight)]
        pairs: list[tuple[tuple[jax.Array, jax.Array], ...]] = []
        inner = zip(net.hidden[::-1], bp.forward.kept[::-1], bp.activations[:0:-1])
        layers = zip(params[:0:-1], v[:0:-1], inner, deltas[:0:-1], z_dots[-2::-1])
        for layer, tangent, (activation, kept, a), delta, z_dot in layers:
            slope = activation.derivative(kept)
            pairs.append(((a, dots[-1]), (slope * z_dot, delta)))
            dot = (_back(dots[-1], layer.w, a.dtype) + _back(delta, tangent.w, a.dtype)) * slope
            if not activation.piecewise_linear:
                dot = dot + _back(delta, layer.w, a.dtype) * activation.second_derivative(kept) * z_dot
            dots.append(dot)
        pairs.append(((bp.activations[0], dots[-1]),))
        found = (
            Layer(weight_gradient(*both), bias_gradient(dot) if bp.bias else None)
            for both, dot in zip(pairs[::-1], dots[::-1])
        )
        return divide(tuple(found), total)

    def _squares(self) -> Backprop:
        """a² and the diagonals c_l of ∂²ℓ_i/∂z_l², in blocks of rows."""
        rows = _Rows(self.bp.forward.kept, self.bp.deltas[1:], self.bp.eta, self.bp.y)
        diagonals = map_row_blocks(partial(_diagonals, self.net, self.params), rows, rows_per_block(self.net.sizes))
        return replace(squared(self.bp), deltas=diagonals)


class _Rows(NamedTuple):
    """What `_diagonals` reads: the arguments of σ'_1, ..., σ'_{L-1}, then δ_2, ..., δ_L, η and the targets."""

    kept: tuple[jax.Array, ...]
    deltas: tuple[jax.Array, ...]
    eta: jax.Array
    y: jax.Array


def rows_per_block(sizes: tuple[int, ...]) -> int:
    """The rows whose matrices W_{l+1} H_{l+1}, (d_l, d_{l+1}), and H_l have at most `BLOCK_SIZE` numbers; one at least.

    sizes: (d_0, ..., d_L). H_l is needed from l = 2 up, and H_L always.
    """
    widths = sizes[1:]
    products = [d_l * d_above for d_l, d_above in pairwise(widths)]
    return max(1, BLOCK_SIZE // max([*products, *(d * d for d in sizes[2:]), widths[-1] ** 2]))


def _diagonals(net: Network, params: Params, rows: _Rows) -> tuple[jax.Array, ...]:
    """The diagonals c_l (n, d_l) of H_l = ∂²ℓ_i/∂z_l², in the dtype of sums.

        H_L = ∂²ℓ_i/∂η²
        H_l = D_l w_{l+1} H_{l+1} w_{l+1}ᵀ D_l + diag(σ''(z_l) ∘ (δ_{l+1} w_{l+1}ᵀ)),   D_l = diag σ'(z_l)

    Of H_1 only the diagonal is computed.
    """
    dtype = accumulator(common_dtype(*(leaf.dtype for leaf in jax.tree.leaves((rows.kept, rows.eta, params)))))
    units = unit_seeds(rows.eta)
    columns = loss_part(net, "hessian_multiply", units.shape, rows.eta, rows.y, units)
    h = jnp.einsum("cnk->nkc", columns).astype(dtype)
    diagonals = [jnp.diagonal(h, axis1=1, axis2=2)]
    for below in range(len(params) - 2, -1, -1):
        sides = params[below + 1].w, rows.kept[below], rows.deltas[below]
        w, kept, delta = (side.astype(dtype) for side in sides)
        slope, bend = net.hidden[below].derivative(kept), net.hidden[below].second_derivative(kept)
        product, bent = jnp.einsum("ij,njk->nik", w, h), bend * (delta @ w.T)
        diagonals.append(jnp.square(slope) * (product * w[None]).sum(axis=2) + bent)
        if below > 0:
            h = jnp.einsum("nik,jk->nij", slope[:, :, None] * product, w) * slope[:, None, :]
            h = h + bent[:, :, None] * jnp.eye(len(w), dtype=dtype)[None]
    return tuple(diagonals[::-1])


def _back(delta: jax.Array, w: jax.Array, dtype: DTypeLike) -> jax.Array:
    """δ wᵀ, (n, d_in), in `dtype`."""
    operands = common_dtype(dtype, w.dtype)
    return (delta.astype(operands) @ w.astype(operands).T).astype(dtype)
