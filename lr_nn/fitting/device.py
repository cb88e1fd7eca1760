"""Rows on an accelerator: the same sums as of a `Chunk`, each pass one program where the rows are.

What comes to the host has the size of θ. Only where a fit has failed are rows fetched, to find out why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lr_nn.fitting.chunks import Chunk, Frame, Sums
from lr_nn.fitting.terms import constants, curves, multiply
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.types import Batch

__all__ = ["DeviceChunk"]

HIGHEST = lax.Precision.HIGHEST


@dataclass(frozen=True)
class DeviceChunk:
    """All rows that a device holds: `batch` with weights and offset there; `weight` on the host, too."""

    batch: Batch
    weight: np.ndarray
    net: Network
    frame: Frame
    size = 0

    @property
    def x(self) -> Any:
        """The inputs, on the device."""
        return self.batch.x

    def fetched(self) -> Chunk:
        """The rows that count, on the host."""
        counts = self.weight > 0
        x, y, _, offset = (None if a is None else np.asarray(a)[counts] for a in self.batch)
        k = self.net.sizes[1]
        assert x is not None
        return Chunk(x, y, self.weight[counts], offset, self.net.loss, k, self.frame, int(counts.sum()))

    @cached_property
    def extent(self) -> np.ndarray:
        """The largest |x̃| of every column, (q,)."""
        return np.asarray(_extent(self.frame.bias, self.x, self.frame.mean, self.batch.weight))

    def sums(self, theta: np.ndarray, closing: bool, curved: bool, keep: bool = False) -> Sums:
        """`Chunk.sums`."""
        found = _sums(self.net.loss, self.frame.bias, closing, curved, self.batch, theta, *self._means())
        return jax.tree.map(np.asarray, Sums(*found))

    def hessian(self, theta: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """`Chunk.hessian`."""
        return np.asarray(_hessian(self.net.loss, self.frame.bias, dtype, self.batch, theta, *self._means()))

    def diagonal_blocks(self, theta: np.ndarray, mean: bool = False) -> np.ndarray:
        """`Chunk.diagonal_blocks`."""
        return np.asarray(_blocks(mean, self.net.loss, self.frame.bias, self.batch, theta, *self._means()))

    def multiply(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """`Chunk.multiply`."""
        found = _multiplied(self.net.loss, self.frame.bias, self.batch, theta, direction, *self._means())
        return np.asarray(found)

    def gram(self, weight: np.ndarray) -> np.ndarray:
        """`Chunk.gram`."""
        return np.asarray(_weighted_gram(self.frame.bias, self.x, weight, self.frame.mean))

    def constants(self) -> tuple[np.ndarray, ...]:
        """`Chunk.constants`."""
        zeros = np.zeros((len(self.weight), self.net.sizes[1]))
        return tuple(np.asarray(a) for a in constants(self.net.loss, self.batch.y, self.batch.weight, zeros))

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        return self.frame.mean, self.frame.offset


def _inputs(bias: bool, x: jax.Array, mean: jax.Array, weight: jax.Array, dtype: Any = jnp.float64) -> jax.Array:
    """x̃ (m, q); rows of weight zero, whose numbers may be anything, are zero but for the one of the bias."""
    x = jnp.where((weight > 0)[:, None], x.astype(jnp.float64) - mean[None], 0).astype(dtype)
    return jnp.concatenate([x, jnp.ones((x.shape[0], int(bias)), dtype)], axis=1)


def _eta(bias: bool, batch: Batch, theta: jax.Array, mean: jax.Array, centre: jax.Array) -> tuple[jax.Array, ...]:
    inputs = _inputs(bias, batch.x, mean, batch.weight)
    eta = jnp.matmul(inputs, theta, precision=HIGHEST)
    if batch.offset is not None:
        eta = jnp.where((batch.weight > 0)[:, None], eta + batch.offset - centre[None], 0)
    return inputs, eta


def _curvatures(loss: Loss, eta: jax.Array, batch: Batch) -> jax.Array:
    """s ∂²ℓ/∂η², (k, k, m)."""
    basis = jnp.broadcast_to(jnp.eye(eta.shape[1], dtype=eta.dtype)[:, None, :], (eta.shape[1], *eta.shape))
    found = multiply(loss, eta, batch.y, basis)
    return jnp.moveaxis(jnp.where((batch.weight > 0)[None, :, None], batch.weight[None, :, None] * found, 0), 2, 1)


@partial(jax.jit, static_argnames=("loss", "bias", "closing", "curved"))
def _sums(loss, bias, closing, curved, batch, theta, mean, centre):
    inputs, eta = _eta(bias, batch, theta, mean, centre)
    counts, weight = batch.weight > 0, batch.weight
    residual = jnp.where(counts[:, None], weight[:, None] * loss.residual(eta, batch.y), 0)
    cost = jnp.where(counts, weight * loss.value(eta, batch.y), 0).sum()
    gradient = jnp.matmul(residual.T, inputs, precision=HIGHEST).T
    found = Sums(cost, gradient)
    if curved:
        found = found._replace(hessian=_grams(loss, inputs, _curvatures(loss, eta, batch), jnp.float64))
    if closing:
        found = found._replace(slopes=jnp.abs(residual).sum(axis=0), extent=jnp.abs(inputs).max(axis=0))
    if closing and curves(loss):
        weights = _curvatures(loss, eta, batch)
        if not loss.couples_outputs:
            weights = jnp.einsum("aam->am", weights)
        outputs = "ab" if loss.couples_outputs else "b"
        cross = jnp.einsum(f"{outputs}m,mj->{outputs[:-1]}jb", weights, inputs, precision=HIGHEST)
        found = found._replace(curvature=weights.sum(axis=-1), cross=cross)
    return found


def _grams(loss: Loss, inputs: jax.Array, weights: jax.Array, dtype: Any) -> jax.Array:
    inputs = inputs.astype(dtype)

    def gram(weight: jax.Array) -> jax.Array:
        rows = weight.astype(dtype)[:, None] * inputs
        return jnp.matmul(inputs.T, rows, precision=HIGHEST).astype(jnp.float64)

    k, q = len(weights), inputs.shape[1]
    if not loss.couples_outputs:
        return jnp.stack([gram(weights[c, c]) for c in range(k)])
    each = lax.map(gram, weights.reshape(k * k, -1)).reshape(k, k, q, q)
    return jnp.transpose(each, (2, 0, 3, 1)).reshape(1, q * k, q * k)


@partial(jax.jit, static_argnames=("loss", "bias", "dtype"))
def _hessian(loss, bias, dtype, batch, theta, mean, centre):
    inputs, eta = _eta(bias, batch, theta, mean, centre)
    return _grams(loss, inputs, _curvatures(loss, eta, batch), dtype)


@partial(jax.jit, static_argnames=("average", "loss", "bias"))
def _blocks(average, loss, bias, batch, theta, mean, centre):
    inputs, eta = _eta(bias, batch, theta, mean, centre)
    diagonal = jnp.einsum("aam->am", _curvatures(loss, eta, batch))
    diagonal = diagonal.mean(axis=0, keepdims=True) if average else diagonal
    return lax.map(lambda weight: jnp.matmul(inputs.T, weight[:, None] * inputs, precision=HIGHEST), diagonal)


@partial(jax.jit, static_argnames=("loss", "bias"))
def _multiplied(loss, bias, batch, theta, direction, mean, centre):
    inputs, eta = _eta(bias, batch, theta, mean, centre)
    moved = multiply(loss, eta, batch.y, jnp.matmul(inputs, direction, precision=HIGHEST))
    rows = jnp.where((batch.weight > 0)[:, None], batch.weight[:, None] * moved, 0)
    return jnp.matmul(rows.T, inputs, precision=HIGHEST).T


@partial(jax.jit, static_argnames="bias")
def _weighted_gram(bias, x, weight, mean):
    inputs = _inputs(bias, x, mean, weight)
    return jnp.matmul(inputs.T, weight[:, None] * inputs, precision=HIGHEST)


@partial(jax.jit, static_argnames="bias")
def _extent(bias, x, mean, weight):
    return jnp.abs(_inputs(bias, x, mean, weight)).max(axis=0)
