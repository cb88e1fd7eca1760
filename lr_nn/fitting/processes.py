"""Sums and samples over many processes, each of which reads its own rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lr_nn.types import Batch

__all__ = ["gathered", "of_all"]


def gathered(part: Batch) -> Batch:
    """The rows of all processes, one under another."""
    from jax.experimental.multihost_utils import process_allgather

    if jax.process_count() == 1:
        return part
    counts = np.asarray(process_allgather(np.int32(len(part.x))))

    def joined(array: np.ndarray) -> np.ndarray:
        longer = np.zeros((counts.max(), *array.shape[1:]), array.dtype)
        longer[: len(array)] = array
        return np.concatenate([own[:count] for own, count in zip(np.asarray(process_allgather(longer)), counts)])

    return jax.tree.map(joined, part)


def of_all(total: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """What every process has found, combined in their order, in every process: one collective."""
    from jax.experimental.multihost_utils import process_allgather

    if jax.process_count() == 1:
        return total
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda a: np.asarray(a, np.float64), total))
    flat = np.concatenate([leaf.reshape(-1) for leaf in leaves])
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    found: Any = None
    for own in np.asarray(process_allgather(flat)):
        one = jax.tree.unflatten(tree, [a.reshape(b.shape) for a, b in zip(np.split(own, ends), leaves)])
        found = one if found is None else combine(found, one)
    return found
