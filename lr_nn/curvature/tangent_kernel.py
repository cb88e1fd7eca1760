"""The empirical neural tangent kernel, from Jacobian seeds, without a Jacobian (Jacot et al., 2018)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from lr_nn.admission import admit_inputs
from lr_nn.backward import recursion
from lr_nn.network import Network, propagate
from lr_nn.trees import accumulator, common_dtype, compiled, product_sharding, unit_seeds
from lr_nn.types import Batch, Params

# Activations (n, d_l), and deltas (k, n, d_l) seeded by the unit vectors of η, of every layer.
Sweep = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]


def ntk(net: Network, params: Params, x: ArrayLike, other: ArrayLike | None = None) -> jax.Array:
    """J_i J'_jᵀ, (n, m, k, k), J_i = ∂η_i/∂θ at the rows of `x` (n, d), J'_j at those of `other` (m, d), or of `x`.

    Σ_l (a_i·a'_j + 1)(δ_ic·δ'_je) over layers, with δ seeded by the unit vectors of η; in float32 for half
    precision. The memory is a few times that of the result. Raises ValueError or TypeError for inputs that do not fit
    the network.
    """
    return _kernel(net, params, *_admitted(net, params, x, other), "cnd,emd->nmce")


def ntk_trace(net: Network, params: Params, x: ArrayLike, other: ArrayLike | None = None) -> jax.Array:
    """tr(J_i J'_jᵀ), (n, m): the kernel of `ntk` summed over outputs. Raises as `ntk` does."""
    return _kernel(net, params, *_admitted(net, params, x, other), "cnd,cmd->nm")


def _admitted(net: Network, params: Params, x: ArrayLike, other: ArrayLike | None) -> tuple[Batch, Batch | None]:
    return admit_inputs(net, params, x), None if other is None else admit_inputs(net, params, other, name="other")


@partial(compiled, static_argnames="products")
def _kernel(net: Network, params: Params, inputs: Batch, others: Batch | None, products: str) -> jax.Array:
    left = _unit_sweep(net, params, inputs)
    right = left if others is None else _unit_sweep(net, params, others)
    dtype = accumulator(common_dtype(*(array.dtype for side in left for array in side)))
    terms = []
    for a, b, delta, epsilon in zip(left[0], right[0], left[1], right[1]):
        sharding = product_sharding(a, b, 0, 0)
        pairs = jnp.einsum(
            products,
            delta,
            epsilon,
            preferred_element_type=accumulator(delta.dtype),
            out_sharding=None if sharding is None else NamedSharding(sharding.mesh, P(*sharding.spec)),
        )
        alike = jnp.matmul(a, b.T, preferred_element_type=accumulator(a.dtype), out_sharding=sharding)
        alike = alike.astype(dtype) + float(net.bias)
        terms.append(alike.reshape(alike.shape + (1,) * (pairs.ndim - 2)) * pairs.astype(dtype))
    return jnp.stack(terms).sum(axis=0)


def _unit_sweep(net: Network, params: Params, inputs: Batch) -> Sweep:
    found = propagate(net, params, inputs)
    units = unit_seeds(found.eta)
    return found.activations, recursion(net, params, found, units)
