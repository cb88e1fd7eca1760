"""Columns of a table as NumPy arrays: numbers that are exact, and levels with the place of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from lr_nn.data.tables import arrow

if TYPE_CHECKING:
    import pyarrow as pa

# Digits with marks between them, with a sign and a unit.
WRITTEN = re.compile(r"[-+]?[$€£]? ?\d+([.,' \u00a0\u202f]\d+)+ ?[%$€£]?")
# Whole numbers up to here are numbers of float64 too.
EXACT = 2**53


def values(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers in its own type where none is missing, else in float64 with NaN; whole numbers are exact."""
    array = one_array(table.column(name))
    pa = arrow()
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    if pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.float64())
    found = array.to_numpy(zero_copy_only=False)
    if pa.types.is_integer(array.type) and array.type.bit_width == 64 and len(array):
        _check_exact(name, array)
    return found


def _check_exact(name: str, array: pa.Array) -> None:
    import pyarrow.compute as pc

    found = pc.min_max(array).as_py()
    if found["min"] is None or (found["min"] >= -EXACT and found["max"] <= EXACT):
        return
    row, value = next((i, v) for i, v in enumerate(array.to_pylist()) if v is not None and not -EXACT <= v <= EXACT)
    raise ValueError(
        f"column {name!r} at row {row}: {value} is beyond 2^53, where float64 skips whole numbers; "
        "ignore a column of identifiers, name it categorical, or subtract an origin"
    )


def finite(table: pa.Table, name: str, least: float = -np.inf) -> np.ndarray:
    """A column of numbers none of which may be missing, infinite, or below `least`, in float64 or float32."""
    check_type(name, table.schema.field(name).type, levels=False)
    found = values(table, name)
    found = found if found.dtype == np.float32 else found.astype(np.float64)
    missing = np.isnan(found)
    if missing.any():
        raise missing_value(name, int(missing.argmax()), feature=False)
    bad = ~np.isfinite(found) | (found < least)
    if bad.any():
        row, expected = int(bad.argmax()), "finite" if np.isinf(least) else f"finite and at least {least:g}"
        raise ValueError(f"column {name!r} must be {expected}; got {found[row]:g} at row {row}")
    return found


def dictionary(name: str, array: pa.ChunkedArray, kind: pa.DataType | None = None) -> tuple[np.ndarray, pa.Array]:
    """The distinct values of a column as `kind`, and the place of every row's; a missing one's is their number."""
    pa = arrow()
    found = one_array(array)
    if not pa.types.is_dictionary(found.type):
        found = found.dictionary_encode()
    distinct, kind = found.dictionary, kind or level_type(found.dictionary.type)
    try:
        if not _holds(kind, distinct.type):
            raise ValueError(f"column {name!r} holds {found.type.value_type}; {kind} was learned: cast it")
        distinct = distinct.cast(kind)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"column {name!r} holds {found.type.value_type}, not levels that are {kind}: {error}"
        ) from error
    indices = found.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False).astype(np.int64)
    null = distinct.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    return np.where(np.append(null, False)[indices], len(distinct), indices), distinct


def _holds(kind: pa.DataType, found: pa.DataType) -> bool:
    """May levels of one type be levels of the other, if only each is?"""
    same = [test for test in (is_text, is_number, arrow().types.is_boolean) if test(kind)]
    return arrow().types.is_null(found) or same[0](found)


def one_array(array: pa.ChunkedArray) -> pa.Array:
    """A column's only chunk."""
    if array.num_chunks == 1:
        return array.chunk(0)
    whole = array.combine_chunks()
    return whole.chunk(0) if hasattr(whole, "num_chunks") else whole


def level_type(kind: pa.DataType) -> pa.DataType:
    """Text, integers or booleans: how levels of a column are kept."""
    pa = arrow()
    if pa.types.is_boolean(kind):
        return kind
    return pa.string() if is_text(kind) or pa.types.is_null(kind) else pa.int64()


def is_text(kind: pa.DataType) -> bool:
    """Text, whichever way it is stored."""
    types = arrow().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_number(kind: pa.DataType) -> bool:
    """Integers, floats and decimals."""
    types = arrow().types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def is_float32(kind: pa.DataType) -> bool:
    """Are all values numbers of float32 too?"""
    types = arrow().types
    if types.is_floating(kind) or types.is_integer(kind):
        return kind.bit_width <= (32 if types.is_floating(kind) else 16)
    return types.is_boolean(kind)


def check_type(name: str, kind: pa.DataType, levels: bool) -> None:
    """Refuse a column that holds neither numbers nor levels, or numbers where levels are wanted."""
    types = arrow().types
    plain = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_null(plain) or types.is_boolean(plain) or (levels and (is_text(plain) or is_number(plain))):
        return
    if not levels and is_number(plain) and plain is kind:
        return
    if types.is_temporal(plain):
        raise ValueError(
            f"column {name!r} holds {kind}: a time is no number; put columns of numbers in its place (year, weekday, "
            "days since a start), or ignore it"
        )
    expected = "text, integers or booleans" if levels else "numbers"
    raise ValueError(f"column {name!r} holds {kind}; expected {expected}: cast it, or ignore it")


def missing_value(name: str, row: int, feature: bool) -> ValueError:
    """What a missing value that nothing is put in place of is refused by; nothing may be put for what is no feature."""
    remedy = "fill it, leave out the row, or learn with missing='mean'" if feature else "fill it, or leave out the row"
    return ValueError(f"column {name!r} has no value at row {row}; {remedy}")


def like_number(text: str) -> bool:
    """Is this a number as people write it, and no reader takes it: 3,25 or 1.234,5 or 12,345 or 12'345?"""
    return WRITTEN.fullmatch(text) is not None
