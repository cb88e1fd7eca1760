"""A schema learned from a table in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from lr_nn import check
from lr_nn.data.columns import check_type, dictionary, finite, is_float32, is_text, like_number, missing_value, values
from lr_nn.data.encodings import Categorical, Numeric, Target, shown
from lr_nn.data.schema import Schema
from lr_nn.data.stream import read_ahead
from lr_nn.data.tables import Table, arrow
from lr_nn.data.totals import Levels, Numbers, Totals

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Learner", "learn"]

# Numbers in a block of the pass, and rows in it at most.
BLOCK, ROWS = 2**22, 2**16
WRITTEN = "if they are numbers, write them as 1234.5, or read the text with decimal=','"
MISSING = ("mean", "indicator", "refuse")
REFERENCES = ("first", "most_frequent")
TASKS = ("auto", "values", "labels")


def learn(
    table: Table,
    target: str,
    *,
    weight: str | None = None,
    offset: str | None = None,
    ignore: Sequence[str] = (),
    categorical: Sequence[str] = (),
    reference: str = "first",
    missing: str = "mean",
    standardise: bool = True,
    task: str = "auto",
    max_levels: int = 1000,
) -> Schema:
    """The schema of a table, for `target` given the other columns, in one pass over its rows.

    Text, booleans and the columns named `categorical` become one feature a level but the reference: the first in
    sorted order, or the most_frequent. Numbers are standardised to mean 0 and deviation 1 (over n, not n - 1), what
    is put in place of missing ones included, with `weight` as frequencies; or they are left as they are. ignore:
    columns to leave out.

    missing: "mean" puts the mean in place of a missing number, and the most frequent level of a missing level;
    "indicator" does so for numbers and adds a feature that tells it, and makes missing a level of its own, in columns
    that lack values here; "refuse" raises. A column that lacks no value here is treated as by "mean", should one be
    missing later.

    task: "labels" for a target of classes: sorted, two are 0 and 1, more are numbered; "values" for numbers; "auto"
    for labels where the target is text, booleans, or 0 and 1, else values. A column of one value, or none, tells
    nothing and is left out. What was left out or put in is told in `notes`.

    Raises ValueError that names column and row, for missing or infinite targets, weights and offsets, infinite
    numbers, whole numbers beyond 2^53, dates, and more than `max_levels` levels.

    >>> from lr_nn import data
    >>> table = data.frame({"size": [1.0, 2.0, 6.0], "colour": ["red", "blue", "red"], "sold": ["no", "no", "yes"]})
    >>> schema = data.learn(table, "sold")
    >>> schema.features, schema.target.classes
    (('size', 'colour=red'), ('no', 'yes'))
    >>> schema.rows(table).read(0, 3).y
    array([0., 0., 1.])
    """
    options = (tuple(ignore), tuple(categorical), reference, missing, standardise, task, max_levels)
    learner = Learner(target, weight, offset, *options)
    return learner.schema(learner.totals(table), table)


@dataclass(frozen=True)
class Learner:
    """The choices of `learn`, and its two halves: hosts that read parts of a table add their totals in between."""

    target: str
    weight: str | None = None
    offset: str | None = None
    ignore: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    reference: str = "first"
    missing: str = "mean"
    standardise: bool = True
    task: str = "auto"
    max_levels: int = 1000

    def __post_init__(self) -> None:
        """Refuse choices that there are not."""
        for name, known in (("missing", MISSING), ("reference", REFERENCES), ("task", TASKS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        check.positive_integer("max_levels", self.max_levels)

    def totals(self, table: Table) -> Totals:
        """What the rows of a table, or of a part of it, add up to."""
        table = self._admitted(table)
        size = max(1, min(ROWS, BLOCK // len(table.schema.names)))
        names = [name for name in table.schema.names if name not in self.ignore]
        starts = range(0, len(table), size)
        reads = (partial(self._block, table, start, min(len(table), start + size), names) for start in starts)
        return reduce(self._sum, read_ahead(reads))

    def schema(self, totals: Totals, table: Table) -> Schema:
        """The schema that totals over all rows lead to; of the table only the types are looked at."""
        table = self._admitted(table)
        weights = totals.columns.get(self.weight) if self.weight is not None else None
        if isinstance(weights, Numbers) and not weights.high > 0:
            raise ValueError(f"the weight {self.weight!r} is zero in every row; at least one must be positive")
        columns: list[Numeric | Categorical] = []
        ignored, notes = list(self.ignore), []
        for name, found in totals.columns.items():
            if name in (self.target, self.weight, self.offset):
                continue
            column, told = self._number(name, found) if isinstance(found, Numbers) else self._levels(name, found)
            if found.missing and column is not None:
                notes.append(f"{name}: {found.missing} of {totals.rows} values are missing: {_put(column)}")
            notes += told
            if column is None:
                ignored.append(name)
            else:
                columns.append(column)
        kinds = [table.schema.field(column.name).type for column in columns if isinstance(column, Numeric)]
        dtype = "float32" if all(map(is_float32, kinds)) else "float64"
        target = self._target(totals.columns[self.target])
        return Schema(tuple(columns), target, self.weight, self.offset, tuple(ignored), dtype, tuple(notes))

    def _admitted(self, table: Table) -> Table:
        """The table, its names checked, with levels of a text file read word for word."""
        if not isinstance(table, Table):
            raise TypeError(
                f"table must be a Table, such as of data.open_table or data.frame; got {type(table).__name__}"
            )
        names = table.schema.names
        roles = [self.target, *(name for name in (self.weight, self.offset) if name is not None)]
        for name in (*roles, *self.ignore, *self.categorical):
            if name not in names:
                raise ValueError(f"the table has no column {name!r}; it has {shown(names, 20)}")
        twice = [name for name in (*roles, *self.ignore) if (*roles, *self.ignore).count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} has two parts: target, weight, offset or ignored")
        return table.typed({name: arrow().string() for name in self.categorical})

    def _is_levels(self, name: str, kind: pa.DataType) -> bool:
        types = arrow().types
        plain = is_text(kind) or types.is_boolean(kind) or types.is_dictionary(kind)
        if name == self.target:
            return self.task == "labels" or (self.task == "auto" and plain)
        return name in self.categorical or (plain and name not in (self.weight, self.offset))

    def _block(self, table: Table, start: int, stop: int, names: list[str]) -> Totals:
        """The totals of some rows, in the thread that reads them."""
        block = table.read(start, stop, names)
        with check.numbered(table.row_numbers(start, stop)):
            weight = None if self.weight is None else finite(block, self.weight, least=0).astype(np.float64)
            if self.offset is not None:
                finite(block, self.offset)
            return Totals(stop - start, {name: self._column(block, name, weight) for name in names})

    def _column(self, block: pa.Table, name: str, weight: np.ndarray | None) -> Numbers | Levels:
        kind = block.schema.field(name).type
        levels = self._is_levels(name, kind)
        check_type(name, kind, levels)
        if levels:
            indices, distinct = dictionary(name, block.column(name), self._label_type(name, block))
            lacking = indices == len(distinct)
            found: Numbers | Levels = Levels.of(indices, distinct.to_pylist(), weight)
        else:
            numbers = values(block, name).astype(np.float64)
            infinite, lacking = np.isinf(numbers), np.isnan(numbers)
            if infinite.any():
                row = int(infinite.argmax())
                raise ValueError(f"column {name!r} is {numbers[row]} at row {row}; mend it, or ignore the column")
            found = Numbers.of(numbers, weight)
        feature = name not in (self.target, self.weight, self.offset)
        if lacking.any() and (self.missing == "refuse" or not feature):
            raise missing_value(name, int(lacking.argmax()), feature)
        return found

    def _label_type(self, name: str, block: pa.Table) -> pa.DataType | None:
        """Numbers that are labels of a target need not be whole."""
        pa = arrow()
        floating = name == self.target and pa.types.is_floating(block.schema.field(name).type)
        return pa.float64() if floating else None

    def _sum(self, before: Totals, after: Totals) -> Totals:
        totals = add(before, after)
        for name, found in totals.columns.items():
            self._check_levels(name, found)
        return totals

    def _check_levels(self, name: str, found: Numbers | Levels) -> None:
        if isinstance(found, Levels) and len(found.weights) > self.max_levels:
            remedy = "task='values' if it is a number" if name == self.target else "ignore it if it identifies rows"
            remedy = WRITTEN if self._written(name, found) else remedy
            raise ValueError(
                f"column {name!r} has more than {self.max_levels} levels, such as {shown(found.levels, 3)}: {remedy}, "
                "or raise max_levels"
            )

    def _number(self, name: str, found: Numbers) -> tuple[Numeric | None, list[str]]:
        if not found.weight:
            return None, [f"{name}: there is no value; the column is left out"]
        indicator = self.missing == "indicator" and found.missing > 0
        constant = found.low == found.high
        if constant and not indicator:
            return None, [f"{name}: every value is {found.low:g}; the column is left out"]
        fill = None if self.missing == "refuse" else found.mean
        if not self.standardise:
            return Numeric(name, 0.0, 1.0, fill, indicator), []
        scale = (found.squares / (found.weight + found.lacking)) ** 0.5 if not constant else 1.0
        if not 0 < scale < np.inf:
            raise ValueError(
                f"column {name!r} runs from {found.low:g} to {found.high:g}, and float64 cannot hold the squares; "
                "rescale it, or pass standardise=False"
            )
        note = [f"{name}: every value is {found.low:g}; its scale is kept at 1"] if constant else []
        return Numeric(name, found.mean, scale, fill, indicator), note

    def _levels(self, name: str, found: Levels) -> tuple[Categorical | None, list[str]]:
        self._check_levels(name, found)
        if not found.weights:
            return None, [f"{name}: there is no value; the column is left out"]
        levels, frequent = found.levels, found.most_frequent
        reference = levels[0] if self.reference == "first" else frequent
        indicator = self.missing == "indicator" and found.missing > 0
        fill = None if self.missing == "refuse" or indicator else frequent
        note = (
            [f"{name}: every value is {levels[0]!r}; it has no feature"] if len(levels) == 1 and not indicator else []
        )
        if self._written(name, found):
            note.append(f"{name}: {len(levels)} levels are text, such as {shown(levels, 3)}: {WRITTEN}")
        return Categorical(name, levels, reference, fill, indicator), note

    def _written(self, name: str, found: Levels) -> bool:
        """Are these levels numbers, written in a way that no reader takes?"""
        texts = all(isinstance(level, str) and like_number(level) for level in found.levels)
        return texts and name not in self.categorical

    def _target(self, found: Numbers | Levels) -> Target:
        if isinstance(found, Numbers):
            if self.task == "auto" and found.labels and (found.low, found.high) == (0, 1):
                return Target(self.target, "binary", (0, 1))
            return Target(self.target, "values")
        self._check_levels(self.target, found)
        classes: tuple[Any, ...] = found.levels
        if isinstance(classes[0], float) and all(label.is_integer() for label in classes):
            classes = tuple(map(int, classes))
        if len(classes) < 2:
            raise ValueError(
                f"the target {self.target!r} is {classes[0]!r} in every row; labels need two classes or more"
            )
        return Target(self.target, "binary" if len(classes) == 2 else "classes", classes)


def _put(column: Numeric | Categorical) -> str:
    told = f"{column.fill!r} is put in their place" if column.fill is not None else "they are a level of their own"
    return told + (", and a feature tells it" if column.indicator and isinstance(column, Numeric) else "")
