"""What one pass over a table adds up to: a monoid, so that blocks, files and hosts add theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lr_nn.data.encodings import Level


@dataclass(frozen=True)
class Numbers:
    """Of a column of numbers: Σ s over the values that are there, their mean, Σ s (value - mean)², and their range.

    Two of them add by the formula of Chan, Golub & LeVeque (1983), which subtracts no large sums. `missing` counts
    the rows without a value, and `lacking` adds their weights; `labels` tells if all are 0 or 1.
    """

    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    missing: int = 0
    lacking: float = 0.0
    labels: bool = True

    @classmethod
    def of(cls, values: np.ndarray, weight: np.ndarray | None) -> Numbers:
        """Of a block: values in float64, NaN where missing, and the weights of its rows."""
        there = ~np.isnan(values)
        missing, lacking = len(values) - int(np.count_nonzero(there)), 0.0
        if missing:
            lacking = float(missing if weight is None else weight[~there].sum())
            values, weight = values[there], None if weight is None else weight[there]
        if not len(values):
            return cls(missing=missing, lacking=lacking)
        low, high = float(values.min()), float(values.max())
        labels = low >= 0 and high <= 1 and bool(((values == 0) | (values == 1)).all())
        total = float(len(values)) if weight is None else float(weight.sum())
        if not total:
            return cls(0.0, 0.0, 0.0, low, high, missing, lacking, labels)
        with np.errstate(over="ignore", invalid="ignore"):
            # Around a value of its own, so that a constant column has that mean and no spread.
            centred = values - values[0]
            # Sums, not products: BLAS has threads of its own, and sums in an order that is theirs.
            shift = float((centred if weight is None else weight * centred).sum()) / total
            centred -= shift
            squares = float((centred * centred if weight is None else weight * centred * centred).sum())
        return cls(total, float(values[0]) + shift, squares, low, high, missing, lacking, labels)

    def __add__(self, other: Numbers) -> Numbers:
        """Of the rows of both."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        labels = self.labels and other.labels
        missing, lacking = self.missing + other.missing, self.lacking + other.lacking
        weight = self.weight + other.weight
        if not (self.weight and other.weight):
            kept = self if self.weight else other
            return Numbers(kept.weight, kept.mean, kept.squares, low, high, missing, lacking, labels)
        apart, share = other.mean - self.mean, other.weight / weight
        with np.errstate(over="ignore"):
            squares = self.squares + other.squares + float(np.square(np.float64(apart))) * self.weight * share
        return Numbers(weight, self.mean + apart * share, squares, low, high, missing, lacking, labels)


@dataclass(frozen=True)
class Levels:
    """Of a column of levels: Σ s of every level, and the number of rows without one."""

    weights: Mapping[Level | float, float] = field(default_factory=dict)
    missing: int = 0

    @classmethod
    def of(cls, indices: np.ndarray, distinct: list[Any], weight: np.ndarray | None) -> Levels:
        """Of a block: the place of every row's level, or their number where it is missing."""
        count, size = np.bincount(indices, minlength=len(distinct) + 1), len(distinct) + 1
        total = count if weight is None else np.bincount(indices, weight, size)
        kept = {level: float(total[i]) for i, level in enumerate(distinct) if level is not None and count[i]}
        return cls(kept, int(count[-1]))

    def __add__(self, other: Levels) -> Levels:
        """Of the rows of both."""
        weights = dict(self.weights)
        for level, weight in other.weights.items():
            weights[level] = weights.get(level, 0.0) + weight
        return Levels(weights, self.missing + other.missing)

    @property
    def levels(self) -> tuple[Any, ...]:
        """All of them, sorted."""
        return tuple(sorted(self.weights))

    @property
    def most_frequent(self) -> Any:
        """The level of the greatest weight, the first of those that tie."""
        return max(self.levels, key=lambda level: self.weights[level])


@dataclass(frozen=True)
class Totals:
    """Of a table: the number of its rows, and what its columns add up to."""

    rows: int
    columns: Mapping[str, Numbers | Levels]

    def __add__(self, other: Totals) -> Totals:
        """Of the rows of both."""
        if self.columns.keys() != other.columns.keys():
            raise ValueError(f"totals of other columns: {set(self.columns) ^ set(other.columns)}")
        columns: dict[str, Any] = {name: mine + other.columns[name] for name, mine in self.columns.items()}  # type: ignore[operator]
        return Totals(self.rows + other.rows, columns)
