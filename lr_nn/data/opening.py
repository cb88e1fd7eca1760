"""One door to all readers of arrays: the suffix chooses."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lr_nn.data.arrays import npy, npz
from lr_nn.data.hdf5 import hdf5
from lr_nn.data.idx import idx
from lr_nn.data.images import image_folder
from lr_nn.data.libsvm import libsvm
from lr_nn.data.rows import Rows

__all__ = ["open_rows"]

READERS: dict[str, Callable[..., Rows]] = {
    ".npy": npy,
    ".npz": npz,
    ".h5": hdf5,
    ".hdf5": hdf5,
    ".svm": libsvm,
    ".libsvm": libsvm,
    "-ubyte": idx,
    "-ubyte.gz": idx,
}
TABLES = (".csv", ".csv.gz", ".parquet", ".arrow", ".feather")


def open_rows(
    path: str | os.PathLike,
    *,
    x: str | None = None,
    y: str | os.PathLike | None = None,
    weight: str | os.PathLike | None = None,
    offset: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    features: int | None = None,
    size: tuple[int, int] | None = None,
) -> Rows:
    """The rows of a file, or of a folder of pictures, by the reader that its suffix names: its options are taken.

    `npy` takes the files of y, weight and offset; `npz` and `hdf5` the names of x, y, weight and offset; `idx` the
    file of labels; `libsvm` the number of features; `image_folder` the size. Tables (.csv, .parquet, ...) have columns
    that must first be made numbers: `data.open_table` opens them.

    Raises ValueError for a suffix that no reader has and for an option that the reader does not take, and what the
    reader raises.
    """
    given = {"x": x, "y": y, "weight": weight, "offset": offset, "labels": labels, "features": features, "size": size}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    reader = _reader(path)
    takes = list(inspect.signature(reader).parameters)[1:]
    for name in options:
        if name not in takes:
            raise ValueError(f"{path} is opened by {reader.__name__}, which takes {', '.join(takes)}; got {name}")
    return reader(path, **options)


def _reader(path: str | os.PathLike) -> Callable[..., Rows]:
    name = Path(path).name.lower()
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader
    if Path(path).is_dir():
        return image_folder
    if name.endswith(TABLES):
        raise ValueError(f"{path} is a table, whose columns a schema makes numbers: open it by data.open_table")
    raise ValueError(
        f"{path} has no suffix that tells what it is; expected {', '.join(READERS)}, or a folder of pictures; "
        f"tables ({', '.join(TABLES)}) are opened by data.open_table"
    )
