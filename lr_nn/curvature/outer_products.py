"""The empirical Fisher, mean_i g_i g_iᵀ: second moments of gradients at the targets as they are.

Not the Fisher (whose targets are drawn from the model), nor near it far from the optimum: Kunstner et al. (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

from lr_nn.backward import contract, relative_weights, squared
from lr_nn.curvature.mean_curvature import MeanCurvature, pass_over_batch
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.row_sums import weighted
from lr_nn.tangents import inner_products
from lr_nn.trees import divide, register_class, widened
from lr_nn.types import Backprop, Batch, Params


def empirical_fisher(net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> OuterProducts:
    """The matrix Σ_i s_i g_i g_iᵀ / Σ_i s_i + P as an operator, P the l2 of the penalty on the weights.

    Raises ValueError or TypeError for data that do not fit the network, weights that are all zero, or a negative
    penalty.
    """
    return OuterProducts(net, *pass_over_batch(net, params, batch, penalty))


@register_class
@dataclass(frozen=True, eq=False)
class OuterProducts(MeanCurvature):
    """C_i = g_i g_iᵀ; the diagonal is the second moment of the per-example gradients."""

    def _mean_product(self, v: Params) -> Params:
        """Σ_i s_i g_i ⟨g_i, v⟩ / Σ_i s_i, in the dtype of sums."""
        weight, total = relative_weights(self.bp)
        products = inner_products(self.bp.activations, self.bp.deltas, v)[:, None]
        return divide(contract(widened(self.bp), weighted(products, weight)[:, 0]), total)

    def _squares(self) -> Backprop:
        """a² and δ²."""
        return squared(self.bp)
