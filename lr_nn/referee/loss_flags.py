"""Checks of what a loss promises: convex, canonical, shift invariant, concordance, smooth, and its lowest value."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from lr_nn.referee.derivative_checks import largest_of_row
from lr_nn.referee.loss_checks import LossAudit
from lr_nn.referee.loss_points import SHIFTS
from lr_nn.referee.part_checks import eigenvalues, undecided
from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict

# Rounding of a value, relative to the terms that it is compared with.
ROUNDING = 1e-9
# Excess above which one point is as good an example as another: the first is shown, and the first are moderate.
FIRST = 100.0
TINY = float(np.finfo(np.float64).tiny)
# Slack of an inequality between derivatives, relative to them and to their typical size.
SLACK = 1e-6


def broken(name: str, excess: np.ndarray, describe: Callable[[int], str], error: np.ndarray | None = None) -> PartCheck:
    """Wrong where the `excess` (n,) over what is allowed is positive; NaN is passed over.

    `error` (n,) is the error to report; the excess if None.
    """
    excess = np.where(np.isfinite(excess), excess, -np.inf)
    row = int(np.argmax(excess)) if len(excess) else 0
    if not len(excess) or excess[row] == -np.inf:
        return undecided(name, "no number is finite")
    if excess[row] > 0:
        return PartCheck(name, Verdict.wrong, float((excess if error is None else error)[row]), describe(row))
    return PartCheck(name, Verdict.right)


def flag_checks(audit: LossAudit) -> list[PartCheck]:
    """A check for each promise; what promises nothing is not stated."""
    checks = []
    for name, (promised, check) in FLAGS.items():
        if not promised(audit):
            checks.append(PartCheck(name, Verdict.not_stated, reason=NOT_STATED[name]))
        elif not audit.computed.has("value"):
            checks.append(undecided(name, "value cannot be evaluated"))
        else:
            checks.append(
                audit.failed(name)
                or over_subsets((words, check(audit, mask)) for words, mask in audit.targets.subsets())
            )
    return checks


def over_subsets(checks: Iterable[tuple[str, PartCheck]]) -> PartCheck:
    """The check of all targets, which is the first; undecided if it is wrong and that of a named subset is not."""
    checks = iter(checks)
    _, found = next(checks)
    if found.verdict == Verdict.wrong:
        for name, check in checks:
            if check.verdict != Verdict.wrong:
                reason = f"holds for {name} alone ({found.reason}): state which targets are valid(y)"
                return undecided(found.name, reason)
    return found


def _rows(audit: LossAudit, mask: np.ndarray) -> np.ndarray:
    """Base points with targets of the mask, without those at a kink of the value or without a Hessian."""
    smooth = ~audit.hessian.irregular.any(axis=1) & audit.hessian.decided.all(axis=1)
    return np.flatnonzero(mask[audit.points.target[: audit.base]] & smooth & ~audit.kinks[:, 0])


def _hessians(audit: LossAudit, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true Hessians (n, k, k), and how far each entry may be off, (n, k, k)."""
    shape = (len(rows), audit.k, audit.k)
    return audit.hessian.value[rows].reshape(shape), audit.hessian.tolerance[rows].reshape(shape)


def convex(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """No negative curvature, and no midpoint of a segment above the mean of its ends."""
    middles = audit.points.of_segments(np.arange(len(audit.points.target)))[2]
    kept = mask[audit.points.target[middles]]
    start, end, middle = audit.points.of_segments(audit.computed["value"])[:, kept]
    with np.errstate(all="ignore"):
        above = middle - (start + end) / 2
        size = np.abs(start) + np.abs(end) + np.abs(middle)
        excess = above / size - ROUNDING

    def segment(row: int) -> str:
        where = audit.at(int(middles[kept][row]))
        return f"{above[row]:.3g} above the mean of the ends of a segment with middle {where}"

    along = broken("convex", excess, segment)
    rows = _rows(audit, mask)
    if along.verdict == Verdict.wrong or not len(rows):
        return along
    hessians, tolerance = _hessians(audit, rows)
    lowest = eigenvalues(hessians)[:, 0]
    allowed = audit.k * tolerance.max(axis=(1, 2)) + SLACK * audit.hessian.typical
    worst = int(np.argmax(-lowest - allowed))
    if lowest[worst] < -allowed[worst]:
        reason = f"the Hessian has the eigenvalue {lowest[worst]:.3g} at {audit.at(int(rows[worst]))}"
        return PartCheck("convex", Verdict.wrong, float(-lowest[worst]), reason)
    return along


def canonical(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """The Hessian is the same for all targets, and is the Fisher where that is stated."""
    rows = _rows(audit, mask)
    if not len(rows):
        return undecided("canonical", "no Hessian of value is known")
    t = len(audit.targets.rows)
    hessians, tolerance = _hessians(audit, rows)
    size = largest_of_row(hessians.reshape(len(rows), -1))[:, 0]
    slack = tolerance.max(axis=(1, 2)) + SLACK * size + 1e-12 * audit.hessian.typical
    checks = []
    for shared in (rows < t, (t <= rows) & (rows < 2 * t)):
        if shared.sum() > 1:
            first, group = hessians[shared][0], rows[shared]
            apart = np.abs(hessians[shared] - first).max(axis=(1, 2))

            def differs(row: int, group: np.ndarray = group) -> str:
                points = f"{audit.at(int(group[0]))} and {audit.at(int(group[row]))}"
                return f"the Hessian depends on y: it differs at {points}"

            excess = np.minimum(apart / slack[shared] - 2, FIRST)
            checks.append(broken("canonical", excess, differs, apart / size[shared]))
    if audit.computed.has("fisher_multiply"):
        fisher = audit.matrices("fisher_multiply")[rows]
        apart = np.abs(hessians - fisher).max(axis=(1, 2))

        def unlike(row: int) -> str:
            entry = np.unravel_index(int(np.argmax(np.abs(hessians[row] - fisher[row]))), fisher[row].shape)
            numbers = f"{hessians[row][entry]:.4g} and {fisher[row][entry]:.4g}"
            return f"the Hessian is not the Fisher: {numbers} at {audit.at(int(rows[row]))}"

        checks.append(broken("canonical", np.minimum(apart / slack - 2, FIRST), unlike, apart / size))
    return max(checks, key=lambda check: check.verdict) if checks else undecided("canonical", "too few targets")


def shift_invariant(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """The value at η + c is that at η."""
    value = audit.computed["value"]
    here, moved = value[: audit.base], audit.points.shifted(value)
    kept = mask[audit.points.target[: audit.base]]
    with np.errstate(all="ignore"):
        size = np.abs(here) + np.abs(audit.points.eta[: audit.base]).max(axis=1) + np.abs(SHIFTS).max()
        change = np.where(kept, np.abs(moved - here) / size, 0.0).max(axis=0)

    def says(row: int) -> str:
        shift = int(np.argmax(np.abs(moved[:, row] - here[row])))
        values = f"{here[row]:.4g} and, with {SHIFTS[shift]:g} added to eta, {moved[shift, row]:.4g}"
        return f"value is {values} at {audit.at(row)}"

    return broken("shift_invariant", change - ROUNDING, says)


def concordance(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """|D³ℓ[u, u, v]| ≤ c ‖v‖ D²ℓ[u, u]; over v the left side is largest along the gradient of D²ℓ[u, u]."""
    name, stated = "concordance", audit.loss.concordance
    if not audit.computed.has("third") or (audit.gradient.autodiff_wrong & ~audit.gradient.irregular).any():
        return undecided(name, "jax.grad does not give the third derivative of value")
    rows = _rows(audit, mask)
    u = audit.computed["v"][rows]
    third = np.linalg.norm(audit.computed["third"][rows], axis=1)
    second = np.einsum("nc,ncj,nj->n", u, _hessians(audit, rows)[0], u)
    with np.errstate(all="ignore"):
        floor = SLACK * audit.hessian.typical * (u**2).sum(axis=1)
        excess = (third - stated * np.abs(second) * (1 + SLACK) - floor) / (np.abs(second) + floor)

    def says(row: int) -> str:
        ratio = third[row] / second[row]
        return f"|D3| / (|v| D2) reaches {ratio:.4g}, above {stated:g}, at {audit.at(int(rows[row]))}"

    return broken(name, excess, says)


def smooth(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """The value has a derivative at η = y. Kinks elsewhere are allowed, as is one at η = y = 0: an activation's."""
    found = audit.value_slopes
    if found is None:
        return undecided("smooth", "value cannot be evaluated")
    index = audit.points.target[: audit.base]
    kinks = audit.points.tie[:, None] & found.irregular & (audit.targets.rows[index] != 0) & mask[index][:, None]
    if not kinks.any():
        elsewhere = "there is a derivative at eta = y; kinks elsewhere, as of an activation at eta = 0, are allowed"
        return PartCheck("smooth", Verdict.right, reason=elsewhere if found.irregular.any() else "")
    row, output = map(int, np.argwhere(kinks)[0])
    low, high = found.low[row, output], found.high[row, output]
    reason = f"the derivative jumps from {low:.3g} to {high:.3g} at {audit.at(row, output)}: state smooth = False"
    return PartCheck("smooth", Verdict.wrong, float(high - low), reason)


def separable(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """A loss that does not couple its outputs has a diagonal Hessian."""
    rows = _rows(audit, mask)
    hessians, tolerance = _hessians(audit, rows)
    coupling = np.where(np.eye(audit.k, dtype=bool), 0.0, np.abs(hessians))
    with np.errstate(all="ignore"):
        excess = np.minimum((coupling / np.maximum(tolerance, TINY)).max(axis=(1, 2)) - 2, FIRST)
        error = coupling.max(axis=(1, 2)) / np.abs(hessians).max(axis=(1, 2))

    def coupled(row: int) -> str:
        return f"the Hessian is not diagonal at {audit.at(int(rows[row]))}"

    return broken("couples_outputs", excess, coupled, error)


def lowest(audit: LossAudit, mask: np.ndarray) -> PartCheck:
    """No value is below `lowest(y)`, which is 0 where the loss does not state it."""
    value, least = audit.computed["value"], audit.computed["lowest"]
    if least.shape != value.shape:
        return PartCheck("lowest", Verdict.wrong, reason=f"returns shape {least.shape} for {len(value)} rows")
    kept = mask[audit.points.target]
    with np.errstate(all="ignore"):
        excess = np.where(kept, (least - value) / (1 + np.abs(value) + np.abs(least)) - ROUNDING, -np.inf)

    def says(row: int) -> str:
        return f"value is {value[row]:.4g}, below lowest(y) = {least[row]:.4g}, at {audit.at(row)}: state lowest(y)"

    found = broken("lowest", np.minimum(excess, ROUNDING), says, excess)
    unstated = not audit.loss.states("lowest") and not audit.loss.convex
    if found.verdict == Verdict.wrong and unstated:  # a certificate, which is relative to it, needs convexity
        return undecided("lowest", found.reason)
    return found


FLAGS: dict[str, tuple[Callable[[LossAudit], bool], Callable[[LossAudit, np.ndarray], PartCheck]]] = {
    "convex": (lambda audit: audit.loss.convex or audit.loss.concordance < np.inf, convex),
    "canonical": (lambda audit: audit.loss.canonical, canonical),
    "shift_invariant": (lambda audit: audit.loss.shift_invariant, shift_invariant),
    "concordance": (lambda audit: audit.loss.concordance < np.inf, concordance),
    "smooth": (lambda audit: audit.loss.smooth, smooth),
    "couples_outputs": (lambda audit: not audit.loss.couples_outputs and audit.k > 1, separable),
    "lowest": (lambda audit: True, lowest),
}
NOT_STATED = {
    "convex": "no promise; a finite concordance implies it",
    "canonical": "the Hessian may depend on y",
    "shift_invariant": "a common shift of the outputs may change the loss",
    "concordance": "no bound on how fast the Hessian changes",
    "smooth": "the loss may have kinks",
    "couples_outputs": "the loss may be no sum over outputs",
}
