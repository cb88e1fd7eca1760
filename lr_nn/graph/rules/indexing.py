"""Reading and writing at positions that are data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lr_nn.graph.rules.base import Rule, is_float


class Windows(NamedTuple):
    """How indices choose windows of an array; the words are those of the gather of XLA.

    offset: the axes of the windows in the array of windows. collapsed: axes of the operand of which a window is one
    entry. mapped: the axis of the operand that each component of an index moves along. batching: axes of the operand
    that go along with axes of the indices.
    """

    offset: Sequence[int]
    collapsed: Sequence[int]
    mapped: Sequence[int]
    batching: Sequence[int]
    index_batching: Sequence[int]

    def positions(self, shape, index, sizes, moved) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """For every entry of the array of windows: its coordinates in the operand, and whether it is inside.

        A window that is not wholly inside is outside, or, if it is to be `moved`, at the edge.
        """
        batch = index.shape[:-1]
        rank = len(batch) + len(self.offset)
        batch_axes = [axis for axis in range(rank) if axis not in self.offset]
        room = np.array([shape[axis] - sizes[axis] for axis in self.mapped], int)
        start = index.astype(np.int64)
        inside = ((start >= 0) & (start <= room)).all(axis=-1)
        start = np.clip(start, 0, np.maximum(room, 0))
        inside = inside | moved

        def along(array, axes):
            """An array with the given axes among those of the array of windows."""
            lifted = [1] * rank
            for axis, size in zip(axes, np.shape(array)):
                lifted[axis] = size
            return np.reshape(array, lifted)

        coordinates = [np.zeros([1] * rank, int) for _ in shape]
        for component, axis in enumerate(self.mapped):
            coordinates[axis] = coordinates[axis] + along(start[..., component], batch_axes)
        for axis, index_axis in zip(self.batching, self.index_batching):
            coordinates[axis] = coordinates[axis] + along(np.arange(batch[index_axis]), [batch_axes[index_axis]])
        windowed = [axis for axis in range(len(shape)) if axis not in (*self.collapsed, *self.batching)]
        for axis, place in zip(windowed, self.offset):
            coordinates[axis] = coordinates[axis] + along(np.arange(sizes[axis]), [place])
        whole = [0] * rank
        for axis, size in zip(batch_axes, batch):
            whole[axis] = size
        for axis, place in zip(windowed, self.offset):
            whole[place] = sizes[axis]
        return tuple(np.broadcast_to(c, whole) for c in coordinates), np.broadcast_to(along(inside, batch_axes), whole)


def _clips(mode: Any) -> bool:
    return mode is not None and mode.name == "CLIP"


def _reads(mode: Any) -> bool:
    """Is a window that is not inside read where it is moved to? A broken promise is, but passes nothing back."""
    return mode is not None and mode.name in ("CLIP", "PROMISE_IN_BOUNDS")


def _read(x, index, dimension_numbers, slice_sizes, moved):
    d = dimension_numbers
    windows = Windows(
        d.offset_dims, d.collapsed_slice_dims, d.start_index_map, d.operand_batching_dims, d.start_indices_batching_dims
    )
    return windows.positions(x.shape, index, slice_sizes, moved)


def _gather(x, index, *, dimension_numbers, slice_sizes, mode, fill_value):
    where, inside = _read(x, index, dimension_numbers, slice_sizes, _reads(mode))
    if fill_value is None:
        fill_value = np.nan if is_float(x.dtype) else True if x.dtype.kind == "b" else np.iinfo(x.dtype).min
        fill_value = np.iinfo(x.dtype).max if x.dtype.kind == "u" else fill_value
    if not x.size:
        return np.full(inside.shape, fill_value, x.dtype)
    return np.where(inside, x[where], np.asarray(fill_value, x.dtype))


def _gathered(g, v, x, index, *, dimension_numbers, slice_sizes, mode):
    where, inside = _read(x, index, dimension_numbers, slice_sizes, _clips(mode))
    back = np.zeros(x.shape, g.dtype)
    np.add.at(back, tuple(c[inside] for c in where), g[inside])
    return back, None


def _written(x, index, updates, dimension_numbers, mode):
    """The coordinates in x of the updates that land, and which they are."""
    d = dimension_numbers
    windows = Windows(
        d.update_window_dims,
        d.inserted_window_dims,
        d.scatter_dims_to_operand_dims,
        d.operand_batching_dims,
        d.scatter_indices_batching_dims,
    )
    sizes = [1] * x.ndim
    windowed = [axis for axis in range(x.ndim) if axis not in (*windows.collapsed, *windows.batching)]
    for axis, place in zip(windowed, windows.offset):
        sizes[axis] = updates.shape[place]
    where, inside = windows.positions(x.shape, index, sizes, _clips(mode))
    return tuple(c[inside] for c in where), inside


def _scatter(x, index, updates, *, dimension_numbers, mode):
    where, lands = _written(x, index, updates, dimension_numbers, mode)
    whole = x.copy()
    whole[where] = updates[lands]
    return whole


def _scattered(g, v, x, index, updates, *, dimension_numbers, mode):
    """Of updates to one place the last is there, and gains."""
    where, lands = _written(x, index, updates, dimension_numbers, mode)
    numbers = np.arange(lands.sum())
    winner = np.full(x.shape, -1)
    winner[where] = numbers
    gain = np.zeros(updates.shape, g.dtype)
    gain[lands] = np.where(winner[where] == numbers, g[where], 0)
    return np.where(winner < 0, g, 0), None, gain


def _scatter_add(x, index, updates, *, dimension_numbers, mode):
    where, lands = _written(x, index, updates, dimension_numbers, mode)
    whole = x.copy()
    np.add.at(whole, where, updates[lands])
    return whole


def _scattered_add(g, v, x, index, updates, *, dimension_numbers, mode):
    where, lands = _written(x, index, updates, dimension_numbers, mode)
    gain = np.zeros(updates.shape, g.dtype)
    gain[lands] = g[where]
    return g, None, gain


def _sorted(*operands, dimension, num_keys):
    order = np.lexsort(operands[num_keys - 1 :: -1], axis=dimension)
    return tuple(np.take_along_axis(x, order, dimension) for x in operands)


def _unsorted(g, v, *operands, dimension, num_keys):
    order = np.lexsort(operands[num_keys - 1 :: -1], axis=dimension)
    g = g if isinstance(g, tuple) else (g,)
    return tuple(_put(gain, order, x.shape, dimension) for gain, x in zip(g, operands))


def _put(g, order, shape, axis):
    back = np.zeros(shape, g.dtype)
    np.put_along_axis(back, order, g, axis)
    return back


def _largest(x, k, axis):
    """Positions of the k largest along an axis, of equal ones the first first."""
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.take(x.shape[axis] - 1 - np.flip(backwards, axis), np.arange(k), axis)


def _top(x, *, k, axis):
    order = _largest(x, k, axis)
    return np.take_along_axis(x, order, axis), order


def _topped(g, v, x, *, k, axis):
    return _put(g[0], _largest(x, k, axis), x.shape, axis)


def _sorting_work(v, x, *others, dimension):
    return x.size * math.ceil(math.log2(max(x.shape[dimension], 2)))


def _none(v, *operands):
    return 0


RULES: tuple[Rule, ...] = (
    Rule("gather", _gather, _gathered, "{0} at {1}", ("{bar} added at {1}, else 0", ""), cost=_none),
    Rule("scatter", _scatter, _scattered, "{0} with {2} at {1}", ("{bar}, 0 at {1}", "", "{bar} at {1}"), cost=_none),
    Rule(
        "scatter-add",
        _scatter_add,
        _scattered_add,
        "{0} with {2} added at {1}",
        ("{bar}", "", "{bar} at {1}"),
        cost=lambda v, x, index, updates: updates.size,
    ),
    Rule(
        "sort",
        _sorted,
        _unsorted,
        "sort {operands} along axis {dimension}",
        "{bar} put back in order",
        cost=_sorting_work,
    ),
    Rule("top_k", _top, _topped, "the {k} largest of {0}", "{bar} at their places, else 0"),
)
