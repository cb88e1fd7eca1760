"""What turns a table into numbers: stated, saved, and applied in prediction exactly as fitting learned it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lr_nn.data.encode import Encoder, encoded
from lr_nn.data.encodings import Categorical, Numeric, Target
from lr_nn.data.tables import Table, arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from lr_nn.data.rows import Rows
    from lr_nn.types import Batch

__all__ = ["Categorical", "Numeric", "Schema", "Target"]

FORMAT = 1


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
        return Encoder(self, table.schema, unknown, extra).batch(table)

    def rows(self, table: Table, *, unknown: str = "refuse", extra: str = "refuse") -> Rows:
        """The rows of a table as numbers, encoded when they are read.

        unknown: a level that was not learned is refused, or with "ignore" becomes zeros, as the reference is. extra:
        columns that the schema does not know are refused, or with "ignore" left out.

        Raises ValueError that names the column, and when read the row, for columns that are missing or of another
        type, and values that are missing, infinite, or whole numbers too large for float64.
        """
        return encoded(self, table, unknown, extra, targets=True)

    def inputs(self, table: Table, *, unknown: str = "refuse", extra: str = "refuse") -> Rows:
        """The same for prediction: x and the offset alone; target and weight need not be there, nor are looked at."""
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
