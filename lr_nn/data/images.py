"""Rows of pictures: a folder that has one sub-folder a class."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lr_nn.data.idx import scaled
from lr_nn.data.in_place import File, opened
from lr_nn.data.ranges import within
from lr_nn.data.rows import Rows
from lr_nn.types import Batch

__all__ = ["image_folder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
# Pixels of the largest picture that is unpacked: 8,192 by 8,192.
LARGEST = 2**26


def image_folder(path: str | os.PathLike, size: tuple[int, int] | None = None) -> Pictures:
    """Rows of pictures, one sub-folder a class, both in the order of their names; y is the number of the class.

    A row is a picture (h, w, 3) with its pixels as float32 in [0, 1], or (h, w) if all pictures are grey; a
    transparent layer is dropped. Pictures are unpacked when they are read. `size` (h, w) scales all of them to one
    size (bilinear, averaging where it shrinks). Hidden files are passed over. Needs the extra `data`:
    pip install "lr-nn[data]".

    Raises ValueError for a folder without classes or pictures, for a file that is no picture or a broken one, and for
    sizes that differ where `size` is not given; OSError where something cannot be read.
    """
    if size is not None and (len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size)):
        raise ValueError(f"size must be (height, width), two positive integers; got {size!r}")
    if size is not None and size[0] * size[1] > LARGEST:
        raise ValueError(f"size {size} has more than {LARGEST} pixels")
    classes = [entry for entry in _entries(path) if entry.is_dir()]
    files = [(file, label) for label, entry in enumerate(classes) for file in _pictures(entry)]
    if not files:
        raise ValueError(f"{path} has no pictures in sub-folders; expected one sub-folder a class")
    paths, labels = zip(*files)
    kept = tuple(opened(file) for file in paths)
    looks = [_look(each) for each in kept]
    first = looks[0][0]
    for file, (shape, _) in zip(paths, looks):
        if size is None and shape != first:
            raise ValueError(
                f"{file} is {shape[0]} by {shape[1]} pixels, {paths[0]} is {first[0]} by {first[1]}: "
                f"pass size={first} to scale all of them"
            )
    shape = (*(size or first), *(() if all(grey for _, grey in looks) else (3,)))
    return Pictures(kept, np.array(labels, np.int64), tuple(entry.name for entry in classes), shape)


@dataclass(frozen=True, eq=False)
class Pictures(Rows):
    """Pictures in files, `labels` (n,) the numbers of their `classes`, each of `shape` (h, w) or (h, w, 3)."""

    files: tuple[File, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"x{j}" for j in range(int(np.prod(self.shape))))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Batch:
        within(start, stop, len(self))
        x = np.empty((stop - start, *self.shape), np.float32)
        for row in range(start, stop):
            x[row - start] = scaled(self._unpacked(self.files[row]))
        return Batch(x.reshape(stop - start, -1), self.labels[start:stop].copy())

    def _unpacked(self, file: File) -> np.ndarray:
        from PIL import Image

        height, width, *colours = self.shape
        file.unchanged()
        with _opened(file) as picture:
            try:
                pixels = picture.convert("RGB" if colours else "L")
                if pixels.size != (width, height):
                    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
                return np.asarray(pixels)
            except Exception as error:  # each format has its own
                raise _broken(file.path, error) from error


def _look(file: File) -> tuple[tuple[int, int], bool]:
    """Height and width, and is it grey?, from the header."""
    with _opened(file) as picture:
        return (picture.height, picture.width), picture.mode in GREY


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    """A picture of which only the header is read."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('image_folder needs Pillow: pip install "lr-nn[data]"') from error
    with _Bounded(file.path) as stream:
        try:
            picture = Image.open(stream, formats=FORMATS)
        except Exception as error:  # each format has its own
            raise _broken(file.path, error) from error
        if picture.mode not in (*GREY, *COLOUR) or picture.width * picture.height > LARGEST:
            raise ValueError(
                f"{file.path} has {picture.width} by {picture.height} pixels of mode {picture.mode}; expected 8 bits a "
                f"colour and at most {LARGEST} pixels: convert or remove it"
            )
        yield picture


class _Bounded(io.FileIO):
    """A file that makes room for what is left of it, whatever a damaged picture asks for."""

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left)) or b""


def _broken(file: Path, error: Exception) -> ValueError:
    return ValueError(f"{file} is not a picture, or a broken one ({error}): replace or remove it")


def _entries(path: str | os.PathLike) -> list[Path]:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; expected a folder that has one sub-folder a class")
    return sorted((entry for entry in path.iterdir() if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _pictures(folder: Path) -> list[Path]:
    files = _entries(folder)
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{file} is no picture; expected only {', '.join(SUFFIXES)} in {folder}: remove it")
    if not files:
        raise ValueError(f"{folder} has no pictures: remove it, or fill it")
    return files
