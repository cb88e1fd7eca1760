"""A right case: one function in two forms, at random parameters and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """value(params, batch) -> (), the same function written otherwise, and NumPy arrays: float64, labels integers."""

    value: Callable[[Any, Any], jax.Array]
    rewritten: Callable[[Any, Any], jax.Array]
    params: Any
    batch: Any


def sizes(rng: np.random.Generator, count: int, low: int = 2, high: int = 9) -> list[int]:
    """Random sizes of axes."""
    return [int(size) for size in rng.integers(low, high, size=count)]


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers with a standard deviation between 0.2 and 2 over the root of the first axis."""
    scale = np.exp(rng.uniform(np.log(0.2), np.log(2)))
    return scale * rng.normal(size=shape) / (shape[0] if shape else 1) ** 0.5


def half_square(residual: jax.Array) -> jax.Array:
    """½ Σ r²."""
    return 0.5 * jnp.sum(residual**2)
