"""The report of an audit: a finding for each leaf, type and point, and the verdict; as a table, JSON and a figure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from lr_nn.referee.taylor import Taylor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Verdict(IntEnum):
    """From best to worst; a report is not ok where a leaf is `wrong`, or `undecided` at the given point in every type.

    The report on a loss or an activation is not ok where a part is `wrong`, or a required one `undecided`. Its verdicts
    `not_stated` (an optional part that the class does not state, or a flag that promises nothing) and `overflows` (a
    number leaves the type, as the true value does) do not occur in the report on a gradient.

    `at_a_kink`: between the two one-sided derivatives, which differ. `autodiff_wrong`: the values refute `jax.grad` of
    the value; the derivative by hand agrees with them.

    `loses_digits`: the formula is right and its own roundings cost digits that `jax.grad` keeps. Where more than half
    of them are gone at a point that was given, it is `wrong`.

    `undecided`: nothing is known to be wrong or right, because a number is not finite, or because the values do not
    resolve the derivative (they are constant, or steps, or rounding noise at the scale of its Taylor series).
    """

    right = 0
    not_stated = 1
    at_a_kink = 2
    loses_digits = 3
    overflows = 4
    autodiff_wrong = 5
    undecided = 6
    wrong = 7

    def __str__(self) -> str:
        """The name, in words."""
        return self.name.replace("_", " ")


class Errors(NamedTuple):
    """Distance of a gradient's leaf to the float64 reference.

    `largest`: over the leaf, relative to its largest entry. `median`: of the entries' own relative errors. `ulps`:
    the same two in units in the last place of the reference's entry, rounded to the audit's type.
    """

    largest: float
    median: float
    largest_ulps: float
    median_ulps: float


class Evidence(NamedTuple):
    """What the values of the function say about one leaf at one point.

    Along a random direction within the leaf, in float64: Taylor remainders with the slope by hand and with that of
    `jax.grad`, and the errors of the slope by hand, relative to it, against the complex step (a sentence where the
    function does not allow complex numbers) and a central difference at the step (3 u)^(1/3). `unresolved`: why values
    that seem to refute `jax.grad`, or are constant at a far point, prove nothing; empty elsewhere.
    """

    value: float
    by_hand: Taylor
    by_autodiff: Taylor
    complex_step: float | str
    central_difference: float
    unresolved: str = ""

    @property
    def autodiff_wrong(self) -> bool:
        """Whether the values refute `jax.grad` and not the gradient by hand."""
        refuted = self.by_autodiff.refuted and not self.by_autodiff.kink and not self.unresolved
        return refuted and not self.by_hand.refuted


@dataclass(frozen=True, eq=False)
class Finding:
    """One leaf at one point in one type.

    `hand` and `autodiff` are the errors of the gradient and of `jax.grad` in the same type. `bound_ratio` is the
    largest error of an entry over its rounding bound, 4 (1 + √length) times what the same computation must expect of
    its roundings; right is at most 1. `evidence` is that of the values, in findings of float64. `instead_of` names
    the undecided point that this one, closer to the given point, stands in for; empty at every other point.
    """

    point: str
    verdict: Verdict
    reason: str
    hand: Errors
    autodiff: Errors
    bound_ratio: float
    length: int
    evidence: Evidence | None
    instead_of: str = ""


class Undecided(NamedTuple):
    """A point at which there is no verdict on a leaf in one type, and why.

    `decided_at` is the farthest point closer to the given one that has a verdict, empty if none has.
    """

    point: str
    leaf: str
    dtype: str
    reason: str
    decided_at: str


@dataclass(frozen=True, eq=False)
class Leaf:
    """One leaf of the parameters in one type, at every point, the given one first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding:
        """The first finding of the worst verdict; if all are right, that of the largest ratio to the bound."""
        return max(self.findings, key=self._severity)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict over the given point and the points that are decided."""
        return self.worst.verdict

    @property
    def ok(self) -> bool:
        """Whether the given point is decided, and no point that is decided is wrong."""
        return self.verdict < Verdict.undecided

    @property
    def undecided(self) -> tuple[Undecided, ...]:
        """The points at which there is no verdict."""
        closer = {finding.instead_of: finding.point for finding in self.findings if finding.instead_of}
        return tuple(
            Undecided(finding.point, self.name, self.dtype, finding.reason, closer.get(finding.point, ""))
            for finding in self.findings
            if finding.verdict == Verdict.undecided
        )

    def _severity(self, finding: Finding) -> tuple[int, float]:
        """What orders findings: the verdict, and for right ones their error; undecided counts at the given point."""
        if finding.verdict == Verdict.undecided and finding is not self.findings[0]:
            return -1, 0.0
        return int(finding.verdict), finding.bound_ratio if finding.verdict == Verdict.right else 0.0

    @property
    def severity(self) -> tuple[int, float]:
        """What orders leaves: that of the worst finding."""
        return self._severity(self.worst)


@dataclass(frozen=True)
class Check:
    """A law that second-order products must obey, and by how much it is broken, relative to its terms."""

    name: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the law holds to rounding."""
        return self.error <= self.allowed


@dataclass(frozen=True, eq=False)
class Report:
    """The audit of a gradient; `print` shows it as a table."""

    leaves: tuple[Leaf, ...]
    second_order: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing that is decided is wrong, the given point is decided, and second-order laws hold.

        The given point is decided if each leaf has a verdict there in at least one type.
        """
        wrong = any(leaf.verdict == Verdict.wrong for leaf in self.leaves)
        return not wrong and not self._without_verdict() and all(check.ok for check in self.second_order)

    def _without_verdict(self) -> set[str]:
        """Names of the leaves that are undecided at the given point in every type."""
        decided = {leaf.name for leaf in self.leaves if leaf.findings[0].verdict != Verdict.undecided}
        return {leaf.name for leaf in self.leaves} - decided

    @property
    def worst(self) -> Leaf:
        """The leaf of the worst finding."""
        without = self._without_verdict()
        return max(self.leaves, key=lambda leaf: (leaf.verdict == Verdict.wrong, leaf.name in without, *leaf.severity))

    @property
    def undecided(self) -> tuple[Undecided, ...]:
        """Each point, leaf and type without a verdict, with the reason."""
        return tuple(record for leaf in self.leaves for record in leaf.undecided)

    def to_json(self) -> str:
        """Everything, as JSON; numbers that are not finite are null."""
        leaves = [
            {
                "name": leaf.name,
                "dtype": leaf.dtype,
                "shape": leaf.shape,
                "verdict": str(leaf.verdict),
                "points": [plain(asdict(finding) | {"verdict": str(finding.verdict)}) for finding in leaf.findings],
            }
            for leaf in self.leaves
        ]
        laws = [plain(asdict(check) | {"ok": check.ok}) for check in self.second_order]
        undecided = [plain(record) for record in self.undecided]
        held = {"ok": self.ok, "worst": self.worst.name, "undecided": undecided, "leaves": leaves, "second_order": laws}
        return json.dumps(held, indent=1)

    def figure(self) -> Figure:
        """Taylor remainders of every leaf at the given point in float64, with their slopes and the noise floor."""
        from lr_nn.referee.figure import slopes

        return slopes(self)

    def __str__(self) -> str:
        """The table, and the verdict below it."""
        from lr_nn.referee.table import table

        return table(self)


def plain(value: Any) -> Any:
    """A value as JSON takes it: lists and dicts, and None for numbers that are not finite."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
