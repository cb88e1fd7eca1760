"""Sums over the rows of a batch: weights, products aᵀ δ, and the form in which a CPU computes them fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.trees import accumulator, common_dtype, product_sharding, row_shards

# δ of at most this many columns is thin: the product with a large `a` is bound by memory (benchmarks `thin`).
THIN = 4
# Bytes of `a` from which a thin product gains by blocks of rows, and the bytes of a block, which a core's cache holds.
LARGE, BLOCK = 2**24, 2**21
# δ is narrow if it has at most one column for this many of `a`: a barrier then keeps its form.
NARROW = 8


def weighted(rows: jax.Array, weight: jax.Array | None) -> jax.Array:
    """s_i times row i of `rows` (n, k), in its dtype; a row of weight zero is zero, even where it is not finite."""
    if weight is None:
        return rows
    product = weight[:, None] * counted(rows, weight[:, None]).astype(weight.dtype)
    return product.astype(rows.dtype)


def counted(values: jax.Array, weight: jax.Array) -> jax.Array:
    """`values` with zero in place of NaN and infinity where `weight`, broadcast to them, is zero.

    The other values of weight zero stay: they are the derivatives of a weighted sum by its weights.
    """
    return jnp.where((weight != 0) | jnp.isfinite(values), values, jnp.zeros_like(values))


def weight_gradient(*pairs: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Σ aᵀ δ, (d_{l-1}, d_l), over pairs of `a` (n, d_{l-1}) and `delta` (n, d_l), in float32 for half precision.

    Written (Σ δᵀ a)ᵀ, for which XLA:CPU makes no transposed copy of `a`. For a thin δ a barrier keeps the compiler
    from turning that back into aᵀ δ: 2 to 4 times faster.
    """
    first, *rest = (_product(a, delta) for a, delta in pairs)
    total = sum(rest, first)
    return (jax.lax.optimization_barrier(total) if NARROW * len(total) <= total.shape[1] else total).T


def bias_gradient(delta: jax.Array) -> jax.Array:
    """Σ_i δ_i, (d_l,), in float32 for half precision."""
    return delta.sum(axis=0, dtype=accumulator(delta.dtype))


def _product(a: jax.Array, delta: jax.Array) -> jax.Array:
    """δᵀ a, (d_l, d_{l-1}).

    Where `a` is large and δ thin, as a batch of products over blocks of rows, each read by one core: 1.5 to 2 times
    faster there.
    """
    dtype = common_dtype(a.dtype, delta.dtype)
    a, delta = a.astype(dtype), delta.astype(dtype)
    rows, sums = rows_per_product(a, delta.shape[1]), accumulator(dtype)
    if rows is None:
        sharding = product_sharding(delta, a, 1, 1)
        return jnp.matmul(delta.T, a, preferred_element_type=sums, out_sharding=sharding)
    a, delta = a.reshape(-1, rows, a.shape[1]), delta.reshape(-1, rows, delta.shape[1])
    return jnp.einsum("pnk,pnd->pkd", delta, a, preferred_element_type=sums).sum(axis=0)


def wants_blocks(a: jax.Array, width: int) -> bool:
    """True if `a` is so large, and a δ of `width` columns so thin, that aᵀ δ gains by blocks of rows.

    Only on a CPU with one device: elsewhere `a` may be spread over devices, which a tracer does not show.
    """
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return one_cpu and width <= THIN and a.size * a.dtype.itemsize >= LARGE


def rows_per_product(a: jax.Array, width: int) -> int | None:
    """Rows of a block of a few megabytes that divides n, or None where one product is as good.

    Where no block divides n (a prime, say) the remainder would have to be sliced off, and XLA:CPU copies what it
    slices: one product is faster than that.
    """
    if not wants_blocks(a, width):
        return None
    target = max(1, BLOCK // (a.shape[1] * a.dtype.itemsize))
    candidates = (*range(target, target // 4, -1), *range(target + 1, 4 * target))
    return next((rows for rows in candidates if a.shape[0] % rows == 0), None)


def map_row_blocks(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """`function(rows)`, a tree of arrays (n, ...), computed for `size` rows at a time; `rows` a tree of (n, ...)."""
    first = jax.tree.leaves(rows)[0]
    n = len(first)
    # `map` takes no axis that lies over an explicit mesh; a device has n divided by their number there.
    if n <= size or row_shards(first) > 1:
        return function(rows)
    whole = n - n % size
    blocks = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), rows)
    made = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), jax.lax.map(function, blocks))
    if whole == n:
        return made
    rest = function(jax.tree.map(lambda a: a[whole:], rows))
    return jax.tree.map(lambda a, end: jnp.concatenate([a, end]), made, rest)
