"""A pass over rows: sums and maxima over blocks, a monoid, each block's made while the next one is read.

A block is taken in parts that stay in a core's cache, in the precision that is asked for; sums over parts, and over
blocks, are in float64.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.data import Rows, blocks
from lr_nn.data.in_place import aligned, is_aligned
from lr_nn.data.stream import mapped
from lr_nn.network import Network
from lr_nn.row_sums import weighted
from lr_nn.solvers import certificate
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.types import Batch

__all__ = [
    "Ask",
    "Source",
    "above",
    "admit",
    "bias",
    "check_targets",
    "curvature",
    "extent",
    "look",
    "moves",
    "refuse_what_is_not_finite",
    "source",
    "values",
]

# Numbers of a part, bytes of a block: where caches are best used. Few rows are one part.
PART, BLOCK = 2**17, 2**22
# Blocks whose sums are made at once, and as many again, and two, are in memory: it must hold them.
THREADS = 2


class Ask(NamedTuple):
    """What a pass is to make: `of(block, *arguments)` is a pair of trees, what adds up and what the largest of is
    wanted; in `dtype`, and of one block in `every` alone.
    """

    of: Callable[..., tuple[Any, Any]]
    arguments: tuple[Any, ...] = ()
    dtype: Any = np.float64
    every: int = 1


@dataclass(frozen=True)
class Source:
    """Rows for a network of one layer, `size` of them in a block and `part` in a part; weights in units of `unit`.

    `length` is the number of rows when the fit began.
    """

    rows: Rows
    net: Network
    size: int
    part: int
    length: int
    unit: float = 1.0

    def over(self, *asks: Ask, admitted: bool = True) -> list[tuple[Any, Any]]:
        """One pass, the answers in NumPy. Blocks that are not `admitted` yet are checked, and their values too."""
        totals: list[Any] = [None] * len(asks)
        seen = 0

        def answers(numbered: tuple[int, Batch]) -> list[Any]:
            number, block = numbered
            with jax.enable_x64(True):  # which holds for one thread
                filled = jax.device_put(Batch(*(_longer(array, self.size) for array in block)))
                due = [ask if number % ask.every == 0 else None for ask in asks]
                return [ask and self._answer(filled, len(block.x), ask) for ask in due]

        def checked(stream: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
            nonlocal seen
            for number, block in enumerate(stream):
                if not admitted:
                    admit(self, block, seen)
                seen += len(block.x)
                yield number, block

        with (
            closing(blocks(self.rows, self.size)) as stream,
            closing(mapped(answers, checked(stream), min(THREADS, os.cpu_count() or 1))) as found,
        ):
            for new in found:
                totals = [a if b is None else _joined(a, b) for a, b in zip(totals, new)]
        if seen != self.length or len(self.rows) != self.length:
            raise ValueError(f"the rows changed during the fit: there were {self.length}, and now {seen} were read")
        return totals

    def _answer(self, block: Batch, rows: int, ask: Ask) -> Any:
        """Of a block whose first so many rows are there."""
        settings = ask.arguments, self.unit, self.net, ask.dtype, self.part
        return jax.tree.map(np.asarray, _of_block(ask.of, block, np.int64(rows), *settings))


def source(rows: Rows, net: Network, most: float) -> Source:
    """Blocks of no more than so many bytes."""
    d = net.sizes[0]
    each = rows.read(0, 1).x.dtype.itemsize * d
    part = max(1, min(PART // d, int(most) // each, len(rows)))
    parts = max(1, min(BLOCK, int(most)) // (each * part))
    return Source(rows, net, part * min(parts, -(-len(rows) // part)), part, len(rows))


def admit(source: Source, block: Batch, first: int) -> None:
    """Refuse rows that do not fit the network, or have targets, weights or offsets that will not do, by number."""
    check_targets(block)
    with check.numbered(range(first, first + len(block.x))):
        admit_rows(source.net, block, np.float64, allow_no_weight=True)


def check_targets(block: Batch) -> None:
    """Raise ValueError if rows of a file have no targets."""
    if block.y is None:
        raise ValueError("the rows have no targets: name the column of the targets where you open the file")


def refuse_what_is_not_finite(source: Source) -> None:
    """Refuse the first row of a positive weight with an x that is not finite, if there is one."""
    seen = 0
    with closing(blocks(source.rows, source.size)) as stream:
        for block in stream:
            counted = np.ones(len(block.x), bool) if block.weight is None else np.asarray(block.weight) > 0
            with check.numbered(range(seen, source.length)):
                check.finite("x", np.where(counted[:, None], block.x, 0))
            seen += len(block.x)


def _longer(array: np.ndarray | None, size: int) -> np.ndarray | None:
    """`size` rows where XLA reads them in place: those that are missing are zero."""
    if array is None or (len(array) == size and is_aligned(array)):
        return array
    place = aligned((size, *array.shape[1:]), array.dtype)
    place[: len(array)] = array
    place[len(array) :] = 0
    return place


def _joined(a: tuple[Any, Any] | None, b: tuple[Any, Any]) -> tuple[Any, Any]:
    return b if a is None else (jax.tree.map(np.add, a[0], b[0]), jax.tree.map(np.maximum, a[1], b[1]))


@partial(jax.jit, static_argnames=("of", "net", "dtype", "part"))
def _of_block(
    of: Callable[..., tuple[Any, Any]],
    block: Batch,
    rows: jax.Array,
    arguments: tuple[Any, ...],
    unit: jax.Array,
    net: Network,
    dtype: Any,
    part: int,
) -> tuple[Any, Any]:
    none = jnp.zeros((), dtype)
    arguments = jax.tree.map(lambda a: jnp.asarray(a, dtype), arguments)

    def one(i: jax.Array) -> tuple[Any, Any]:
        x, y, weight, offset = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, i * part, part), block)
        y = net.loss.encode(y, jnp.zeros((part, net.sizes[1]), dtype))
        offset = None if offset is None else offset.astype(dtype).reshape(y.shape)
        if weight is None:
            share = (i * part + jnp.arange(part) < rows).astype(dtype)
        else:  # what a row of no weight holds may be anything: it is zero from here on
            share = (weight.astype(jnp.float64) / unit).astype(dtype)
            counted = (weight > 0)[:, None]
            x = jnp.where(counted, x, jnp.zeros_like(x))
            offset = None if offset is None else jnp.where(counted, offset, jnp.zeros_like(offset))
        found = of(OneLayer(x.astype(dtype), y, share, offset, none, none, net), *arguments)
        return jax.tree.map(lambda a: a.astype(jnp.float64), found)

    def join(i: jax.Array, total: tuple[Any, Any]) -> tuple[Any, Any]:
        new = one(i)
        return jax.tree.map(jnp.add, total[0], new[0]), jax.tree.map(jnp.maximum, total[1], new[1])

    sums, most = jax.eval_shape(one, jnp.zeros((), int))
    first = jax.tree.map(lambda a: jnp.zeros(a.shape), sums), jax.tree.map(_below_all, most)
    return lax.fori_loop(0, len(block.x) // part, join, first)


def _below_all(a: Any) -> jax.Array:
    """The smallest number in the shape and dtype of `a`, where a maximum starts."""
    return jnp.full(a.shape, jnp.finfo(a.dtype).min, a.dtype)


def look(block: OneLayer) -> tuple[Any, Any]:
    """Σ s and Σ s y; the largest y and -y of rows that count."""
    counted, nothing = (block.share > 0)[:, None], _below_all(block.y)
    ranges = tuple(jnp.where(counted, a, nothing).max(axis=0) for a in (block.y, -block.y))
    return (block.share.sum(), (block.share[:, None] * block.y).sum(axis=0)), ranges


def above(block: OneLayer, eta: jax.Array) -> tuple[Any, Any]:
    """The costs of a constant η, and of zero, above the smallest that the targets allow."""
    loss, low = block.net.loss, block.net.loss.lowest(block.y)
    everywhere = jnp.broadcast_to(eta[None], block.y.shape)
    everywhere = everywhere if block.offset is None else everywhere + block.offset
    costs = (loss.value(each, block.y) - low for each in (everywhere, jnp.zeros_like(block.y)))
    return tuple((block.share * each).sum() for each in costs), ()


def values(block: OneLayer, theta: jax.Array) -> tuple[Any, Any]:
    """Σ s ℓ and its gradient."""
    eta = block.eta(theta)
    residual = weighted(block.net.loss.residual(eta, block.y), block.share)
    return (block.cost(theta, eta), block.gradient(theta, residual)), ()


def bias(block: OneLayer, theta: jax.Array) -> tuple[Any, Any]:
    """The curvature of the bias, and how fast the gradient changes with it."""
    eta = block.eta(theta)
    slope = None if block.net.loss.couples_outputs else certificate.bias_slope(block, eta)
    return (certificate.bias_curvature(block, eta), slope), ()


def extent(block: OneLayer) -> tuple[Any, Any]:
    """Σ s x̃²; and the largest x̃² of rows that count, the others being zero, its rounding in it."""
    squares, one = block.x * block.x, jnp.ones(int(block.net.bias), block.x.dtype)
    above = 1 + 4 * float(jnp.finfo(block.x.dtype).eps)
    total = jnp.append(block.share @ squares, block.share.sum() * one)
    return total, jnp.append(above * squares.max(axis=0), one)


def curvature(block: OneLayer, theta: jax.Array) -> tuple[Any, Any]:
    """Σ s and the Hessian (p, p)."""
    inputs, k, eta = block.inputs(), block.net.sizes[1], block.eta(theta)

    def of_output(c: jax.Array) -> jax.Array:
        column = jnp.broadcast_to((jnp.arange(k) == c).astype(eta.dtype)[None], eta.shape)
        rows = weighted(block.net.loss.fisher_multiply(eta, column), block.share)
        return jnp.stack([inputs.T @ weighted(inputs, rows[:, e]) for e in range(k)], axis=2)

    hessian = lax.map(of_output, jnp.arange(k))  # (c, a, b, e)
    return (block.share.sum(), jnp.moveaxis(hessian, 0, 1).reshape(theta.size, theta.size)), ()


def moves(block: OneLayer, scale: jax.Array, directions: jax.Array) -> tuple[Any, Any]:
    """The largest ‖scale x̃‖, and the most by which some η moves along directions."""
    squares = jnp.where((block.share > 0)[:, None], (block.inputs() * scale[None]) ** 2, 0)
    return (), (squares.sum(axis=1).max(), certificate.moved(block, directions))
