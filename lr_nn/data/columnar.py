"""Parquet and Arrow files: columns in groups of rows, found by the footer, decoded group by group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from lr_nn.data.in_place import File, opened
from lr_nn.data.tables import Table, arrow, check_names, pieces, readable

if TYPE_CHECKING:
    import pyarrow as pa

# Decoded groups that are kept beside the last one, in bytes.
KEPT = 2**27


@dataclass(frozen=True, eq=False)
class Groups(Table):
    """A file of groups of rows; the last ones that were decoded are kept, so that small blocks decode none twice.

    load: the columns named of one group. starts: the first row of every group, and n.
    """

    file: File
    kept_schema: pa.Schema
    starts: tuple[int, ...]
    load: Callable[[int, list[str]], pa.Table]
    cache: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=Lock)

    @property
    def schema(self) -> pa.Schema:
        return self.kept_schema

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        names = tuple(self.schema.names if columns is None else columns)
        found = [self._group(group, names).slice(a, b - a) for group, a, b in pieces(self.starts, start, stop)]
        return found[0] if len(found) == 1 else arrow().concat_tables(found)

    def _group(self, group: int, names: tuple[str, ...]) -> pa.Table:
        with self.lock:
            if (group, names) not in self.cache:
                self._make_room()
                self.cache[group, names] = self._decoded(group, names)
            self.cache.move_to_end((group, names))
            return self.cache[group, names]

    def _decoded(self, group: int, names: tuple[str, ...]) -> pa.Table:
        first, last = self.starts[group], self.starts[group + 1]
        with readable(f"{self.file.path}: rows {first} to {last - 1} cannot be read"):
            self.file.unchanged()
            table = self.load(group, list(names))
            table.validate(full=True)  # offsets and indices out of range would end the process
        if table.num_rows != last - first:
            raise ValueError(f"{self.file.path} is damaged: {table.num_rows} rows in place of {last - first}")
        return table

    def _make_room(self) -> None:
        """Keep the latest, where it is not large."""
        while self.cache and (len(self.cache) > 1 or sum(table.nbytes for table in self.cache.values()) > KEPT):
            self.cache.popitem(last=False)


def parquet_file(path: Path) -> Groups:
    """One Parquet file."""
    arrow()
    from pyarrow import parquet as pq

    file = opened(path)

    with readable(f"{path}: not a Parquet file that can be read"):
        with pq.ParquetFile(path) as footer:
            metadata, schema = footer.metadata, footer.schema_arrow
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def load(group: int, names: list[str]) -> pa.Table:
        with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as content:
            return content.read_row_group(group, columns=names).select(names)

    return _groups(file, schema, counts, load)


def arrow_file(path: Path) -> Groups:
    """One Arrow IPC (Feather) file. It is read, not mapped: a mapped file that is cut off ends the process."""
    library, file = arrow(), opened(path)

    def load(group: int, names: list[str]) -> pa.Table:
        places = sorted(schema.get_field_index(name) for name in names)
        with library.OSFile(str(path)) as content:
            options = library.ipc.IpcReadOptions(included_fields=places)
            batch = library.ipc.open_file(content, options=options).get_batch(group)
            return library.Table.from_batches([batch]).select(names)

    with readable(f"{path}: not an Arrow file that can be read"):
        with library.OSFile(str(path)) as content:
            reader = library.ipc.open_file(content)
            schema, groups = reader.schema, reader.num_record_batches
        check_names(schema.names, str(path))
        counts = [load(group, schema.names[:1]).num_rows for group in range(groups)]
    return _groups(file, schema, counts, load)


def _groups(file: File, schema: pa.Schema, counts: list[int], load: Callable[[int, list[str]], pa.Table]) -> Groups:
    check_names(schema.names, str(file.path))
    if min(counts, default=0) < 0:
        raise ValueError(f"{file.path} is damaged: it states a group of {min(counts)} rows")
    return Groups(file, schema.remove_metadata(), tuple(accumulate(counts, initial=0)), load)
