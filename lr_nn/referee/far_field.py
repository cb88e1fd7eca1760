"""Whether numbers far out are finite in a narrow type wherever the true ones fit it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict
from lr_nn.referee.traced_parts import Part, evaluate, quiet

TYPES = (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16))
# Bytes of the narrowest type in which every part must run: the library computes η in float32 at least, and functions
# of JAX such as `log_ndtr` refuse bfloat16.
NEEDED = 4


def cast(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Numbers in another type; labels as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


def far_checks(
    parts: Mapping[str, Part],
    arrays: tuple[np.ndarray, ...],
    truth: Mapping[str, np.ndarray],
    describe: Callable[[int], str],
) -> list[PartCheck]:
    """The verdicts on parts at n points far out in float32 and in bfloat16, computed in one program.

    Args:
        parts: by name, functions of `arrays`, with results (n, ...).
        arrays: the points in float64.
        truth: by name, the results in float64.
        describe: row -> the text of the point.
    """

    def of_type(part: Part, index: int) -> Part:
        return lambda *of_types: part(*of_types[index])

    named = {f"{dtype} {name}": of_type(parts[name], i) for i, dtype in enumerate(TYPES) for name in parts}
    with quiet():
        found = evaluate(named, *(tuple(cast(array, dtype) for array in arrays) for dtype in TYPES))

    def of(results: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
        return {name: results[f"{dtype} {name}"] for name in parts if f"{dtype} {name}" in results}

    return [_check(of(found.results, dtype), of(found.failures, dtype), truth, dtype, describe) for dtype in TYPES]


def _check(
    found: Mapping[str, np.ndarray],
    failures: Mapping[str, str],
    truth: Mapping[str, np.ndarray],
    dtype: Any,
    describe: Callable[[int], str],
) -> PartCheck:
    """NaN is wrong; infinity is wrong where float64 has a number that the type can hold.

    At a point where any part leaves the type in float64 too, its other parts are not checked.
    """
    name = f"far field in {dtype}"
    refusals = "; ".join(
        f"{', '.join(part for part in failures if failures[part] == text)} {text}"
        for text in dict.fromkeys(failures.values())
    )
    if refusals and dtype.itemsize >= NEEDED:
        return PartCheck(name, Verdict.wrong, reason=refusals)
    largest = float(jnp.finfo(dtype).max)
    beyond = {part: _any(np.isinf(each) | (np.abs(each) > largest)) for part, each in truth.items()}
    excused = np.logical_or.reduce(list(beyond.values())) if beyond else np.zeros(0, bool)
    overflowing: dict[str, int] = {}
    for part, numbers in found.items():
        bad = _any(~np.isfinite(numbers))
        value_is_nan = _any(np.isnan(numbers)) & ~beyond[part] if part == "value" else np.zeros_like(bad)
        wrong = np.flatnonzero(bad & (~excused | value_is_nan))
        if len(wrong):
            row = int(wrong[0])
            got = numbers[row][~np.isfinite(numbers[row])].flat[0] if numbers.ndim > 1 else numbers[row]
            return PartCheck(name, Verdict.wrong, reason=_reason(part, got, truth[part][row], describe(row)))
        if bad.any():
            overflowing.setdefault(part, int(np.flatnonzero(bad)[0]))
    if refusals:
        return PartCheck(name, Verdict.undecided, reason=refusals)
    if overflowing:
        row = next(iter(overflowing.values()))
        reason = f"{', '.join(overflowing)}: beyond the largest number of the type, as at {describe(row)}"
        return PartCheck(name, Verdict.overflows, reason=reason)
    return PartCheck(name, Verdict.right)


def _any(flags: np.ndarray) -> np.ndarray:
    return np.asarray(flags.reshape(len(flags), -1).any(axis=1))


def _reason(part: str, got: float, truth: np.ndarray, where: str) -> str:
    largest = float(np.max(np.abs(truth)))
    instead = f"; in float64 it is of size {largest:.4g}" if math.isfinite(largest) else ", in float64 as well"
    return f"{part} is {got} at {where}{instead}"
