"""Whether numbers far out are finite in a narrow type wherever the true ones fit it; in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn.referee.part_report import PartCheck, PartVerdict

# Bytes of the narrowest type in which every part must run: the library computes η in float32 at least, and functions
# of JAX such as `log_ndtr` refuse bfloat16.
NEEDED = 4


def far_check(
    found: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    dtype: DTypeLike,
    describe: Callable[[int], str],
    failures: Mapping[str, str],
) -> PartCheck:
    """The verdict on parts (n, ...) at n points far out.

    NaN is wrong; infinity is wrong where float64 has a number that the type can hold. At a point where any part
    leaves the type in float64 too, the numbers made of it are not judged.

    Args:
        found: by part, the results in the type.
        truth: the same in float64.
        dtype: the type.
        describe: row -> the point, in words.
        failures: parts that raised in the type, with what they raised.
    """
    name = f"far field in {jnp.dtype(dtype)}"
    refusals = "; ".join(
        f"{', '.join(part for part in failures if failures[part] == text)} {text}"
        for text in dict.fromkeys(failures.values())
    )
    if refusals and jnp.dtype(dtype).itemsize >= NEEDED:
        return PartCheck(name, PartVerdict.wrong, reason=refusals)
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
            return PartCheck(name, PartVerdict.wrong, reason=_reason(part, got, truth[part][row], describe(row)))
        if bad.any():
            overflowing.setdefault(part, int(np.flatnonzero(bad)[0]))
    if refusals:
        return PartCheck(name, PartVerdict.undecided, reason=refusals)
    if overflowing:
        row = next(iter(overflowing.values()))
        reason = f"{', '.join(overflowing)}: beyond the largest number of the type, as at {describe(row)}"
        return PartCheck(name, PartVerdict.overflows, reason=reason)
    return PartCheck(name, PartVerdict.right)


def _any(flags: np.ndarray) -> np.ndarray:
    return np.asarray(flags.reshape(len(flags), -1).any(axis=1))


def _reason(part: str, got: float, truth: np.ndarray, where: str) -> str:
    largest = float(np.max(np.abs(truth)))
    instead = f"; in float64 it is of size {largest:.4g}" if math.isfinite(largest) else ", in float64 as well"
    return f"{part} is {got} at {where}{instead}"
