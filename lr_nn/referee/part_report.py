"""The report of the audit of a loss or an activation: one check for each part; as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum

from lr_nn.referee.table import aligned, number

HEADER = ("part", "verdict", "error", "reason")


class PartVerdict(IntEnum):
    """From best to worst. A report is not ok where a check is `wrong`, or where a required part is `undecided`.

    `not_stated`: an optional part that the class does not state, or a flag that promises nothing. `at_a_kink`: right,
    and at some points between two one-sided derivatives that differ. `overflows`: a number leaves the type, as the
    true value does. `autodiff_wrong`: the values refute `jax.grad` of the value; the derivative by hand may be right.
    """

    right = 0
    not_stated = 1
    at_a_kink = 2
    overflows = 3
    autodiff_wrong = 4
    undecided = 5
    wrong = 6

    def __str__(self) -> str:
        """The name, in words."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class PartCheck:
    """The verdict on one part, with its largest error (relative; NaN where none was measured) and a reason.

    `required`: whether the report is not ok while the part is undecided.
    """

    name: str
    verdict: PartVerdict
    error: float = math.nan
    reason: str = ""
    required: bool = False


@dataclass(frozen=True, eq=False)
class PartReport:
    """The audit of a loss or an activation; `print` shows it as a table."""

    name: str
    checks: tuple[PartCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether no part is wrong and every required part is decided."""
        undecided = any(check.required for check in self.undecided)
        return not undecided and all(check.verdict != PartVerdict.wrong for check in self.checks)

    @property
    def worst(self) -> PartCheck:
        """The first check of the worst verdict; if all are right, that of the largest error."""

        def severity(check: PartCheck) -> tuple[int, float]:
            right = check.verdict == PartVerdict.right and not math.isnan(check.error)
            return check.verdict, check.error if right else 0.0

        return max(self.checks, key=severity)

    @property
    def undecided(self) -> tuple[PartCheck, ...]:
        """The checks that could not be decided, with their reasons."""
        return tuple(check for check in self.checks if check.verdict == PartVerdict.undecided)

    def to_json(self) -> str:
        """Everything, as JSON; numbers that are not finite are null."""
        checks = [
            {
                "name": check.name,
                "verdict": str(check.verdict),
                "error": float(check.error) if math.isfinite(check.error) else None,
                "reason": check.reason,
            }
            for check in self.checks
        ]
        undecided = [check.name for check in self.undecided]
        held = {"name": self.name, "ok": self.ok, "worst": self.worst.name, "undecided": undecided, "checks": checks}
        return json.dumps(held, indent=1)

    def __str__(self) -> str:
        """A line for each check, and the verdict below."""
        rows = [(each.name, str(each.verdict), number(each.error), each.reason) for each in self.checks]
        header, *lines = aligned([HEADER, *rows])
        width = min(max(map(len, [header, *lines])), 120)
        return "\n".join([header, "-" * width, *lines, self._summary()])

    def _summary(self) -> str:
        wrong = [check.name for check in self.checks if check.verdict == PartVerdict.wrong]
        if wrong:
            return f"{self.name}: not ok: {', '.join(wrong)}"
        if not self.ok:
            return f"{self.name}: not ok: {', '.join(check.name for check in self.undecided)} undecided"
        doubtful = [each for each in self.checks if each.verdict >= PartVerdict.overflows]
        but = "; ".join(f"{each.name} {each.verdict}" for each in doubtful)
        return f"{self.name}: ok" + (f"; but {but}" if but else "")
