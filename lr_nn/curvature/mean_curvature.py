"""Curvatures that are means over examples: their penalty, their diagonal, their traces."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.admission import admit
from lr_nn.backward import contract, relative_weights, sweep
from lr_nn.curvature.operators import Operator
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.row_sums import weighted
from lr_nn.trees import add, common_dtype, compiled, divide, widened
from lr_nn.types import Backprop, Batch, Params


@dataclass(frozen=True, eq=False)
class MeanCurvature(Operator):
    """Σ_i s_i C_i / Σ_i s_i + P: C_i a curvature of ℓ_i, P the diagonal matrix of the penalty's l2.

    `bp`, the pass over the batch, belongs to `params`. The trace is the mean of `traces` plus the trace of P.
    """

    net: Network
    params: Params
    bp: Backprop
    penalty: Penalty | None

    def traces(self) -> jax.Array:
        """tr C_i of every example, (n,), unweighted and without the penalty."""
        return _traces(self)

    def _product(self, v: Params) -> Params:
        """The matrix times an admitted tree, in the dtype of sums."""
        found = self._mean_product(v)
        if self.penalty is None:
            return found
        v = widened(v)
        return add(found, jax.tree.map(jnp.multiply, self.penalty.hessian_diagonal(v), v))

    def _diagonal(self) -> Params:
        return self._with_penalty(mean_diagonal(self._squares()))

    def _trace(self) -> jax.Array:
        weight, total = relative_weights(self.bp)
        mean = divide(weighted(traces_of(self._squares())[:, None], weight).sum(), total)
        if self.penalty is None:
            return mean
        ridge = jax.tree.leaves(self.penalty.hessian_diagonal(widened(self.params)))
        return mean + jnp.stack([leaf.sum(dtype=mean.dtype) for leaf in ridge]).sum()

    def _with_penalty(self, diagonal: Params) -> Params:
        """The diagonal of the mean plus that of P."""
        return diagonal if self.penalty is None else add(diagonal, self.penalty.hessian_diagonal(widened(self.params)))

    @abstractmethod
    def _mean_product(self, v: Params) -> Params:
        """(Σ_i s_i C_i / Σ_i s_i) v, in the dtype of sums."""

    @abstractmethod
    def _squares(self) -> Backprop:
        """The pass with a² and, for δ, the c for which the diagonal of C_i is a_i² c_iᵀ in every layer."""


def pass_over_batch(
    net: Network, params: Params, batch: Batch, penalty: Penalty | None
) -> tuple[Params, Backprop, Any]:
    """Parameters as JAX arrays, their pass over the batch, and the penalty: the fields of `MeanCurvature`."""
    batch = admit(net, params, batch)
    check_penalty(penalty, net)
    return _pass(net, params, batch, penalty)


@compiled
def _pass(net: Network, params: Params, batch: Batch, penalty: Penalty | None) -> tuple[Params, Backprop, Any]:
    return params, sweep(net, params, batch), penalty


def mean_diagonal(squares: Backprop, samples: int = 1) -> Params:
    """Σ_i s_i a_i² c_iᵀ / Σ_i s_i, divided by `samples`."""
    weight, total = relative_weights(squares)
    return divide(contract(squares, weight), samples * total)


def traces_of(squares: Backprop) -> jax.Array:
    """Σ_l (‖a_{l-1}‖² + 1) Σ_j c_lj of every example, (n,), without the 1 where there is no bias."""
    layers = [(a.sum(axis=1) + float(squares.bias), c.sum(axis=1)) for a, c in zip(squares.activations, squares.deltas)]
    dtype = common_dtype(*(side.dtype for layer in layers for side in layer))
    return jnp.stack([a.astype(dtype) * c.astype(dtype) for a, c in layers]).sum(axis=0)


@compiled
def _traces(op: MeanCurvature) -> jax.Array:
    return traces_of(op._squares())
