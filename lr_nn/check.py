"""Checks of arguments: shapes and dtypes always, values where the array is concrete.

Every message says what was expected, what was passed and, where it is not plain, what to do. Checks of concrete arrays
on a CPU run in NumPy, because every eager operation of JAX is a compilation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

NUMERIC_KINDS = "biuf"
# What to pass instead of a record of this library, by its name.
INSTEAD = {
    "Batch": "pass its field, such as batch.x",
    "Backprop": "pass its field; the inputs are bp.activations[0]",
    "Forward": "pass its field, such as forward.eta",
    "Penalty": "it is an argument of its own, penalty=",
    "Layer": "pass layer.w or layer.b",
    "Rows": "pass arrays, such as rows.read(0, len(rows)).x",
}


def is_concrete(array: Any) -> bool:
    """True if the values of `array` can be read here: no tracer, no array spread over other hosts."""
    if isinstance(array, jax.Array):
        return not isinstance(array, jax.core.Tracer) and array.is_fully_addressable
    return True


def on_host(name: str, tree: Any, instead: str | None = None) -> None:
    """Refuse tracers: `name` runs on the host, and not under `jit` or `vmap`."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        hint = "" if instead is None else f"; under jit or vmap call {instead}"
        raise TypeError(f"{name} runs on the host and cannot be traced{hint}")


def numeric(name: str, array: Any) -> jax.Array | np.ndarray:
    """`array` as a NumPy or JAX array of real numbers, booleans as 0 and 1.

    Frames and series of pandas become arrays. Raises TypeError for sparse matrices, text, complex numbers, masked
    arrays and records of this library such as a Batch.
    """
    kind = type(array).__name__
    if type(array).__module__.split(".")[0] == "lr_nn":
        hint = next((f": {INSTEAD[base.__name__]}" for base in type(array).__mro__ if base.__name__ in INSTEAD), "")
        raise TypeError(f"{name} must be an array of real numbers; got a {kind}{hint}")
    if hasattr(array, "toarray"):
        raise TypeError(f"{name} is a sparse matrix ({kind}); pass a dense array, e.g. {name}.toarray()")
    if hasattr(array, "todense"):
        raise TypeError(f"{name} is a sparse matrix ({kind}); pass {name}.todense()")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it, or drop the masked rows: its mask would be ignored")
    if not isinstance(array, jax.Array):
        array = _of_pandas(name, array) if hasattr(array, "to_numpy") else _of_sequence(name, array)
    # NumPy gives bfloat16 the kind "V"; JAX knows that it is a float.
    if array.dtype.kind not in NUMERIC_KINDS and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be an array of real numbers; got dtype {array.dtype}")
    return array.astype(np.int8) if array.dtype == bool else array


def _of_sequence(name: str, array: Any) -> np.ndarray:
    try:
        return np.asarray(array)
    except (TypeError, ValueError) as error:  # rows of unequal lengths, or records such as layers
        kind = type(array).__name__
        raise TypeError(f"{name} must be an array of real numbers; got a {kind} that is none: {error}") from error


def _of_pandas(name: str, table: Any) -> np.ndarray:
    """A frame or a series as an array; missing values of nullable columns are NaN. Text is refused by its column."""
    columns = {name: table.dtype} if hasattr(table, "dtype") else dict(table.dtypes.items())
    for column, dtype in columns.items():
        if getattr(dtype, "kind", "O") not in NUMERIC_KINDS:
            where = "" if hasattr(table, "dtype") else f" in column {column!r}"
            raise TypeError(f"{name} must be an array of real numbers; got dtype {dtype}{where}")
    nullable = any(not isinstance(dtype, np.dtype) for dtype in columns.values())
    missing = nullable and bool(np.asarray(table.isna()).any())
    return table.to_numpy(dtype=np.float64, na_value=np.nan) if missing else _plain(table, columns)


def _plain(table: Any, columns: dict[Any, Any]) -> np.ndarray:
    """Columns without missing values in one NumPy dtype."""
    kinds = [getattr(dtype, "numpy_dtype", dtype) for dtype in columns.values()]
    return table.to_numpy(dtype=np.result_type(*kinds)) if kinds else table.to_numpy()


def column_names(table: Any, columns: int) -> tuple[str, ...]:
    """The names of a pandas DataFrame's or pyarrow Table's columns if all are text, else "x0", "x1", ..."""
    names = tuple(getattr(table, "column_names", getattr(table, "columns", ())))
    named = len(names) == columns and all(isinstance(name, str) for name in names)
    return names if named else tuple(f"x{a}" for a in range(columns))


def finite(name: str, array: jax.Array | np.ndarray) -> None:
    """Refuse NaN and infinity in a concrete array, naming the first bad row."""
    # One sum is four times faster than a test of every entry, and finite only if every entry is.
    if is_concrete(array) and not np.isfinite(_sum(array)):
        require(name, array, is_finite, "finite")


def _sum(array: jax.Array | np.ndarray) -> float:
    array = host_view(array)
    with np.errstate(over="ignore", invalid="ignore"), jax.ensure_compile_time_eval():
        return float(array.sum())


def host_view(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """A concrete array of one CPU device as a NumPy view; others as they are."""
    if (
        isinstance(array, jax.Array)
        and is_concrete(array)
        and [device.platform for device in array.devices()] == ["cpu"]
    ):
        return np.asarray(array)
    return array


def is_finite(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Which entries are neither NaN nor infinite, found where the array lives."""
    return jnp.isfinite(array) if isinstance(array, jax.Array) else np.isfinite(array)


def is_not_negative(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Which entries are finite and at least zero."""
    return (array >= 0) & is_finite(array)


@contextmanager
def numbered(rows: Sequence[int] | np.ndarray) -> Iterator[None]:
    """Name row i of a block in an error by `rows[i]`, its number among all rows."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(re.sub(r"(?<= at row )\d+", lambda row: str(rows[int(row[0])]), str(error))) from error


def require(name: str, array: jax.Array | np.ndarray, test: Any, expected: str, axis: str = "row") -> None:
    """Refuse a concrete array in which elementwise `test` fails, naming the first bad row, or what `axis` calls it."""
    if not is_concrete(array):
        return
    array = host_view(array)
    with jax.ensure_compile_time_eval():  # concrete arrays may be constants of a function under jit
        passed = test(array)
        if bool(passed.all()):
            return
    bad = np.argwhere(~np.asarray(passed))[0]
    value = np.asarray(array)[tuple(bad[: np.ndim(array)])]
    shown = value if value.ndim else f"{value:g}"
    where = f" at {axis} {bad[0]}" if len(bad) else ""
    raise ValueError(f"{name} must be {expected}; got {shown}{where}")


def matrix(name: str, array: Any, columns: int, dtype: DTypeLike) -> jax.Array | np.ndarray:
    """An (n, columns) array with n > 0, of numbers that are finite in `dtype`."""
    array = cast(table(name, array, columns), dtype)
    finite(name, array)
    return array


def table(name: str, array: Any, columns: int) -> jax.Array | np.ndarray:
    """An (n, columns) array of numbers with n > 0, its values not looked at."""
    array = numeric(name, array)
    if array.ndim != 2 or array.shape[1] != columns:
        hint = f"; one example is {name}[None]" if array.shape == (columns,) else ""
        raise ValueError(f"{name} must have shape (n, {columns}); got {array.shape}{hint}")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows; a batch needs at least one example")
    return array


def cast(array: jax.Array | np.ndarray, dtype: DTypeLike) -> jax.Array:
    """`array` as a JAX array of `dtype`; what overflows becomes infinite, for the checks that follow to find."""
    if isinstance(array, jax.Array):
        return array if array.dtype == dtype else array.astype(dtype)
    # NumPy casts, because a cast by JAX is a compilation; the result is concrete also inside a traced function.
    with np.errstate(over="ignore"), jax.ensure_compile_time_eval():
        return jnp.asarray(np.asarray(array, dtype), dtype)


def multipliers(weight: Any, rows: int, dtype: DTypeLike | None) -> jax.Array | np.ndarray:
    """Multipliers of examples (n,), finite, none negative, in `dtype` or, where that is None, in their own."""
    weight = numeric("weight", weight)
    if weight.shape != (rows,):
        raise ValueError(f"weight must have shape ({rows},), one a row of x; got {weight.shape}")
    weight = weight if dtype is None else cast(weight, dtype)
    require("weight", weight, is_not_negative, "finite and not negative")
    return weight


def weights(weight: Any, rows: int, dtype: DTypeLike | None) -> jax.Array | np.ndarray:
    """Example weights in `dtype`: `multipliers` that are not all zero, so that there is a mean."""
    weight = multipliers(weight, rows, dtype)
    if is_concrete(weight) and _sum(weight) == 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    return weight


def scalar(name: str, value: Any) -> jax.Array:
    """A single number, in the default floating dtype."""
    value = numeric(name, value)
    if value.ndim:
        raise ValueError(f"{name} must be a single number; got shape {value.shape}: use vmap for many")
    return cast(value, jnp.result_type(float))


def positive(name: str, value: Any) -> jax.Array:
    """A single number above zero, infinity included."""
    value = scalar(name, value)
    require(name, value, lambda v: v > 0, "positive")
    return value


def key(value: Any, lanes: bool = False) -> None:
    """Refuse what is not one random key: typed, or the old style's uint32 of the default generator, such as (2,).

    lanes: a leading axis of keys is admitted as well. Raises TypeError for what is no key, ValueError for its shape.
    """
    expected = "key must be a random key, such as jax.random.key(0)"
    shape: tuple[int, ...] = ()
    if not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)):
        if not (isinstance(value, (jax.Array, np.ndarray)) and value.dtype == np.uint32):
            raise TypeError(f"{expected}; got {value!r:.100}")
        shape = jax.eval_shape(jax.random.PRNGKey, 0).shape
    if value.shape == shape or (lanes and value.ndim == len(shape) + 1 and value.shape[1:] == shape):
        return
    if value.ndim <= len(shape) or value.shape[value.ndim - len(shape) :] != shape:
        raise ValueError(f"{expected}; got {value.dtype} of shape {value.shape}")
    many = "one key, or one key a lane" if lanes else "one key"
    raise ValueError(f"key must be {many}; got keys of shape {value.shape[: value.ndim - len(shape)]}")


def of_shape(name: str, found: Any, shape: tuple[int, ...]) -> jax.Array:
    """`found`; ValueError if it is no array of this shape: what broadcasts would be summed silently."""
    got = f"shape {found.shape}" if hasattr(found, "shape") else f"a {type(found).__name__}"
    if getattr(found, "shape", None) != shape:
        raise ValueError(f"{name} must be an array of shape {shape}; got {got}")
    return found


def static_record(name: str, record: Any) -> None:
    """Refuse a frozen dataclass that cannot be a static argument of a compiled function.

    Its attributes must be fields, which its equality compares, and hashable. Raises TypeError.
    """
    hidden = sorted(set(vars(record)) - {field.name for field in fields(record)})
    if hidden:
        raise TypeError(
            f"{name} has attributes that are no fields ({', '.join(hidden)}), so that unequal ones would be taken for "
            "equal: decorate its class with @dataclass(frozen=True) and declare them there"
        )
    try:
        hash(record)
    except TypeError as error:
        raise TypeError(
            f"{name} must be hashable ({error}): keep its parameters as numbers or nested tuples, not as arrays"
        ) from error


def positive_integer(name: str, value: Any) -> int:
    """A whole number of at least one, as an int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")
    return int(value)


def labels(name: str, values: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct labels of rows, sorted, and the number of each row's, (rows,): none missing."""
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must have one label a row of x, shape ({rows},): {error}") from error
    if values.shape != (rows,):
        raise ValueError(f"{name} must have one label a row of x, shape ({rows},); got {values.shape}")
    if values.dtype.kind in "fcmM" and np.isnan(values).any():
        raise ValueError(
            f"{name} has a missing label at row {np.flatnonzero(np.isnan(values))[0]}: name it, or drop it"
        )
    try:
        return np.unique(values, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"{name} must be labels of one kind, that can be sorted: {error}") from error
