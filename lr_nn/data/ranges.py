"""Ranges of consecutive rows: what may be asked for, and what one of several readers has."""

from __future__ import annotations

from lr_nn import check


def within(start: int, stop: int, n: int) -> None:
    """Refuse what is no range of n rows: slices would cut it short without a word."""
    if not 0 <= start < stop <= n:
        raise ValueError(f"rows {start} to {stop} are not in [0, {n}]; expected 0 ≤ start < stop ≤ n")


def share(index: int, count: int, n: int) -> tuple[int, int]:
    """The first of the consecutive rows of one of `count` readers, and the first of the next one's."""
    count = check.positive_integer("count", count)
    if not 0 <= index < count:
        raise ValueError(f"index must be in [0, {count}); got {index}")
    if count > n:
        raise ValueError(f"{n} rows are too few for {count} parts")
    return index * n // count, (index + 1) * n // count
