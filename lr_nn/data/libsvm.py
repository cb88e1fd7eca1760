"""Rows of text in the format of LIBSVM: a line is `label index:value index:value ...`, with what is 0 left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lr_nn.data.in_place import File, opened
from lr_nn.data.ranges import within
from lr_nn.data.rows import Rows
from lr_nn.types import Batch

__all__ = ["libsvm"]

# Rows between two places that are remembered: a read begins at most so many rows early.
EVERY = 64
# Text that is turned into numbers at once, and the longest line.
PIECE, LONGEST = 2**20, 2**26
# Without being told, no more features than these are believed: rows come out dense.
BELIEVED = 2**20

LINE = re.compile(rb"\s*+([^\s:#]++)(?:\s++qid:[^\s:#]++)?((?:\s++[^\s:#]++:[^\s:#]++)*+)\s*+(?:#.*+)?", re.DOTALL)
NOTHING = re.compile(rb"\s*+(?:#.*+)?", re.DOTALL)
MARK = b"\xef\xbb\xbf"  # that some editors put in front of UTF-8


class Entries(NamedTuple):
    """What lines hold: labels (n,), how many entries each line has (n,), and all entries one after the other."""

    labels: np.ndarray
    counts: np.ndarray
    indices: np.ndarray
    values: np.ndarray


def libsvm(path: str | os.PathLike, features: int | None = None, base: int | None = None) -> Rows:
    """Rows of a LIBSVM text file, dense and float64; y are the labels, integers where all of them are.

    One pass over the file checks every line and remembers where each 64th row begins; the text is not held in memory.
    Comments (from # on), empty lines and `qid:...` are passed over. `features` is the number of columns d; without
    it, the largest index in the file gives it, so that files which belong together should state it. `base` is the
    index of the first column: without it 0 if an index is 0, else 1.

    Raises ValueError with row and line for what is no number, not finite, or not in increasing order of the indices,
    and for an index beyond `features`; OSError where the file cannot be read.
    """
    if base not in (None, 0, 1):
        raise ValueError(f"base, the index of the first column, must be 0 or 1; got {base!r}")
    file = opened(path)
    begin = len(MARK) if file.read(0, min(file.size, len(MARK))).tobytes() == MARK else 0
    places, n, lines = [], 0, 0
    low, high, whole = 2**62, -1, True
    for start, text in _pieces(file, begin, file.size):
        offsets = np.cumsum([start, *(len(line) + 1 for line in text)])
        kept = [i for i, line in enumerate(text) if not NOTHING.fullmatch(line)]
        entries = _parsed(file, [text[i] for i in kept], n, [lines + i + 1 for i in kept])
        if features is not None or base is not None:
            _within(file, entries, n, features, base)
        places += [int(offsets[i]) for row, i in enumerate(kept, start=n) if row % EVERY == 0]
        low, high = min(low, entries.indices.min(initial=low)), max(high, entries.indices.max(initial=high))
        whole = whole and bool(
            (entries.labels == np.rint(entries.labels)).all() and (abs(entries.labels) < 2**53).all()
        )
        n, lines = n + len(kept), lines + len(text)
    if n == 0:
        raise ValueError(f"{path} has no rows, only comments or empty lines")
    first = (0 if low == 0 else 1) if base is None else base
    d = int(high) + 1 - first if features is None else features
    if d < 1 or high > d - 1 + first:
        raise ValueError(
            f"{path} has indices from {low} to {high}; expected {first} to {d - 1 + first}: pass features="
        )
    if features is None and d > BELIEVED:
        raise ValueError(
            f"{path} has an index {high}, and rows come out dense: if it is no error, pass features={high + 1 - first}"
        )
    return LibSVM(file, np.array([*places, file.size], np.int64), n, d, first, whole)


@dataclass(frozen=True, eq=False)
class LibSVM(Rows):
    """Rows whose text begins at `places`, one for each 64 rows and the end; `first` is the index of column 0."""

    file: File
    places: np.ndarray
    n: int
    d: int
    first: int
    whole: bool

    @property
    def features(self) -> tuple[str, ...]:
        """Named by their indices in the file."""
        return tuple(f"x{j + self.first}" for j in range(self.d))

    def __len__(self) -> int:
        return self.n

    def read(self, start: int, stop: int) -> Batch:
        within(start, stop, len(self))
        x, y = np.zeros((stop - start, self.d)), np.empty(stop - start)
        row = start // EVERY * EVERY
        for _, text in _pieces(self.file, int(self.places[row // EVERY]), int(self.places[-(-stop // EVERY)])):
            lines = [line for line in text if not NOTHING.fullmatch(line)]
            low, high = max(start - row, 0), min(stop - row, len(lines))
            if low < high:
                entries = _parsed(self.file, lines[low:high], row + low, None)
                _within(self.file, entries, row + low, self.d, self.first)
                at = slice(row + low - start, row + high - start)
                y[at] = entries.labels
                x[at][np.repeat(np.arange(high - low), entries.counts), entries.indices - self.first] = entries.values
            row += len(lines)
        if row < stop:
            raise OSError(f"{self.file.path} ends before row {stop - 1}: it was changed since it was opened")
        return Batch(x, y.astype(np.int64) if self.whole else y)


def _pieces(file: File, start: int, stop: int) -> Iterator[tuple[int, list[bytes]]]:
    """Bytes start, ..., stop - 1 as lines, about a megabyte at a time, each piece with where it begins."""
    rest = b""
    while start < stop:
        text = rest + file.read(start + len(rest), min(PIECE, stop - start - len(rest))).tobytes()
        last = start + len(text) == stop
        end = len(text) if last else text.rfind(b"\n") + 1
        if not end and len(text) > LONGEST:
            raise ValueError(f"{file.path} has a line of more than {LONGEST} bytes from byte {start} on: is it text?")
        if end:
            yield start, text[:end].removesuffix(b"\n").split(b"\n")
        start, rest = start + end, text[end:]


def _parsed(file: File, lines: list[bytes], row: int, numbers: list[int] | None) -> Entries:
    """The entries of lines, of which the first is row `row` and `numbers` are the numbers in the file."""
    try:
        return _entries(lines)
    except (ValueError, OverflowError) as error:
        if len(lines) == 1:
            where = f"row {row}" + (f" (line {numbers[0]})" if numbers else "")
            raise ValueError(f"{file.path}: {where} {error}; got {_shown(lines[0])}") from None
        half = len(lines) // 2
        for part in (slice(0, half), slice(half, None)):
            _parsed(file, lines[part], row + (part.start or 0), numbers and numbers[part])
        raise


def _entries(lines: list[bytes]) -> Entries:
    """Raises ValueError, OverflowError where a line is wrong: of one line, the message says how."""
    found = [LINE.fullmatch(line) for line in lines]
    if None in found:
        raise ValueError("is not `label index:value index:value ...`")
    labels, pairs = zip(*(match.groups() for match in found if match)) if found else ((), ())
    tokens = b" ".join(pairs).replace(b":", b" ").split()
    if any(b"_" in text for text in (*labels, *pairs)):  # which Python reads as 1_000
        raise ValueError("has a number with an underscore")
    entries = Entries(
        np.fromiter(map(float, labels), np.float64, len(labels)),
        np.fromiter((pair.count(b":") for pair in pairs), np.int64, len(pairs)),
        np.fromiter(map(int, tokens[::2]), np.int64, len(tokens) // 2),
        np.fromiter(map(float, tokens[1::2]), np.float64, len(tokens) // 2),
    )
    if not (np.isfinite(entries.labels).all() and np.isfinite(entries.values).all()):
        raise ValueError("has a number that is not finite")
    inside = np.repeat(np.arange(len(lines)), entries.counts)
    if entries.indices.size and (
        entries.indices.min() < 0 or ((np.diff(entries.indices) <= 0) & (np.diff(inside) == 0)).any()
    ):
        raise ValueError("has indices below 0, twice, or not in increasing order")
    return entries


def _within(file: File, entries: Entries, row: int, features: int | None, base: int | None) -> None:
    """Refuse an index below the first or, with both known, above the last, naming the row."""
    first = base or 0
    last = np.inf if features is None else features if base is None else features - 1 + base
    bad = np.flatnonzero((entries.indices < first) | (entries.indices > last))
    if bad.size:
        at = row + int(np.searchsorted(np.cumsum(entries.counts), bad[0], side="right"))
        raise ValueError(
            f"{file.path}: row {at} has the index {entries.indices[bad[0]]}; expected {first} to {last:g}: "
            "pass the features and the base that the file was written with"
        )


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")
