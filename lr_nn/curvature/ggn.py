"""The generalised Gauss-Newton matrix, mean_i J_iᵀ F_i J_i with J_i = ∂η_i/∂θ and F_i the Fisher weight in η.

It is the Fisher information of p(y | η(θ)), positive semidefinite always, and the Hessian for a one-layer model
with a canonical loss. Martens (2020).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_backprop, contract, example_weights, gradient, pullback, squared, sum_over_seeds
from lr_nn.curvature.dense import dense as _dense
from lr_nn.network import Network
from lr_nn.tangents import pushforward
from lr_nn.trees import accumulator, divide
from lr_nn.types import Backprop, Params


def multiply(net: Network, params: Params, bp: Backprop, v: Params, weight: ArrayLike | None = None) -> Params:
    """(Σ_i s_i J_iᵀ F_i J_i / Σ_i s_i) v, like the parameters: one pass forward, one back, no matrix."""
    check_backprop(net, params, bp)
    eta_dot = pushforward(net, params, bp.activations, v)[-1]
    deltas = pullback(net, params, bp.activations, bp.loss.fisher_multiply(bp.eta, eta_dot))
    return gradient(replace(bp, deltas=deltas), weight)


def dense(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> jax.Array:
    """The matrix itself, (p, p) in the order of `ravel_pytree(params)`. Raises ValueError above 8,192 parameters."""
    return _dense(lambda v: multiply(net, params, bp, v, weight), params, "ggn")


def diagonal(net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """The exact diagonal, a mean over examples, like the parameters: a sweep for each column of the Fisher factor."""
    check_backprop(net, params, bp)
    weight, total = example_weights(bp, weight)
    return divide(contract(_summed_squares(net, params, bp, bp.loss.fisher_factor(bp.eta)), weight), total)


def sampled_diagonal(
    net: Network, params: Params, bp: Backprop, weight: ArrayLike | None = None, *, key: jax.Array, samples: int = 1
) -> Params:
    """An unbiased estimate of `diagonal`: residuals at targets drawn from the model, the mean over `samples`."""
    check_backprop(net, params, bp)
    weight, total = example_weights(bp, weight)
    seeds = sampled_residuals(bp, key, samples)
    return divide(contract(_summed_squares(net, params, bp, seeds), weight), samples * total)


def trace(net: Network, params: Params, bp: Backprop) -> jax.Array:
    """tr(J_iᵀ F_i J_i) of every example, (n,)."""
    check_backprop(net, params, bp)
    sweep = _summed_squares(net, params, bp, bp.loss.fisher_factor(bp.eta))
    layers = zip(sweep.activations, sweep.deltas)
    return jnp.stack([(a.sum(axis=1) + float(bp.bias)) * d.sum(axis=1) for a, d in layers]).sum(axis=0)


def sampled_residuals(bp: Backprop, key: jax.Array, samples: int) -> jax.Array:
    """Residuals at targets drawn from p(y | η), (samples, n, k): their mean outer product is the Fisher.

    Drawn in float32 for half precision, whose uniform numbers are too few for rare events.
    """
    check.key(key)
    samples = check.positive_integer("samples", samples)
    eta = bp.eta.astype(accumulator(bp.eta.dtype))
    draw = jax.vmap(lambda key: bp.loss.residual(eta, bp.loss.sample(eta, key)))
    return draw(jax.random.split(key, samples)).astype(bp.eta.dtype)


def _summed_squares(net: Network, params: Params, bp: Backprop, seeds: jax.Array) -> Backprop:
    """The pass with a² and Σ_c δ_c²: the squares add up over seeds before they meet the activations."""

    def squares(deltas: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(jnp.square(delta.astype(accumulator(delta.dtype))) for delta in deltas)

    return replace(squared(bp), deltas=sum_over_seeds(net, params, bp.activations, seeds, squares))
