"""CSV files as tables: one pass finds where rows begin, and of what type every column is over all rows."""

from __future__ import annotations

import csv as text_rows
import gzip
import io
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np

from lr_nn.data.delimited import DELIMITERS, MISSING, PIECE, Delimited, Dialect, Source, refusal
from lr_nn.data.in_place import opened
from lr_nn.data.tables import Table, arrow, check_names, wider

__all__ = ["csv"]

# A longer row is taken for a quote that is never closed. Rows between two places of the index.
LONGEST, EVERY = 2**26, 1024
# Rows that tell the delimiter.
SNIFFED = 20
# What is decompressed stays in memory up to so many bytes.
IN_MEMORY = 2**26
BOM, OTHER_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def csv(
    path: str | os.PathLike,
    *,
    delimiter: str = ",",
    header: bool | str = True,
    names: Sequence[str] | None = None,
    missing: Sequence[str] = MISSING,
    quote: str = '"',
    strip: bool = False,
    decimal: str = ".",
) -> Table:
    """A CSV file in UTF-8, plain or .gz, as a table.

    delimiter: between columns, or "sniff", to find out which of , ; tab and | stands in the first rows. header: does
    the first row hold the names of the columns, or "sniff": it does, unless one of its columns is a number. names:
    those of all columns, in place of the header's; without both they are x0, x1, ... missing: what stands for a
    missing value, beside nothing at all. quote: what encloses columns that hold delimiters, line ends or quotes
    (these twice), or "" where quotes mean nothing. strip: take away blanks around columns. decimal:
    what stands before the decimals of a number.

    One pass over the file finds where rows begin, and the type of every column: whole numbers, decimal numbers, true
    and false, dates, times, or else text, whichever all rows have. Empty lines are none. A .gz file is decompressed,
    into memory up to 64 MB and into an unnamed temporary file beyond.

    Raises ValueError, naming the row, for rows of unlike length, what is not UTF-8, and quotes that are not closed;
    OSError for a file that cannot be read. Needs the extra `data`: pip install "lr-nn[data]".
    """
    arrow()
    if quote not in ('"', ""):
        raise ValueError(f"quote must be '\"' or ''; got {quote!r}")
    if delimiter != "sniff" and (len(delimiter.encode()) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character of ASCII, or 'sniff'; got {delimiter!r}")
    if decimal not in (".", ",") or decimal == delimiter:
        raise ValueError(f"decimal must be '.' or ',', and not the delimiter {delimiter!r}; got {decimal!r}")
    if header not in (True, False, "sniff"):
        raise ValueError(f"header must be True, False or 'sniff'; got {header!r}")
    source: Source = opened(path)
    if source.read(0, min(2, source.size)).tobytes() == b"\x1f\x8b":
        source = _decompressed(source)
    dialect = Dialect(delimiter, quote, tuple(missing), strip, decimal)
    (first, *others), start = _first_rows(source, dialect)
    if delimiter == "sniff":
        dialect = replace(dialect, delimiter=_delimiter([first, *others], dialect))
    columns = _columns(first, dialect)
    if header == "sniff":
        header = not any(_is_number(column) for column in columns)
    found = (
        [column or f"x{j}" for j, column in enumerate(columns)] if header else [f"x{j}" for j in range(len(columns))]
    )
    kept = found if names is None else [str(name) for name in names]
    check_names(kept, str(source.path))
    if len(kept) != len(columns):
        raise ValueError(f"{source.path} has {len(columns)} columns; got {len(kept)} names")
    survey = Survey(source, dialect, kept)
    return survey.table(start + len(first.encode()) if header else start)


@dataclass
class Survey:
    """The pass over a text that finds its rows and types."""

    source: Source
    dialect: Dialect
    names: list[str]
    types: list[Any] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rows: int = 0

    def table(self, start: int) -> Delimited:
        """All rows from byte `start` on."""
        size, left = self.source.size, b""
        for offset in range(start, size, PIECE):
            count = min(PIECE, size - offset)
            text = left + self.source.read(offset, count).tobytes()
            text += b"\n" * (offset + count == size and not text.endswith(b"\n"))
            ends = self.dialect.row_ends(np.frombuffer(text, np.uint8))
            end = int(ends[-1]) + 1 if len(ends) else 0
            self._add(text[:end], offset - len(left))
            left = text[end:]
            if len(left) > LONGEST or (left and offset + count == size):
                raise ValueError(f"{self.source.path}: row {self.rows} opens a quote that is never closed")
        if not self.rows:
            raise ValueError(f"{self.source.path} has no rows beside its header; a table needs at least one")
        types = dict(zip(self.names, self.types))
        return Delimited(self.source, self.dialect, types, [*self.numbers, self.rows], [*self.places, size])

    def _add(self, text: bytes, offset: int) -> None:
        starts, _ = self.dialect.rows(text)
        if not len(starts):
            return
        self._check_encoding(text, starts)
        try:
            table = self.dialect.parse(text, self.names, {}, self.names)
        except arrow().ArrowException as error:
            raise refusal(self.source.path, self.dialect, text, self.rows, self.names, {}) from error
        if table.num_rows != len(starts):
            raise ValueError(
                f"{self.source.path}: from row {self.rows} on, {len(starts)} lines hold {table.num_rows} rows: a quote "
                "in a column that is not quoted (where quotes mean nothing, pass quote=''), a line of blanks, or a "
                "line that ends in a carriage return alone"
            )
        found = table.schema.types
        self.types = [wider(a, b) for a, b in zip(self.types, found)] if self.types else found
        marks = np.arange(-self.rows % EVERY, len(starts), EVERY)
        self.numbers += (self.rows + marks).tolist()
        self.places += (offset + starts[marks]).tolist()
        self.rows += len(starts)

    def _check_encoding(self, text: bytes, starts: np.ndarray) -> None:
        place, why = text.find(0), "holds a byte of zero; is it a text?"
        if place < 0:
            try:
                text.decode()
                return
            except UnicodeDecodeError as error:
                place, why = error.start, f"is not UTF-8 ({error.reason}); save the file in UTF-8"
        row = self.rows + int(np.searchsorted(starts, place, side="right")) - 1
        raise ValueError(f"{self.source.path}: row {max(row, self.rows)} {why}")


def _first_rows(source: Source, dialect: Dialect) -> tuple[list[str], int]:
    """The first rows, the very first with the empty lines before it, and the byte where these begin."""
    head = source.read(0, min(3, source.size)).tobytes()
    if head.startswith(OTHER_BOMS):
        raise ValueError(f"{source.path} is in UTF-16 or UTF-32; save it in UTF-8")
    start = len(BOM) if head == BOM else 0
    for count in (min(size, source.size - start) for size in (2**16, LONGEST)):
        text = source.read(start, count).tobytes() + b"\n" * (start + count == source.size)
        starts, ends = dialect.rows(text)
        if len(starts):
            break
    else:
        raise ValueError(f"{source.path} has no row: it is empty, or opens a quote that is never closed")
    if b"\r" in text[starts[0] : ends[0]].removesuffix(b"\r") and b'"' not in text[: ends[0]]:
        raise ValueError(f"{source.path}: lines end in a carriage return alone; save them with line feeds")
    try:
        first = text[: min(ends[0] + 1, count)].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{source.path}: the first row is not UTF-8 ({error.reason}); save it in UTF-8") from None
    return [first, *(text[a:b].decode(errors="replace") for a, b in zip(starts[1:SNIFFED], ends[1:SNIFFED]))], start


def _columns(row: str, dialect: Dialect) -> list[str]:
    quoting: Any = text_rows.QUOTE_MINIMAL if dialect.quote else text_rows.QUOTE_NONE
    text = row.strip("\r\n")
    if dialect.strip:
        text = dialect.stripped(text.encode()).decode()
    limit = text_rows.field_size_limit(LONGEST)
    try:
        reader = text_rows.reader(io.StringIO(text, newline=""), delimiter=dialect.delimiter, quoting=quoting)
        return next(reader, [""])
    except text_rows.Error as error:
        raise ValueError(f"the first row cannot be parsed: {error}") from error
    finally:
        text_rows.field_size_limit(limit)


def _delimiter(rows: list[str], dialect: Dialect) -> str:
    """The one that cuts the most of the first rows into as many columns as the first, and these into most."""

    def cut(delimiter: str) -> tuple[int, int]:
        counts = [len(_columns(row, replace(dialect, delimiter=delimiter))) for row in rows]
        return (counts.count(counts[0]) if counts[0] > 1 else 0), counts[0]

    return max(DELIMITERS, key=cut)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(eq=False)
class _Held:
    """Bytes in memory, or in a file that has no name and goes when this does."""

    path: Path
    size: int
    file: Any
    lock: Any = field(default_factory=Lock)

    def read(self, offset: int, count: int) -> np.ndarray:
        with self.lock:
            self.file.seek(offset)
            data = self.file.read(count)
        if len(data) < count:
            raise OSError(f"{self.path}: what was decompressed ends {count - len(data)} bytes early")
        return np.frombuffer(data, np.uint8)


def _decompressed(source: Source) -> _Held:
    file: Any = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115, it is closed with what holds it
    held = _Held(source.path, 0, file)
    finalize(held, file.close)
    try:
        with gzip.open(source.path) as packed:
            shutil.copyfileobj(packed, file, PIECE)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{source.path} is truncated or damaged: {error}") from error
    except OSError as error:
        raise type(error)(f"{source.path} cannot be decompressed: {error}") from error
    held.size = file.tell()
    if not held.size:
        raise ValueError(f"{source.path} is empty")
    return held
