"""Random numbers on the host, drawn from a JAX key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check

__all__ = ["generator"]


def generator(key: jax.Array | None) -> np.random.Generator:
    """A NumPy generator whose numbers depend only on `key`; None is a fixed key.

    Raises TypeError if `key` is no random key, ValueError if it holds more than one.
    """
    if key is None:
        return np.random.default_rng(0)
    check.key(key)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return np.random.default_rng(np.asarray(jax.random.key_data(key) if typed else key).tolist())
