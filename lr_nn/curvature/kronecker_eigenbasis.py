"""Curvature that is diagonal, layer by layer, in the eigenbasis of Kronecker factors: EK-FAC, George et al. (2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.curvature.blocks import by_layer, matmul, split
from lr_nn.curvature.operators import Operator
from lr_nn.trees import common_dtype, compiled, register_class
from lr_nn.types import Params


class EigenFactors(NamedTuple):
    """Orthogonal eigenvectors, in columns, of both factors of one layer, and the second moments along them.

    `a` (d_{l-1} + 1, d_{l-1} + 1) and `g` (d_l, d_l); `moments` (d_{l-1} + 1, d_l); without the + 1 where there is no
    bias.
    """

    a: jax.Array
    g: jax.Array
    moments: jax.Array


@register_class
@dataclass(frozen=True)
class Eigenbasis(Operator):
    """The block-diagonal matrix of U_l diag(moments_l) U_lᵀ with U_l = U_A ⊗ U_G: one `EigenFactors` a layer."""

    layers: tuple[EigenFactors, ...]

    def solve(self, v: Params | ArrayLike, damping: ArrayLike) -> Any:
        """U_A [(U_Aᵀ V U_G) / (moments + λ)] U_Gᵀ layer by layer, λ = `damping` > 0, V the weights and bias of `v`.

        `v` like the parameters or flat, such as the gradient. Raises ValueError for a damping that is not positive,
        and for a `v` of another shape as `multiply` does.
        """
        return self._apply(_solve, v, check.positive("damping", damping))

    def diagonal(self) -> Params:
        """The diagonal, U_A² moments (U_G²)ᵀ in every layer, like the parameters, in float32 for half precision."""
        return _diagonal(self)

    def trace(self) -> jax.Array:
        """Σ of all moments, a scalar."""
        return _trace(self)

    def _product(self, v: Params) -> Params:
        """U_A [(U_Aᵀ V U_G) ∘ moments] U_Gᵀ layer by layer, in the dtype of the factors."""
        return by_layer(lambda layer, v: _scaled(layer, v, layer.moments), self.layers, v)


def _scaled(layer: EigenFactors, v: jax.Array, scale: jax.Array) -> jax.Array:
    """U_A [(U_Aᵀ V U_G) ∘ scale] U_Gᵀ."""
    turned = matmul(matmul(layer.a.T, v), layer.g) * scale
    return matmul(matmul(layer.a, turned), layer.g.T)


def _solve(basis: Eigenbasis, v: Params, damping: jax.Array) -> Params:
    return by_layer(lambda layer, v: _scaled(layer, v, 1 / (layer.moments + damping.astype(v.dtype))), basis.layers, v)


@compiled
def _diagonal(basis: Eigenbasis) -> Params:
    return tuple(
        split(matmul(matmul(jnp.square(layer.a), layer.moments), jnp.square(layer.g).T), like)
        for layer, like in zip(basis.layers, basis.params)
    )


@compiled
def _trace(basis: Eigenbasis) -> jax.Array:
    dtype = common_dtype(*(layer.moments.dtype for layer in basis.layers))
    return jnp.stack([layer.moments.sum(dtype=dtype) for layer in basis.layers]).sum()
