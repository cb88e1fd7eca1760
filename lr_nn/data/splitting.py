"""Some rows held out by chance, in memory as on a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from lr_nn import check
from lr_nn.data.ranges import within
from lr_nn.data.rows import Rows
from lr_nn.data.tables import Table
from lr_nn.types import Batch

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["split"]

# More rows than these are held out in runs of consecutive ones, so that what is remembered stays small.
MOST = 2**20

Source = TypeVar("Source", Rows, Table)


@dataclass(frozen=True, eq=False)
class Choice:
    """Some runs of `run` consecutive rows out of n, in their order: the numbers of the runs; the last may be ragged."""

    runs: np.ndarray
    run: int
    n: int

    def __len__(self) -> int:
        return len(self.runs) * self.run - (self.run - self.last if self.runs[-1] == (self.n - 1) // self.run else 0)

    @property
    def last(self) -> int:
        """Rows in the last run of all."""
        return (self.n - 1) % self.run + 1

    def places(self, start: int, stop: int) -> np.ndarray:
        """Where the chosen rows start, ..., stop - 1 are among all."""
        within(start, stop, len(self))
        chosen = np.arange(start, stop)
        return self.runs[chosen // self.run] * self.run + chosen % self.run


def split(source: Source, share: float, *, key: jax.Array) -> tuple[Source, Source]:
    """A source of rows or a table in two parts: the rest, and a random `share` of its rows.

    Both keep their order, and one `key` splits every source of n rows alike. Rows are drawn one by one, or beyond a
    million in short runs of consecutive ones. Raises ValueError where either part would be empty, TypeError for a
    `key` that is no random key.
    """
    check.key(key)
    n = len(source)
    run = -(-n // MOST)
    count = -(-n // run)
    held = round(share * count)
    if not 0 < held < count:
        raise ValueError(f"a share of {share:g} of {n} rows leaves none on one side: take another, or more rows")
    order = np.random.default_rng(np.asarray(jax.random.key_data(key))[::-1]).permutation(count)
    parts = [Choice(np.sort(chosen), run, n) for chosen in (order[held:], order[:held])]
    kind: Any = ChosenTable if isinstance(source, Table) else ChosenRows
    return kind(source, parts[0]), kind(source, parts[1])


@dataclass(frozen=True, eq=False)
class ChosenRows(Rows):
    """The rows of `whole` that `choice` names."""

    whole: Rows
    choice: Choice

    @property
    def features(self) -> tuple[str, ...]:
        return self.whole.features

    @property
    def notes(self) -> tuple[str, ...]:
        return self.whole.notes

    def __len__(self) -> int:
        return len(self.choice)

    def read(self, start: int, stop: int) -> Batch:
        places = self.choice.places(start, stop)
        span = self.whole.read(int(places[0]), int(places[-1]) + 1)
        return Batch(*(None if array is None else array[places - places[0]] for array in span))


@dataclass(frozen=True, eq=False)
class ChosenTable(Table):
    """The rows of a table that `choice` names."""

    whole: Table
    choice: Choice

    @property
    def schema(self) -> pa.Schema:
        return self.whole.schema

    def __len__(self) -> int:
        return len(self.choice)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        places = self.choice.places(start, stop)
        return self.whole.read(int(places[0]), int(places[-1]) + 1, columns).take(places - places[0])

    def row_numbers(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self.whole.row_numbers(0, len(self.whole)))[self.choice.places(start, stop)]

    def typed(self, types: Mapping[str, pa.DataType]) -> Table:
        return replace(self, whole=self.whole.typed(types))
