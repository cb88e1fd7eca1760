"""The verdict on one leaf: its errors, what roundings explain of them, and what the values say."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from lr_nn.referee.report import Errors, Evidence, Verdict

# Times the expected rounding error that a right entry may be off.
MULTIPLE = 4
# Relative distance within which a wrong leaf is called a multiple of the reference, or its transpose.
SAME = 1e-3


def errors(leaf: np.ndarray, reference: np.ndarray, dtype: Any) -> Errors:
    """How far a leaf is from its reference."""
    if reference.size == 0:
        return Errors(0.0, 0.0, 0.0, 0.0)
    kind = jnp.finfo(dtype)
    away, size = np.abs(leaf.astype(np.float64) - reference), np.abs(reference)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        each = np.where(away > 0, away / size, 0.0)
        whole = away.max() / size.max() if away.max() > 0 else 0.0
        last = np.exp2(np.floor(np.log2(np.maximum(size, float(kind.tiny))))) * float(kind.eps)
        ulps = away / np.maximum(last, np.finfo(np.float64).tiny)
    return Errors(float(whole), float(np.median(each)), float(ulps.max()), float(np.median(ulps)))


def rounding_bound(expected: Any, length: int) -> Any:
    """4 (1 + √length) times the expected rounding error, in sums of `length` terms."""
    return MULTIPLE * (1 + length**0.5) * expected


def ratio(
    leaf: np.ndarray, reference: np.ndarray, expected: np.ndarray | float, dtype: Any, unit: float, length: int
) -> float:
    """The largest error of an entry over its rounding bound.

    The bound is 4 (1 + √length) times (what is expected of the entry's roundings + unit times the leaf's scale), the
    smallest normal number added for what underflows.
    """
    if reference.size == 0:
        return 0.0
    scale = expected + unit * (np.abs(reference) + np.abs(reference).max())
    bound = rounding_bound(scale + float(jnp.finfo(dtype).tiny), length)
    return float((np.abs(leaf.astype(np.float64) - reference) / bound).max())


def judge(
    leaf: np.ndarray,
    twin: np.ndarray,
    reference: np.ndarray,
    over: Callable[[str, np.ndarray], float],
    evidence: Evidence,
    suspect: bool,
    bearable: float,
    flat_is_zero: bool,
) -> tuple[Verdict, str, float]:
    """The verdict, its reason, and the ratio of the error to its bound.

    Args:
        leaf: of the gradient under audit, in the type of the audit.
        twin: the same of `jax.grad`, in that type.
        reference: the same in float64, of what the values do not refute.
        over: (whose, goal) -> the ratio of the leaf's error, to a goal, with the roundings of the leaf's "scale"
            alone, or with those expected of "autodiff", or of the gradient "by hand".
        evidence: of the values.
        suspect: whether the values refuted `jax.grad` of this leaf at some point.
        bearable: the error, relative to the leaf, that lost digits may make.
        flat_is_zero: whether a value that is constant along the leaf decides that its gradient is zero.
    """
    if not math.isfinite(evidence.value):
        return Verdict.undecided, "the value is not finite here", math.nan
    if not np.isfinite(reference).all():
        return Verdict.undecided, "jax.grad is not finite here, in float64", math.nan
    if not np.isfinite(leaf).all():
        if np.isfinite(twin).all():
            return Verdict.wrong, "NaN or infinity, where jax.grad is finite", math.inf
        return Verdict.undecided, "not finite in this type, as jax.grad", math.nan
    # Monte-Carlo arithmetic is asked only where the scale of the leaf does not explain the error.
    here = over("scale", reference)
    here = here if here <= 1 else over("autodiff", reference)
    if here <= 1:
        return *_agrees(evidence, flat_is_zero), here
    return *_differs(leaf, twin, reference, over, evidence, suspect, bearable), here


def _agrees(evidence: Evidence, flat_is_zero: bool) -> tuple[Verdict, str]:
    """The verdict where gradient and reference agree: the values have the last word where they resolve it."""
    values = evidence.by_autodiff
    if evidence.unresolved and values.flat and flat_is_zero:
        return Verdict.right, "the value is constant along this leaf: the gradient is zero but for roundings"
    refuted = values.refuted and evidence.by_hand.refuted and not values.kink
    if evidence.unresolved and (refuted or values.flat):
        return Verdict.undecided, evidence.unresolved
    if refuted:
        return Verdict.wrong, "agrees with jax.grad, but not with the values: the value hides its derivative"
    if evidence.autodiff_wrong:
        return Verdict.autodiff_wrong, "agrees with the values, and jax.grad does not"
    return Verdict.right, ""


def _differs(
    leaf: np.ndarray,
    twin: np.ndarray,
    reference: np.ndarray,
    over: Callable[[str, np.ndarray], float],
    evidence: Evidence,
    suspect: bool,
    bearable: float,
) -> tuple[Verdict, str]:
    """The verdict where gradient and reference differ by more than the roundings of `jax.grad`."""
    values = evidence.by_hand
    if values.kink and values.between:
        return Verdict.at_a_kink, "between the two one-sided slopes"
    if over("by hand", reference) <= 1:
        if np.abs(leaf - reference).max() > bearable * np.abs(reference).max():
            return Verdict.wrong, "loses more than half of its digits to roundings, and jax.grad does not"
        return Verdict.loses_digits, "its own roundings explain the error, those of jax.grad do not"
    if over("scale", twin.astype(np.float64)) <= 1:
        return Verdict.right, "as jax.grad in this type; in float64 the value is another function"
    if suspect and not values.refuted:
        return Verdict.undecided, "jax.grad is wrong nearby, and the values are too coarse to decide"
    return Verdict.wrong, "outside the one-sided slopes of a kink" if values.kink else likeness(leaf, reference)


def likeness(leaf: np.ndarray, reference: np.ndarray) -> str:
    """What a wrong leaf looks like, where that is plain."""
    if not leaf.any():
        return "it is zero"
    if not reference.any():
        return "it should be zero"
    leaf = leaf.astype(np.float64)
    factor = float(np.sum(leaf * reference) / np.sum(reference**2))
    if np.linalg.norm(leaf - factor * reference) < SAME * abs(factor - 1) * np.linalg.norm(reference):
        return f"it is {factor:.6g} times the reference"
    square = leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1] and leaf.size > 1
    if square and np.allclose(leaf, reference.T, rtol=SAME, atol=SAME * np.abs(reference).max()):
        return "it is transposed"
    off = np.abs(leaf - reference) > SAME * np.abs(reference).max()
    if 0 < off.sum() < off.size:
        first = tuple(int(i) for i in np.argwhere(off)[0])
        return f"{off.sum()} of {off.size} entries, the first at {first}"
    return ""
