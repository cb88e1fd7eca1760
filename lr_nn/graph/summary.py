"""An array in a few words and numbers, for a table or a page that cannot show all of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_nn.graph.rules.base import is_float

WIDTH = 18
ROWS, COLUMNS = 6, 5
HEAT = (16, 24)
LEVELS = "abcdefghijklmnopqrs"
NOT_FINITE = "!"


def summary(array: np.ndarray) -> dict[str, Any]:
    """What the page shows of `array`, numbers as text (JSON has no NaN): a scalar in full, else its shape and extremes.

    `rows` are the first elements, with leading axes run together; `heat` colours a matrix, one letter a block: j is
    zero, s the largest magnitude, a minus that, ! not finite.
    """
    array = np.asarray(array)
    about = {"shape": shape(array), "dtype": str(array.dtype), "brief": brief(array)}
    if array.ndim == 0:
        return {**about, "number": str(array[()])}
    if array.size == 0:
        return about
    table = array.reshape(-1, array.shape[-1])
    shown = table[:ROWS, :COLUMNS]
    return {
        **about,
        "extremes": _extremes(array),
        "bad": int((~finite(array)).sum()),
        "rows": [[number(entry) for entry in row] for row in shown],
        "more": "" if shown.shape == table.shape else f"first {shown.shape[0]} × {shown.shape[1]} of {_times(table)}",
        **({"heat": _heat(table)} if min(table.shape) > 1 else {}),
    }


def brief(array: np.ndarray) -> str:
    """A scalar, a very short vector, or the range of the entries."""
    array = np.asarray(array)
    if array.ndim == 0:
        return number(array)
    if array.size == 0:
        return "empty"
    listed = f"[{', '.join(number(entry, 3) for entry in array)}]" if array.ndim == 1 and array.size <= 3 else ""
    if 0 < len(listed) <= WIDTH:
        return listed
    ranges = (_range(array, digits) for digits in (3, 2, 1))
    return next((text for text in ranges if len(text) <= WIDTH), _range(array, 1))


def _range(array: np.ndarray, digits: int) -> str:
    entries = (array.astype(np.float64) if is_float(array.dtype) else array).ravel()
    known = entries[~np.isnan(entries)]
    if not known.size:
        return "all nan"
    low, high = (number(entry, digits) for entry in (known.min(), known.max()))
    nan = ", nan" if known.size < entries.size else ""
    return f"all {low}" if low == high and not nan else f"{low} … {high}{nan}"


def shape(array: np.ndarray) -> str:
    """`scalar`, `(3)` or `(4 × 3)`."""
    return f"({_times(array)})" if array.ndim else "scalar"


def number(entry: Any, digits: int = 4) -> str:
    """One entry in a few digits; a whole number in all of its."""
    entry = np.asarray(entry)[()]
    return f"{float(entry):.{digits}g}" if is_float(entry.dtype) else str(entry)


def finite(array: np.ndarray) -> np.ndarray:
    """Which entries are neither infinite nor NaN; dtypes that NumPy does not know, bfloat16 say, among them."""
    return np.isfinite(np.asarray(array).astype(np.float64))


def _times(array: np.ndarray) -> str:
    return " × ".join(f"{length:,}" for length in array.shape)


def _extremes(array: np.ndarray) -> list[str]:
    """Least, mean and largest entry; NaN where one is NaN."""
    entries = array.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return [number(figure) for figure in (entries.min(), entries.mean(), entries.max())]


def _heat(table: np.ndarray) -> list[str]:
    """Means of blocks of `table`, at most `HEAT` of them, in letters."""
    entries = table.astype(np.float64)
    rows, columns = (np.linspace(0, n, min(n, most), endpoint=False).astype(int) for n, most in zip(table.shape, HEAT))
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(np.add.reduceat(entries, rows, axis=0), columns, axis=1)
        counts = np.diff([*rows, table.shape[0]])[:, None] * np.diff([*columns, table.shape[1]])[None]
        means = sums / counts
    known = np.isfinite(means)
    largest = np.abs(means[known]).max(initial=0) or 1.0
    zero = LEVELS.index("j")
    levels = np.rint(np.where(known, means, 0) / largest * zero).astype(int) + zero
    return ["".join(LEVELS[level] if ok else NOT_FINITE for level, ok in zip(*line)) for line in zip(levels, known)]
