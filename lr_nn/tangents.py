"""Tangents by hand: the derivative of every z_l along a direction in parameter space (Pearlmutter, 1994)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lr_nn.backward import check_forward
from lr_nn.network import Network, affine, check_params
from lr_nn.trees import accumulator, common_dtype, compiled
from lr_nn.types import Forward, Params

__all__ = ["pushforward"]


def __dir__() -> list[str]:
    return __all__


def pushforward(net: Network, params: Params, forward: Forward, tangents: Params) -> tuple[jax.Array, ...]:
    """(ż_1, ..., ż_L), each (n, d_l), along `tangents`, shaped like the parameters.

        ż_l = ȧ_{l-1} w_l + a_{l-1} ẇ_l + ḃ_l,   ȧ_l = σ'(z_l) ∘ ż_l,   ȧ_0 = 0

    The adjoint of `pullback`: ⟨seed, ż_L⟩ = ⟨the gradient that the seed contracts to, tangents⟩. Raises ValueError
    for tangents of another shape.
    """
    check_params(net, params)
    check_params(net, tangents, "tangents")
    check_forward(net, forward)
    return _tangents(net, params, forward, tangents)


def tangents(net: Network, params: Params, forward: Forward, v: Params) -> tuple[jax.Array, ...]:
    """`pushforward` of checked arguments."""
    dtypes = [a.dtype for a in (*forward.activations[1:], forward.eta)]
    z_dots = [affine(v[0], forward.activations[0], dtypes[0])]
    layers = zip(params[1:], v[1:], net.hidden, forward.kept, forward.activations[1:], dtypes[1:])
    for layer, tangent, activation, kept, a, dtype in layers:
        a_dot = activation.derivative(kept) * z_dots[-1]
        z_dots.append(affine(layer._replace(b=None), a_dot, dtype) + affine(tangent, a, dtype))
    return tuple(z_dots)


_tangents = compiled(tangents)


def inner_products(activations: tuple[jax.Array, ...], deltas: tuple[jax.Array, ...], v: Params) -> jax.Array:
    """⟨g_i, v⟩ for every example, (n,), from Σ_l (a_{l-1} v_l + v_b)·δ_l, in float32 for half precision."""
    dtype = accumulator(common_dtype(*(leaf.dtype for leaf in jax.tree.leaves((activations, deltas, v)))))
    layers = zip(activations, deltas, v)
    return jnp.stack(
        [(affine(tangent, a, dtype) * delta.astype(dtype)).sum(axis=1) for a, delta, tangent in layers]
    ).sum(axis=0)
