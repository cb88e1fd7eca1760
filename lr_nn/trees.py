"""Small operations on arrays and pytrees that several rooms share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def accumulator(dtype: DTypeLike) -> np.dtype:
    """The dtype in which sums over examples are kept: float32 for half precision, else `dtype` itself."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def lift(array: jax.Array, ndim: int) -> jax.Array:
    """`array` with axes of length one in front, `ndim` in all, so that it meets a free leading axis."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def add(a: Any, b: Any) -> Any:
    """a + b leaf by leaf, in the dtype of `a`."""
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), a, b)


def divide(a: Any, total: jax.Array, dtype: DTypeLike | None = None) -> Any:
    """a / total leaf by leaf, then in `dtype` if given; a total of zero, that of no weight at all, counts as one."""
    total = jnp.where(total > 0, total, jnp.ones_like(total))
    return jax.tree.map(lambda a: (a / total.astype(a.dtype)).astype(dtype or a.dtype), a)


def all_finite(tree: Any) -> jax.Array:
    """True if no leaf of floats holds a NaN or an infinity."""
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(a).all() for a in leaves]).all()


def squared_norm(tree: Any) -> jax.Array:
    """Σ of squares over all leaves: a scalar."""
    return jnp.stack([(a * a).sum() for a in jax.tree.leaves(tree)]).sum()
