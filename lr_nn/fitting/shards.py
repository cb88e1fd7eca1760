"""Arrays as the parts of them that this process holds, where they are."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lr_nn.types import Batch

__all__ = ["parts_of"]


def parts_of(batch: Batch) -> tuple[list[Batch], bool]:
    """The batch by shards of rows, each once, and whether other processes hold the rest.

    Arrays of one device, or of none, are one part.
    """
    x = batch.x
    if not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1:
        return [batch], False
    pieces = [_pieces(array) for array in batch]
    rows = list(pieces[0] or ())
    if all(piece is None or list(piece) == rows for piece in pieces):
        parts = [Batch(*(None if piece is None else piece[row] for piece in pieces)) for row in rows]
        return parts, not x.is_fully_addressable
    if not x.is_fully_addressable:
        raise ValueError("x, y, weight and offset must lie over the processes alike, by rows")
    return [Batch(*(None if array is None else np.asarray(array) for array in batch))], False


def _pieces(array: Any) -> dict[tuple[int, int], Any] | None:
    """The shards of this process by their range of rows, replicas left out."""
    if array is None:
        return None
    if not isinstance(array, jax.Array):
        return {(0, len(array)): np.asarray(array)}
    found = {}
    for shard in array.addressable_shards:
        rows, *others = shard.index
        whole = all(part in (slice(None), slice(0, size)) for part, size in zip(others, array.shape[1:]))
        if not whole:
            return {}
        if shard.replica_id == 0:
            begin, end, _ = rows.indices(len(array))
            found[begin, end] = shard.data
    return dict(sorted(found.items()))
