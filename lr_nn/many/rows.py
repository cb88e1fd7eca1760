"""Rows of many lanes, and the sums that a pass makes: products in NumPy, the loss in a compiled function of η.

A lane is one of the models of a call. Arrays of lanes have the lane axis first: θ is (m, q, k), q = d + 1 with the bias
last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.fitting.chunks import Sums, filled
from lr_nn.fitting.source import pool, threads
from lr_nn.fitting.terms import multiply, once
from lr_nn.losses import Loss
from lr_nn.many.inputs import Inputs, SharedInputs

__all__ = ["Rows", "Targets", "in_parts", "pairs_at_once"]

# Entries of η, or of its curvature, that one call of a compiled function takes; fewer are padded, so that no number of
# rows or lanes compiles another program. They stay in the cache (measured).
COMPILED_ENTRIES = 2**15
# Pairs of a lane and a row in such a call, at least.
LEAST_PAIRS = 2**8
# Entries of η that one product makes: BLAS takes 128 lanes at twice the speed of 16 (measured).
PRODUCT_ENTRIES = 2**18


class Targets(NamedTuple):
    """The arrays that belong to lanes: `y` (·, n) or (·, n, k), `weight` (·, n), `offset` (·, n, k) or None.

    Lane i has entry y_of[i] of y, and so on. `dtype` is what blocks of y are cast to.
    """

    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray | None
    y_of: np.ndarray
    weight_of: np.ndarray
    offset_of: np.ndarray
    dtype: Any

    def take(self, ids: np.ndarray) -> Targets:
        """The targets of some lanes."""
        return self._replace(y_of=self.y_of[ids], weight_of=self.weight_of[ids], offset_of=self.offset_of[ids])

    def rows(self, numbers: np.ndarray) -> Targets:
        """The targets of some rows."""
        offset = None if self.offset is None else self.offset[:, numbers]
        return self._replace(y=self.y[:, numbers], weight=self.weight[:, numbers], offset=offset)

    def block(
        self, lanes: slice, rows: slice, dtype: Any = np.float64
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """y, weight and offset of some lanes and rows, each (g, r, ...), in `dtype` but for labels."""
        offset = None if self.offset is None else _entries(self.offset, self.offset_of[lanes], rows, dtype)
        y = _entries(self.y, self.y_of[lanes], rows, dtype if self.dtype == np.float64 else self.dtype)
        return y, _entries(self.weight, self.weight_of[lanes], rows, dtype), offset


def _entries(array: np.ndarray, owner: np.ndarray, rows: slice, dtype: Any) -> np.ndarray:
    """Some rows of the entries `owner`, (g, r, ...); of one entry a view."""
    if (owner == owner[0]).all():
        one = array[owner[0], rows].astype(dtype, copy=False)
        return np.broadcast_to(one, (len(owner), *one.shape))
    return array[owner, rows].astype(dtype, copy=False)


@dataclass(frozen=True)
class Rows:
    """The rows of m lanes: their inputs and targets, and a loss of `outputs` outputs.

    `threaded`: do chunks of rows go to all cores?
    """

    inputs: Inputs
    targets: Targets
    loss: Loss
    outputs: int
    threaded: bool

    def __len__(self) -> int:
        """m."""
        return len(self.targets.y_of)

    @property
    def pairs(self) -> int:
        """Pairs of a lane and a row that a compiled function takes at once."""
        return pairs_at_once(self.loss, self.outputs)

    @property
    def shares_x(self) -> bool:
        """Is there one x for all lanes?"""
        return isinstance(self.inputs, SharedInputs)

    @property
    def n(self) -> int:
        """Rows of a lane."""
        return self.targets.weight.shape[1]

    def take(self, ids: np.ndarray) -> Rows:
        """Some of the lanes."""
        if len(ids) == len(self) and (ids == np.arange(len(self))).all():
            return self
        return replace(self, inputs=self.inputs.take(ids), targets=self.targets.take(ids))

    def some(self, numbers: np.ndarray) -> Rows:
        """Some of the rows of a shared x, by their numbers in ascending order."""
        assert isinstance(self.inputs, SharedInputs)
        inputs = self.inputs.rows(numbers, self.pairs)
        return replace(self, inputs=inputs, targets=self.targets.rows(numbers))

    def constant(self) -> Rows:
        """The rows without columns, but for the bias."""
        return replace(self, inputs=self.inputs.constant())

    def sums(self, theta: np.ndarray, closing: bool, curved: Any) -> Sums:
        """Σ s ℓ (m,) and its gradient (m, q, k), of products and losses in the dtype of θ.

        If `closing`, also what a certificate needs, as in `chunks.Sums`; and the Hessian of products in the dtype
        `curved`, unless that is None.
        """
        return self._fold(partial(self._sums, theta=theta, closing=closing, curved=curved))

    def hessian(self, theta: np.ndarray, mean: bool = False, dtype: Any = np.float64) -> np.ndarray:
        """Σ s x̃ x̃ᵀ ⊗ ∂²ℓ/∂η²: (m, k, q, q) of single outputs, (m, 1, qk, qk) where they couple.

        `mean`: of outputs that couple, (m, 1, q, q), the mean of their own blocks. `dtype` is that of products.
        """
        return self._fold(partial(self._hessian, theta=theta, mean=mean, dtype=dtype))

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """Σ_r weights_r x̃_r x̃_rᵀ, (m, c, q, q), of weights (m, c, n)."""
        r, lanes = self.inputs.size, slice(None)

        def of(i: int) -> np.ndarray:
            return self.inputs.grams(i, lanes, weights[..., i * r : (i + 1) * r], np.float64)

        return self._fold(of)

    def constants(self) -> tuple[np.ndarray, ...]:
        """Σ s, Σ s² (m,), Σ s y, the least and largest y that counts (m, k), Σ s times the smallest ℓ (m,)."""
        parts = in_parts(self._constants, list(self._blocks()), self.threaded)
        m, k = len(self), self.outputs
        total, squares, y, lowest = np.zeros(m), np.zeros(m), np.zeros((m, k)), np.zeros(m)
        least, most = np.full(y.shape, np.inf), np.full(y.shape, -np.inf)
        for lanes, *found in parts:
            for whole, part in zip((total, squares, y, lowest), found):
                whole[lanes] += part
            least[lanes], most[lanes] = np.minimum(least[lanes], found[4]), np.maximum(most[lanes], found[5])
        return total, squares, y, least, most, lowest

    def _fold(self, function: Any) -> Any:
        """The sum over chunks of rows of function(chunk number)."""

        def total(chunks: np.ndarray) -> Any:
            found = function(int(chunks[0]))
            for i in chunks[1:]:
                jax.tree.map(lambda a, b: np.add(a, b, out=a), found, function(int(i)))
            return found

        count = len(self.inputs.chunks)
        parts = np.array_split(np.arange(count), min(count, threads()) if self.threaded else 1)
        return reduce(partial(jax.tree.map, np.add), in_parts(total, parts, self.threaded))

    def _blocks(self, chunk: int | None = None) -> Iterator[tuple[int, slice, slice]]:
        """Chunk number, lanes and rows of all blocks, or of those of one chunk."""
        r = self.inputs.size
        g = max(1, PRODUCT_ENTRIES // (r * self.outputs))
        for i in range(len(self.inputs.chunks)) if chunk is None else (chunk,):
            rows = slice(i * r, min((i + 1) * r, self.n))
            for begin in range(0, len(self), g):
                yield i, slice(begin, min(begin + g, len(self))), rows

    def _block(self, i: int, lanes: slice, rows: slice, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """η (g, r, k), y and weights of a block."""
        y, weight, offset = self.targets.block(lanes, rows, theta.dtype)
        eta = self.inputs.eta(i, lanes, theta[lanes])
        return (eta if offset is None else eta + offset), y, weight

    def _sums(self, chunk: int, theta: np.ndarray, closing: bool, curved: Any) -> Sums:
        found = []
        for i, lanes, rows in self._blocks(chunk):
            value, residual, curvature = self._terms(closing or curved is not None, *self._block(i, lanes, rows, theta))
            sums = Sums(value.sum(axis=1, dtype=np.float64), self.inputs.back(i, lanes, residual))
            if closing:
                cross = self._cross(i, lanes, curvature)
                slopes, bends = np.abs(residual).sum(axis=1), curvature.sum(axis=1)
                sums = sums._replace(slopes=slopes, curvature=bends, cross=cross)
            if curved is not None:
                sums = sums._replace(hessian=self._grams(i, lanes, curvature, False, curved))
            found.append(sums)
        return found[0] if len(found) == 1 else jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def _cross(self, i: int, lanes: slice, curvature: np.ndarray) -> np.ndarray:
        """Σ s x̃ ∂²ℓ/∂η² of a block."""
        if curvature.ndim == 3:
            return self.inputs.back(i, lanes, curvature)
        outputs = range(curvature.shape[2])
        return np.stack([self.inputs.back(i, lanes, curvature[:, :, a]) for a in outputs], axis=1)

    def _hessian(self, chunk: int, theta: np.ndarray, mean: bool, dtype: Any) -> np.ndarray:
        found = []
        for i, lanes, rows in self._blocks(chunk):
            curvature = self._terms(True, *self._block(i, lanes, rows, theta))[2]
            found.append(self._grams(i, lanes, curvature, mean, dtype))
        return np.concatenate(found)

    def _grams(self, i: int, lanes: slice, curvature: np.ndarray, mean: bool, dtype: Any) -> np.ndarray:
        """The Hessian of a block, or the mean of those of its outputs."""
        g, r, k = curvature.shape[:3]
        if curvature.ndim == 3:
            return self.inputs.grams(i, lanes, np.moveaxis(curvature, 2, 1), dtype)
        if mean:
            return self.inputs.grams(i, lanes, np.einsum("graa->gr", curvature)[:, None] / k, dtype)
        pairs = np.moveaxis(curvature.reshape(g, r, k * k), 2, 1)
        grams = self.inputs.grams(i, lanes, pairs, dtype)
        q = grams.shape[-1]
        blocks = np.transpose(grams.reshape(g, k, k, q, q), (0, 3, 1, 4, 2))
        return blocks.reshape(g, 1, q * k, q * k)

    def _terms(self, curved: bool, eta: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[Any, ...]:
        """s ℓ (g, r), s δ (g, r, k), and, if `curved`, s ∂²ℓ/∂η² (g, r, k), or (g, r, k, k) of outputs that couple."""
        function = _CURVED_TERMS if curved else _TERMS
        return in_pieces(partial(once, function, self.loss), self.pairs, eta, y, weight)

    def _constants(self, block: tuple[int, slice, slice]) -> tuple[Any, ...]:
        _, lanes, rows = block
        y, weight, _ = self.targets.block(lanes, rows)
        zeros = np.zeros((self.pairs, self.outputs))
        encoded, lowest = in_pieces(
            lambda *arrays: once(_encoded_rows, self.loss, *arrays, zeros), self.pairs, y, weight
        )
        counts = (weight > 0)[..., None]
        least = np.where(counts, encoded, np.inf).min(axis=1)
        most = np.where(counts, encoded, -np.inf).max(axis=1)
        y_sums = (weight[:, None] @ encoded)[:, 0]
        return lanes, weight.sum(axis=1), (weight**2).sum(axis=1), y_sums, lowest.sum(axis=1), least, most


def pairs_at_once(loss: Loss, k: int) -> int:
    """Pairs of a lane and a row that a compiled function takes at once, of k outputs."""
    return max(LEAST_PAIRS, 1 << ((COMPILED_ENTRIES // (k * k if loss.couples_outputs else k)).bit_length() - 1))


def in_parts(function: Any, parts: Any, threaded: bool) -> list[Any]:
    """function(part) of all parts, on all cores if `threaded`."""

    def run(part: Any) -> Any:
        with jax.enable_x64(True), np.errstate(all="ignore"):
            return function(part)

    return list(pool().map(run, parts)) if threaded and len(parts) > 1 else list(map(run, parts))


def in_pieces(function: Any, size: int, *arrays: np.ndarray) -> tuple[Any, ...]:
    """function of (size, ...) arrays for arrays (g, r, ...), whose leading axes are one there; the last is padded with
    zeros.
    """
    lead = arrays[0].shape[:2]
    total, flat = lead[0] * lead[1], [array.reshape(-1, *array.shape[2:]) for array in arrays]
    found = [
        function(*(filled(array[begin : begin + size], size) for array in flat)) for begin in range(0, total, size)
    ]
    joined = (None if of[0] is None else np.concatenate([*map(np.asarray, of)]) for of in zip(*found))
    return tuple(None if of is None else of[:total].reshape(*lead, *of.shape[1:]) for of in joined)


def _terms(curved: bool, loss: Loss, eta: jax.Array, y: jax.Array, weight: jax.Array) -> tuple[Any, ...]:
    """s ℓ (n,), s δ (n, k) and s ∂²ℓ/∂η² of rows; those of weight zero are zero, whatever their η is."""
    counts = (weight > 0)[:, None]
    eta = jnp.where(counts, eta, 0)
    value = jnp.where(counts[:, 0], weight * loss.value(eta, y), 0)
    residual = jnp.where(counts, weight[:, None] * loss.residual(eta, y), 0)
    if not curved:
        return value, residual, None
    if not loss.couples_outputs:
        curvature = multiply(loss, eta, y, jnp.ones_like(eta))
        return value, residual, jnp.where(counts, weight[:, None] * curvature, 0)
    n, k = eta.shape
    basis = jnp.broadcast_to(jnp.eye(k, dtype=eta.dtype)[:, None, :], (k, n, k))
    curvature = jnp.moveaxis(multiply(loss, eta, y, basis), 0, 1)
    return value, residual, jnp.where(counts[..., None], weight[:, None, None] * curvature, 0)


_TERMS, _CURVED_TERMS = (jax.jit(partial(_terms, curved), static_argnums=0) for curved in (False, True))


@partial(jax.jit, static_argnames="loss")
def _encoded_rows(loss: Loss, y: jax.Array, weight: jax.Array, zeros: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Targets (n, k), those of rows without weight zero, and s times the smallest loss that they allow."""
    encoded = jnp.where((weight > 0)[:, None], loss.encode(y, zeros), 0)
    return encoded, jnp.where(weight > 0, weight * loss.lowest(encoded), 0)
