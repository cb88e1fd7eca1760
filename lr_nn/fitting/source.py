"""Where rows come from: arrays in memory, the shards of a mesh, files. A Source folds a function over their chunks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.data import Rows, blocks
from lr_nn.fitting.chunks import Chunk, Frame
from lr_nn.fitting.device import DeviceChunk
from lr_nn.fitting.processes import gathered, of_all
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.terms import bucket
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.types import Batch

__all__ = ["Look", "Source", "looked", "of_arrays", "of_rows"]


class Look(NamedTuple):
    """What some rows say of the columns: `pivot`, one of them; of z = x - pivot the mean, that of z², and the largest
    of z and -z. So are means and deviations exact, however far from zero the columns are.
    """

    pivot: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    most: np.ndarray
    least: np.ndarray


@dataclass(frozen=True)
class Source:
    """Rows for a network of one layer, in chunks.

    `parts` are batches in memory, or `rows` those of files, read anew in every pass; a chunk has `block` rows, or, of
    arrays, of `parts`, what suits them. Weights are in units of `unit`; `length` counts the rows of this process.
    `shared`: are sums made over all processes? `chosen`: which columns of a file are taken, None for all; `room`: bytes
    for targets in memory. `log` counts passes.
    """

    net: Network
    frame: Frame
    settings: Settings
    parts: tuple[Batch, ...] = ()
    rows: Rows | None = None
    block: int = 0
    unit: float = 1.0
    length: int = 0
    shared: bool = False
    chosen: np.ndarray | None = None
    room: float = np.inf
    kept: dict[str, Any] = field(default_factory=dict)
    log: dict[str, int] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        """The loss of the network."""
        return self.net.loss

    @property
    def features(self) -> int:
        """How many columns are read."""
        return len(self.frame.mean)

    @property
    def outputs(self) -> int:
        """How many outputs the network has."""
        return self.net.sizes[1]

    @property
    def has_offset(self) -> bool:
        """Do the rows come with offsets?"""
        if self.rows is not None:
            return self.rows.read(0, 1).offset is not None
        return any(part.offset is not None for part in self.parts)

    def fold(self, function: Callable[[Chunk], Any], combine: Callable[[Any, Any], Any] | None = None) -> Any:
        """function(chunk) of all chunks, combined in their order: added up, entry by entry, unless told otherwise."""
        combine = combine or _add
        self.log["passes"] = self.log.get("passes", 0) + 1
        total: Any = None
        for found in self._each(function):
            total = found if total is None else combine(total, found)
        return of_all(total, combine) if self.shared else total

    def each(self, function: Callable[[Chunk], Any]) -> Iterator[Any]:
        """function(chunk) of all chunks of this process, in their order."""
        return self._each(function)

    def columns(self, chosen: np.ndarray) -> Source:
        """The rows with some of their columns; of rows in memory these are copied."""
        parts = tuple(part._replace(x=self._taken(part.x, chosen)) for part in self.parts)
        frame = replace(self.frame, mean=self.frame.mean[chosen])
        block = self.block if self.rows is not None else self._size()
        return replace(self, frame=frame, parts=parts, block=block, chosen=chosen, kept={})

    def _taken(self, x: Any, chosen: np.ndarray) -> Any:
        """Some columns of x, copied by all threads."""
        if isinstance(x, jax.Array):
            return x[:, chosen]
        found = np.empty((len(x), len(chosen)), x.dtype)
        rows = [slice(begin, begin + self.settings.piece) for begin in range(0, len(x), self.settings.piece)]
        list(_pool().map(lambda some: np.take(x[some], chosen, axis=1, out=found[some], mode="clip"), rows))
        return found

    def targets(self) -> Source:
        """The rows without their features: of files in memory, where that has room for them."""
        none = np.zeros(0, int)
        if self.rows is None:
            parts = tuple(part._replace(x=np.zeros((part.x.shape[0], 0))) for part in self.parts)
            frame = replace(self.frame, mean=self.frame.mean[none])
            return replace(self, frame=frame, parts=parts, block=self._size(), kept={})
        first = self.rows.read(0, 1)
        check_targets(first)
        if self.length * sum(a.nbytes for a in first[1:] if a is not None) > self.room:
            return self.columns(none)

        def without_features(chunk: Chunk) -> Batch:
            return Batch(chunk.x[:, none], chunk.y, None if first.weight is None else chunk.weight, chunk.offset)

        batches = list(self.each(without_features))
        self.log["passes"] = self.log.get("passes", 0) + 1
        few = self.framed(replace(self.frame, mean=self.frame.mean[none]))
        return replace(few, rows=None, block=0, parts=(_joined(batches),), unit=1.0, kept={}, log={})

    def some(self, count: int) -> Source:
        """About so many rows in memory, from all over, always the same: of many every so-manieth, uncopied; of few a
        random choice; of files pieces.
        """
        rng = np.random.default_rng(jax.process_index() if self.shared else 0)
        count = -(-count // jax.process_count()) if self.shared else min(count, self.length)
        stride = self.length // count // 2 * 2 + 1  # odd, for what alternates in the data mostly does so by twos
        if self.rows is not None:
            parts = _pieces(self.rows, self.length, count, rng)
        elif count * self.features > self.settings.sample_from / 2 and stride > 1 and not self.shared:
            parts = [Batch(*(None if a is None else a[::stride] for a in part)) for part in self.parts]
            length = sum(len(part.x) for part in parts)
            return replace(self, parts=tuple(parts), block=0, length=length, kept={}, log={})
        else:
            begins = np.cumsum([0, *(len(part.x) for part in self.parts)])
            chosen = np.sort(rng.choice(self.length, count, replace=count > self.length, shuffle=False))
            picked = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(begins)]
            parts = [Batch(*(None if a is None else a[rows] for a in part)) for part, rows in zip(self.parts, picked)]
        few = parts[0] if len(parts) == 1 else _joined(parts)
        few = gathered(few) if self.shared else few
        return replace(self, parts=(few,), rows=None, block=0, length=len(few.x), shared=False, kept={}, log={})

    def framed(self, frame: Frame) -> Source:
        """The same rows, read in another way."""
        return replace(self, frame=frame, kept={})

    def _each(self, function: Callable[[Any], Any]) -> Iterator[Any]:
        def run(chunk: Chunk) -> Any:
            # What overflows makes a cost that is no number, and that a status.
            with jax.enable_x64(True), np.errstate(over="ignore", invalid="ignore"):
                return function(chunk)

        if self.rows is None and (len(self.chunks()) == 1 or self._is_small()):
            yield from map(run, self.chunks())
            return
        with closing(self._stream()) as stream:
            waiting: deque[Future[Any]] = deque()
            try:
                for chunk in stream:
                    waiting.append(_pool().submit(run, chunk))
                    if len(waiting) > threads():
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _size(self) -> int:
        """Rows of a chunk, so that the same programs serve other columns; 0 on an accelerator."""
        return max(chunk.size for chunk in self.chunks())

    def _is_small(self) -> bool:
        return self.length * max(1, self.features) < self.settings.one_thread

    def chunks(self) -> list[Chunk]:
        """The chunks of rows in memory, made once."""
        if "chunks" not in self.kept and any(isinstance(part.x, jax.Array) for part in self.parts):
            self.kept["chunks"] = [self._on_device(part) for part in self.parts]
        elif "chunks" not in self.kept:
            self.kept["chunks"] = [
                self._chunk(_slice(part, begin, begin + size), size)
                for part in self.parts
                for size in [self.block or chunk_rows(len(part.x), self.features, self.settings)]
                for begin in range(0, len(part.x), size)
            ]
        return self.kept["chunks"]

    def _stream(self) -> Generator[Chunk, None, None]:
        if self.rows is None:
            yield from self.chunks()
            return
        seen = 0
        with closing(blocks(self.rows, self.block)) as stream:
            for block in stream:
                if "admitted" not in self.log:
                    _admit(self.net, block, seen)
                seen += len(block.x)
                yield self._chunk(_counted(block), self.block)
        if seen != self.length or len(self.rows) != self.length:
            raise ValueError(f"the rows changed during the fit: there were {self.length}, and now {seen} were read")
        self.log["admitted"] = 1

    def _chunk(self, batch: Batch, size: int) -> Chunk:
        """Rows that are read where they are."""
        k = self.outputs
        weight = np.ones(len(batch.x)) if batch.weight is None else np.asarray(batch.weight, np.float64) / self.unit
        offset = None if batch.offset is None else np.asarray(batch.offset, np.float64).reshape(-1, k)
        x = batch.x if self.rows is None or self.chosen is None else batch.x[:, self.chosen]
        return Chunk(x, batch.y, weight, offset, self.loss, k, self.frame, size)

    def _on_device(self, part: Batch) -> Any:
        """Rows on an accelerator, their weights and offset with them."""
        weight = np.ones(part.x.shape[0]) if part.weight is None else np.asarray(part.weight, np.float64) / self.unit
        offset = None if part.offset is None else np.asarray(part.offset, np.float64).reshape(-1, self.outputs)
        there = jax.device_put((part.y, weight, offset), part.x.sharding)
        return DeviceChunk(Batch(part.x, *there), weight, self.net, self.frame)


def threads() -> int:
    """As many as there are cores."""
    return os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), "chunks")


os.register_at_fork(after_in_child=_pool.cache_clear)


def chunk_rows(n: int, d: int, settings: Settings) -> int:
    """Rows of a chunk of n: whole chunks for every thread, all of one size, few sizes."""
    most = settings.chunk_rows
    while most > settings.least_rows_of_a_thread and most * d > settings.chunk_numbers:
        most //= 2
    if n <= settings.least_rows_of_a_thread or n * d < settings.one_thread:
        return bucket(min(n, most))
    turns = threads() * -(-n // (threads() * most))
    return bucket(-(-n // turns)) if turns <= 4 * threads() else most


def looked(source: Source) -> Look:
    """A look at the columns of some rows, or of all where they are few."""
    n, d = source.length, source.features
    few = (
        source
        if source.rows is None and n * d <= source.settings.scouted * 64
        else source.some(source.settings.scouted)
    )
    batch = few.parts[0] if len(few.parts) == 1 else _joined(list(few.parts))
    x = np.asarray(batch.x, np.float64)
    weight = np.ones(len(x)) if batch.weight is None else batch.weight / batch.weight.max()
    weight = weight / weight.sum()
    finite = np.isfinite(x)
    x = x if finite.all() else np.where(finite, x, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        z = x - x[0]
        return Look(x[0], weight @ z, weight @ (z * z), z.max(axis=0), -z.min(axis=0))


def of_arrays(net: Network, batches: Iterable[Batch], settings: Settings, shared: bool = False) -> Source:
    """A source of batches in memory, checked; rows of weight zero are left out, for their numbers may be anything.

    An x that lies on an accelerator stays there. Values of x are not looked at: what is not a number is found when the
    cost is none.
    """
    parts = []
    for batch in batches:
        with jax.enable_x64(True):
            x, *others = admit_rows(net, batch, np.float64, allow_no_weight=True)
        others = [None if a is None else np.asarray(a) for a in others]
        if isinstance(x, jax.Array) and settings.is_accelerator(x):
            parts.append(Batch(x, *others))
        else:
            parts.append(_counted(Batch(np.asarray(x), *others)))
    unit = max((float(part.weight.max()) for part in parts if part.weight is not None and len(part.x)), default=1.0)
    unit = float(of_all(np.float64(unit), np.maximum)) if shared else unit
    length = sum(len(part.x) for part in parts)
    if not length and not shared:
        raise ValueError("weight is zero for every example; at least one must be positive")
    frame = Frame(np.zeros(net.sizes[0]), False, np.zeros(net.sizes[1]), net.bias)
    parts = [part for part in parts if len(part.x)]
    return Source(net, frame, settings, tuple(parts), unit=unit or 1.0, length=length, shared=shared)


def of_rows(net: Network, rows: Rows, block: int, unit: float, room: float, settings: Settings) -> Source:
    """A source of files, read in blocks."""
    frame = Frame(np.zeros(net.sizes[0]), False, np.zeros(net.sizes[1]), net.bias)
    return Source(net, frame, settings, rows=rows, block=block, unit=unit, length=len(rows), room=room)


def _admit(net: Network, block: Batch, first: int) -> None:
    """Refuse rows of a file that do not fit the network, by number."""
    check_targets(block)
    with check.numbered(range(first, first + len(block.x))), jax.enable_x64(True):
        admit_rows(net, block, np.float64, allow_no_weight=True)


def check_targets(block: Batch) -> None:
    """Raise ValueError if rows of a file have no targets."""
    if block.y is None:
        raise ValueError("the rows have no targets: name the column of the targets where you open the file")


def refuse_what_is_not_finite(source: Source) -> None:
    """Refuse the first row that counts with an x that is not finite."""
    seen = 0
    for batch in source.parts if source.rows is None else blocks(source.rows, source.block):
        counted = np.ones(len(batch.x), bool) if batch.weight is None else np.asarray(batch.weight) > 0
        with check.numbered(range(seen, seen + len(batch.x))):
            check.finite("x", np.where(counted[:, None], batch.x, 0))
        seen += len(batch.x)


def _counted(batch: Batch) -> Batch:
    """The rows of a positive weight."""
    if batch.weight is None or (counted := np.asarray(batch.weight) > 0).all():
        return batch
    return Batch(*(None if a is None else a[counted] for a in batch))


def _slice(batch: Batch, begin: int, end: int) -> Batch:
    return Batch(*(None if a is None else a[begin:end] for a in batch))


def _pieces(rows: Rows, length: int, count: int, rng: np.random.Generator) -> list[Batch]:
    """About so many rows of a file in pieces from all over it, each from a random place in its share."""
    pieces = max(1, min(PIECES, count // 16))
    each = max(1, count // pieces)
    share = length / pieces
    begins = [int(i * share + rng.random() * max(0.0, share - each)) for i in range(pieces)]
    found = [rows.read(begin, min(length, begin + each)) for begin in begins]
    for piece in found:
        check_targets(piece)
    counted = [piece for piece in map(_counted, found) if len(piece.x)]
    # Of rows of weight zero nothing is known; they still are rows.
    return counted or [piece._replace(weight=None) for piece in found]


# Pieces of a sample of a file.
PIECES = 256


def _joined(parts: list[Batch]) -> Batch:
    """Rows one under another."""
    if any(part.weight is not None for part in parts):
        parts = [part._replace(weight=np.ones(len(part.x)) if part.weight is None else part.weight) for part in parts]
    return Batch(*(None if each[0] is None else np.concatenate(each) for each in zip(*parts)))


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(np.add, a, b)
