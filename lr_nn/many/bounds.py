"""Bounds on their way out of compiled programs: no bound is the largest number there, and ∞ on the host.

So no program puts out NaN or ∞ on good data, and fits run under `jax_debug_nans` and `jax_debug_infs`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = ["capped", "largest", "uncapped"]


def largest(bound: jax.Array) -> float:
    """The largest number of the dtype of `bound`: it says that there is no bound."""
    return float(jnp.finfo(bound.dtype).max)


def capped(bound: jax.Array) -> jax.Array:
    """`bound`, or the largest number in place of ∞ and NaN."""
    top = largest(bound)
    return jnp.where(bound < top, bound, top)


def uncapped(bound: ArrayLike) -> np.ndarray:
    """`bound` in NumPy, ∞ in place of the largest number."""
    bound = np.asarray(bound)
    return np.where(bound < np.finfo(bound.dtype).max, bound, np.inf)
