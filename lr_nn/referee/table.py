"""A report as a table of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lr_nn.referee.report import Leaf, Report

HEADER = ("leaf", "type", "error", "jax.grad", "ulps", "jax.grad", "/ bound", "slopes", "complex", "central", "verdict")

# Leaves that a line names; of more it gives the number.
NAMED = 4


def number(value: float | str | None) -> str:
    """Two digits; a dash for what is not there."""
    if value is None or isinstance(value, str) or math.isnan(value):
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def row(leaf: Leaf) -> tuple[str, ...]:
    """A leaf in one type: errors at the point of its worst finding, slopes at the given point."""
    finding = leaf.worst
    slopes = "-"
    values = leaf.findings[0].evidence
    if values is not None:
        slopes = " ".join("  - " if math.isnan(slope) else f"{slope:.2f}" for slope in values.by_hand.slopes)
    at = "" if leaf.verdict == 0 else f" ({finding.point})"
    return (
        leaf.name,
        leaf.dtype,
        number(finding.hand.largest),
        number(finding.autodiff.largest),
        number(finding.hand.median_ulps),
        number(finding.autodiff.median_ulps),
        number(finding.bound_ratio),
        slopes,
        number(values and values.complex_step),
        number(values and values.central_difference),
        f"{leaf.verdict}{at}",
    )


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest entry, the first two and the last to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    last = len(widths) - 1
    return [
        "  ".join(
            text.ljust(width) if index in (0, 1, last) else text.rjust(width)
            for index, (text, width) in enumerate(zip(cells, widths))
        ).rstrip()
        for cells in rows
    ]


def verdict(report: Report) -> str:
    """The last line: the verdict, and the worst leaf with its reason."""
    worst = report.worst
    where = f"{worst.name} in {worst.dtype}, {worst.worst.point}"
    broken = [check.name for check in report.second_order if not check.ok]
    if report.ok and worst.verdict != worst.verdict.right:
        return f"ok; but {where}, {worst.verdict}: {worst.worst.reason}"
    if report.ok:
        return f"ok: no leaf is further from float64 than its roundings explain; the furthest is {where}"
    if worst.ok:
        return f"not ok: {'; '.join(broken)}"
    reason = f": {worst.worst.reason}" if worst.worst.reason else ""
    if worst.verdict == worst.verdict.undecided:
        reason = f", undecided{reason}"
    return "; ".join([f"not ok: the worst is {where}{reason}", *broken])


def undecided(report: Report) -> list[str]:
    """A line for each undecided point and reason, with the leaves, their types, and the point decided instead."""
    leaves: dict[tuple[str, str, str, str], list[str]] = {}
    for record in report.undecided:
        leaves.setdefault((record.point, record.reason, record.decided_at, record.dtype), []).append(record.leaf)
    types: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (point, reason, decided_at, dtype), names in leaves.items():
        types.setdefault((point, reason, decided_at, tuple(names)), []).append(dtype)

    def line(point: str, reason: str, decided_at: str, names: tuple[str, ...], dtypes: list[str]) -> str:
        named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        instead = f"; decided at {decided_at}" if decided_at else ""
        return f"undecided at {point}: {named} in {' and '.join(dtypes)}: {reason}{instead}"

    return [line(*group, dtypes) for group, dtypes in types.items()]


def table(report: Report) -> str:
    """Every leaf in every type, where it is worst, with the verdict below."""
    lines = aligned([HEADER, *map(row, report.leaves)])
    found = [finding.evidence for leaf in report.leaves for finding in leaf.findings if finding.evidence is not None]
    notes = dict.fromkeys(f"complex step: {each.complex_step}" for each in found if isinstance(each.complex_step, str))
    checks = [
        f"{check.name}: {number(check.error)} of {number(check.allowed)} allowed"
        if math.isfinite(check.error)
        else f"{check.name}: not finite"
        for check in report.second_order
    ]
    above = [lines[0], "-" * max(map(len, lines)), *lines[1:], *notes]
    return "\n".join([*above, *undecided(report), *checks, verdict(report)])
