"""Checks that the audits of a loss and of an activation have in common."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lr_nn import check
from lr_nn.referee.derivative_checks import largest_of_row
from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict

# Rounding of identities between results of one program, relative to the largest entry of a row.
IDENTITY = 1e-9


def randomness(name: str, key: jax.Array | None) -> tuple[jax.Array, np.random.Generator]:
    """The key of an audit, a fixed one for None, and a generator seeded with it; `name` is the audit's.

    Raises:
        TypeError: it is no key, or the audit is called under `jit` or `vmap`.
    """
    if key is not None:
        check.key(key)
    own = jax.random.key(0) if key is None else key
    check.on_host(name, own)
    return own, np.random.default_rng(np.asarray(jax.random.key_data(own)).ravel())


def tuple_of(row: np.ndarray) -> str:
    """A row of numbers as text."""
    return f"({', '.join(f'{number:.3g}' for number in row)})"


def undecided(name: str, why: str) -> PartCheck:
    """A check that cannot be made."""
    return PartCheck(name, Verdict.undecided, reason=why)


def identity_check(
    name: str,
    left: np.ndarray,
    right: np.ndarray,
    describe: Callable[[int], str],
    difference: str,
    tolerance: float = 1.0,
) -> PartCheck:
    """Whether two results (n, ...) agree to rounding, relative to the largest entry of a row; rows not finite left out.

    `difference` says what differs; `describe` gives the text of a row.
    """
    left, right = left.reshape(len(left), -1), right.reshape(len(right), -1)
    finite = np.isfinite(left).all(axis=1) & np.isfinite(right).all(axis=1)
    if not finite.any():
        return undecided(name, "no number is finite")
    with np.errstate(all="ignore"):
        size = np.maximum(largest_of_row(left), largest_of_row(right))
        typical = np.median(size[finite])
        error = np.where(finite[:, None], np.abs(left - right) / np.maximum(size + 1e-3 * typical, 1e-300), 0.0)
    row, entry = np.unravel_index(int(np.argmax(error)), error.shape)
    largest = float(error[row, entry])
    if largest <= tolerance * IDENTITY:
        return PartCheck(name, Verdict.right, largest)
    reason = f"{difference}: {left[row, entry]:.4g} and {right[row, entry]:.4g} at {describe(int(row))}"
    return PartCheck(name, Verdict.wrong, largest, reason)


def eigenvalues(matrices: np.ndarray) -> np.ndarray:
    """Eigenvalues (n, k) of the symmetric parts of matrices (n, k, k), the lowest first."""
    return np.linalg.eigvalsh((matrices + matrices.swapaxes(1, 2)) / 2)


def worst_of(checks: list[PartCheck]) -> PartCheck:
    """The check of the worst verdict, and of the largest error among those."""
    return max(checks, key=lambda check: (check.verdict, np.nan_to_num(check.error)))


def shape_check(problems: list[str]) -> PartCheck:
    """Whether no part has a wrong shape or dtype."""
    reason = "; ".join(dict.fromkeys(problems))
    return PartCheck("shapes and dtypes", Verdict.wrong if problems else Verdict.right, reason=reason)


def equality_check(part: Any) -> PartCheck:
    """Equal to a copy of itself, with the same hash; and every parameter is a field, so that unequal ones differ."""
    fields = {each.name for each in dataclasses.fields(part)}
    loose = [parameter for parameter in vars(part) if parameter not in fields]
    reason = ""
    if loose:
        reason = f"{loose[0]} is no field, so that instances with another {loose[0]} are equal: make the class a "
        reason += "dataclass(frozen=True)"
    else:
        try:
            twin = copy.deepcopy(part)
            if twin != part or hash(twin) != hash(part):
                reason = "a copy is not equal to it or has another hash: jit compiles twice"
        except Exception as error:  # of a user's __eq__ or __hash__, or of a field that has none
            reason = f"raised {type(error).__name__}: {error}; parameters must be hashable, such as floats and tuples"
    return PartCheck("equality and hash", Verdict.wrong if reason else Verdict.right, reason=reason)
