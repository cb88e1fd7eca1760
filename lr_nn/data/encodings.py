"""How one column of a table becomes features or the target."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KINDS = ("values", "binary", "classes")
Level = str | int | bool


@dataclass(frozen=True)
class Numeric:
    """A column of numbers becomes (value - mean) / scale. A missing value becomes `fill`; without one it is refused.

    indicator: add a second feature, 1 where the value is missing, else 0.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for fields that no encoding can use."""
        numbers = (self.mean, self.scale, 0.0 if self.fill is None else self.fill)
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers) or self.scale <= 0:
            raise ValueError(
                f"column {self.name!r}: mean, scale and fill must be finite, and the scale positive; got {self}"
            )
        if self.indicator and self.fill is None:
            raise ValueError(f"column {self.name!r}: an indicator needs a fill for the value that is missing")

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features: the value, and the indicator of a missing value."""
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)


@dataclass(frozen=True)
class Categorical:
    """A column of levels: each level except the reference has a feature, 1 where the row has that level, else 0.

    A missing value becomes the level `fill`; without one it is refused, or, with `indicator`, has its own feature.
    """

    name: str
    levels: tuple[Level, ...]
    reference: Level
    fill: Level | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for fields that no encoding can use."""
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
        """The names of the features: a level each, and the indicator of a missing level."""
        return tuple(f"{self.name}={level}" for level in self.shown) + (f"{self.name} is missing",) * self.indicator


@dataclass(frozen=True)
class Target:
    """The target: "values"; "binary", y = 1 for the second of two classes; or "classes", y the index of the class."""

    name: str
    kind: str
    classes: tuple[Level | float, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind, or for classes that do not fit the kind."""
        if self.kind not in KINDS or (len(self.classes) if self.kind != "classes" else 0) != 2 * (
            self.kind == "binary"
        ):
            raise ValueError(f"a target is values, binary with two classes, or classes; got {self}")
        if self.kind == "classes" and len(self.classes) < 3:
            raise ValueError(f"a target of classes has three or more; two are binary; got {self}")


def shown(values: Iterable[Any], most: int = 5) -> str:
    """The first `most` values as text, for a message."""
    first = [repr(value) for _, value in zip(range(most + 1), values)]
    return ", ".join(first[:most]) + (", ..." if len(first) > most else "")
