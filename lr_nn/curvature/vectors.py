"""Vectors of parameters: trees like the parameters, or flat, (p,) in the order of `ravel_pytree(params)`.

Many vectors at once are the m columns of a matrix (p, m), or a tree in which every leaf has a leading axis m.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.network import Network, check_params, n_parameters
from lr_nn.trees import cast, common_dtype, compiled, dtypes_of
from lr_nn.types import Layer, Params

# Vectors that one pass over the batch carries at once. More take more memory, n Σ d_l numbers each, and gain little.
BLOCK = 64

Linear = Callable[[Params], Params]


def flatten(tree: Params, dtype: DTypeLike) -> jax.Array:
    """All leaves as one vector (p,) of `dtype`. (`ravel_pytree` takes no mixed dtypes under strict promotion.)"""
    return jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in jax.tree.leaves(tree)])


def unflatten(net: Network, flat: jax.Array) -> Params:
    """The inverse of `flatten`, in the dtype of `flat`."""
    layers, start = [], 0
    for d_in, d_out in net.shapes:
        stop = start + d_in * d_out
        w = flat[start:stop].reshape(d_in, d_out)
        layers.append(Layer(w, flat[stop : stop + d_out] if net.bias else None))
        start = stop + net.bias * d_out
    return tuple(layers)


def on_flat(net: Network, function: Linear, dtype: DTypeLike) -> Callable[[jax.Array], jax.Array]:
    """`function` of trees as a function of flat vectors (p,), with results of `dtype`."""
    return lambda flat: flatten(function(unflatten(net, flat)), dtype)


def map_columns(function: Callable[[jax.Array], jax.Array], columns: jax.Array) -> jax.Array:
    """`function` of every column of a matrix (p, m), (p, m), in blocks of `BLOCK` columns."""
    return jax.lax.map(function, columns.T, batch_size=BLOCK).T


def apply(make: Callable[..., Linear], op: Any, v: Params | ArrayLike, *args: Any) -> Any:
    """`make(op, *args)(v)` as one compiled program, in the dtypes of the parameters of `op`.

    make: returns a linear function of trees; one object for all calls, such as a function of a module. v: a tree, a
    flat vector, or many of either; the result is of the same kind. Raises TypeError or ValueError for other shapes.
    """
    if isinstance(v, tuple):
        _check_tree(op.net, v)
        return _apply(make, op, v, *args)
    flat = check.numeric("v", v)
    p = n_parameters(op.net)
    if flat.ndim not in {1, 2} or flat.shape[0] != p or 0 in flat.shape:
        columns = f"; vectors must be its columns: pass v.T, ({p}, m)" if flat.ndim == 2 and flat.shape[1] == p else ""
        raise ValueError(
            f"v must be like params, or flat with shape ({p},), in the order of ravel_pytree(params), or ({p}, m) for "
            f"m vectors; got shape {flat.shape}{columns}"
        )
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        flat = check.cast(flat, common_dtype(*jax.tree.leaves(dtypes_of(op.params))))
    return _apply(make, op, flat, *args)


def _check_tree(net: Network, v: Any) -> None:
    """Raise unless `v` is like the parameters, or has one more, leading axis m ≥ 1 on every leaf."""
    leaves = jax.tree.leaves(v)
    if not v or not isinstance(v[0], Layer) or jnp.ndim(v[0].w) != 3:
        check_params(net, v, "v")
        return
    lengths = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) > 1 or (0,) in lengths:
        raise ValueError(
            "v must have one leading axis, of the same length m >= 1, on every leaf for m vectors; "
            f"got leaves of shapes {[jnp.shape(leaf) for leaf in leaves]}"
        )

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf))

    check_params(net, jax.tree.map(one, v), "each v")


@partial(compiled, static_argnums=0)
def _apply(make: Callable[..., Linear], op: Any, v: Params | jax.Array, *args: Any) -> Any:
    function, dtypes = make(op, *args), dtypes_of(op.params)
    if isinstance(v, tuple):
        return cast(function(v) if v[0].w.ndim == 2 else jax.lax.map(function, v, batch_size=BLOCK), dtypes)
    flat = on_flat(op.net, function, common_dtype(*jax.tree.leaves(dtypes)))
    return flat(v) if v.ndim == 1 else map_columns(flat, v)
