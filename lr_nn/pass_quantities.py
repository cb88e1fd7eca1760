"""Gradients, norms and products of single examples, from which `per_example` computes its quantities.

Each function has one implementation for each kind of pass. The ones here are for a `Backprop`, whose layers have
g_i = a_i δ_iᵀ; `taps` registers its own for a `TapPass`. Results have the dtype of sums over examples.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.backward import check_pass, contract, squared
from lr_nn.network import Network, check_params
from lr_nn.tangents import inner_products
from lr_nn.trees import product_sharding, widened
from lr_nn.types import Backprop, Layer, Params


@singledispatch
def example_gradients(bp: Any) -> Params:
    """`gradients` in the dtype of sums."""
    return tuple(
        Layer(jnp.einsum("ni,nj->nij", *widened((a, delta))), delta if bp.bias else None)
        for a, delta in zip(bp.activations, bp.deltas)
    )


@singledispatch
def layer_squares(bp: Any) -> jax.Array:
    """`layer_squared_norms` of a checked pass."""
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs, outputs = _squares(a) + float(bp.bias), _squares(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


@singledispatch
def layer_norms(bp: Any) -> jax.Array:
    """‖g_i‖ layer by layer, (n, L); for a `Backprop` without overflow of the squares."""
    columns = []
    for a, delta in zip(bp.activations, bp.deltas):
        inputs = row_norms(a)
        inputs = jnp.hypot(inputs, jnp.ones_like(inputs)) if bp.bias else inputs
        outputs = row_norms(delta)
        columns.append(jnp.where(outputs == 0, jnp.zeros_like(outputs), inputs * outputs))
    return jnp.stack(columns, axis=1)


@singledispatch
def contract_squares(bp: Any, weight: jax.Array | None) -> Params:
    """Σ_i s_i g_i², like the parameters."""
    return contract(squared(bp), weight)


@singledispatch
def products(bp: Any, other: Any) -> jax.Array:
    """`gram` of checked passes."""
    layers = zip(bp.activations, bp.deltas, other.activations, other.deltas)
    return jnp.stack([(_products(a, b) + float(bp.bias)) * _products(d, e) for a, d, b, e in layers]).sum(axis=0)


@singledispatch
def check_same_model(bp: Any, other: Any) -> None:
    """Raise TypeError or ValueError if `other` is no pass of the same model as `bp`."""
    check_pass(other)
    if type(bp) is not type(other) or _architecture(bp) != _architecture(other):
        raise ValueError("both batches must come from one network; their layers, activations or losses differ")


@singledispatch
def inner_products_with(bp: Any, v: Params) -> jax.Array:
    """`inner_products` of checked arguments."""
    return inner_products(bp.activations, bp.deltas, v)


@singledispatch
def check_direction(bp: Any, v: Params) -> None:
    """Raise TypeError or ValueError if `v` is not like the parameters of the pass."""
    sizes = (bp.activations[0].shape[1], *(delta.shape[1] for delta in bp.deltas))
    check_params(Network(sizes, bp.hidden, bp.loss, bp.bias), v, "v")


def _architecture(bp: Backprop) -> tuple:
    return bp.bias, bp.loss, bp.hidden, [a.shape[1:] for a in (*bp.activations, *bp.deltas)]


def _squares(rows: jax.Array) -> jax.Array:
    """The squared norm of every row, (n,)."""
    return jnp.square(widened(rows)).sum(axis=1)


def row_norms(rows: jax.Array) -> jax.Array:
    """The norm of every row, (n,), its entries scaled by the largest."""
    rows = widened(rows)
    # The reciprocal of a scale above this is subnormal in float32, and XLA takes it for zero.
    scale = jnp.minimum(jnp.abs(rows).max(axis=1), float(jnp.finfo(rows.dtype).max) ** 0.75)
    scale = jax.lax.stop_gradient(scale)  # the norm does not depend on it
    some = scale > 0
    one = jnp.ones_like(scale)
    squares = jnp.square(rows / jnp.where(some, scale, one)[:, None]).sum(axis=1)
    return scale * jnp.sqrt(jnp.where(some, squares, one))  # a root whose derivative is finite at zero


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    a, b = widened((a, b))
    return jnp.matmul(a, b.T, out_sharding=product_sharding(a, b, 0, 0))
