"""Rows of HDF5 files: contiguous data sets are read in place, chunked and compressed ones through h5py."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from lr_nn.data.arrays import DEFLATE, chosen, joined
from lr_nn.data.in_place import NUMERIC_KINDS, File, InPlace, opened, whole
from lr_nn.data.rows import Rows

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
    try:
        with h5py.File(file.path, "r") as content:
            names = chosen(path, {"x": x, "y": y, "weight": weight, "offset": offset}, _data_sets(content))
            room = [_chunk_room(file, content[name]) for name in names if name is not None]
        content = h5py.File(file.path, "r", rdcc_nbytes=max(room, default=0) + 2**20)
        found = [None if name is None else _in_file(file, content[name]) for name in names]
    except ValueError:
        raise
    except Exception as error:  # whatever a damaged file makes of the library
        raise ValueError(f"{path} is not an HDF5 file, or is damaged ({error})") from error
    return joined(path, found)


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
        try:
            values = self.data[rows]
        except Exception as error:  # whatever a damaged chunk makes of the library
            raise OSError(
                f"{self.file.path}: rows {rows.start} to {rows.stop - 1} of {self.data.name} cannot be read ({error})"
            ) from error
        return values.astype(self.dtype, copy=False).reshape(len(values), *self.shape[1:])


def _data_sets(content: Any) -> dict[str, str]:
    """The names of all data sets, with their shapes as messages show them."""
    found: dict[str, str] = {}
    content.visititems(lambda name, item: found.update({name: f" {item.shape}"}) if hasattr(item, "shape") else None)
    return found


def _in_file(file: File, data: Any) -> InPlace | DataSet:
    offset, what = data.id.get_offset(), f"{data.name} in {file.path}"
    if data.chunks is None and offset is not None and not data.external:
        shape = tuple(map(int, data.shape))
        whole(file, offset, data.dtype, shape, data.id.get_storage_size(), what)
        in_place = InPlace(file, offset, data.dtype, shape)
        return in_place.flat() if len(shape) > 2 else in_place
    return DataSet(file, data)


def _chunk_room(file: File, data: Any) -> int:
    """The bytes of the chunks that one row touches; what the file cannot hold is refused here."""
    what = f"{data.name} in {file.path}"
    if data.dtype.kind not in NUMERIC_KINDS or data.dtype.itemsize > 8:
        raise ValueError(f"{what} holds {data.dtype}; expected real numbers of at most 8 bytes")
    if not data.shape or 0 in data.shape:
        raise ValueError(f"{what} has shape {data.shape}; expected rows, at least one, and no axis without entries")
    stored = min(data.id.get_storage_size(), file.size)
    chunk = math.prod(data.chunks or (1,)) * data.dtype.itemsize
    if math.prod(data.shape) * data.dtype.itemsize > DEFLATE * stored + chunk:
        raise ValueError(
            f"{what} has shape {data.shape} of {data.dtype} but {stored} bytes in the file: it was never written, "
            "or is truncated or damaged"
        )
    if data.chunks is None:
        return 0
    room = chunk * math.prod(-(-length // each) for length, each in zip(data.shape[1:], data.chunks[1:]))
    if room > LARGEST_CHUNKS:
        raise ValueError(
            f"{what} is in chunks of {data.chunks}, of which a row needs {room} bytes at once; write it in smaller ones"
        )
    return room
