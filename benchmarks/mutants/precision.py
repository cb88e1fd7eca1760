"""Gradients that are right but for their digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.mutants.backward import Pass, mutant
from lr_nn.types import Layer, Params


def _scaled(factor: float, only: int | None = None) -> Callable[..., Params]:
    """A step that scales the gradient of all layers, or of one."""

    def scaled(layer: Layer, i: int) -> Layer:
        return jax.tree.map(lambda g: factor * g, layer) if only in (None, i) else layer

    return lambda p, layers: tuple(scaled(layer, i) for i, layer in enumerate(layers, start=1))


def _product(dtype: Any, only: int | None = None) -> Callable[..., jax.Array]:
    """A step that takes aᵀ δ in another dtype, in all layers or in one."""

    def product(p: Pass, i: int) -> jax.Array:
        a, delta = p.a[i - 1], p.delta[i]
        if only not in (None, i):
            return a.T @ delta
        return (a.astype(dtype).T @ delta.astype(dtype)).astype(a.dtype)

    return product


def _scan(p: Pass, i: int) -> jax.Array:
    """Row after row into a sum of half precision."""
    rows = p.delta[i].astype(jnp.bfloat16)
    total, _ = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros_like(rows[0]), rows)
    return total.astype(p.delta[i].dtype)


def _rounded(p: Pass, layers: list[Layer]) -> Params:
    """Four decimals."""
    return jax.tree.map(lambda g: jnp.round(g, 4), tuple(layers))


def _perturbed(p: Pass, layers: list[Layer]) -> Params:
    """Noise of one part in 10,000."""
    return jax.tree.map(
        lambda g: g * (1 + 1e-4 * jax.random.normal(jax.random.key(0), g.shape, g.dtype)), tuple(layers)
    )


MUTANTS = (
    mutant("1 % too much", "every gradient is scaled by 1.01", "sigmoid", finish=_scaled(1.01)),
    mutant("0.1 % too much", "the gradient of layer 2 is scaled by 1.001", "tanh", finish=_scaled(1.001, 2)),
    mutant(
        "0.1 % too little, last layer",
        "the gradient of the last layer is scaled by 0.999",
        "relu",
        finish=_scaled(0.999, 4),
    ),
    mutant("1e-4 too much", "the gradient of layer 1 is scaled by 1.0001", "softmax", finish=_scaled(1.0001, 1)),
    mutant(
        "1e-4 too much, deep", "the gradient of layer 1 is scaled by 1.0001", "tanh, no bias", finish=_scaled(1.0001, 1)
    ),
    mutant("float16 products", "aᵀ δ is taken in float16", "logistic", weight_gradient=_product(jnp.float16)),
    mutant("float16 products, deep", "aᵀ δ is taken in float16", "elu", weight_gradient=_product(jnp.float16)),
    mutant(
        "bfloat16 in one layer",
        "aᵀ δ of layer 3 is taken in bfloat16",
        "leaky relu",
        weight_gradient=_product(jnp.bfloat16, 3),
    ),
    mutant("bfloat16 sums", "Σ δ is kept in bfloat16", "softplus", bias_gradient=_scan),
    mutant(
        "float32 in float64",
        "aᵀ δ is taken in float32, where all else is float64",
        "sigmoid, weighted",
        weight_gradient=_product(jnp.float32),
        dtype="float64",
    ),
    mutant(
        "float32 in float64, one layer",
        "aᵀ δ of layer 4 is taken in float32, where all else is float64",
        "large",
        weight_gradient=_product(jnp.float32, 2),
        dtype="float64",
    ),
    mutant(
        "δ in float16",
        "δ is rounded to float16 on its way back",
        "softplus",
        back=lambda p, i: Pass.back(p, i).astype(jnp.float16).astype(p.delta[i + 1].dtype),
    ),
    mutant("four decimals", "the gradient is rounded to four decimals", "labels", finish=_rounded),
    mutant("noise", "noise of one part in 10,000 on every entry", "leaky relu", finish=_perturbed),
)
