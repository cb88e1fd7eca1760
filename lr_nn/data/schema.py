"""What turns a table into numbers: stated, saved, and applied in prediction exactly as fitting learned it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lr_nn.data.tables import Table, arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from lr_nn.data.rows import Rows
    from lr_nn.types import Batch

__all__ = ["Categorical", "Numeric", "Schema", "Target"]

FORMAT = 1
KINDS = ("values", "binary", "classes")
Level = str | int | bool


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (value - mean) / scale, where a missing value is `fill`, or refused where that is None.

    indicator: a second feature, 1 where the value is missing, else 0.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        """Refuse what no encoding can use."""
        numbers = (self.mean, self.scale, 0.0 if self.fill is None else self.fill)
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers) or self.scale <= 0:
            raise ValueError(
                f"column {self.name!r}: mean, scale and fill must be finite, and the scale positive; got {self}"
            )
        if self.indicator and self.fill is None:
            raise ValueError(f"column {self.name!r}: an indicator needs a fill for the value that is missing")

    @property
    def features(self) -> tuple[str, ...]:
        """The value, and whether it is missing."""
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)


@dataclass(frozen=True)
class Categorical:
    """A column of levels: one feature a level but the reference, 1 where the row has that level, else 0.

    A missing value is the level `fill`, or refused where that is None; with `indicator` it has a feature of its own.
    """

    name: str
    levels: tuple[Level, ...]
    reference: Level
    fill: Level | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        """Refuse what no encoding can use."""
        kinds = {type(level) for level in self.levels}
        if len(kinds) != 1 or not kinds <= {str, int, bool} or len(set(self.levels)) < len(self.levels):
            raise ValueError(f"column {self.name!r}: levels must be distinct, all text, integers or booleans")
        if self.reference not in self.levels or self.fill not in (None, *self.levels) or (self.indicator and self.fill):
            raise ValueError(
                f"column {self.name!r}: the reference and the fill must be levels, and no fill be indicated"
            )

    @property
    def shown(self) -> tuple[Level, ...]:
        """The levels that have features."""
        return tuple(level for level in self.levels if level != self.reference)

    @property
    def features(self) -> tuple[str, ...]:
        """The levels but the reference, and whether the level is missing."""
        return tuple(f"{self.name}={level}" for level in self.shown) + (f"{self.name} is missing",) * self.indicator


@dataclass(frozen=True)
class Target:
    """What is predicted: values; or binary, y = 1 for the second of two classes; or y the number of the class."""

    name: str
    kind: str
    classes: tuple[Level | float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a kind that there is not, or classes that it has not."""
        if self.kind not in KINDS or (len(self.classes) if self.kind != "classes" else 0) != 2 * (
            self.kind == "binary"
        ):
            raise ValueError(f"a target is values, binary with two classes, or classes; got {self}")
        if self.kind == "classes" and len(self.classes) < 3:
            raise ValueError(f"a target of classes has three or more; two are binary; got {self}")


@dataclass(frozen=True)
class Schema:
    """How a table's columns become features, target, weight and offset; `learn` finds it, and JSON keeps it.

    ignored: columns that are left out. dtype: of the features, float32 or float64. notes: what was found and done.
    """

    columns: tuple[Numeric | Categorical, ...]
    target: Target
    weight: str | None = None
    offset: str | None = None
    ignored: tuple[str, ...] = ()
    dtype: str = "float64"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse columns or features that cannot be told apart, and none."""
        roles = [column.name for column in self.columns] + [self.target.name, self.weight, self.offset, *self.ignored]
        named = [name for name in roles if name is not None]
        for what, names in (("columns", named), ("features", list(self.features))):
            twice = (
                [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
            )
            if twice:
                raise ValueError(
                    f"two {what} of the schema are called {twice[0]!r}; give each a name and part of its own"
                )
        if not self.features:
            raise ValueError("no column varies: there is no feature left to learn from")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype!r}")

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns of x, such as "age" and "workclass=Private"."""
        return tuple(name for column in self.columns for name in column.features)

    def encode(self, table: pa.Table, *, unknown: str = "refuse", extra: str = "refuse") -> Batch:
        """A block of rows as x (n, d), y (n,), weight (n,) and offset (n,), NumPy arrays; see `rows`."""
        from lr_nn.data.encode import Encoder

        return Encoder(self, table.schema, unknown, extra).batch(table)

    def rows(self, table: Table, *, unknown: str = "refuse", extra: str = "refuse") -> Rows:
        """The rows of a table as numbers, encoded when they are read.

        unknown: a level that was not learned is refused, or with "ignore" becomes zeros, as the reference is. extra:
        columns that the schema does not know are refused, or with "ignore" left out.

        Raises ValueError that names the column, and when read the row, for columns that are missing or of another
        type, and values that are missing, infinite, or whole numbers too large for float64.
        """
        from lr_nn.data.encode import encoded

        return encoded(self, table, unknown, extra, targets=True)

    def inputs(self, table: Table, *, unknown: str = "refuse", extra: str = "refuse") -> Rows:
        """The same for prediction: x and the offset alone; target and weight need not be there, nor are looked at."""
        from lr_nn.data.encode import encoded

        return encoded(self, table, unknown, extra, targets=False)

    def types(self) -> dict[str, pa.DataType]:
        """The types that a text file's columns are to be read as."""
        pa = arrow()
        kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        types = {c.name: kinds[type(c.levels[0])] if isinstance(c, Categorical) else pa.float64() for c in self.columns}
        target = kinds[type(self.target.classes[0])] if self.target.classes else pa.float64()
        numbers = {name: pa.float64() for name in (self.weight, self.offset) if name is not None}
        return {**types, self.target.name: target, **numbers}

    def to_json(self) -> str:
        """Text that `from_json` makes the same schema of, every float to its last bit."""
        columns = [{"kind": type(column).__name__.lower(), **asdict(column)} for column in self.columns]
        return json.dumps({"format": FORMAT, **asdict(self), "columns": columns}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The schema that `to_json` wrote. Raises ValueError where the text is none, or of a newer format."""
        try:
            kept = json.loads(text)
            version = kept.pop("format")
            if version != FORMAT:
                raise ValueError(f"this version reads format {FORMAT}; got format {version}")
            columns = tuple(_column(column) for column in kept.pop("columns"))
            target = Target(**_tuples(kept.pop("target")))
            return cls(columns, target, **_tuples(kept))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is no schema as to_json writes it: {error}") from error


def _column(kept: Mapping[str, Any]) -> Numeric | Categorical:
    kinds = {"numeric": Numeric, "categorical": Categorical}
    fields = _tuples({name: value for name, value in kept.items() if name != "kind"})
    column: Numeric | Categorical = kinds[kept["kind"]](**fields)
    return column


def _tuples(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}


def shown(values: Iterable[Any], most: int = 5) -> str:
    """A few of many values, for messages."""
    first = [repr(value) for _, value in zip(range(most + 1), values)]
    return ", ".join(first[:most]) + (", ..." if len(first) > most else "")
