"""The report of the audit of a loss or an activation: one check for each part; as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from lr_nn.referee.report import Verdict, plain
from lr_nn.referee.table import aligned, number

HEADER = ("part", "verdict", "error", "reason")


@dataclass(frozen=True)
class PartCheck:
    """The verdict on one part, with its largest error (relative; NaN where none was measured) and a reason."""

    name: str
    verdict: Verdict
    error: float = math.nan
    reason: str = ""


@dataclass(frozen=True, eq=False)
class PartReport:
    """The audit of a loss or an activation; `print` shows it as a table. `required` parts must be decided."""

    name: str
    checks: tuple[PartCheck, ...]
    required: tuple[str, ...] = ()

    @property
    def leaves(self) -> tuple[PartCheck, ...]:
        """The checks, under the name that the report of `audit` gives its rows."""
        return self.checks

    @property
    def ok(self) -> bool:
        """Whether no part is wrong and every required part is decided."""
        undecided = any(check.name in self.required for check in self.undecided)
        return not undecided and all(check.verdict != Verdict.wrong for check in self.checks)

    @property
    def worst(self) -> PartCheck:
        """The first check of the worst verdict; if all are right, that of the largest error."""

        def severity(check: PartCheck) -> tuple[int, float]:
            right = check.verdict == Verdict.right and not math.isnan(check.error)
            return check.verdict, check.error if right else 0.0

        return max(self.checks, key=severity)

    @property
    def undecided(self) -> tuple[PartCheck, ...]:
        """The checks that could not be decided, with their reasons."""
        return tuple(check for check in self.checks if check.verdict == Verdict.undecided)

    def to_json(self) -> str:
        """Everything, as JSON; numbers that are not finite are null."""
        checks = [plain(asdict(check) | {"verdict": str(check.verdict)}) for check in self.checks]
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
        wrong = [check.name for check in self.checks if check.verdict == Verdict.wrong]
        if wrong:
            return f"{self.name}: not ok: {', '.join(wrong)}"
        if not self.ok:
            return f"{self.name}: not ok: {', '.join(check.name for check in self.undecided)} undecided"
        doubtful = [each for each in self.checks if each.verdict >= Verdict.overflows]
        but = "; ".join(f"{each.name} {each.verdict}" for each in doubtful)
        return f"{self.name}: ok" + (f"; but {but}" if but else "")
