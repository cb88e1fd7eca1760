"""Tables: named columns of any type in some place, read a block of consecutive rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from lr_nn.data.ranges import share, within

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Table", "frame"]


class Table(ABC):
    """n rows of named and typed columns, wherever they are; a reader states `schema`, `len` and `read`.

    Reading is random access and changes nothing: the same rows may be read again, in any order and from any thread.
    """

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The names and types of the columns."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows n."""

    @abstractmethod
    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows start, ..., stop - 1 (0 ≤ start < stop ≤ n) of the columns named, in that order, or of all.

        Raises OSError where the rows cannot be read, and ValueError, naming the place, where they are not of the type.
        """

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        """The same table, where a text file's columns are read as the types named: kept types are left as they are."""
        return self

    def part(self, index: int, count: int) -> Table:
        """The consecutive rows of one of `count` readers, such as hosts: they differ by one row at most."""
        return Part(self, *share(index, count, len(self)))

    def row_numbers(self, start: int, stop: int) -> Sequence[int] | np.ndarray:
        """What rows start, ..., stop - 1 are numbered in the whole table, for messages."""
        return range(start, stop)


@dataclass(frozen=True, eq=False)
class Part(Table):
    """Rows start, ..., stop - 1 of `whole`."""

    whole: Table
    start: int
    stop: int

    @property
    def schema(self) -> pa.Schema:
        return self.whole.schema

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        within(start, stop, len(self))
        return self.whole.read(self.start + start, self.start + stop, columns)

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        return Part(self.whole.typed(types), self.start, self.stop)

    def row_numbers(self, start: int, stop: int) -> Sequence[int] | np.ndarray:
        return self.whole.row_numbers(self.start + start, self.start + stop)


@dataclass(frozen=True, eq=False)
class Frame(Table):
    """A table in memory."""

    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def __len__(self) -> int:
        return self.table.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        within(start, stop, len(self))
        kept = self.table if columns is None else self.table.select(list(columns))
        return kept.slice(start, stop - start)


def frame(columns: Any) -> Table:
    """A table of what is in memory: a pandas DataFrame, a pyarrow Table, or a mapping from names to columns.

    Of a DataFrame the index is left out, and NaN is a missing value.

    >>> from lr_nn import data
    >>> table = data.frame({"size": [1.5, 2.0], "colour": ["red", None]})
    >>> len(table), table.schema.names
    (2, ['size', 'colour'])
    """
    pa = arrow()
    try:
        with readable("the columns"):
            if isinstance(columns, pa.Table):
                table = columns
            elif isinstance(columns, Mapping):
                table = pa.table({str(name): _column(values) for name, values in columns.items()})
            elif hasattr(columns, "iloc") and hasattr(columns, "columns"):
                table = pa.Table.from_pandas(columns, preserve_index=False)
            else:
                raise TypeError(
                    f"columns must be a pandas DataFrame, a pyarrow Table or a mapping from names to columns; "
                    f"got {type(columns).__name__}"
                )
            table = table.combine_chunks().replace_schema_metadata()
    except OverflowError as error:
        raise ValueError(f"the columns hold a number that no column can: {error}") from error
    check_names(table.schema.names, "the columns")
    if not table.num_rows:
        raise ValueError("the columns have no rows; a table needs at least one")
    return Frame(table)


def _column(values: Any) -> Any:
    """An array of NumPy or pandas with NaN as missing, else as pyarrow reads it."""
    pa = arrow()
    return values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, from_pandas=True)


@dataclass(frozen=True, eq=False)
class Joined(Table):
    """Tables of the same columns one after the other."""

    tables: tuple[Table, ...]
    starts: tuple[int, ...]

    @property
    def schema(self) -> pa.Schema:
        return self.tables[0].schema

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        return arrow().concat_tables(
            self.tables[i].read(first, last, columns) for i, first, last in pieces(self.starts, start, stop)
        )

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        return Joined(tuple(table.typed(types) for table in self.tables), self.starts)


def joined(tables: Mapping[str, Table]) -> Table:
    """The tables of several files as one; they must have the same columns of the same types, in any order.

    What is inferred from text is widened to what holds for all files: whole numbers beside decimal ones are decimal.
    """
    (first, model), *others = tables.items()
    for name, table in others:
        if set(table.schema.names) != set(model.schema.names):
            missing = [c for c in model.schema.names if c not in table.schema.names]
            extra = [c for c in table.schema.names if c not in model.schema.names]
            told = f"lacks column {missing[0]!r}" if missing else f"has a column {extra[0]!r}"
            raise ValueError(f"{name} {told}, unlike {first}: the files of one table must have the same columns")
    common = {c: reduce(wider, [table.schema.field(c).type for table in tables.values()]) for c in model.schema.names}
    typed = {name: table.typed(common) for name, table in tables.items()}
    model = typed[first]
    for name, table in typed.items():
        for column in model.schema.names:
            here, there = table.schema.field(column).type, model.schema.field(column).type
            if here != there:
                raise ValueError(f"column {column!r} is {here} in {name} and {there} in {first}: give it one type")
    whole = tuple(
        table if table.schema.names == model.schema.names else _Ordered(table, model) for table in typed.values()
    )
    return Joined(whole, tuple(accumulate((len(table) for table in whole), initial=0)))


@dataclass(frozen=True, eq=False)
class _Ordered(Table):
    """A table with its columns in the order of another's."""

    table: Table
    model: Table

    @property
    def schema(self) -> pa.Schema:
        return self.model.schema

    def __len__(self) -> int:
        return len(self.table)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        return self.table.read(start, stop, self.schema.names if columns is None else columns)

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        return _Ordered(self.table.typed(types), self.model.typed(types))


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that text of either type can be read as, whatever the order of the rows; text itself where none is."""
    pa = arrow()
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    day, second, fine = pa.date32(), pa.timestamp("s"), pa.timestamp("ns")
    for kinds, common in (
        ({pa.int64(), pa.float64()}, pa.float64()),
        ({day, second}, second),
        ({day, second, fine}, fine),
    ):
        if {a, b} <= kinds:
            return common
    return pa.string()


def pieces(starts: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Which of the parts that begin at `starts` hold rows start, ..., stop - 1: (part, its first row, its last)."""
    part = bisect_right(starts, start) - 1
    while start < stop:
        end = min(stop, starts[part + 1])
        if start < end:
            yield part, start - starts[part], end - starts[part]
        start, part = end, part + 1


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse columns that cannot be told apart."""
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{where}: two columns are called {twice[0]!r}; give each a name of its own")
    if not names:
        raise ValueError(f"{where}: there are no columns")


def arrow() -> Any:
    """The module pyarrow."""
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError('tables need pyarrow: pip install "lr-nn[data]"') from error
    return pyarrow


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn what pyarrow raises for broken data into ValueError or OSError that name the place."""
    pa = arrow()
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise ValueError(f"{where}: damaged, or beyond the memory of this machine: {_first_line(error)}") from error
    except pa.ArrowException as error:
        raise ValueError(f"{where}: {_first_line(error)}") from error
    except OSError as error:
        raise type(error)(f"{where}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
