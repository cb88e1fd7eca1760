"""Rows of IDX files, the format of MNIST: a header of the kind and the shape, then the values, last axis fastest."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn.data.arrays import DEFLATE, joined
from lr_nn.data.in_place import File, InPlace, opened, whole
from lr_nn.data.rows import Rows

__all__ = ["idx"]

KINDS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"


def idx(images: str | os.PathLike, labels: str | os.PathLike | None = None) -> Rows:
    """Rows of an IDX file of images (n, h, w), or of any other (n, ...), and of labels (n,).

    Unsigned bytes are pixels: they come as float32 in [0, 1]; values of the other kinds come as they are. A plain
    file is read in place; one in gzip is held in memory, as it is stored, and `notes` says so.

    Raises ValueError for a wrong magic number, and a size that is not that of the shape in the header; OSError where
    a file cannot be read.
    """
    pixels, y = _array(images), None if labels is None else _array(labels)
    if pixels.ndim < 2:
        raise ValueError(f"{images} has shape {pixels.shape}; expected images (n, h, w): is it the file of labels?")
    if y is not None and y.ndim != 1:
        raise ValueError(f"{labels} has shape {y.shape}; expected labels (n,): is it the file of images?")
    x = pixels.flat() if isinstance(pixels, InPlace) else pixels.reshape(len(pixels), -1)
    in_memory = [str(path) for path, array in ((images, pixels), (labels, y)) if isinstance(array, np.ndarray)]
    notes = (f"{', '.join(in_memory)}: held in memory, because gzip has no random access",) if in_memory else ()
    return joined(images, (Pixels(x) if x.dtype == np.uint8 else x, y, None, None), notes)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Rows of bytes, in memory or in a file, as float32 in [0, 1]."""

    bytes: Any
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the bytes."""
        return self.bytes.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return scaled(self.bytes[rows])


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Bytes / 255, in float32."""
    return pixels.astype(np.float32) / np.float32(255)


def _array(path: str | os.PathLike) -> InPlace | np.ndarray:
    file = opened(path)
    start = file.read(0, min(file.size, 4 + 4 * 255)).tobytes()
    if start.startswith(GZIP):
        return _inflated(file)
    dtype, shape, offset = _header(path, start)
    whole(file, offset, dtype, shape, file.size - offset, str(path))
    return InPlace(file, offset, dtype, shape)


def _header(path: str | os.PathLike, start: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Two zero bytes, the kind, the number of axes, and each length in four bytes, the most significant first."""
    if len(start) < 4 or start[:2] != b"\x00\x00" or start[2] not in KINDS:
        raise ValueError(
            f"{path} is not an IDX file: it begins with {start[:4].hex(' ')}; expected 00 00, "
            f"one of {', '.join(f'{kind:02x}' for kind in KINDS)}, and the number of axes"
        )
    offset = 4 + 4 * start[3]
    shape = tuple(int.from_bytes(start[i : i + 4], "big") for i in range(4, offset, 4))
    return np.dtype(KINDS[start[2]]), shape, offset


def _inflated(file: File) -> np.ndarray:
    """The array of a file in gzip, in memory: no more is unpacked than its header states."""
    try:
        with gzip.open(file.path) as stream:
            start = stream.read(4)
            dtype, shape, offset = _header(file.path, start + stream.read(4 * start[3]) if len(start) == 4 else start)
            size = dtype.itemsize * int(np.prod([float(length) for length in shape]))
            if size > DEFLATE * file.size:
                raise ValueError(f"{file.path} is truncated or damaged: it states shape {shape} in {file.size} bytes")
            values = stream.read(size + 1)
    except ValueError:
        raise
    except Exception as error:  # zlib, gzip and EOFError
        raise ValueError(f"{file.path} is truncated or damaged ({error}): unpack or fetch it again") from error
    unpacked = File(file.path, offset + len(values), None)
    whole(unpacked, offset, dtype, shape, len(values), str(file.path))
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
