"""Arrays that stay in their file: rows are read when they are asked for, and nothing is kept."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NUMERIC_KINDS = "biuf"
# XLA:CPU reads arrays in place that begin at a multiple of so many bytes.
ALIGNED = 64


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that XLA:CPU reads in place."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + ALIGNED, np.uint8)
    begin = -buffer.ctypes.data % ALIGNED
    return buffer[begin : begin + size].view(dtype).reshape(shape)


def is_aligned(x: np.ndarray) -> bool:
    """Does XLA:CPU read it in place?"""
    return x.flags.c_contiguous and x.ctypes.data % ALIGNED == 0


@dataclass(frozen=True)
class File:
    """A file as it was when it was opened: a read of one that has changed since is refused.

    `modified` is its time in nanoseconds, None where it may change: then only its end is looked at.
    """

    path: Path
    size: int
    modified: int | None

    def read(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes from `offset` on. Raises OSError where they are not what was opened."""
        data = aligned((count,), np.dtype(np.uint8))
        with open(self.path, "rb", buffering=0) as file:
            self.unchanged(os.fstat(file.fileno()), offset + count)
            try:
                self._fill(data.data, file, offset)
            except OSError as error:
                raise OSError(f"{self.path} cannot be read from byte {offset} on: {error}") from error
        return data

    def unchanged(self, now: os.stat_result | None = None, end: int = 0) -> None:
        """Raise OSError where the file is shorter than `end`, or not as it was."""
        now = os.stat(self.path) if now is None else now
        if now.st_size < max(end, self.size if self.modified is not None else 0):
            raise OSError(f"{self.path} was cut off since it was opened: {now.st_size} bytes are left of {self.size}")
        if self.modified is not None and (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise OSError(f"{self.path} was changed since it was opened: open it again")

    def _fill(self, data: memoryview, file, offset: int) -> None:
        file.seek(offset)
        while len(data):
            count = file.readinto(data)
            if not count:
                raise OSError(f"it ends {len(data)} bytes early")
            data = data[count:]


def opened(path: str | os.PathLike) -> File:
    """A file that exists, can be read and is not empty. Raises OSError or ValueError that says which it is not."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a folder; expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is a pipe or a device, of which rows cannot be found again; write it to a file")
    if found.st_size == 0:
        raise ValueError(f"{path} is empty")
    with path.open("rb"):
        return File(path, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class InPlace:
    """An array in a file, from byte `offset` on; `array[start:stop]` reads these rows, in this machine's byte order.

    `strides`, the bytes from one entry to the next along each axis, are those of row after row if None. Where the
    first is not the largest, as in an array (n, d) stored column after column, a piece of each column is read.
    """

    file: File
    offset: int
    kept: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    @property
    def dtype(self) -> np.dtype:
        """That of what is read."""
        return self.kept.newbyteorder("=")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1 or start >= stop:
            raise IndexError("rows of a file are read by array[start:stop], at least one")
        shape, strides = (stop - start, *self.shape[1:]), self.strides or row_after_row(self.kept, self.shape)
        if strides[0] == max(strides):
            return self._values(start * strides[0], shape, strides)
        columns = [self._values(start * strides[0] + j * strides[1], shape[:1], strides[:1]) for j in range(shape[1])]
        return np.stack(columns, axis=1)

    def flat(self) -> InPlace:
        """One row an example: (n, h, w, ...) as (n, h w ...)."""
        if self.ndim < 3:
            return self
        if self.strides is not None:
            raise ValueError(f"{self.file.path} keeps shape {self.shape} column after column; save it row after row")
        return InPlace(self.file, self.offset, self.kept, (len(self), math.prod(self.shape[1:])))

    def _values(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        last = sum((length - 1) * stride for length, stride in zip(shape, strides))
        data = self.file.read(self.offset + offset, last + self.kept.itemsize)
        if self.kept.kind == "b":
            return np.ndarray(shape, np.uint8, data, strides=strides) != 0
        return np.ascontiguousarray(np.ndarray(shape, self.kept, data, strides=strides), self.dtype)


def row_after_row(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array whose last axis is fastest."""
    return tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def whole(file: File, offset: int, dtype: np.dtype, shape: tuple[int, ...], size: int, what: str) -> None:
    """Refuse what is not numbers, and a shape that does not take up exactly the `size` bytes from `offset` on."""
    if dtype.kind not in NUMERIC_KINDS or dtype.itemsize > 8:
        raise ValueError(
            f"{what} holds {dtype}; expected real numbers of at most 8 bytes: save it as float32, float64 or integers"
        )
    if not shape or any(length < 1 for length in shape):
        raise ValueError(f"{what} has shape {shape}; expected rows, at least one, and no axis without entries")
    stated = math.prod(shape) * dtype.itemsize
    if stated != size or offset + size > file.size:
        raise ValueError(
            f"{what} is truncated or damaged: shape {shape} of {dtype} takes {stated} bytes; "
            f"there are {min(size, max(0, file.size - offset))}"
        )


def in_its_file(array: np.memmap) -> InPlace | None:
    """A mapped array, or a view, as it lies in its file; None where it keeps changes to itself, or runs backwards."""
    root: np.ndarray = array
    while isinstance(root.base, np.memmap):
        root = root.base
    filename, mode = getattr(root, "filename", None), getattr(root, "mode", "c")
    if filename is None or mode == "c" or array.ndim > 2 or min(array.strides, default=0) <= 0 or not array.size:
        return None
    path = Path(filename)
    if not path.is_file():
        return None
    offset = root.offset + array.ctypes.data - root.ctypes.data  # type: ignore[attr-defined]
    file = File(path, path.stat().st_size, modified=None)
    return InPlace(file, offset, array.dtype, array.shape, array.strides)
