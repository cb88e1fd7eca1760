"""A dense matrix from its products, where it is small enough to be looked at."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from lr_nn.types import Params

MOST_PARAMETERS = 8192


def dense(multiply: Callable[[Params], Params], params: Params, name: str) -> jax.Array:
    """The (p, p) matrix of `multiply`, in the order of `ravel_pytree(params)`; refused above `MOST_PARAMETERS`."""
    flat, unravel = ravel_pytree(params)
    if flat.size > MOST_PARAMETERS:
        raise ValueError(
            f"a dense matrix of {flat.size} parameters exceeds the limit of {MOST_PARAMETERS}; use {name}.multiply"
        )
    basis = jnp.eye(flat.size, dtype=flat.dtype)
    return jax.lax.map(lambda v: ravel_pytree(multiply(unravel(v)))[0], basis, batch_size=64)
