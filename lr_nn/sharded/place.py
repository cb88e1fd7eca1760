"""Batches over the devices of a mesh, padded to shards of as many rows each."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lr_nn import check
from lr_nn.admission import columns
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
        return _on_mesh(mesh, axes, data)
    if not all(check.is_concrete(leaf) for leaf in data):
        raise ValueError(
            f"under jit, and of arrays over many processes, a batch must have been placed: its rows a multiple of the "
            f"{shards} shards; got {np.shape(data.x)[0]} rows"
        )
    arrays = columns(data)
    rows, real, weighted = _dealt(arrays, shards)
    if weighted or not real.all():
        dtype = np.float64 if arrays.x.dtype == np.float64 else np.float32
        arrays = arrays._replace(weight=np.ones(len(arrays.x), dtype) if arrays.weight is None else arrays.weight)
    sharding = NamedSharding(mesh, P(axes))

    def lay(name: str, array: Any) -> Any:
        if array is None:
            return None
        if not real.all():
            array = array[rows]
        if name == "weight":
            array = np.where(real, array, 0)
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


def _on_mesh(mesh: Mesh, axes: tuple[str, ...], batch: Batch) -> Batch:
    """A placed batch whose arrays name this mesh: without a copy, those that name another one of the same devices.

    The axes of that one may be explicit, and sums over rows then need a sharding at every product.
    """
    sharding = NamedSharding(mesh, P(axes))

    def names_another(leaf: Any) -> bool:
        if leaf is None or isinstance(leaf, jax.core.Tracer):
            return False
        return not isinstance(leaf.sharding, NamedSharding) or leaf.sharding.mesh != mesh

    if not any(map(names_another, batch)):
        return batch
    return Batch(*(jax.device_put(leaf, sharding) if names_another(leaf) else leaf for leaf in batch))


def given(batch: Any, shards: int) -> slice | np.ndarray:
    """Which rows of a placed batch are those of `batch`, as it came: all, but for the padding of one of the host."""
    if not isinstance(batch, Batch) or jax.process_count() > 1 or len(batch.x) % shards == 0:
        return slice(None)
    return np.flatnonzero(_deal(-(-len(batch.x) // shards), np.arange(shards + 1) * len(batch.x) // shards)[1])


def look(net: Network, batch: Batch) -> None:
    """Check the values of targets that lie over many processes: each looks at its own."""
    if isinstance(batch.y, jax.Array) and not isinstance(batch.y, jax.core.Tracer) and not check.is_concrete(batch.y):
        y = np.concatenate([np.asarray(shard.data) for shard in batch.y.addressable_shards])
        net.loss.targets(y, len(y), net.sizes[-1], np.dtype(np.float32))


def _part_length(rows: Rows) -> int:
    return len(rows.part(jax.process_index(), jax.process_count()))


def _dealt(arrays: Batch, shards: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """For each place in the shards of this process its row, and whether it is not padding; are there weights?

    Shard i of S holds rows ⌊i n / S⌋, ..., whatever processes there are, if each has its `Rows.part`.
    """
    own, me, n = shards // jax.process_count(), jax.process_index(), len(arrays.x)
    counts, weighted = np.array([n]), arrays.weight is not None
    if jax.process_count() > 1:
        counts, weighted = _told(arrays)
    ends = np.arange(shards + 1) * counts.sum() // shards - counts[:me].sum()
    ends = ends[me * own : (me + 1) * own + 1]
    if ends[0] != 0 or ends[-1] != n:
        ends = np.arange(own + 1) * n // own
    return *_deal(max(-(-count // own) for count in counts), ends), weighted


def _deal(length: int, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of shards [ends[i], ends[i + 1]) of `length` places, the last row of each again in those left over."""
    rows = ends[:-1, None] + np.arange(length)[None]
    real = rows < ends[1:, None]
    return np.clip(rows, 0, np.maximum(ends[1:] - 1, 0)[:, None]).reshape(-1), real.reshape(-1)


def _told(arrays: Batch) -> tuple[np.ndarray, bool]:
    """The rows of every process, and whether any has weights. ValueError where columns differ."""
    from jax.experimental.multihost_utils import process_allgather

    agree(
        "their part of the data",
        columns=arrays.x.shape[1],
        types=[str(a.dtype) for a in arrays[:2]],
        targets=arrays.y.shape[1:],
        offset=None if arrays.offset is None else arrays.offset.shape[1:],
    )
    told = np.asarray(process_allgather(np.array([len(arrays.x), arrays.weight is not None], np.int32)))
    return told[:, 0].astype(int), bool(told[:, 1].any())
