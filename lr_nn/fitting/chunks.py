"""A chunk of rows, and what a pass may ask of it: products with x in NumPy, the loss in a compiled function of η.

Rows are (x - mean, 1): columns are centred where the bias is free, which changes the bias and nothing else. θ is (q, k)
with q = d, or d + 1 with the bias last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from lr_nn.fitting.terms import Terms, constants, curvatures, curves, encoded, multiplied, once, terms
from lr_nn.losses import Loss

__all__ = ["Chunk", "Frame", "Sums", "filled"]


# Rows that stay in the cache of a core while they are read twice.
PIECE = 1024


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


class Sums(NamedTuple):
    """Sums over some rows: Σ s ℓ and its gradient (q, k); if asked for, Σ |s δ| (k,), Σ s ∂²ℓ/∂η² (k,) and
    Σ s x̃ ∂²ℓ/∂η² (q, k), of outputs that couple (k, k) and (a, q, b), unless the loss states no curvature; the Hessian
    in blocks; and the largest |x̃| of every column, (q,).
    """

    cost: Any
    gradient: Any
    slopes: Any = None
    curvature: Any = None
    cross: Any = None
    hessian: Any = None
    extent: Any = None

    def joined(self, other: Sums) -> Sums:
        """Of these rows and others."""
        added = (None if a is None else a + b for a, b in zip(self[:-1], other[:-1]))
        return Sums._make([*added, None if self.extent is None else np.maximum(self.extent, other.extent)])


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
    last: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> np.ndarray:
        """x in float64, less its mean if that is far."""
        x = self.x
        if self.frame.far:
            return x - self.frame.mean
        return x if x.dtype == np.float64 else x.astype(np.float64)

    @cached_property
    def narrow(self) -> np.ndarray:
        """x in float32, less its mean if that is far: for products that need few digits."""
        return self.inputs.astype(np.float32)

    @cached_property
    def extent(self) -> np.ndarray:
        """The largest |x̃| of every column, (q,)."""
        x, shift = self.inputs, 0 if self.frame.shift is None else self.frame.shift
        found = np.zeros(x.shape[1])
        for begin in range(0, len(x) if x.size else 0, PIECE):
            rows = x[begin : begin + PIECE]
            found = np.maximum(found, np.maximum(rows.max(axis=0) - shift, shift - rows.min(axis=0)))
        return np.append(found, np.ones(int(self.frame.bias)))

    @cached_property
    def padded(self) -> tuple[Any, Any]:
        """Targets and weights on the device, filled up with rows of weight zero."""
        y, weight = (filled(np.asarray(a), self.size) for a in (self.y, self.weight))
        return jax.device_put((y, weight))

    def eta(self, theta: np.ndarray) -> np.ndarray:
        """(x - mean) w + b + offset, (size, k), zero in the rows of padding."""
        m = len(self.x)
        eta = np.zeros((self.size, self.outputs))
        eta[:m] = self.products(theta)
        if self.offset is not None:
            eta[:m] += self.offset - self.frame.offset[None] if self.frame.offset.any() else self.offset
        return eta

    def products(self, theta: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
        """(x - mean) w + b, (m, k), in the precision of x."""
        d, shift = self.x.shape[1], self.frame.shift
        x, w = self.inputs if x is None else x, theta[:d]
        b = theta[d] if self.frame.bias else np.zeros(self.outputs, theta.dtype)
        b = b if shift is None else b - (shift @ w).astype(theta.dtype)
        eta = (x @ w[:, 0])[:, None] if w.shape[1] == 1 else x @ w
        eta += b[None]
        return eta

    def back(self, rows: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
        """Σ_i x̃_i rows_i, (q, k), of rows (m, k), by products in the precision of x."""
        sums, x = rows.sum(axis=0, dtype=np.float64), self.inputs if x is None else x
        found = (rows[:, 0] @ x)[:, None] if rows.shape[1] == 1 else (rows.T @ x).T
        if self.frame.shift is not None:
            found = found - self.frame.shift[:, None] * sums[None]
        return np.concatenate([found, sums[None]]) if self.frame.bias else found

    def gram(self, weight: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Σ_i weight_i x̃_i x̃_iᵀ, (q, q), of products in `dtype`."""
        x = self.inputs if dtype == np.float64 else self.narrow
        if (weight >= 0).all():
            half = np.sqrt(weight).astype(dtype, copy=False)
            rows = x * half[:, None]
            found, edge = (rows.T @ rows).astype(np.float64), (half @ rows).astype(np.float64)
        else:
            rows = x * weight[:, None].astype(dtype, copy=False)
            found, edge = (x.T @ rows).astype(np.float64), rows.sum(axis=0, dtype=np.float64)
        total, shift = weight.sum(), self.frame.shift
        if shift is not None:
            found = found - np.outer(shift, edge) - np.outer(edge, shift) + total * np.outer(shift, shift)
            edge = edge - total * shift
        if not self.frame.bias:
            return found
        return np.block([[found, edge[:, None]], [edge[None], np.full((1, 1), total)]])

    def sums(self, theta: np.ndarray, closing: bool, curved: bool, keep: bool = False) -> Sums:
        """What a pass at θ makes: values and gradient, and, if asked, what closes and the Hessian.

        `keep`: η is kept for products at the same θ.
        """
        found = self._sums(theta, closing, curved)
        if not keep:
            self.last.clear()
        return found

    def _sums(self, theta: np.ndarray, closing: bool, curved: bool) -> Sums:
        terms = self._terms(theta)
        found = Sums(terms.cost, self.back(terms.residual))
        if curved:
            found = found._replace(hessian=self.hessian(theta))
        if not closing:
            return found
        found = found._replace(slopes=np.abs(terms.residual).sum(axis=0), extent=self.extent)
        if not curves(self.loss):
            return found
        if not self.loss.couples_outputs:
            return found._replace(curvature=terms.curvature.sum(axis=0), cross=self.back(terms.curvature))
        weights = self._curvatures(theta)
        cross = np.stack([self.back(rows.T) for rows in weights])
        return found._replace(curvature=weights.sum(axis=2), cross=cross)

    def hessian(self, theta: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Σ s x̃ x̃ᵀ ⊗ ∂²ℓ/∂η² by products in `dtype`: (k, q, q) of single outputs, or (1, p, p) where they couple."""
        if not self.loss.couples_outputs:
            curvature = self._terms(theta).curvature
            return np.stack([self.gram(curvature[:, c], dtype) for c in range(self.outputs)])
        weights, (q, k) = self._curvatures(theta), theta.shape
        found = np.empty((q, k, q, k))
        for a in range(k):
            for b in range(a + 1):
                found[:, a, :, b] = found[:, b, :, a] = self.gram(weights[a, b], dtype)
        return found.reshape(1, q * k, q * k)

    def diagonal_blocks(self, theta: np.ndarray, mean: bool = False) -> np.ndarray:
        """The blocks (k, q, q) of single outputs, of a loss that couples them; or their `mean`, (1, q, q)."""
        weights = np.einsum("aam->am", self._curvatures(theta))
        weights = weights.mean(axis=0, keepdims=True) if mean else weights
        return np.stack([self.gram(weight, np.float32) for weight in weights])

    def multiply(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The Hessian at θ times a direction, (q, k)."""
        size = np.abs(direction).max() or 1.0
        moved = self.products((direction / size).astype(np.float32), self.narrow)
        found = once(multiplied, self.loss, self._eta(theta), *self.padded, filled(moved, self.size).astype(np.float64))
        return size * self.back(np.asarray(found)[: len(self.x)].astype(np.float32), self.narrow)

    def _eta(self, theta: np.ndarray) -> np.ndarray:
        """η at θ: that of the last θ is kept."""
        if self.last.get("theta") is not theta:
            self.last.clear()
            self.last.update(theta=theta, eta=self.eta(theta))
        return self.last["eta"]

    def _terms(self, theta: np.ndarray) -> Terms:
        """The loss at θ, in NumPy, without the padding; that of the last θ is kept."""
        eta, m = self._eta(theta), len(self.x)
        if "terms" not in self.last:
            cost, residual, curvature = once(terms, self.loss, eta, *self.padded)
            curvature = None if curvature is None else np.asarray(curvature)[:m]
            self.last["terms"] = Terms(float(cost), np.asarray(residual)[:m], curvature)
        return self.last["terms"]

    def _curvatures(self, theta: np.ndarray) -> np.ndarray:
        """s ∂²ℓ/∂η² at θ, (k, k, m)."""
        return np.asarray(once(curvatures, self.loss, self._eta(theta), *self.padded))[:, :, : len(self.x)]

    def constants(self) -> tuple[np.ndarray, ...]:
        """Σ s y, the largest y and -y, Σ s times the smallest loss."""
        y, weight = self.padded
        zeros = np.zeros((self.size, self.outputs))
        return tuple(np.asarray(a) for a in once(constants, self.loss, y, weight, zeros))

    def fetched(self) -> Chunk:
        """These rows, which are on the host."""
        return self

    def encoded(self) -> np.ndarray:
        """The targets as rows (m, k)."""
        zeros = np.zeros((self.size, self.outputs))
        return np.asarray(once(encoded, self.loss, self.padded[0], zeros))[: len(self.x)]


def filled(array: np.ndarray, size: int) -> np.ndarray:
    """`size` rows, those that are missing zero."""
    if len(array) == size:
        return array
    whole = np.zeros((size, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole
