"""A finding for each leaf, at every point and in every type; points closer in where a far one is undecided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np

from lr_nn.referee.evidence import evidence_at
from lr_nn.referee.jaxprs import eps
from lr_nn.referee.points import Point
from lr_nn.referee.programs import Programs, leaves_of
from lr_nn.referee.report import Evidence, Finding, Verdict
from lr_nn.referee.subject import is_of_two_types
from lr_nn.referee.verdicts import errors, judge, ratio


def in_type(programs: Programs, place: Point, dtype: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Both gradients in a type: float64 with JAX's float64 switched on, any other under the user's own setting.

    JAX keeps a 64-bit array that the functions hold as it was first traced, with float64 on. Whole numbers do not
    widen a product with a narrower type, so that functions which hold no others run with float64 on.
    """

    def both() -> tuple[list[np.ndarray], list[np.ndarray]]:
        return leaves_of(programs.hand, place), leaves_of(programs.autodiff, place)

    try:
        with jax.enable_x64(True) if dtype == np.float64 else nullcontext():
            return both()
    except (TypeError, ValueError) as error:
        if not is_of_two_types(error) or programs.subject.held("f") or not programs.subject.held("iu"):
            raise
    with jax.enable_x64(True):
        return both()


def findings(
    programs: Programs,
    points: Sequence[Point],
    closer: Callable[[Point], Sequence[Point]],
    types: Sequence[Any],
    seed: int,
) -> dict[Any, list[list[Finding]]]:
    """For each type and leaf its findings, at `points` in their order and then at points closer in.

    Args:
        programs: of the audit.
        points: the given point first.
        closer: point -> the points between it and the given one, the farthest first; none for a point of the user's.
        types: in which to audit.
        seed: of the random directions.
    """
    with np.errstate(all="ignore"):  # at extreme points numbers overflow, and a finding says so
        evidence = [evidence_at(programs, point.cast(np.float64), seed) for point in points]
        suspects = [any(found.autodiff_wrong for found in leaf) for leaf in zip(*evidence)]
        rows = {
            dtype: [_at_point(programs, point, dtype, found, suspects) for point, found in zip(points, evidence)]
            for dtype in types
        }
        table = {dtype: [list(leaf) for leaf in zip(*found)] for dtype, found in rows.items()}
        for row, point in enumerate(points):
            open_at = [
                (dtype, index)
                for dtype, leaves in table.items()
                for index, leaf in enumerate(leaves)
                if leaf[row].verdict == Verdict.undecided
            ]
            noisy = {index for index, found in enumerate(evidence[row]) if found.unresolved}
            decided = _closer_in(programs, closer(point) if open_at else (), open_at, noisy, suspects, seed)
            for (dtype, index), finding in decided.items():
                table[dtype][index].append(replace(finding, instead_of=point.name))
    return table


def _closer_in(
    programs: Programs,
    nearer: Sequence[Point],
    open_at: list[tuple[Any, int]],
    noisy: set[int],
    suspects: Sequence[bool],
    seed: int,
) -> dict[tuple[Any, int], Finding]:
    """For each (type, leaf) of `open_at`, the finding at the farthest of the nearer points that decides.

    A `noisy` leaf, undecided because `jax.grad` is rounding noise, is right only where it is no longer.
    """
    decided: dict[tuple[Any, int], Finding] = {}
    for point in nearer:
        left = [key for key in open_at if key not in decided]
        if not left:
            break
        place = point.cast(np.float64)
        evidence = evidence_at(programs, place, seed)
        with jax.enable_x64(True):
            clear = programs.resolved(place) if noisy else []
        for dtype in dict.fromkeys(dtype for dtype, _ in left):
            for index, finding in enumerate(_at_point(programs, point, dtype, evidence, suspects)):
                wrong = finding.verdict == Verdict.wrong
                decides = finding.verdict != Verdict.undecided and (wrong or index not in noisy or clear[index])
                if (dtype, index) in left and decides:
                    decided[dtype, index] = finding
    return decided


def _at_point(
    programs: Programs, point: Point, dtype: Any, evidence: Sequence[Evidence], suspects: Sequence[bool]
) -> list[Finding]:
    """A finding for each leaf at a point, in one type."""
    place = point.cast(dtype)
    wide, unit = place.cast(np.float64), max(eps(dtype), eps(programs.coarsest))
    hand, twin = in_type(programs, place, dtype)
    with jax.enable_x64(True):
        reference, by_hand_in_float64 = leaves_of(programs.autodiff, wide), leaves_of(programs.hand, wide)

    @cache
    def expected(whose: str) -> list[Any]:
        if whose == "scale":
            return [0.0] * len(reference)
        with jax.enable_x64(True):
            return programs.expected(whose, dtype, wide)

    def finding(index: int) -> Finding:
        leaf, found = hand[index], evidence[index]
        truth = (by_hand_in_float64 if found.autodiff_wrong else reference)[index]

        def over(whose: str, goal: np.ndarray) -> float:
            return ratio(leaf, goal, expected(whose)[index], dtype, unit, programs.length)

        # At the user's points half of the digits must stay; at the audit's own, where nobody has asked, fewer.
        bearable = math.inf if point.is_far else unit**0.5
        verdict, reason, here = judge(
            leaf, twin[index], truth, over, found, suspects[index], bearable, flat_is_zero=not point.is_far
        )
        if verdict == Verdict.wrong and eps(programs.coarsest_by_hand) > unit:
            reason = "; ".join(filter(None, [f"computed in {programs.coarsest_by_hand}", reason]))
        return Finding(
            point.name,
            verdict,
            reason,
            hand=errors(leaf, truth, dtype),
            autodiff=errors(twin[index], truth, dtype),
            bound_ratio=here,
            length=programs.length,
            evidence=found if dtype == np.float64 else None,
        )

    return [finding(index) for index in range(len(hand))]
