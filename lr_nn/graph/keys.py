"""Random keys as the integers that they hold: with threefry, keys of shape s are an array (*s, 2) of uint32."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")


def is_key(dtype: Any) -> bool:
    """True for a dtype of random keys."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def data_of(array: Any) -> Any:
    """The integers of keys; any other array as it is."""
    return jax.random.key_data(array) if hasattr(array, "dtype") and is_key(array.dtype) else array


def kind_of_data(shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype of the integers of keys of this shape and dtype."""
    found = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, dtype))
    return found.shape, np.dtype(found.dtype)


def wrapped(data: Any, dtype: Any) -> Any:
    """Keys of a dtype from their integers; other arrays as they are."""
    return jax.random.wrap_key_data(data, impl=_generator(dtype)) if is_key(dtype) else data


@lru_cache
def _generator(dtype: Any) -> str:
    for name in GENERATORS:
        if jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype == dtype:
            return name
    raise NotImplementedError(f"random keys of {dtype}: draw the numbers outside, and pass them as an argument")
