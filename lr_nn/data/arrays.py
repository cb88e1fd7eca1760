"""Rows from the files of NumPy: `.npy`, read in place, and `.npz`, read in place where it is not compressed."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from lr_nn.data.in_place import File, InPlace, opened, row_after_row, whole
from lr_nn.data.rows import Arrays, Rows

__all__ = ["npy", "npz"]

Path = str | os.PathLike

# NumPy itself takes no header above 10,000 bytes.
HEADER = 2**14
# Deflate makes no more than 1,032 bytes of one: what states more is damaged.
DEFLATE = 1032
LOCAL_HEADER = struct.Struct("<4s22xHH")


def npy(x: Path, y: Path | None = None, weight: Path | None = None, offset: Path | None = None) -> Rows:
    """Rows of `.npy` files, one an array: x (n, d), or (n, ...) which is read as one row an example.

    Nothing is loaded: each read takes its rows from the files. Pickled objects are never opened.

    Raises ValueError for a file that is no array of numbers, or shapes that differ; OSError where it cannot be read.
    """
    arrays = (None if path is None else _npy(opened(path)) for path in (x, y, weight, offset))
    return joined(x, arrays)


def npz(path: Path, x: str = "x", y: str | None = None, weight: str | None = None, offset: str | None = None) -> Rows:
    """Rows of the arrays of one `.npz` file, named x, y, weight and offset, or as told.

    Arrays that np.savez wrote are read in place, as those of `npy`; np.savez_compressed makes the reader hold them in
    memory, and `notes` says so. A name that is not given is taken where the file has it.

    Raises as `npy` does, and ValueError that names the arrays of the file where one asked for is not there.
    """
    file = opened(path)
    with open(file.path, "rb") as stream:
        members = _members(file, stream)
        names = chosen(path, {"x": x, "y": y, "weight": weight, "offset": offset}, dict.fromkeys(members, ""))
        found = [None if name is None else _member(file, stream, members[name]) for name in names]
    loaded = [str(name) for name, array in zip(names, found) if isinstance(array, np.ndarray)]
    notes = (f"{path}: {', '.join(loaded)} compressed, and held in memory: np.savez writes what can be read in place",)
    return joined(path, found, notes if loaded else ())


def chosen(path: Path, asked: dict[str, str | None], known: dict[str, str]) -> list[str | None]:
    """The names of x, y, weight and offset in a file that has the names `known`: those asked for, else their own."""
    for what, name in asked.items():
        if name is not None and name not in known:
            has = ", ".join(f"{key}{shape}" for key, shape in known.items()) or "none"
            hint = f': name another, as in {what}="..."' if known else ""
            raise ValueError(f"{path} has no array {name!r} for {what}; it has {has}{hint}")
    return [name or (what if what in known else None) for what, name in asked.items()]


def joined(path: Path, arrays: Iterable[Any], notes: tuple[str, ...] = ()) -> Rows:
    """x, y, weight and offset as rows; what is wrong with them is said of the file."""
    x, y, weight, offset = arrays
    x = x.flat() if isinstance(x, InPlace) else x.reshape(len(x), -1) if len(x.shape) > 2 else x
    try:
        return Arrays(x, y, weight, offset, notes=notes)
    except ValueError as error:
        hint = "; save x.reshape(-1, 1) if it is one feature" if len(x.shape) == 1 else ""
        raise ValueError(f"{path}: {error}{hint}") from error


def _npy(file: File) -> InPlace:
    start = file.read(0, min(file.size, HEADER)).tobytes()
    dtype, shape, by_column, offset = _header(str(file.path), start)
    whole(file, offset, dtype, shape, file.size - offset, str(file.path))
    return InPlace(file, offset, dtype, shape, _strides(dtype, shape) if by_column else None)


def _header(what: str, start: bytes) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """dtype, shape, column after column?, and where the values begin, of an array that begins with these bytes."""
    stream = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the Python that a damaged header is taken for
            shape, by_column, dtype = readers[version](stream)
    except Exception as error:  # whatever a damaged header makes of its reader
        raise ValueError(
            f"{what} is not an array as np.save writes it, or is damaged ({type(error).__name__}): save it again"
        ) from error
    return dtype, shape, by_column and len(shape) > 1, stream.tell()


def _members(file: File, stream: Any) -> dict[str, zipfile.ZipInfo]:
    """The arrays of a zip file by their names."""
    try:
        infos = zipfile.ZipFile(stream).infolist()
    except Exception as error:  # whatever a damaged directory makes of zipfile
        raise ValueError(
            f"{file.path} is not a zip file of arrays, as np.savez writes it, or is damaged ({error})"
        ) from error
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise ValueError(f"{file.path} has two arrays of one name; save each once")
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _member(file: File, stream: Any, info: zipfile.ZipInfo) -> InPlace | np.ndarray:
    """An array in its place, or loaded where it is compressed."""
    what = f"{info.filename} in {file.path}"
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{what} is encrypted, or compressed in a way that NumPy does not write: save it by np.savez")
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return _inflated(file, stream, info, what)
    if info.header_offset < 0 or info.header_offset + LOCAL_HEADER.size > file.size:
        raise ValueError(f"{what} lies outside the file: it is truncated or damaged")
    magic, name, extra = LOCAL_HEADER.unpack(file.read(info.header_offset, LOCAL_HEADER.size).tobytes())
    begin = info.header_offset + LOCAL_HEADER.size + name + extra
    if magic != b"PK\x03\x04" or info.file_size != info.compress_size or begin + info.file_size > file.size:
        raise ValueError(f"{what} is truncated or damaged")
    start = file.read(begin, min(info.file_size, HEADER)).tobytes()
    dtype, shape, by_column, offset = _header(what, start)
    whole(file, begin + offset, dtype, shape, info.file_size - offset, what)
    return InPlace(file, begin + offset, dtype, shape, _strides(dtype, shape) if by_column else None)


def _strides(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of an array whose first axis is fastest."""
    return row_after_row(dtype, shape[::-1])[::-1]


def _inflated(file: File, stream: Any, info: zipfile.ZipInfo, what: str) -> np.ndarray:
    if info.file_size > DEFLATE * info.compress_size or info.compress_size > file.size:
        raise ValueError(f"{what} states {info.file_size} bytes in {info.compress_size} of the file: it is damaged")
    try:
        with zipfile.ZipFile(stream) as archive, archive.open(info) as member:
            content = member.read(info.file_size + 1)
    except Exception as error:  # zlib, zipfile and struct each have their own
        raise ValueError(f"{what} is truncated or damaged ({error}): save it again") from error
    dtype, shape, by_column, offset = _header(what, content[:HEADER])
    in_memory = File(file.path, len(content), None)
    whole(in_memory, offset, dtype, shape, len(content) - offset, what)
    array = np.frombuffer(content, dtype, offset=offset).reshape(shape, order="F" if by_column else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False))
