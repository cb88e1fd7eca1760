"""Curvature that is diagonal, layer by layer, in the eigenbasis of Kronecker factors: EK-FAC, George et al. (2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn.curvature.blocks import by_layer, matmul, split
from lr_nn.curvature.operators import Solvable
from lr_nn.curvature.vectors import Linear
from lr_nn.network import Network
from lr_nn.trees import common_dtype, register_class
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
@dataclass(frozen=True, eq=False)
class Eigenbasis(Solvable):
    """The block-diagonal matrix of U_l diag(moments_l) U_lᵀ with U_l = U_A ⊗ U_G: one `EigenFactors` a layer."""

    net: Network
    params: Params
    layers: tuple[EigenFactors, ...]

    def solve(self, v: Params | ArrayLike, damping: ArrayLike) -> Any:
        """U_A [(U_Aᵀ V U_G) / (moments + λ)] U_Gᵀ layer by layer, λ = `damping` > 0, V the weights and bias of `v`.

        `v` like the parameters or flat, such as the gradient. Raises ValueError for a damping that is not positive,
        and for a `v` of another shape as `multiply` does.
        """
        return super().solve(v, damping)

    def _product(self, v: Params) -> Params:
        """U_A [(U_Aᵀ V U_G) ∘ moments] U_Gᵀ layer by layer, in the dtype of the factors."""
        return by_layer(lambda layer, v: scale_along(layer.a, layer.g, v, layer.moments), self.layers, v)

    def _diagonal(self) -> Params:
        """U_A² moments (U_G²)ᵀ in every layer."""
        return tuple(
            split(matmul(matmul(jnp.square(layer.a), layer.moments), jnp.square(layer.g).T), like)
            for layer, like in zip(self.layers, self.params)
        )

    def _trace(self) -> jax.Array:
        """The sum of all moments."""
        dtype = common_dtype(*(layer.moments.dtype for layer in self.layers))
        return jnp.stack([layer.moments.sum(dtype=dtype) for layer in self.layers]).sum()

    def _solver(self, damping: jax.Array) -> Linear:
        def solve(layer: EigenFactors, v: jax.Array) -> jax.Array:
            return scale_along(layer.a, layer.g, v, 1 / (layer.moments + damping.astype(v.dtype)))

        return lambda v: by_layer(solve, self.layers, v)


def scale_along(a: jax.Array, g: jax.Array, v: jax.Array, scale: jax.Array) -> jax.Array:
    """U_A [(U_Aᵀ V U_G) ∘ scale] U_Gᵀ for U_A = `a` and U_G = `g`."""
    rotated = matmul(matmul(a.T, v), g) * scale
    return matmul(matmul(a, rotated), g.T)
