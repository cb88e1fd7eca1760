"""Where rows come from: arrays in memory, the shards of a mesh, files. A Source folds a function over their chunks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from lr_nn.data import Rows, blocks
from lr_nn.fitting.batches import admit_block, check_targets, counted, joined, pieces, sliced
from lr_nn.fitting.chunks import Chunk, Frame
from lr_nn.fitting.device import DeviceChunk
from lr_nn.fitting.processes import gathered, of_all
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.terms import bucket
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.types import Batch

__all__ = ["Source", "chunk_rows", "pool", "threads"]


@dataclass(frozen=True)
class Source:
    """Rows for a network of one layer, in chunks.

    `parts` are batches in memory, or `rows` those of files, read anew in every pass; a chunk has `block` rows, or, of
    arrays, of `parts`, what suits them. Weights are in units of `unit`; `length` counts the rows of this process.
    `shared`: are sums made over all processes? `chosen`: which columns of a file are taken, None for all; `room`: bytes
    for targets in memory. `log` counts passes, and
    knows the `numbers` of the rows of each part as they came.
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
    log: dict[str, Any] = field(default_factory=dict)

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
    def width(self) -> int:
        """Numbers of a row that a pass has at once: x, and the second derivatives of a loss that couples outputs."""
        return self.features + (3 * self.outputs**2 if self.loss.couples_outputs else 0)

    @property
    def total_rows(self) -> int:
        """The rows of all processes: what decisions are made by, so that all make the same."""
        return self.log.get("rows", self.length)

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
        block = self.block if self.rows is not None else self.chunk_size
        return replace(self, frame=frame, parts=parts, block=block, chosen=chosen, kept={})

    def _taken(self, x: Any, chosen: np.ndarray) -> Any:
        """Some columns of x, copied by all threads."""
        if isinstance(x, jax.Array):
            return x[:, chosen]
        found = np.empty((len(x), len(chosen)), x.dtype)
        rows = [slice(begin, begin + self.settings.piece) for begin in range(0, len(x), self.settings.piece)]
        list(pool().map(lambda some: np.take(x[some], chosen, axis=1, out=found[some], mode="clip"), rows))
        return found

    def targets(self) -> Source:
        """The rows without their features: of files in memory, where that has room for them."""
        none = np.zeros(0, int)
        if self.rows is None:
            parts = tuple(part._replace(x=np.zeros((part.x.shape[0], 0))) for part in self.parts)
            parts = parts if self.shared else tuple(map(counted, parts))
            frame = replace(self.frame, mean=self.frame.mean[none])
            return replace(self, frame=frame, parts=parts, block=self.chunk_size, kept={})
        first = self.rows.read(0, 1)
        check_targets(first)
        if self.length * sum(a.nbytes for a in first[1:] if a is not None) > self.room:
            return self.columns(none)

        def without_features(chunk: Chunk) -> Batch:
            return Batch(chunk.x[:, none], chunk.y, None if first.weight is None else chunk.weight, chunk.offset)

        batches = list(self.each(without_features))
        if not any(len(batch.x) for batch in batches):
            raise ValueError("weight is zero for every example; at least one must be positive")
        self.log["passes"] = self.log.get("passes", 0) + 1
        few = self.framed(replace(self.frame, mean=self.frame.mean[none]))
        return replace(few, rows=None, block=0, parts=(joined(batches),), unit=1.0, kept={}, log={})

    def some(self, count: int) -> Source:
        """A sample of about so many rows, always the same: of large arrays every stride-th row, as a view; of small
        ones random rows; of files pieces.
        """
        rng = np.random.default_rng(jax.process_index() if self.shared else 0)
        count = -(-count // jax.process_count()) if self.shared else min(count, self.length)
        stride = self.length // count // 2 * 2 + 1  # odd, for what alternates in the data mostly does so by twos
        if self.rows is not None:
            parts = pieces(self.rows, self.length, count, rng)
        elif count * self.features > self.settings.sample_from / 2 and stride > 1 and not self.shared:
            parts = [Batch(*(None if a is None else a[::stride] for a in part)) for part in self.parts]
            length = sum(len(part.x) for part in parts)
            return replace(self, parts=tuple(parts), block=0, length=length, kept={}, log={})
        else:
            begins = np.cumsum([0, *(len(part.x) for part in self.parts)])
            chosen = np.sort(rng.choice(self.length, count, replace=count > self.length, shuffle=False))
            picked = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(begins)]
            parts = [Batch(*(None if a is None else a[rows] for a in part)) for part, rows in zip(self.parts, picked)]
        few = parts[0] if len(parts) == 1 else joined(parts)
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
                    waiting.append(pool().submit(run, chunk))
                    if len(waiting) > threads():
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
                wait(waiting)

    @property
    def chunk_size(self) -> int:
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
                self._chunk(sliced(part, begin, begin + size), size)
                for part in self.parts
                for size in [self.block or chunk_rows(len(part.x), self.width, self.settings)]
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
                    admit_block(self.net, block, seen)
                seen += len(block.x)
                yield self._chunk(counted(block), self.block)
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
    """As many as there are cores for this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def pool() -> ThreadPoolExecutor:
    """The threads that work on chunks."""
    return ThreadPoolExecutor(threads(), "chunks")


os.register_at_fork(after_in_child=pool.cache_clear)


def chunk_rows(n: int, width: int, settings: Settings) -> int:
    """Rows of a chunk of n, of so many numbers each: whole chunks for every thread, all of one size, few sizes."""
    most = settings.chunk_rows
    while most > 1 and most * width > settings.chunk_numbers * (1 if most > settings.least_rows_of_a_thread else 4):
        most //= 2
    if n <= settings.least_rows_of_a_thread or n * width < settings.one_thread:
        return bucket(min(n, most))
    turns = threads() * -(-n // (threads() * most))
    return bucket(-(-n // turns)) if turns <= 4 * threads() else most


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(np.add, a, b)
