"""The empirical neural tangent kernel, from Jacobian seeds, without a Jacobian (Jacot et al., 2018)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lr_nn.backward import pullback
from lr_nn.network import Network
from lr_nn.trees import accumulator
from lr_nn.types import Params

Activations = tuple[jax.Array, ...]


def ntk(net: Network, params: Params, activations: Activations, other: Activations | None = None) -> jax.Array:
    """J_i J'_jᵀ, (n, m, k, k), J_i = ∂η_i/∂θ, within a batch or with `other`, activations of a second one.

    Σ_l (a_i·a'_j + 1)(δ_ic·δ'_je) over layers, with δ seeded by the unit vectors of η; in float32 for half
    precision. The memory is a few times that of the result.
    """
    return _kernel(net, params, activations, other, "cnd,emd->nmce")


def ntk_trace(net: Network, params: Params, activations: Activations, other: Activations | None = None) -> jax.Array:
    """tr(J_i J'_jᵀ), (n, m): the kernel summed over outputs."""
    return _kernel(net, params, activations, other, "cnd,cmd->nm")


def _kernel(
    net: Network, params: Params, activations: Activations, other: Activations | None, products: str
) -> jax.Array:
    other = activations if other is None else other
    left, right = (_unit_deltas(net, params, a) for a in (activations, other))
    terms = []
    for a, b, delta, epsilon in zip(activations, other, left, right):
        dtype = accumulator(a.dtype)
        pairs = jnp.einsum(products, delta, epsilon, preferred_element_type=dtype)
        inputs = jnp.matmul(a, b.T, preferred_element_type=dtype) + float(net.bias)
        terms.append(inputs.reshape(inputs.shape + (1,) * (pairs.ndim - 2)) * pairs)
    return jnp.stack(terms).sum(axis=0)


def _unit_deltas(net: Network, params: Params, activations: Activations) -> tuple[jax.Array, ...]:
    n, k = activations[0].shape[0], net.sizes[-1]
    seeds = jnp.broadcast_to(jnp.eye(k, dtype=activations[0].dtype)[:, None, :], (k, n, k))
    return pullback(net, params, activations, seeds)
