"""Blocks and mini-batches of rows, each read while the one before it is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.types import Batch

__all__ = ["blocks", "mini_batches"]

S = TypeVar("S")
T = TypeVar("T")


def blocks(rows: Rows, size: int) -> Generator[Batch, None, None]:
    """All rows in their own order, `size` at a time, the last block ragged."""
    return read_ahead(_read(rows, block, size) for block in range(count(rows, size)))


def mini_batches(rows: Rows, size: int, *, key: jax.Array, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
    """The mini-batches number start, start + 1, ... of an epoch: blocks of consecutive rows in the order of `order`."""
    check.key(key)
    return read_ahead(_read(rows, int(block), size) for block in order(key, epoch, count(rows, size))[start:])


def order(key: jax.Array, epoch: int, blocks: int) -> np.ndarray:
    """The order of the blocks in an epoch, a permutation drawn from (key, epoch): nothing else is remembered."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), blocks))


def count(rows: Rows, size: int) -> int:
    """⌈n / size⌉, the number of blocks."""
    return -(-len(rows) // size)


def read_ahead(reads: Iterable[Callable[[], T]]) -> Generator[T, None, None]:
    """What each of `reads` returns, in their order; a thread is one ahead of who asks.

    One is read while another is in use, and a caller that holds on to the one before has three in memory.
    """
    return mapped(lambda read: read(), reads, threads=1)


def mapped(function: Callable[[S], T], items: Iterable[S], threads: int) -> Generator[T, None, None]:
    """function(item) of every item, in their order, on so many threads; one item more waits for a thread."""
    with ThreadPoolExecutor(threads, "lr_nn") as pool:
        running: deque[Future[T]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _read(rows: Rows, block: int, size: int) -> Callable[[], Batch]:
    return lambda: rows.read(block * size, min(len(rows), (block + 1) * size))
