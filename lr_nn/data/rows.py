"""Examples in some place, read a block of consecutive rows at a time: what readers hand out, `fit` and `train` take."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn.data.in_place import in_its_file
from lr_nn.data.ranges import share, within
from lr_nn.types import Batch

__all__ = ["Arrays", "Rows"]

# Rows at the beginning, in the middle and at the end that a fingerprint reads.
LOOKED_AT = 64


class Rows(ABC):
    """n examples of d features, wherever they are; a reader states `features`, `len` and `read`.

    Reading is random access and changes nothing: the same rows may be read again, in any order and from any thread.
    """

    @property
    @abstractmethod
    def features(self) -> tuple[str, ...]:
        """The names of the d columns of x."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader did that the reader of its results should know, in sentences."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows n."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Batch:
        """Rows start, ..., stop - 1 (0 ≤ start < stop ≤ n) as NumPy arrays in memory, in the dtype they are kept in.

        Raises OSError where the rows cannot be read, and ValueError, naming the place, where they are not numbers.
        """

    def part(self, index: int, count: int) -> Rows:
        """The consecutive rows of one of `count` readers, such as hosts: they differ by one row at most."""
        return Part(self, *share(index, count, len(self)))

    def fingerprint(self) -> str:
        """What tells these rows from others: a digest of their number, their features and a few of them."""
        n, digest = len(self), hashlib.sha256(repr((len(self), self.features)).encode())
        for start in sorted({0, n // 2, max(0, n - LOOKED_AT)}):
            for array in self.read(start, min(n, start + LOOKED_AT)):
                if array is not None:
                    digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Part(Rows):
    """Rows start, ..., stop - 1 of `whole`."""

    whole: Rows
    start: int
    stop: int

    @property
    def features(self) -> tuple[str, ...]:
        return self.whole.features

    @property
    def notes(self) -> tuple[str, ...]:
        return self.whole.notes

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Batch:
        within(start, stop, len(self))
        return self.whole.read(self.start + start, self.start + stop)


@dataclass(frozen=True, eq=False, init=False)
class Arrays(Rows):
    """Arrays that can be sliced: of NumPy, in memory or mapped from a file, or in a file (`InPlace`, data sets).

    x (n, d), y (n,) or (n, k) or None, weight (n,), offset (n,) or (n, k). A mapped file is read, not mapped: what
    was read does not stay in the memory of the process.
    """

    arrays: Batch
    names: tuple[str, ...]
    remarks: tuple[str, ...]

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        offset: Any = None,
        features: tuple[str, ...] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Check shapes; no value is looked at."""
        if np.ndim(x) != 2 or 0 in x.shape:
            raise ValueError(f"x must have shape (n, d), with at least one row and column; got {np.shape(x)}")
        for name, array, axes in (("y", y, (1, 2)), ("weight", weight, (1,)), ("offset", offset, (1, 2))):
            if array is not None and (np.ndim(array) not in axes or len(array) != len(x)):
                shapes = " or ".join(("(n,)", "(n, k)")[: len(axes)])
                raise ValueError(f"{name} must have shape {shapes} with n = {len(x)}, as x; got {np.shape(array)}")
        names = tuple(f"x{j}" for j in range(x.shape[1])) if features is None else tuple(features)
        if len(names) != x.shape[1]:
            raise ValueError(f"{x.shape[1]} columns need as many names of features; got {len(names)}")
        object.__setattr__(self, "arrays", Batch(*map(_readable, (x, y, weight, offset))))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "remarks", tuple(notes))

    @property
    def features(self) -> tuple[str, ...]:
        return self.names

    @property
    def notes(self) -> tuple[str, ...]:
        return self.remarks

    def __len__(self) -> int:
        return len(self.arrays.x)

    def read(self, start: int, stop: int) -> Batch:
        within(start, stop, len(self))
        return Batch(*(None if array is None else _sliced(array, start, stop) for array in self.arrays))


def _readable(array: Any) -> Any:
    """A mapped array in its file, from which nothing stays in memory; others as they are."""
    in_file = in_its_file(array) if isinstance(array, np.memmap) else None
    return array if in_file is None else in_file


def _sliced(array: Any, start: int, stop: int) -> np.ndarray:
    """Rows of an array, in memory and the caller's own."""
    return np.array(array[start:stop]) if isinstance(array, np.ndarray) else np.asarray(array[start:stop])
