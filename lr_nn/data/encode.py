"""A schema applied to blocks of a table: no loop over rows, and a table of floats at about the speed of reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lr_nn.check import numbered
from lr_nn.data.columns import check_type, dictionary, finite, is_text, missing_value, values
from lr_nn.data.encodings import Categorical, Numeric, shown
from lr_nn.data.ranges import within
from lr_nn.data.rows import Rows
from lr_nn.data.tables import Table, arrow
from lr_nn.types import Batch

if TYPE_CHECKING:
    import pyarrow as pa

    from lr_nn.data.schema import Schema

# Bytes of x that are written at once: columns come one by one and rows lie side by side, within the cache.
TILE = 2**19


@dataclass(frozen=True, eq=False)
class Encoded(Rows):
    """The rows of a table as a schema's numbers."""

    schema: Schema
    table: Table
    encoder: Encoder

    @property
    def features(self) -> tuple[str, ...]:
        return self.schema.features

    def __len__(self) -> int:
        return len(self.table)

    def read(self, start: int, stop: int) -> Batch:
        within(start, stop, len(self))
        block = self.table.read(start, stop, self.encoder.names)
        with numbered(self.table.row_numbers(start, stop)):
            return self.encoder.batch(block)


def encoded(schema: Schema, table: Table, unknown: str, extra: str, targets: bool) -> Encoded:
    """The rows of a table, its columns checked."""
    if not isinstance(table, Table):
        raise TypeError(f"table must be a Table, such as of data.open_table or data.frame; got {type(table).__name__}")
    wanted, names = schema.types(), table.schema.names
    found = {name: table.schema.field(name).type for name in wanted if names.count(name) == 1}
    # As text levels are read word for word, and of numbers that are none the row is found.
    table = table.typed({name: wanted[name] for name, kind in found.items() if is_text(wanted[name]) or is_text(kind)})
    return Encoded(schema, table, Encoder(schema, table.schema, unknown, extra, targets))


class Encoder:
    """A schema, for tables of one arrow schema that was checked against it."""

    def __init__(
        self, schema: Schema, columns: pa.Schema, unknown: str = "refuse", extra: str = "refuse", targets: bool = True
    ) -> None:
        """Check the names and types of columns."""
        for name, value in (("unknown", unknown), ("extra", extra)):
            if value not in ("refuse", "ignore"):
                raise ValueError(f"{name} must be 'refuse' or 'ignore'; got {value!r}")
        self.schema, self.unknown, self.targets = schema, unknown, targets
        self.numbers = sum(isinstance(column, Numeric) for column in schema.columns)
        roles = [schema.offset, *((schema.target.name, schema.weight) if targets else ())]
        self.names = [column.name for column in schema.columns] + [name for name in roles if name is not None]
        known = {*self.names, schema.target.name, schema.weight, *schema.ignored}
        self._check_names(columns.names, known, extra)
        for column in schema.columns:
            check_type(column.name, columns.field(column.name).type, isinstance(column, Categorical))
        for name in roles:
            if name is not None:
                labels = name == schema.target.name and schema.target.kind != "values"
                check_type(name, columns.field(name).type, labels)

    def _check_names(self, names: Sequence[str], known: set[Any], extra: str) -> None:
        missing = [name for name in self.names if name not in names]
        if missing:
            raise ValueError(f"the table lacks columns of the schema: {shown(missing)}; it has {shown(names)}")
        unknown = [name for name in names if name not in known]
        if unknown and extra == "refuse":
            raise ValueError(
                f"the table has columns that the schema does not know: {shown(unknown)}; extra='ignore' leaves them out"
            )
        twice = [name for name in self.names if list(names).count(name) > 1]
        if twice:
            raise ValueError(f"two columns of the table are called {twice[0]!r}")

    def batch(self, table: pa.Table) -> Batch:
        """The rows of a table as numbers."""
        table = table.select(self.names).combine_chunks()
        schema, x = self.schema, self._inputs(table)
        offset = None if schema.offset is None else finite(table, schema.offset)
        if not self.targets:
            return Batch(x, None, None, offset)
        weight = None if schema.weight is None else finite(table, schema.weight, least=0)
        return Batch(x, self._target(table), weight, offset)

    def _inputs(self, table: pa.Table) -> np.ndarray:
        """x (n, d), rows side by side."""
        schema, at = self.schema, 0
        shape = (table.num_rows, len(schema.features))
        x = (np.empty if len(schema.columns) == shape[1] == self.numbers else np.zeros)(shape, schema.dtype)
        places, columns, arrays = [], [], []
        for column in schema.columns:
            if isinstance(column, Numeric):
                places.append(at)
                columns.append(column)
                arrays.append(values(table, column.name))
            else:
                self._one_hot(x, at, column, table.column(column.name))
            at += len(column.features)
        if columns and not write(x, places, columns, arrays):
            for place, column, array in zip(places, columns, arrays):
                _fill(x, place, column, array)
        return x

    def _one_hot(self, x: np.ndarray, at: int, column: Categorical, array: pa.ChunkedArray) -> None:
        codes = np.full(len(column.levels), -1)
        codes[[column.levels.index(level) for level in column.shown]] = np.arange(len(column.shown))
        level, missing = self._levels(column.name, column.levels, array, self.unknown)
        if missing.any() and not column.indicator:
            if column.fill is None:
                raise missing_value(column.name, int(missing.argmax()), feature=True)
            level[missing] = column.levels.index(column.fill)
        hot = np.where(level < 0, -1, codes[level])
        if column.indicator:
            hot[missing] = len(column.shown)
        rows = np.flatnonzero(hot >= 0)
        x[rows, at + hot[rows]] = 1

    def _levels(
        self, name: str, levels: Sequence[Any], array: pa.ChunkedArray, unknown: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """The place of every row's level, -1 for none of them, and which rows have no level."""
        pa = arrow()
        import pyarrow.compute as pc

        kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        kept = pa.array(levels, kinds[type(levels[0])])
        indices, distinct = dictionary(name, array, kept.type)
        place = pc.fill_null(pc.index_in(distinct, kept), -1).to_numpy(zero_copy_only=False)
        level = np.append(place, -1)[indices]
        missing = indices == len(distinct)
        if unknown == "refuse":
            bad = (level < 0) & ~missing
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(
                    f"column {name!r} at row {row}: {distinct[int(indices[row])].as_py()!r} is not one of the "
                    f"{len(levels)} levels learned: {shown(levels)}; unknown='ignore' treats it as the reference"
                )
        return level, missing

    def _target(self, table: pa.Table) -> np.ndarray:
        target, dtype = self.schema.target, self.schema.dtype
        if target.kind == "values":
            return finite(table, target.name)
        level, missing = self._levels(target.name, target.classes, table.column(target.name), "refuse")
        if missing.any():
            raise missing_value(target.name, int(missing.argmax()), feature=False)
        return level.astype(dtype if target.kind == "binary" else np.int32)


def write(x: np.ndarray, places: Sequence[int], columns: Sequence[Numeric], arrays: Sequence[np.ndarray]) -> bool:
    """Every (array - mean) / scale, computed in float64, into its column of x. Are they all finite, for certain?"""
    mean, scale = np.array([column.mean for column in columns]), np.array([column.scale for column in columns])
    in_place, plain = len(columns) == x.shape[1], not mean.any() and bool((scale == 1).all())
    dtype = x.dtype if plain else np.dtype(np.float64)
    rows, total = max(1, TILE // (dtype.itemsize * len(columns))), x.dtype.type(0)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), rows):
            tile = x[start : start + rows]
            into = tile if plain and in_place else np.empty((len(tile), len(columns)), dtype)
            for j, array in enumerate(arrays):
                into[:, j] = array[start : start + rows]
            if not plain:
                into -= mean
                into /= scale
            if into is not tile:
                tile[:, slice(None) if in_place else places] = into
            total += tile.sum()
    return bool(np.isfinite(total))


def _fill(x: np.ndarray, place: int, column: Numeric, array: np.ndarray) -> None:
    """Put the fill where a value is missing; refuse what is infinite."""
    missing = np.isnan(array)
    infinite = ~(np.isfinite(x[:, place]) | missing)
    if infinite.any():
        row = int(infinite.argmax())
        raise ValueError(f"column {column.name!r} at row {row}: {array[row]} is beyond the range of {x.dtype}; mend it")
    if missing.any():
        if column.fill is None:
            raise missing_value(column.name, int(missing.argmax()), feature=True)
        x[missing, place] = (column.fill - column.mean) / column.scale
        if column.indicator:
            x[missing, place + 1] = 1
