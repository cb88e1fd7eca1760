"""Thousands of small fits, each with an x of its own, by one compiled loop: `solve` mapped over blocks of lanes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.terms import bucket
from lr_nn.many.compiled import End, run
from lr_nn.many.lanes import Lanes
from lr_nn.many.settings import Settings
from lr_nn.network import Network
from lr_nn.types import Batch

__all__ = ["LANES", "is_on_accelerator", "solve_block"]

# Lanes of a block: the last block is filled up, so that no number of lanes compiles another program.
LANES = 256


def solve_block(lanes: Lanes, settings: Settings, ids: np.ndarray) -> End:
    """The ends of at most `LANES` lanes, in NumPy; rows are padded to a bucket at weight zero.

    Lanes follow one another on a CPU, where each stays in a core's cache, and run side by side on an accelerator.
    """
    block = np.append(ids, np.full(LANES - len(ids), ids[-1]))
    on_accelerator = is_on_accelerator(lanes.x)
    x = (lanes.x if on_accelerator else np.asarray(lanes.x))[block]
    n, size = lanes.n, bucket(lanes.n)
    weight = np.ones((LANES, n)) if lanes.weight is None else _own(lanes, "weight", block)
    offset = None if lanes.offset is None else _padded(_own(lanes, "offset", block), size)
    y = _own(lanes, "y", block)
    y = y.astype(np.int64 if lanes.net.loss.task == "classes" and y.ndim == 2 else float, copy=False)
    x = x if on_accelerator and n == size else _padded(np.asarray(x, float), size)
    batch = Batch(x, _padded(y, size), _padded(weight, size), offset)
    l1, l2 = (np.broadcast_to(np.asarray(s, float), lanes.m)[block] for s in lanes.take("penalty", np.arange(lanes.m)))
    found = _mapped(lanes.net, on_accelerator, batch, l1 if l1.any() else None, l2, settings.tol, settings.max_steps)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], found)


def is_on_accelerator(x: Any) -> bool:
    """Does x lie where NumPy cannot read it in place?"""
    return isinstance(x, jax.Array) and DEFAULT.is_accelerator(x)


def _own(lanes: Lanes, name: str, ids: np.ndarray) -> np.ndarray:
    """An argument of lanes, one entry for each."""
    found = np.asarray(lanes.take(name, ids))
    return np.broadcast_to(found, (len(ids), *found.shape[1:]))


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """(m, n, ...) filled up with zeros to `size` rows."""
    if array.shape[1] == size:
        return array
    whole = np.zeros((len(array), size, *array.shape[2:]), array.dtype)
    whole[:, : array.shape[1]] = array
    return whole


@partial(jax.jit, static_argnames=("net", "side_by_side"))
def _mapped(
    net: Network, side_by_side: bool, batch: Batch, l1: Any, l2: jax.Array, tol: jax.Array, max_steps: jax.Array
) -> End:
    def one(lane: Any) -> End:
        own, lasso, ridge = lane
        return run(net, own._replace(x=own.x.astype(l2.dtype)), lasso, ridge, tol, max_steps)

    each = jax.vmap(one) if side_by_side else partial(jax.lax.map, one)
    return each((batch, l1, l2))
