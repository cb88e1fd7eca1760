"""Rows of HDF5 files: contiguous data sets are read in place, chunked and compressed ones through h5py."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from lr_nn.data.arrays import DEFLATE, chosen, joined
from lr_nn.data.in_place import NUMERIC_KINDS, File, InPlace, opened, whole
from lr_nn.data.rows import Rows

__all__ = ["hdf5"]

# A row of chunks is read whole for any of its rows, and kept for the next read.
LARGEST_CHUNKS = 2**28


def hdf5(
    path: str | os.PathLike,
    x: str = "x",
    y: str | None = None,
    weight: str | None = None,
    offset: str | None = None,
) -> Rows:
    """Rows of the data sets of one HDF5 file, named x, y, weight and offset, or as told ("group/name" in a group).

    x is (n, d), or (n, ...), as images are, which is read as one row an example. A name that is not given is taken
    where the file has it. Needs the extra `data`: pip install "lr-nn[data]".

    Raises ValueError for a file that is not HDF5, or damaged, for data sets that are not there (those that are, are
    named) or not numbers; OSError where it cannot be read.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError('hdf5 needs h5py: pip install "lr-nn[data]"') from error
    file = opened(path)
    with _library(file):
        content = h5py.File(file.path, "r")
        known = _data_sets(content)
    names = chosen(path, {"x": x, "y": y, "weight": weight, "offset": offset}, known)
    with _library(file):
        found = {name: _described(content[name]) for name in names if name is not None}
    room = max(_chunk_room(file, data) for data in found.values())
    if room:
        with _library(file):
            content.close()
            content = h5py.File(file.path, "r", rdcc_nbytes=room + 2**20)
    return joined(path, [None if name is None else _in_file(file, content, found[name]) for name in names])


class Described(NamedTuple):
    """What the header of a data set says, `offset` None where it does not lie in the file in one piece."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None
    offset: int | None
    stored: int


class DataSet:
    """A chunked data set: `array[start:stop]` reads these rows, (rows, d) where it has more than two axes."""

    def __init__(self, file: File, data: Any) -> None:
        """Look at no value."""
        self.file, self.data = file, data
        n, *others = data.shape
        self.shape = (n, math.prod(others)) if len(others) > 1 else data.shape
        self.dtype, self.ndim = data.dtype.newbyteorder("="), len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.file.unchanged()
        with _library(self.file, f"; rows {rows.start} to {rows.stop - 1} cannot be read"):
            values = self.data[rows]
        return values.astype(self.dtype, copy=False).reshape(len(values), *self.shape[1:])


@contextmanager
def _library(file: File, what: str = "") -> Iterator[None]:
    """Say of the file whatever a damaged one makes of the library."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{file.path} is not an HDF5 file, or is damaged{what} ({error})") from error


def _data_sets(content: Any) -> dict[str, str]:
    """The names of all data sets, with their shapes as messages show them."""
    found: dict[str, str] = {}
    content.visititems(lambda name, item: found.update({name: f" {item.shape}"}) if hasattr(item, "shape") else None)
    return found


def _described(data: Any) -> Described:
    in_one_piece = data.chunks is None and not data.external and not data.is_virtual
    offset = data.id.get_offset() if in_one_piece else None
    shape = tuple(map(int, data.shape or ()))
    return Described(data.name, shape, data.dtype, data.chunks, offset, data.id.get_storage_size())


def _in_file(file: File, content: Any, known: Described) -> InPlace | DataSet:
    if known.offset is None:
        with _library(file):
            return DataSet(file, content[known.name])
    whole(file, known.offset, known.dtype, known.shape, known.stored, f"{known.name} in {file.path}")
    in_place = InPlace(file, known.offset, known.dtype, known.shape)
    return in_place.flat() if len(known.shape) > 2 else in_place


def _chunk_room(file: File, data: Described) -> int:
    """The bytes of the chunks that one row touches; what the file cannot hold is refused here."""
    what = f"{data.name} in {file.path}"
    if data.dtype.kind not in NUMERIC_KINDS or data.dtype.itemsize > 8:
        raise ValueError(f"{what} holds {data.dtype}; expected real numbers of at most 8 bytes")
    if not data.shape or 0 in data.shape:
        raise ValueError(f"{what} has shape {data.shape}; expected rows, at least one, and no axis without entries")
    stored = min(data.stored, file.size)
    chunk = math.prod(data.chunks or (1,)) * data.dtype.itemsize
    if math.prod(data.shape) * data.dtype.itemsize > DEFLATE * stored + chunk:
        raise ValueError(
            f"{what} has shape {data.shape} of {data.dtype} but {stored} bytes in the file: it was never written, "
            "lies in other files, or is truncated or damaged"
        )
    if data.chunks is None:
        return 0
    room = chunk * math.prod(-(-length // each) for length, each in zip(data.shape[1:], data.chunks[1:]))
    if room > LARGEST_CHUNKS:
        raise ValueError(
            f"{what} is in chunks of {data.chunks}, of which a row needs {room} bytes at once; write it in smaller ones"
        )
    return room
