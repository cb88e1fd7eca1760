"""What is wrong with rows, in sentences, found in one pass before anything is computed from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from lr_nn.data.rows import Rows
from lr_nn.data.stream import blocks

__all__ = ["problems"]

# Numbers of a block, names in a sentence, and distinct targets that are remembered.
BLOCK, SHOWN, DISTINCT = 2**22, 5, 1000
# Ratios beyond which float32 and first-order steps suffer.
UNEQUAL = 1e6


def problems(rows: Rows) -> list[str]:
    """What is wrong with the rows, a sentence each with columns and rows named; empty where nothing is.

    One pass, in memory for one block and a few numbers a column. Looked for: values that are not finite, columns that
    never vary or vary little around a large value, scales that differ by more than a million, names of features that
    occur twice, fewer rows than columns, targets that never vary or are not counted from 0, weights that are negative
    or all zero, and a place from which on the rows cannot be read.

    >>> import numpy as np
    >>> from lr_nn.data import Arrays, problems
    >>> print(*problems(Arrays(np.array([[1.0, 2], [1, np.nan], [1, 4]]), np.array([0, 1, 1]))), sep="\\n")
    column x1 has 1 value that is not finite, the first nan at row 1: impute it, or leave the rows out
    column x0 is 1 in every row: leave it out, the bias has its part
    """
    twice = [name for name, times in Counter(rows.features).items() if times > 1]
    said = [
        f"the name {name} stands for {rows.features.count(name)} columns: give each its own" for name in twice[:SHOWN]
    ]
    if len(rows) < len(rows.features):
        said.append(f"{len(rows)} rows are fewer than {len(rows.features)} columns: a fit needs a penalty")
    seen = {"x": _Columns("column", rows.features)}
    start, labels = 0, _Labels()
    try:
        for batch in blocks(rows, max(1, BLOCK // len(rows.features))):
            for name, array in batch._asdict().items():
                if array is not None:
                    columns = np.asarray(array).reshape(len(array), -1)
                    seen.setdefault(name, _Columns(name, _names(name, columns.shape[1]))).add(columns, start)
            if batch.y is not None:
                labels.add(np.asarray(batch.y))
            start += len(batch.x)
    except (ValueError, OSError) as error:
        return [*said, f"from row {start} on, rows could not be read: {error}"]
    said += [sentence for columns in seen.values() for sentence in columns.not_finite()]
    said += [*seen["x"].flat(), *seen["x"].scales()]
    if "y" in seen:
        said += [*seen["y"].constant(), *labels.sentences()]
    if "weight" in seen:
        said += seen["weight"].as_weights()
    return said


class _Columns:
    """Least and largest finite value of each column, how many are not finite, and the first of these."""

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        self.kind, self.names, self.rows = kind, names, 0
        self.least, self.largest = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self.bad = np.zeros(len(names), np.int64)
        self.first: dict[int, tuple[int, float]] = {}
        self.negative: int | None = None

    def add(self, array: np.ndarray, start: int) -> None:
        self.rows += len(array)
        low, high = array.min(axis=0), array.max(axis=0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            good = np.isfinite(array)
            self.bad += (~good).sum(axis=0)
            for j in np.flatnonzero(~good.all(axis=0)):
                i = int(good[:, j].argmin())
                self.first.setdefault(int(j), (start + i, float(array[i, j])))
            low = array.min(axis=0, where=good, initial=np.inf)
            high = array.max(axis=0, where=good, initial=-np.inf)
        if self.negative is None and (low < 0).any():
            self.negative = start + int((array < 0).any(axis=1).argmax())
        self.least, self.largest = np.minimum(self.least, low), np.maximum(self.largest, high)

    def not_finite(self) -> Iterator[str]:
        for j in sorted(self.first)[:SHOWN]:
            row, value = self.first[j]
            values = "value that is" if self.bad[j] == 1 else "values that are"
            yield (
                f"{self._of(j)} has {self.bad[j]} {values} not finite, the first {value} at row {row}: "
                "impute it, or leave the rows out"
            )
        if len(self.first) > SHOWN:
            yield f"{len(self.first) - SHOWN} more columns of {self.kind} have values that are not finite"

    def flat(self) -> Iterator[str]:
        flat = np.flatnonzero(self.least == self.largest)
        if len(flat) <= SHOWN:
            for j in flat:
                yield f"{self._of(j)} is {self.least[j]:g} in every row: leave it out, the bias has its part"
        else:
            yield f"{len(flat)} columns never vary, such as {self._some(flat)}: leave them out, the bias has their part"

    def constant(self) -> Iterator[str]:
        for j in np.flatnonzero(self.least == self.largest)[:SHOWN]:
            yield f"{self._of(j)} is {self.least[j]:g} in every row: there is nothing to learn"

    def scales(self) -> Iterator[str]:
        with np.errstate(over="ignore"):
            spread, size = self.largest - self.least, np.maximum(abs(self.least), abs(self.largest))
        some = np.isfinite(spread) & (spread > 0)
        narrow = np.flatnonzero(some & (spread < size / UNEQUAL))
        if len(narrow):
            j = narrow[0]
            yield (
                f"{len(narrow)} columns vary little around a large value, such as {self.names[j]} from "
                f"{self.least[j]:.10g} to {self.largest[j]:.10g}: subtract it, float32 keeps seven digits"
            )
        if some.any() and spread[some].max() / UNEQUAL > spread[some].min():
            j, k = np.where(some, spread, -np.inf).argmax(), np.where(some, spread, np.inf).argmin()
            yield (
                f"the scales of columns differ: {self.names[j]} spans {spread[j]:.3g}, "
                f"{self.names[k]} {spread[k]:.3g}: standardise them"
            )
        huge = np.flatnonzero(size > np.finfo(np.float32).max)
        huge = huge[np.isfinite(size[huge])]
        if len(huge):
            yield f"{self._some(huge)}: values up to {size[huge].max():.3g} are infinite in float32: scale them"

    def as_weights(self) -> Iterator[str]:
        if self.negative is not None:
            yield f"weight is negative at row {self.negative}: expected at least 0"
        elif (self.largest == 0).all():
            yield "weight is zero in every row: at least one must be positive"

    def _of(self, j: int | np.integer) -> str:
        return f"{self.kind} {self.names[j]}" if self.kind == "column" else self.names[j]

    def _some(self, columns: np.ndarray) -> str:
        names = ", ".join(self.names[j] for j in columns[:SHOWN])
        return names + (f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else "")


class _Labels:
    """The distinct values of targets (n,), while they are few."""

    def __init__(self) -> None:
        self.values: set[float] | None = set()

    def add(self, y: np.ndarray) -> None:
        if self.values is not None and y.ndim == 1:
            self.values |= set(np.unique(y[np.isfinite(y)]).tolist())
            self.values = self.values if len(self.values) <= DISTINCT else None

    def sentences(self) -> Iterator[str]:
        values = sorted(self.values or ())
        if len(values) == 2 and values != [0, 1]:
            yield f"y has the two values {values[0]:g} and {values[1]:g}: if they are labels, make them 0 and 1"
        elif len(values) > 2 and values == list(range(1, len(values) + 1)):
            yield f"y has the values 1 to {len(values)}: if they are classes, count them from 0"


def _names(name: str, columns: int) -> tuple[str, ...]:
    return (name,) if columns == 1 else tuple(f"{name}[{j}]" for j in range(columns))
