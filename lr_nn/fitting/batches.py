"""Batches of rows in memory: those that count, some of them, one under another, and pieces of a file."""

from __future__ import annotations

import jax
import numpy as np

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.data import Rows
from lr_nn.network import Network
from lr_nn.types import Batch

__all__ = ["admit_block", "check_targets", "counted", "joined", "pieces", "sliced"]

# Pieces of a sample of a file.
PIECES = 256


def admit_block(net: Network, block: Batch, first: int) -> None:
    """Refuse rows of a file that do not fit the network, by number."""
    check_targets(block)
    with check.numbered(range(first, first + len(block.x))), jax.enable_x64(True):
        admit_rows(net, block, np.float64, allow_no_weight=True)


def check_targets(block: Batch) -> None:
    """Raise ValueError if rows of a file have no targets."""
    if block.y is None:
        raise ValueError("the rows have no targets: name the column of the targets where you open the file")


def counted(batch: Batch) -> Batch:
    """The rows of a positive weight."""
    if batch.weight is None or (counted := np.asarray(batch.weight) > 0).all():
        return batch
    return Batch(*(None if a is None else a[counted] for a in batch))


def sliced(batch: Batch, begin: int, end: int) -> Batch:
    """Rows one after another."""
    return Batch(*(None if a is None else a[begin:end] for a in batch))


def joined(parts: list[Batch]) -> Batch:
    """Rows one under another."""
    if any(part.weight is not None for part in parts):
        parts = [part._replace(weight=np.ones(len(part.x)) if part.weight is None else part.weight) for part in parts]
    return Batch(*(None if each[0] is None else np.concatenate(each) for each in zip(*parts)))


def pieces(rows: Rows, length: int, count: int, rng: np.random.Generator) -> list[Batch]:
    """About `count` rows of a file, read in pieces: one from a random place in each of as many equal parts."""
    pieces = max(1, min(PIECES, count // 16))
    each = max(1, count // pieces)
    share = length / pieces
    begins = [int(i * share + rng.random() * max(0.0, share - each)) for i in range(pieces)]
    found = [rows.read(begin, min(length, begin + each)) for begin in begins]
    for piece in found:
        check_targets(piece)
    return [piece for piece in map(counted, found) if len(piece.x)] or found
