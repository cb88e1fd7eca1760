"""The R-operator by hand: how every z_l answers to a change of the parameters (Pearlmutter, 1994)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lr_nn.network import Network, affine, check_activations, check_params
from lr_nn.trees import accumulator
from lr_nn.types import Params


def pushforward(
    net: Network, params: Params, activations: tuple[jax.Array, ...], tangents: Params
) -> tuple[jax.Array, ...]:
    """(ż_1, ..., ż_L), each (n, d_l), for the direction `tangents`, shaped like the parameters.

        ż_l = ȧ_{l-1} w_l + a_{l-1} ẇ_l + ḃ_l,   ȧ_l = σ'(z_l) ∘ ż_l,   ȧ_0 = 0

    The adjoint of `pullback`: ⟨seed, ż_L⟩ = ⟨gradient that the seed contracts to, tangents⟩. Raises ValueError
    for tangents of another shape.
    """
    check_params(net, params)
    check_params(net, tangents)
    check_activations(net, activations)
    z_dots = [affine(tangents[0], activations[0])]
    for layer, tangent, activation, a in zip(params[1:], tangents[1:], net.hidden, activations[1:]):
        a_dot = activation.derivative(a) * z_dots[-1]
        z_dots.append(a_dot @ layer.w + affine(tangent, a))
    return tuple(z_dots)


def inner_products(activations: tuple[jax.Array, ...], deltas: tuple[jax.Array, ...], tangents: Params) -> jax.Array:
    """⟨g_i, v⟩ for every example, (n,), from Σ_l (a_{l-1} v_l + v_b)·δ_l, in float32 for half precision."""
    wide = jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), (activations, deltas, tangents))
    return jnp.stack([(affine(tangent, a) * delta).sum(axis=1) for a, delta, tangent in zip(*wide)]).sum(axis=0)
