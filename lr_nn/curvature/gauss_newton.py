"""The generalised Gauss-Newton matrix, mean_i J_iᵀ F_i J_i with J_i = ∂η_i/∂θ and F_i the Fisher weight in η.

It is the Fisher information of p(y | η(θ)), positive semidefinite always, and the Hessian for a one-layer model
with a canonical loss. Martens (2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from lr_nn import check
from lr_nn.backward import loss_part, mean_gradient, recursion, squared, sum_over_seeds
from lr_nn.curvature.mean_curvature import MeanCurvature, mean_diagonal, pass_over_batch
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty
from lr_nn.tangents import tangents
from lr_nn.trees import accumulator, compiled, register_class
from lr_nn.types import Backprop, Batch, Params


def ggn(net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> GaussNewton:
    """The matrix G = Σ_i s_i J_iᵀ F_i J_i / Σ_i s_i + P as an operator, P the l2 of the penalty on the weights.

    Raises ValueError or TypeError for data that do not fit the network, weights that are all zero, or a negative
    penalty, and NotImplementedError for a loss that states no Fisher.

    >>> import jax.numpy as jnp, lr_nn
    >>> net = lr_nn.logistic_regression(2)
    >>> batch = lr_nn.Batch(x=jnp.eye(2), y=jnp.array([1.0, 0.0]))
    >>> op = lr_nn.curvature.ggn(net, lr_nn.init(net, jax.random.key(0)), batch)
    >>> (op @ jnp.array([8.0, 0.0, 0.0])).tolist(), op.trace().item()
    ([1.0, 0.0, 1.0], 0.5)
    """
    check_network(net)
    net.loss.require("fisher_multiply")
    return GaussNewton(net, *pass_over_batch(net, params, batch, penalty))


@register_class
@dataclass(frozen=True, eq=False)
class GaussNewton(MeanCurvature):
    """C_i = J_iᵀ F_i J_i. A product is one pass forward and one back; the diagonal k backward passes."""

    def sampled_diagonal(self, key: jax.Array, samples: int = 1) -> Params:
        """An unbiased estimate of `diagonal`: residuals at targets drawn from the model, the mean over `samples`.

        Raises TypeError or ValueError for a `key` that is no random key, or less than one sample.
        """
        check.key(key)
        return _sampled_diagonal(self, key, check.positive_integer("samples", samples))

    def _mean_product(self, v: Params) -> Params:
        """(Σ_i s_i J_iᵀ F_i J_i / Σ_i s_i) v, in the dtype of sums."""
        forward = self.bp.forward
        eta_dot = tangents(self.net, self.params, forward, v)[-1]
        seed = loss_part(self.net, "fisher_multiply", eta_dot.shape, forward.eta, eta_dot)
        deltas = recursion(self.net, self.params, forward, seed)
        return mean_gradient(replace(self.bp, deltas=deltas))

    def _squares(self) -> Backprop:
        """a² and Σ_c δ_c², δ_c seeded by the columns of the Fisher factor."""
        return self._summed_squares(self.net.loss.fisher_factor(self.bp.eta))

    def _sampled_squares(self, key: jax.Array, samples: int) -> Backprop:
        """a² and the sum of δ² over `samples` targets drawn from the model."""
        return self._summed_squares(sampled_residuals(self.bp, key, samples))

    def _summed_squares(self, seeds: jax.Array) -> Backprop:
        """The squares add up over seeds before they meet the activations."""

        def squares(deltas: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return tuple(jnp.square(delta.astype(accumulator(delta.dtype))) for delta in deltas)

        summed = sum_over_seeds(self.net, self.params, self.bp.forward, seeds, squares)
        return replace(squared(self.bp), deltas=summed)


@partial(compiled, static_argnames="samples")
def _sampled_diagonal(op: GaussNewton, key: jax.Array, samples: int) -> Params:
    return op._with_penalty(mean_diagonal(op._sampled_squares(key, samples), samples))


def sampled_residuals(bp: Backprop, key: jax.Array, samples: int) -> jax.Array:
    """Residuals at targets drawn from p(y | η), (samples, n, k): their mean outer product is the Fisher."""
    draw = jax.vmap(lambda key: bp.loss.residual(bp.eta, bp.loss.sample(bp.eta, key)))
    return draw(jax.random.split(key, samples))
