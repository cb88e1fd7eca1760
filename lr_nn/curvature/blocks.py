"""A layer as one matrix, its bias the last row: the weight of a constant input 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.trees import common_dtype, product_sharding
from lr_nn.types import Layer, Params


def by_layer(function: Callable[[Any, jax.Array], jax.Array], parts: Iterable[Any], v: Params) -> Params:
    """`function(part, V)` of every layer, V (d_{l-1} + 1, d_l) the layer as one matrix in the dtype of `part`."""
    return tuple(split(function(part, join(layer).astype(part[0].dtype)), layer) for part, layer in zip(parts, v))


def join(layer: Layer) -> jax.Array:
    """The layer as one matrix, (d_{l-1} + 1, d_l), or w where there is no bias."""
    if layer.b is None:
        return layer.w
    dtype = common_dtype(layer.w.dtype, layer.b.dtype)
    return jnp.concatenate([layer.w.astype(dtype), layer.b[None].astype(dtype)], axis=0)


def split(joined: jax.Array, like: Layer) -> Layer:
    """The inverse of `join`, with a bias if `like` has one."""
    return Layer(joined, None) if like.b is None else Layer(joined[:-1], joined[-1])


def homogeneous(a: jax.Array, bias: bool) -> jax.Array:
    """Inputs (..., d) with a last coordinate 1, where there is a bias."""
    return jnp.concatenate([a, jnp.ones_like(a[..., :1])], axis=-1) if bias else a


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """A B in full precision. Rows of a batch may be spread over an explicit mesh."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, out_sharding=product_sharding(a, b, 0, 1))
