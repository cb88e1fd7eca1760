"""Text of delimited columns: cut into rows at the line ends outside of quotes, and parsed by pyarrow."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lr_nn.data.tables import Table, arrow

if TYPE_CHECKING:
    import pyarrow as pa

LF, CR, QUOTE = b'\n\r"'
# Bytes that are parsed at once, where rows are shorter.
PIECE = 2**23
DELIMITERS = (",", ";", "\t", "|")
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>")


class Source(Protocol):
    """Bytes in some place."""

    @property
    def path(self) -> Path:
        """Where they come from, for messages."""

    @property
    def size(self) -> int:
        """Their number."""

    def read(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes from `offset` on."""


@dataclass(frozen=True)
class Dialect:
    """How columns stand in lines; see `csv`."""

    delimiter: str = ","
    quote: str = '"'
    missing: tuple[str, ...] = MISSING
    strip: bool = False
    decimal: str = "."

    def row_ends(self, text: np.ndarray) -> np.ndarray:
        """The places of the line ends outside of quotes, in what begins with a row.

        A quote inside of quotes is written twice, so that an even number of quotes precedes every end of a row.
        """
        ends = np.flatnonzero(text == LF)
        quotes = np.flatnonzero(text == QUOTE) if self.quote else np.empty(0, int)
        return ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends

    def rows(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of a text of whole lines begin, and where they end: lines that are empty are none."""
        array = np.frombuffer(text, np.uint8)
        ends = self.row_ends(array)
        starts = np.concatenate([np.zeros(min(1, len(ends)), int), ends[:-1] + 1])
        kept = (ends - starts > 1) | ((ends - starts == 1) & (array[starts] != CR))
        return starts[kept], ends[kept]

    def parse(
        self, text: bytes, names: Sequence[str], types: Mapping[str, pa.DataType], kept: Sequence[str]
    ) -> pa.Table:
        """The columns `kept` of whole rows; a type that is not stated is inferred."""
        pa = arrow()
        from pyarrow import csv

        text = self.stripped(text) if self.strip else text
        read = csv.ReadOptions(column_names=names, block_size=len(text) + 1)
        quoted = bool(self.quote) and b'"' in text
        split = csv.ParseOptions(delimiter=self.delimiter, quote_char=quoted and '"', newlines_in_values=quoted)
        convert = csv.ConvertOptions(
            column_types=types,
            include_columns=kept,
            null_values=sorted({"", *self.missing}),
            strings_can_be_null=True,
            decimal_point=self.decimal,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
        )
        return csv.read_csv(pa.BufferReader(text), read, split, convert)

    def stripped(self, text: bytes) -> bytes:
        """Without blanks around columns, outside of quotes."""
        parts = text.strip(b" ").split(b'"') if self.quote else [text.strip(b" ")]
        for mark in (self.delimiter.encode(), b"\n", b"\r\n"):
            for blanks in (b" " * 2**10, b" " * 2**5, b" "):
                parts[::2] = [_replaced(part, blanks + mark, mark) for part in parts[::2]]
                parts[::2] = [_replaced(part, mark + blanks, mark) for part in parts[::2]]
        return b'"'.join(parts)


def _replaced(text: bytes, old: bytes, new: bytes) -> bytes:
    while old in text:
        text = text.replace(old, new)
    return text


@dataclass(frozen=True, eq=False)
class Delimited(Table):
    """Rows of a text: row numbers[i] begins at byte places[i], and the last of both are n and the end.

    A read parses from the place before its first row to the place after its last one.
    """

    source: Source
    dialect: Dialect
    types: Mapping[str, pa.DataType]
    numbers: Sequence[int]
    places: Sequence[int]

    @property
    def schema(self) -> pa.Schema:
        return arrow().schema(list(self.types.items()))

    def __len__(self) -> int:
        return self.numbers[-1]

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        return replace(self, types={name: types.get(name, kept) for name, kept in self.types.items()})

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        kept, found = list(self.types if columns is None else columns), []
        begin = at = bisect_right(self.numbers, start) - 1
        while self.numbers[at] < stop:
            after = at + 1
            while self.numbers[after] < stop and self.places[after + 1] - self.places[at] <= PIECE:
                after += 1
            found.append(self._parsed(at, after, kept))
            at = after
        return arrow().concat_tables(found).slice(start - self.numbers[begin], stop - start)

    def _parsed(self, at: int, after: int, kept: list[str]) -> pa.Table:
        first, last = self.numbers[at], self.numbers[after]
        text = self.source.read(self.places[at], self.places[after] - self.places[at]).tobytes()
        types = {name: self.types[name] for name in kept}
        try:
            table = self.dialect.parse(text, list(self.types), types, kept)
        except arrow().ArrowException as error:
            raise refusal(self.source.path, self.dialect, text, first, list(self.types), types) from error
        if table.num_rows != last - first:
            raise OSError(f"{self.source.path} was changed since it was opened: open it again")
        return table


def refusal(
    path: Path, dialect: Dialect, text: bytes, first: int, names: list[str], types: Mapping[str, pa.DataType]
) -> ValueError:
    """Which of the rows number `first` and on cannot be parsed, found by halves, and why."""
    text += b"\n" * (not text.endswith(b"\n"))
    starts, ends = dialect.rows(text)
    passed, failed, told = 0, len(starts), "the rows after it cannot be parsed"
    while passed < failed:  # the first `passed` rows do, and one before `failed` does not
        tried = (passed + failed + 1) // 2
        try:
            dialect.parse(text[starts[passed] : ends[tried - 1] + 1], names, types, names)
        except arrow().ArrowException as error:
            told, failed = str(error).splitlines()[0], tried
            if tried - passed == 1:
                break
        else:
            passed = tried
    told = told.removeprefix("CSV parse error: ")
    told = re.sub(r"^In CSV column #(\d+): (CSV )?", lambda found: f"column {names[int(found[1])]!r}: ", told)
    between = [mark for mark in DELIMITERS if len(names) == 1 and mark in names[0]]
    told += f" (pass delimiter={between[0]!r}, if it stands between columns)" if between else ""
    return ValueError(f"{path}: row {first + passed}: {told}")
