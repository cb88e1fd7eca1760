"""The empirical Fisher, mean_i g_i g_iᵀ: second moments of gradients at the targets as they are.

Not the Fisher (whose targets are drawn from the model), nor near it far from the optimum: Kunstner et al. (2019).
"""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from lr_nn.backward import check_backprop, contract, example_weights, squared
from lr_nn.curvature.dense import dense as _dense
from lr_nn.network import Network, check_params
from lr_nn.row_sums import weighted
from lr_nn.tangents import inner_products
from lr_nn.trees import divide, widened
from lr_nn.types import Backprop, Params


def multiply(net: Network, params: Params, bp: Backprop, v: Params, weight: ArrayLike | None = None) -> Params:
    """Σ_i s_i g_i ⟨g_i, v⟩ / Σ_i s_i, like the parameters."""
    check_backprop(net, params, bp)
    check_params(net, v)
    weight, total = example_weights(bp, weight)
    products = inner_products(bp.activations, bp.deltas, v)
    products = weighted(products[:, None], weight)[:, 0]
    return divide(contract(widened(bp), products), total, bp.eta.dtype)


def dense(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> jax.Array:
    """The matrix itself, (p, p) in the order of `ravel_pytree(params)`. Raises ValueError above 8,192 parameters."""
    return _dense(lambda v: multiply(net, params, bp, v, weight), params, "empirical_fisher")


def diagonal(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """Its diagonal, the second moment of the per-example gradients."""
    check_backprop(net, params, bp)
    weight, total = example_weights(bp, weight)
    return divide(contract(squared(bp), weight), total)
