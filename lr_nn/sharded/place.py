"""Batches over the devices of a mesh, padded to shards of as many rows each."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.sharded.world import agree
from lr_nn.types import Batch


def placed(mesh: Mesh, axes: tuple[str, ...], shards: int, data: Batch | Rows) -> Batch:
    """The rows of this process and of all others, as one Batch over the mesh."""
    if isinstance(data, Rows):
        data = data.part(jax.process_index(), jax.process_count()).read(0, _part_length(data))
    if not isinstance(data, Batch):
        raise TypeError(f"data must be a Batch(x, y) or Rows; got {type(data).__name__}")
    if is_placed(mesh, axes, shards, data):
        return data
    if not all(check.is_concrete(leaf) for leaf in data):
        raise ValueError(
            f"under jit, and of arrays over many processes, a batch must have been placed: its rows a multiple of the "
            f"{shards} shards; got {np.shape(data.x)[0]} rows"
        )
    arrays = _columns(data)
    n, processes = len(arrays.x), jax.process_count()
    each, weighted = _common(arrays, shards // processes)
    missing = each * (shards // processes) - n
    if weighted or missing:
        dtype = np.float64 if arrays.x.dtype == np.float64 else np.float32
        weight = np.ones(n, dtype) if arrays.weight is None else arrays.weight
        arrays = arrays._replace(weight=np.concatenate([weight, np.zeros(missing, weight.dtype)]))
    sharding = NamedSharding(mesh, P(axes))

    def lay(name: str, array: Any) -> Any:
        if array is None:
            return None
        if missing and name != "weight":
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        return jax.make_array_from_process_local_data(sharding, array)

    return Batch(*map(lay, Batch._fields, arrays))


def is_placed(mesh: Mesh, axes: tuple[str, ...], shards: int, batch: Batch) -> bool:
    """Do all leaves lie over the mesh as rows do? Of a tracer that is taken for granted."""
    sharding = NamedSharding(mesh, P(axes))

    def lies(leaf: Any) -> bool:
        if isinstance(leaf, jax.core.Tracer):
            return leaf.ndim > 0 and leaf.shape[0] % shards == 0
        return isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim)

    return all(lies(leaf) and len(leaf) % shards == 0 for leaf in batch if leaf is not None)


def rows_given(batch: Any) -> int | None:
    """The rows of a batch of the host, or of one that is placed; None, meaning all, with many processes."""
    return len(batch.x) if isinstance(batch, Batch) and jax.process_count() == 1 else None


def look(net: Network, batch: Batch) -> None:
    """Check the values of targets that lie over many processes: each looks at its own."""
    if isinstance(batch.y, jax.Array) and not isinstance(batch.y, jax.core.Tracer) and not check.is_concrete(batch.y):
        y = np.concatenate([np.asarray(shard.data) for shard in batch.y.addressable_shards])
        net.loss.targets(y, len(y), net.sizes[-1], np.dtype(np.float32))


def _part_length(rows: Rows) -> int:
    return len(rows.part(jax.process_index(), jax.process_count()))


def _columns(batch: Batch) -> Batch:
    """The leaves as NumPy arrays of as many rows, their values checked."""
    x = check.numeric("x", batch.x)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (n, d) with n > 0; got {x.shape}")
    check.finite("x", x)
    weight = None if batch.weight is None else np.asarray(check.numeric("weight", batch.weight))
    if weight is not None:
        check.require("weight", weight, check.is_not_negative, "finite and not negative")
        weight = weight if weight.dtype.kind == "f" else weight.astype(np.float32)
    offset = None if batch.offset is None else np.asarray(check.numeric("offset", batch.offset))
    if offset is not None:
        check.finite("offset", offset)
    y = np.asarray(check.numeric("targets", batch.y))
    for name, array in (("targets", y), ("weight", weight), ("offset", offset)):
        if array is not None and (array.ndim == 0 or len(array) != len(x)):
            raise ValueError(f"{name} must have {len(x)} rows, as x has; got shape {array.shape}")
    return Batch(np.asarray(x), y, weight, offset)


def _common(arrays: Batch, shards: int) -> tuple[int, bool]:
    """Rows of a shard, and whether there are weights: the most that any process needs of its `shards`."""
    n = len(arrays.x)
    each, weighted = -(-n // shards), arrays.weight is not None or n % shards > 0
    if jax.process_count() == 1:
        return each, weighted
    from jax.experimental.multihost_utils import process_allgather

    agree(
        "their part of the data",
        columns=arrays.x.shape[1],
        types=[None if a is None else str(a.dtype) for a in arrays[:2]],
        targets=arrays.y.shape[1:],
        offset=None if arrays.offset is None else arrays.offset.shape[1:],
    )
    told = np.asarray(process_allgather(np.array([each, weighted, n])))
    most = int(told[:, 0].max())
    return most, bool(told[:, 1].any() or (told[:, 2] != most * shards).any())
