"""A chunk of rows, and what a pass may ask of it: products with x in NumPy, the loss in a compiled function of η.

Rows are (x - mean, 1): columns are centred where the bias is free, which changes the bias and nothing else. θ is (q, k)
with q = d, or d + 1 with the bias last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from lr_nn.fitting.terms import Terms, constants, curvatures, encoded, multiplied, once, terms
from lr_nn.losses import Loss

__all__ = ["Chunk", "Frame"]


@dataclass(frozen=True)
class Frame:
    """How rows are read: `mean` (d,) of the columns, subtracted from x itself where it is `far` from their range.

    `offset` (k,) is subtracted from every offset. `bias`: is there a column of ones?
    """

    mean: np.ndarray
    far: bool
    offset: np.ndarray
    bias: bool

    @property
    def shift(self) -> np.ndarray | None:
        """What algebra takes off products with x."""
        return None if self.far or not self.mean.any() else self.mean


@dataclass(frozen=True)
class Chunk:
    """Some rows in memory: `x` (m, d) as it came, targets, weights (m,) and offset (m, k) or None."""

    x: np.ndarray
    y: Any
    weight: np.ndarray
    offset: np.ndarray | None
    loss: Loss
    outputs: int
    frame: Frame
    size: int

    @cached_property
    def inputs(self) -> np.ndarray:
        """x in float64, less its mean if that is far."""
        x = self.x
        if self.frame.far:
            return x - self.frame.mean
        return x if x.dtype == np.float64 else x.astype(np.float64)

    @cached_property
    def extent(self) -> np.ndarray:
        """The largest |x̃| of every column, (q,)."""
        x, shift = self.inputs, self.frame.shift
        most, least = (x.max(axis=0), x.min(axis=0)) if self.x.size else (np.zeros(x.shape[1]),) * 2
        shift = 0 if shift is None else shift
        return np.append(np.maximum(np.abs(most - shift), np.abs(least - shift)), np.ones(int(self.frame.bias)))

    @cached_property
    def padded(self) -> tuple[Any, Any]:
        """Targets and weights on the device, filled up with rows of weight zero."""
        y, weight = (_filled(np.asarray(a), self.size) for a in (self.y, self.weight))
        return jax.device_put((y, weight))

    def eta(self, theta: np.ndarray) -> np.ndarray:
        """(x - mean) w + b + offset, (size, k), zero in the rows of padding."""
        d, m = self.x.shape[1], len(self.x)
        eta = np.zeros((self.size, self.outputs))
        eta[:m] = self.products(theta)
        if self.offset is not None:
            eta[:m] += self.offset - self.frame.offset[None] if self.frame.offset.any() else self.offset
        assert d + self.frame.bias == len(theta)
        return eta

    def products(self, theta: np.ndarray) -> np.ndarray:
        """(x - mean) w + b, (m, k)."""
        d, shift = self.x.shape[1], self.frame.shift
        w = theta[:d]
        b = theta[d] if self.frame.bias else np.zeros(self.outputs)
        b = b if shift is None else b - shift @ w
        eta = (self.inputs @ w[:, 0])[:, None] if w.shape[1] == 1 else self.inputs @ w
        eta += b[None]
        return eta

    def back(self, rows: np.ndarray) -> np.ndarray:
        """Σ_i x̃_i rows_i, (q, k), of rows (m, k)."""
        sums, x = rows.sum(axis=0), self.inputs
        found = (rows[:, 0] @ x)[:, None] if rows.shape[1] == 1 else (rows.T @ x).T
        if self.frame.shift is not None:
            found = found - self.frame.shift[:, None] * sums[None]
        return np.concatenate([found, sums[None]]) if self.frame.bias else found

    def gram(self, weight: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Σ_i weight_i x̃_i x̃_iᵀ, (q, q), of products in `dtype`."""
        x = self.inputs
        if (weight >= 0).all():
            half = np.sqrt(weight)
            rows = np.multiply(x, half[:, None], dtype=dtype, casting="same_kind")
            found, edge = (rows.T @ rows).astype(np.float64), (half.astype(dtype) @ rows).astype(np.float64)
        else:
            rows = x * weight[:, None]
            found, edge = x.T @ rows, rows.sum(axis=0)
        total, shift = weight.sum(), self.frame.shift
        if shift is not None:
            found = found - np.outer(shift, edge) - np.outer(edge, shift) + total * np.outer(shift, shift)
            edge = edge - total * shift
        if not self.frame.bias:
            return found
        return np.block([[found, edge[:, None]], [edge[None], np.full((1, 1), total)]])

    def terms(self, eta: np.ndarray) -> Terms:
        """The loss at η (size, k), in NumPy, without the padding."""
        cost, residual, curvature = once(terms, self.loss, eta, *self.padded)
        m = len(self.x)
        return Terms(float(cost), np.asarray(residual)[:m], None if curvature is None else np.asarray(curvature)[:m])

    def curvatures(self, eta: np.ndarray) -> np.ndarray:
        """s ∂²ℓ/∂η² at η, (k, k, m)."""
        return np.asarray(once(curvatures, self.loss, eta, *self.padded))[:, :, : len(self.x)]

    def multiplied(self, eta: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """s (∂²ℓ/∂η²) η̇ at η, (m, k)."""
        found = once(multiplied, self.loss, eta, *self.padded, _filled(moved, self.size))
        return np.asarray(found)[: len(self.x)]

    def constants(self) -> tuple[np.ndarray, ...]:
        """Σ s y, the largest y and -y, Σ s times the smallest loss."""
        y, weight = self.padded
        zeros = np.zeros((self.size, self.outputs))
        return tuple(np.asarray(a) for a in once(constants, self.loss, y, weight, zeros))

    def encoded(self) -> np.ndarray:
        """The targets as rows (m, k)."""
        zeros = np.zeros((self.size, self.outputs))
        return np.asarray(once(encoded, self.loss, self.padded[0], zeros))[: len(self.x)]


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """`size` rows, those that are missing zero."""
    if len(array) == size:
        return array
    whole = np.zeros((size, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole
