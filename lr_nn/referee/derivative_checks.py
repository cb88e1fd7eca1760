"""Whether a stated derivative is that of its function, by `jax.grad` and by the function's values; in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict
from lr_nn.referee.slopes import Slopes

# A stated derivative may differ from the true one by these: relative to itself, to the typical size of the derivative,
# and to the largest entry of its row (terms that cancel).
RELATIVE, TYPICAL, ROW = 1e-6, 1e-9, 1e-9
# Differences decide where their own error is below this, relative to the slope or its typical size.
RESOLVED = 1e-3
# A second derivative below this, relative to the first, may be rounding.
CANCELLED = 1e-10
EPS = float(np.finfo(np.float64).eps)


class Truth(NamedTuple):
    """The true derivative at points (n, entries), where it is `decided`, and how far a right one may be from it.

    `autodiff_wrong`: where the values of the function refute `jax.grad`.
    """

    value: np.ndarray
    tolerance: np.ndarray
    decided: np.ndarray
    irregular: np.ndarray
    autodiff_wrong: np.ndarray
    typical: float


def typical_size(array: np.ndarray) -> float:
    """The median over rows of the largest magnitude, of rows that are finite; their mean where the median is 0."""
    rows = np.abs(array).reshape(len(array), -1).max(axis=1)
    rows = rows[np.isfinite(rows)]
    return float(np.median(rows) or rows.mean()) if rows.size else 0.0


def largest_of_row(array: np.ndarray) -> np.ndarray:
    """The largest finite magnitude of each row, (n, 1)."""
    return np.where(np.isfinite(array), np.abs(array), 0.0).max(axis=1, keepdims=True)


def truth_of(
    shape: tuple[int, int], autodiff: np.ndarray | None, slopes: Slopes | None, unit: float, rounding: float = 0.0
) -> Truth:
    """The derivative by `jax.grad` where the values do not refute it, else by differences; both of `shape`.

    Either may be None; where both are, nothing is decided. `unit` is the epsilon of the narrowest type in which the
    function was computed; `rounding` bounds the roundings of terms of the function that cancel in its derivative.
    """
    coarse = max(1.0, unit / EPS * 1e-2) if unit > EPS else 1.0
    nothing = np.zeros(shape, bool)
    with np.errstate(all="ignore"):
        reference = autodiff if autodiff is not None else slopes.central if slopes is not None else np.zeros(shape)
        regular = reference if slopes is None else np.where(slopes.irregular, 0.0, reference)
        typical = typical_size(regular)
        floor = coarse * (rounding + TYPICAL * typical + ROW * largest_of_row(reference))
        known = np.isfinite(reference) if autodiff is not None else nothing
        tolerance = coarse * RELATIVE * np.abs(reference) + floor
        if slopes is None:
            return Truth(reference, tolerance, known, nothing, nothing, typical)
        smooth = np.isfinite(slopes.central) & ~slopes.irregular
        resolved = smooth & (slopes.error <= RESOLVED * np.maximum(np.abs(slopes.central), typical))
        allowed = slopes.error + coarse * RELATIVE * np.abs(slopes.central) + floor
        refuted = resolved & ~(np.abs(reference - slopes.central) <= allowed)
        outside = slopes.kink & ~((slopes.low <= reference) & (reference <= slopes.high))
        wrong = (refuted | outside) if autodiff is not None else nothing
        use_autodiff = known & ~wrong
    return Truth(
        np.where(use_autodiff, reference, slopes.central),
        np.where(use_autodiff, tolerance, allowed),
        (use_autodiff | resolved) & ~slopes.irregular,
        slopes.irregular,
        wrong,
        typical,
    )


def derivative_check(
    name: str,
    stated: np.ndarray,
    truth: Truth,
    slopes: Slopes | None,
    describe: Callable[[int, int], str],
    skip: np.ndarray | None = None,
    of: str = "the derivative",
) -> PartCheck:
    """The verdict on a stated derivative (n, entries).

    Args:
        name: of the part.
        stated: what the part returns.
        truth: of `truth_of`.
        slopes: the slopes of the function, whose kinks admit any value between the one-sided slopes.
        describe: (row, entry) -> the text of the point.
        skip: points (n, 1) to skip.
        of: what it should be, for the reason.
    """
    checked = np.ones(stated.shape, bool) if skip is None else np.broadcast_to(~skip, stated.shape)
    with np.errstate(all="ignore"):
        off = np.abs(stated - truth.value)
        wrong = truth.decided & ~(off <= truth.tolerance)
        kinks = np.zeros(stated.shape, bool)
        if slopes is not None:
            between = slopes.jump & np.isfinite(stated) | (slopes.low <= stated) & (stated <= slopes.high)
            kinks = slopes.irregular & between & checked
            wrong |= slopes.irregular & ~between & np.isfinite(slopes.low)
        error = off / np.maximum(np.maximum(np.abs(truth.value), truth.typical), np.finfo(float).tiny)
    wrong &= checked
    decided = truth.decided & checked
    if wrong.any():
        shown = wrong & decided if (wrong & decided).any() else wrong
        largest = float(np.nanmax(np.where(shown & np.isfinite(error), error, 0.0), initial=0.0))
        return PartCheck(name, Verdict.wrong, largest, _reason(stated, truth, slopes, shown, error, describe, of))
    if not decided.any():
        reason = "neither jax.grad nor differences of the values resolve the derivative"
        return PartCheck(name, Verdict.undecided, reason=reason)
    largest = float(np.max(error[decided], initial=0.0))
    if kinks.any():
        row, entry = np.argwhere(kinks)[0]
        reason = f"any value between the one-sided derivatives is right, as at {describe(row, entry)}"
        return PartCheck(name, Verdict.at_a_kink, largest, reason)
    return PartCheck(name, Verdict.right, largest)


def _reason(
    stated: np.ndarray,
    truth: Truth,
    slopes: Slopes | None,
    wrong: np.ndarray,
    error: np.ndarray,
    describe: Callable[[int, int], str],
    of: str,
) -> str:
    """The reason: a common factor if there is one, else one entry; and the point."""
    # The first of the points that are about as wrong as the worst: the audit's points begin with moderate ones.
    severity = np.where(wrong, np.where(np.isfinite(error), error, 1.0), -1.0)
    row, entry = np.argwhere(severity >= 0.1 * min(float(severity.max()), 1.0))[0]
    where, found = describe(int(row), int(entry)), stated[row, entry]
    if slopes is not None and slopes.irregular[row, entry]:
        low, high = slopes.low[row, entry], slopes.high[row, entry]
        return f"{found:.4g} is not between the one-sided derivatives {low:.4g} and {high:.4g} at {where}"
    large = wrong & (np.abs(truth.value) > 1e-3 * truth.typical)
    factor = common_factor(stated[large], truth.value[large])
    if factor is not None and abs(factor) > 1e-12:
        return f"{factor:.4g} times {of} at {where}"
    return f"{found:.4g}, but {of} is {truth.value[row, entry]:.4g}, at {where}"


def common_factor(left: np.ndarray, right: np.ndarray) -> float | None:
    """c where left = c * right in every entry, to three digits; else None."""
    with np.errstate(all="ignore"):
        ratios = left / right
    same = ratios.size and np.isfinite(ratios).all() and np.ptp(ratios) <= 1e-3 * np.abs(ratios).max()
    return float(ratios.flat[0]) if same else None


def autodiff_check(name: str, truth: Truth, autodiff: np.ndarray, describe: Callable[[int, int], str]) -> PartCheck:
    """Whether `jax.grad` of the function is the slope of its values."""
    if truth.autodiff_wrong.any():
        row, entry = map(int, np.argwhere(truth.autodiff_wrong)[0])
        reason = f"jax.grad gives {autodiff[row, entry]:.4g}, not the slope of the values, at {describe(row, entry)}"
        return PartCheck(name, Verdict.autodiff_wrong, reason=reason)
    return PartCheck(name, Verdict.at_a_kink if truth.irregular.any() else Verdict.right)
