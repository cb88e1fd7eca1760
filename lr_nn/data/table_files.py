"""Files that hold tables, opened by the name of their kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lr_nn.data.columnar import arrow_file, parquet_file
from lr_nn.data.csv_files import csv
from lr_nn.data.tables import Table, joined

__all__ = ["arrow", "open_table", "parquet"]

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
CSV, TSV = (".csv", ".csv.gz"), (".tsv", ".tsv.gz")


def parquet(path: str | os.PathLike) -> Table:
    """A Parquet file, or a folder of them with the same columns, as a table.

    A read decodes the columns asked for, of the groups of rows that it touches; the last group is kept. Where blocks
    come in a shuffled order, write small groups (`row_group_size=65536`): a group is decoded whole for any row of it.

    Raises ValueError for what is no Parquet file, or damaged; OSError where it cannot be read. Needs the extra `data`:
    pip install "lr-nn[data]".
    """
    return _file_or_folder(Path(path), PARQUET, parquet_file)


def arrow(path: str | os.PathLike) -> Table:
    """An Arrow IPC (Feather) file, or a folder of them with the same columns, as a table; see `parquet`.

    Files are read, not mapped: what was read does not stay in the memory of the process, and a file that is cut off
    while it is open is an error, not the end of the process.
    """
    return _file_or_folder(Path(path), ARROW, arrow_file)


def open_table(path: str | os.PathLike, **options: Any) -> Table:
    """The table in a file, or in a folder of files of one kind, by suffix.

    .csv and .tsv, plain or .gz (`options` are those of `csv`), .parquet and .pq, .arrow, .feather and .ipc. A text of
    another name is opened by `csv`. Files of a folder come in the order of their names; those that begin with . or _
    are left out.
    """
    path = Path(path)
    kind = _kind(_inside(path)[0] if path.is_dir() else path)
    if kind in (PARQUET, ARROW) and options:
        raise TypeError(f"{path}: options are for text, and this is {kind[0]}; got {', '.join(options)}")
    if kind in (PARQUET, ARROW):
        return _file_or_folder(path, kind, parquet_file if kind == PARQUET else arrow_file)
    if kind == TSV:
        options = {"delimiter": "\t", **options}
    return _file_or_folder(path, kind, lambda file: csv(file, **options))


def _kind(path: Path) -> tuple[str, ...]:
    for kind in (PARQUET, ARROW, CSV, TSV):
        if path.name.lower().endswith(kind):
            return kind
    known = ", ".join(suffix for kind in (CSV, TSV, PARQUET, ARROW) for suffix in kind)
    raise ValueError(
        f"{path}: a table is known by one of {known}; open a text of another name by data.csv, "
        "and arrays, images and libsvm files by data.open_rows"
    )


def _inside(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if not file.name.startswith((".", "_")))
    if not files:
        raise ValueError(f"{folder} is an empty folder; expected files that hold tables")
    return files


def _file_or_folder(path: Path, kind: tuple[str, ...], opener: Callable[[Path], Table]) -> Table:
    if not path.is_dir():
        return _with_rows(path, opener(path))
    files = _inside(path)
    for file in files:
        if file.is_dir() or not file.name.lower().endswith(kind):
            raise ValueError(f"{file}: a folder that is one table holds files {' or '.join(kind)} alone")
    return _with_rows(path, joined({str(file): opener(file) for file in files}))


def _with_rows(path: Path, table: Table) -> Table:
    if not len(table):
        raise ValueError(f"{path} has no rows; a table needs at least one")
    return table
