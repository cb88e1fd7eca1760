"""The inputs of many lanes: one x that all share, in chunks of rows, or an x for each lane; and products with them.

Arrays of lanes have the lane axis first: θ is (m, q, k), q = d + 1 with the bias last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lr_nn import losses
from lr_nn.fitting.chunks import Chunk, Frame
from lr_nn.fitting.terms import bucket

__all__ = ["FEW_COLUMNS", "Inputs", "OwnInputs", "SharedInputs"]

# Rows of a chunk of a shared x: 2 MB of 128 columns, which stay in the cache while all lanes use them.
CHUNK_ROWS = 2_048
# Columns up to which the Gram matrices of all lanes are one product with the pairwise products of columns.
FEW_COLUMNS = 40
# Weights from which these products are worth their making.
FEW_WEIGHTS = 8


@dataclass(frozen=True)
class SharedInputs:
    """One x (n, d) for all lanes, less the mean of its columns where `frame` says so, in chunks of rows."""

    chunks: tuple[Chunk, ...]
    frame: Frame

    @classmethod
    def of(cls, x: np.ndarray, frame: Frame, pairs: int) -> SharedInputs:
        """The inputs of an array, whose rows are read where they are, at most `pairs` at a time."""
        most = min(pairs, CHUNK_ROWS)
        size = min(most, bucket(max(1, -(-len(x) // -(-len(x) // most)))))
        parts = [x[begin : begin + size] for begin in range(0, len(x), size)]
        none = np.zeros(0)
        return cls(tuple(Chunk(part, None, none, None, losses.squared_error, 1, frame, size) for part in parts), frame)

    @property
    def columns(self) -> int:
        """q."""
        return len(self.frame.mean) + self.frame.bias

    @cached_property
    def x(self) -> np.ndarray:
        """(n, d), as it came."""
        return np.concatenate([chunk.x for chunk in self.chunks])

    @property
    def bias(self) -> bool:
        """Is the last column the constant 1?"""
        return self.frame.bias

    @property
    def mean(self) -> np.ndarray:
        """What is taken off the columns, (d,)."""
        return self.frame.mean

    @property
    def size(self) -> int:
        """Rows of a chunk."""
        return self.chunks[0].size

    def rows(self, numbers: np.ndarray, pairs: int) -> SharedInputs:
        """The inputs of some rows, which are copied, at most `pairs` in a chunk."""
        ends = np.cumsum([0, *(len(chunk.x) for chunk in self.chunks)])
        which = np.searchsorted(ends, numbers, side="right") - 1
        parts = [chunk.x[numbers[which == i] - ends[i]] for i, chunk in enumerate(self.chunks)]
        return SharedInputs.of(np.concatenate(parts), self.frame, pairs)

    def constant(self) -> SharedInputs:
        """The inputs without columns, but for the bias."""
        frame = replace(self.frame, mean=np.zeros(0), far=False)
        return SharedInputs(tuple(replace(c, x=c.x[:, :0], frame=frame, last={}) for c in self.chunks), frame)

    def take(self, ids: np.ndarray) -> SharedInputs:
        """The inputs of some lanes: the same."""
        return self

    @cached_property
    def extent(self) -> np.ndarray:
        """The largest |x̃| of every column, (1, q)."""
        return np.stack([chunk.extent for chunk in self.chunks]).max(axis=0)[None]

    def eta(self, i: int, lanes: slice, theta: np.ndarray) -> np.ndarray:
        """x̃ θ of chunk i, (g, r, k)."""
        chunk, (g, _, k), d = self.chunks[i], theta.shape, len(self.frame.mean)
        w = np.moveaxis(theta[:, :d], 1, 2).reshape(g * k, d)
        eta = w @ (chunk.inputs if w.dtype == np.float64 else chunk.narrow).T
        b = theta[:, d].reshape(g * k) if self.frame.bias else np.zeros(1, w.dtype)
        b = b if self.frame.shift is None else b - w @ self.frame.shift.astype(w.dtype)
        eta += np.reshape(b, (-1, 1))
        return eta.reshape(g, -1, 1) if k == 1 else np.ascontiguousarray(np.moveaxis(eta.reshape(g, k, -1), 1, 2))

    def back(self, i: int, lanes: slice, rows: np.ndarray) -> np.ndarray:
        """Σ_r x̃_r rows_r of chunk i, (g, q, k), of rows (g, r, k)."""
        chunk, (g, r, k) = self.chunks[i], rows.shape
        flat = np.moveaxis(rows, 2, 1).reshape(g * k, r)
        found = (flat @ (chunk.inputs if rows.dtype == np.float64 else chunk.narrow)).astype(np.float64, copy=False)
        sums = flat.sum(axis=1, dtype=np.float64)[:, None]
        found = found if self.frame.shift is None else found - sums * self.frame.shift[None]
        found = np.concatenate([found, sums], axis=1) if self.frame.bias else found
        return np.moveaxis(found.reshape(g, k, -1), 1, 2)

    def grams(self, i: int, lanes: slice, weights: np.ndarray, dtype: Any) -> np.ndarray:
        """Σ_r weights_r x̃_r x̃_rᵀ of chunk i, (g, c, q, q), of weights (g, c, r)."""
        chunk, (g, c, r) = self.chunks[i], weights.shape
        flat, q = weights.reshape(g * c, r), self.columns
        if q > FEW_COLUMNS or g * c < FEW_WEIGHTS:
            return np.stack([chunk.gram(weight, dtype) for weight in flat]).reshape(g, c, q, q)
        products = self._products(dtype) if len(self.chunks) == 1 else self._of_columns(chunk, dtype)
        return _symmetric(flat.astype(dtype, copy=False) @ products, q).reshape(g, c, q, q)

    def _products(self, dtype: Any) -> np.ndarray:
        """The pairwise products of columns of the only chunk, made once."""
        kept = self.chunks[0].last
        if dtype not in kept:
            kept[dtype] = self._of_columns(self.chunks[0], dtype)
        return kept[dtype]

    def _of_columns(self, chunk: Chunk, dtype: Any) -> np.ndarray:
        """x̃_a x̃_b of all pairs of columns a ≤ b, (r, q (q + 1) / 2)."""
        x = chunk.inputs if self.frame.shift is None else chunk.inputs - self.frame.shift
        x = np.concatenate([x, np.ones((len(x), int(self.frame.bias)))], axis=1)
        a, b = np.triu_indices(self.columns)
        return (x[:, a] * x[:, b]).astype(dtype, copy=False)

    def mean_squares(self, weight: np.ndarray) -> np.ndarray:
        """Σ s x̃² / Σ s of all rows, (q,)."""
        total, begin = np.zeros(self.columns - self.bias), 0
        for chunk in self.chunks:
            x = chunk.inputs if self.frame.shift is None else chunk.inputs - self.frame.shift
            total += weight[begin : begin + len(x)] @ (x * x)
            begin += len(x)
        return np.append(total / weight.sum(), np.ones(int(self.bias)))


def _symmetric(upper: np.ndarray, q: int) -> np.ndarray:
    """Matrices (m, q, q) by their upper triangles."""
    entry = np.empty((q, q), int)
    a, b = np.triu_indices(q)
    entry[a, b] = entry[b, a] = np.arange(len(a))
    return np.take(upper, entry, axis=1).astype(np.float64, copy=False)


@dataclass(frozen=True)
class OwnInputs:
    """An x̃ for each lane, centred, with the constant 1 of the bias last; a chunk has `size` rows.

    `x` holds x̃ᵀ (m, q, n): a Gram matrix of long rows takes half the time (measured).
    """

    x: np.ndarray
    mean: np.ndarray
    bias: bool
    size: int

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray, centred: bool, bias: bool, pairs: int) -> OwnInputs:
        """The inputs of x (m, n, d); rows without weight are zero, for their numbers may be anything."""
        m, n, d = x.shape
        counts = np.broadcast_to(weight > 0, (m, n))
        inputs = np.ones((m, d + bias, n))
        inputs[:, :d] = np.swapaxes(x, 1, 2)
        dead = None if counts.all() else np.broadcast_to(~counts[:, None], inputs.shape)
        if dead is not None:
            inputs[dead] = 0
        mean = np.zeros((m, d))
        if centred:
            share = np.broadcast_to(weight, (m, n)) / weight.sum(axis=-1, keepdims=True)
            mean = (inputs[:, :d] @ share[..., None])[..., 0]
            inputs[:, :d] -= mean[..., None]
            if dead is not None:
                inputs[dead] = 0
        return cls(inputs, mean, bias, min(n, pairs))

    @property
    def columns(self) -> int:
        """q."""
        return self.x.shape[1]

    @property
    def chunks(self) -> range:
        """Where chunks of rows begin."""
        return range(0, self.x.shape[2], self.size)

    def constant(self) -> OwnInputs:
        """The inputs without columns, but for the bias."""
        d = self.mean.shape[1]
        return OwnInputs(self.x[:, d:], self.mean[:, :0], self.bias, self.size)

    def take(self, ids: np.ndarray) -> OwnInputs:
        """The inputs of some lanes."""
        return OwnInputs(self.x[ids], self.mean[ids], self.bias, self.size)

    @cached_property
    def extent(self) -> np.ndarray:
        """The largest |x̃| of every column, (m, q)."""
        return np.maximum(self.x.max(axis=2), -self.x.min(axis=2))

    @cached_property
    def narrow(self) -> np.ndarray:
        """x̃ᵀ in float32."""
        return self.x.astype(np.float32)

    def eta(self, i: int, lanes: slice, theta: np.ndarray) -> np.ndarray:
        """x̃ θ of chunk i, (g, r, k)."""
        eta = np.swapaxes(theta, 1, 2) @ self._part(self._x(theta.dtype), i, lanes)
        return np.ascontiguousarray(np.swapaxes(eta, 1, 2))

    def back(self, i: int, lanes: slice, rows: np.ndarray) -> np.ndarray:
        """Σ_r x̃_r rows_r of chunk i, (g, q, k), of rows (g, r, k)."""
        return (self._part(self._x(rows.dtype), i, lanes) @ rows).astype(np.float64, copy=False)

    def grams(self, i: int, lanes: slice, weights: np.ndarray, dtype: Any) -> np.ndarray:
        """Σ_r weights_r x̃_r x̃_rᵀ of chunk i, (g, c, q, q), of weights (g, c, r)."""
        x = self._part(self._x(dtype), i, lanes)[:, None]
        weighted = weights.astype(x.dtype, copy=False)[:, :, None] * x
        return (weighted @ np.swapaxes(x, 2, 3)).astype(np.float64, copy=False)

    def _x(self, dtype: Any) -> np.ndarray:
        return self.x if dtype == np.float64 else self.narrow

    def _part(self, x: np.ndarray, i: int, lanes: slice) -> np.ndarray:
        return x[lanes, :, i * self.size : (i + 1) * self.size]


Inputs = SharedInputs | OwnInputs
