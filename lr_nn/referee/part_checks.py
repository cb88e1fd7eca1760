"""Checks that the audits of a loss and of an activation have in common."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.referee.derivative_checks import largest_of_row
from lr_nn.referee.part_report import PartCheck, PartVerdict

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
    data = jax.random.key_data(own) if jnp.issubdtype(own.dtype, jax.dtypes.prng_key) else own
    return own, np.random.default_rng(np.asarray(data).ravel())


def tuple_of(row: np.ndarray) -> str:
    """A row of numbers in words."""
    return f"({', '.join(f'{number:.3g}' for number in row)})"


def undecided(name: str, why: str) -> PartCheck:
    """A check that cannot be made."""
    return PartCheck(name, PartVerdict.undecided, reason=why)


def identity_check(
    name: str, left: np.ndarray, right: np.ndarray, describe: Callable[[int], str], said: str, tolerance: float = 1.0
) -> PartCheck:
    """Whether two results (n, ...) agree to rounding, relative to the largest entry of a row; rows not finite left out.

    `said` names what differs, in words; `describe` the row.
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
        return PartCheck(name, PartVerdict.right, largest)
    reason = f"{said}: {left[row, entry]:.4g} and {right[row, entry]:.4g} at {describe(int(row))}"
    return PartCheck(name, PartVerdict.wrong, largest, reason)


def worst_of(name: str, checks: list[PartCheck]) -> PartCheck:
    """The worst of several checks, under one name."""
    worst = max(checks, key=lambda check: (check.verdict, np.nan_to_num(check.error)))
    return PartCheck(name, worst.verdict, worst.error, worst.reason)


def shape_check(problems: list[str]) -> PartCheck:
    """Whether no part has a wrong shape or dtype."""
    if problems:
        return PartCheck("shapes and dtypes", PartVerdict.wrong, reason="; ".join(dict.fromkeys(problems)))
    return PartCheck("shapes and dtypes", PartVerdict.right)


def equality_check(part: Any) -> PartCheck:
    """Equal to a copy of itself, with the same hash; and every parameter is a field, so that unequal ones differ."""
    name = "equality and hash"
    fields = {each.name for each in dataclasses.fields(part)}
    loose = [parameter for parameter in vars(part) if parameter not in fields]
    if loose:
        reason = f"{loose[0]} is no field, so that instances with another {loose[0]} are equal: make the class a "
        return PartCheck(name, PartVerdict.wrong, reason=f"{reason}dataclass(frozen=True)")
    try:
        twin = copy.deepcopy(part)
        if bool(twin == part) and hash(twin) == hash(part):
            return PartCheck(name, PartVerdict.right)
    except Exception as error:  # of a user's __eq__ or __hash__, or of a field that has none
        reason = f"raised {type(error).__name__}: {error}; parameters must be hashable, such as floats and tuples"
        return PartCheck(name, PartVerdict.wrong, reason=reason)
    return PartCheck(
        name, PartVerdict.wrong, reason="a copy is not equal to it or has another hash: jit compiles twice"
    )
