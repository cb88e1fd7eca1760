"""Checks of the law of a loss: its Fisher, its factor, its samples, its mean and its best constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lr_nn.referee.derivative_checks import EPS
from lr_nn.referee.loss_checks import LossAudit
from lr_nn.referee.loss_samples import STEP, Samples
from lr_nn.referee.part_checks import IDENTITY, identity_check, tuple_of, undecided, worst_of
from lr_nn.referee.part_report import PartCheck, PartVerdict
from lr_nn.referee.traced_parts import Evaluation

STANDARD_ERRORS = 5
# What rounding may add to a mean over samples, relative to its terms.
SAMPLE_ROUNDING = 1e-6
CONSTANT_TOLERANCE = 1e-6
# A residual that changes by more, relative to its size, over a step of `loss_samples` has a jump: no mean Hessian.
JUMP = 0.05


def fisher_checks(audit: LossAudit, samples: Samples | str | None) -> list[PartCheck]:
    """The Fisher product against samples and by itself; its factor and its diagonal against it."""
    checks, found = [], audit.computed
    stated = [name for name in ("fisher_multiply", "fisher_factor") if audit.loss.states(name)]
    if "fisher_factor" in stated or found.has("fisher_diagonal") or "fisher_diagonal" in found.problems:
        stated.append("fisher_diagonal")
    base, k = audit.base, audit.k
    failures = {name: check for name in stated if (check := audit.failed(name)) is not None}
    dense = None
    if found.has("fisher_multiply"):
        dense = found["fisher_multiply"][:k, :base].swapaxes(0, 1)
    elif found.has("fisher_factor"):
        factor = found["fisher_factor"][:, :base]
        dense = np.einsum("cni,cnj->nij", factor, factor)
    for name in stated:
        if name in failures:
            checks.append(failures[name])
        elif name == "fisher_multiply":
            checks.append(_product_check(audit, samples))
        elif name == "fisher_factor":
            factor = found[name][:, :base]
            product = np.einsum("cni,cnj->nij", factor, factor)
            checks.append(_same(audit, name, product, dense, "its product with its transpose and fisher_multiply"))
        else:
            diagonal = None if dense is None else np.einsum("nii->ni", dense)
            checks.append(_same(audit, name, found[name][:base], diagonal, "it and the diagonal of the Fisher"))
    return checks


def _same(audit: LossAudit, name: str, left: np.ndarray, right: np.ndarray | None, said: str) -> PartCheck:
    if right is None:
        return undecided(name, "fisher_multiply cannot be evaluated")
    ratio = _ratio(left, right)
    unit = max(1.0, audit.unit(name) / EPS)
    return identity_check(name, left, right, audit.at, f"{said} differ{ratio}", unit)


def _ratio(left: np.ndarray, right: np.ndarray) -> str:
    """By how many times, where that is the same everywhere."""
    with np.errstate(all="ignore"):
        ratios = (left / right)[np.isfinite(left) & np.isfinite(right) & (np.abs(right) > 1e-6)]
    same = ratios.size and np.ptp(ratios) <= 1e-3 * np.abs(ratios).max()
    return f" by {ratios[0]:.4g} times" if same else ""


def _product_check(audit: LossAudit, samples: Samples | str | None) -> PartCheck:
    """Symmetric, linear in v, positive semidefinite, and the second moment of the residuals of samples."""
    name, base, k = "fisher_multiply", audit.base, audit.k
    products = audit.computed[name][:, :base]
    dense = products[:k].swapaxes(0, 1)
    v, unit = audit.computed["v"][:base], max(1.0, audit.unit(name) / EPS)
    expected = np.einsum("nc,ncj->nj", v, dense)
    checks = [
        identity_check(name, dense, dense.swapaxes(1, 2), audit.at, "not symmetric", unit),
        identity_check(
            name, products[k], expected, audit.at, "not linear in v: with v and with its entries", 1e3 * unit
        ),
    ]
    finite = np.flatnonzero(np.isfinite(dense).all(axis=(1, 2)))
    if len(finite):
        spectrum = np.linalg.eigvalsh((dense[finite] + dense[finite].swapaxes(1, 2)) / 2)
        size = np.abs(spectrum).max(axis=1)
        low = spectrum[:, 0] + unit * IDENTITY * (size + np.median(size))
        if (low < 0).any():
            row = int(np.argmin(low))
            reason = f"not positive semidefinite: the eigenvalue {spectrum[row, 0]:.3g} at {audit.at(int(finite[row]))}"
            checks.append(PartCheck(name, PartVerdict.wrong, float(-spectrum[row, 0]), reason))
    if isinstance(samples, Samples) and samples.fisher is not None:
        checks.append(_second_moment(name, samples.residuals, samples.fisher, samples.draws.eta, "it is"))
    return worst_of(name, checks)


def _second_moment(
    name: str, residual: np.ndarray, expected: np.ndarray, eta: np.ndarray, said: str, terms: np.ndarray | None = None
) -> PartCheck:
    """Whether the mean of residual residualᵀ over samples (p, m, k) is `expected` (p, k, k), within five errors.

    terms: samples of `expected` (p, m, k, k), where that is a mean over the same samples.
    """
    outer = residual[..., :, None] * residual[..., None, :]
    trace = np.einsum("pii->p", expected)
    excess = outer - (expected[:, None] if terms is None else terms)
    where = [f"at eta = {tuple_of(row)}" for row in eta]
    entries = _mean_check(name, excess, np.abs(expected), "", where)
    total = np.einsum("pmii->pm", outer)
    with np.errstate(all="ignore"):
        share = (total - (trace[:, None] if terms is None else np.einsum("pmii->pm", terms))) / trace[:, None]
    pooled = _mean_check(name, share.reshape(1, -1, 1), np.ones((1, 1)), "", [""]) if (trace > 0).all() else entries
    if PartVerdict.wrong not in (entries.verdict, pooled.verdict):
        return PartCheck(name, PartVerdict.right, max(entries.error, pooled.error))
    times = trace.sum() / total.mean(axis=1).sum() if total.any() else np.inf
    if abs(times - 1) > 0.03:
        reason = f"{said} {times:.3g} times the second moment of residuals at drawn targets"
    else:
        reason = f"{said} not the second moment of residuals at drawn targets {entries.reason or pooled.reason}"
    return PartCheck(name, PartVerdict.wrong, abs(times - 1), reason)


def _mean_check(name: str, excess: np.ndarray, size: np.ndarray, said: str, where: list[str]) -> PartCheck:
    """Whether samples (p, m, ...) have mean 0 within five standard errors; `size` (p, ...) scales their rounding."""
    with np.errstate(all="ignore"):
        mean = excess.mean(axis=1)
        error = excess.std(axis=1) / excess.shape[1] ** 0.5
        allowed = STANDARD_ERRORS * error + SAMPLE_ROUNDING * (size + size.max(initial=0.0))
        standard = np.abs(mean) / np.maximum(allowed, 1e-300)
    if not np.isfinite(mean).all():
        return PartCheck(name, PartVerdict.wrong, reason=f"{said} NaN or infinite at drawn targets")
    worst = np.unravel_index(int(np.argmax(standard)), standard.shape)
    relative = float(np.abs(mean).max() / max(float(size.max(initial=0.0)), 1e-300))
    if standard[worst] <= 1:
        return PartCheck(name, PartVerdict.right, relative)
    errors = standard[worst] * STANDARD_ERRORS
    reason = f"{said} {mean[worst]:.4g} over {excess.shape[1]} samples, {errors:.1f} standard errors, {where[worst[0]]}"
    return PartCheck(name, PartVerdict.wrong, relative, reason.strip())


def sample_check(audit: LossAudit, samples: Samples | str | None) -> PartCheck:
    """Under drawn targets the residual has mean 0, and its second moment is the mean Hessian."""
    name = "sample"
    if (failed := audit.failed(name)) is not None:
        return failed
    if samples is None:
        return undecided(name, "the residual cannot be evaluated")
    if isinstance(samples, str):
        return PartCheck(name, PartVerdict.wrong, reason=samples)
    residuals, eta = samples.residuals, samples.draws.eta
    size = np.sqrt((residuals**2).mean(axis=1))
    where = [f"at eta = {tuple_of(row)}" for row in eta]
    checks = [_mean_check(name, residuals, size, "the mean of residuals at drawn targets is", where)]
    changes = np.abs(samples.hessians).max() * STEP
    continuous = audit.loss.smooth and changes <= JUMP * np.sqrt((residuals**2).mean())
    if continuous and checks[0].verdict != PartVerdict.wrong:
        said = "the law is not that of the loss: the mean Hessian is"
        expected = samples.hessians.mean(axis=1)
        checks.append(_second_moment(name, residuals, expected, eta, said, samples.hessians))
    return worst_of(name, checks)


def mean_check(audit: LossAudit, samples: Samples | str | None) -> PartCheck:
    """The mean of sampled targets is `mean`, which is finite."""
    name = "mean"
    if (failed := audit.failed(name)) is not None:
        return failed
    found = audit.computed[name][: audit.base]
    if np.isnan(found).any():
        row = int(np.argwhere(np.isnan(found))[0, 0])
        return PartCheck(name, PartVerdict.wrong, reason=f"NaN at {audit.at(row)}")
    if not isinstance(samples, Samples) or samples.mean is None or samples.draws.y is None:
        return PartCheck(name, PartVerdict.right, reason="finite; no samples to compare it with")
    mean, where = samples.mean, [f"at eta = {tuple_of(row)}" for row in samples.draws.eta]
    excess = samples.draws.y - mean[:, None]
    return _mean_check(name, excess, np.abs(mean), "the mean of drawn targets less it is", where)


def constant_check(audit: LossAudit, compute: Callable[[list[np.ndarray]], Evaluation]) -> PartCheck:
    """The total residual at `constant` of the mean target is zero."""
    name = "constant"
    if (failed := audit.failed(name)) is not None:
        return failed
    subsets = list(audit.targets.subsets())
    found = compute([mask for _, mask in subsets])
    if name in found.failures:
        return PartCheck(name, PartVerdict.wrong, reason=found.failures[name])
    checks = []
    for (_, mask), (eta, total, size) in zip(subsets, found[name]):
        mean = audit.targets.rows[mask].mean(axis=0)
        error = float(np.max(np.abs(total) / np.maximum(size, 1e-300)))
        if error <= CONSTANT_TOLERANCE:
            checks.append(PartCheck(name, PartVerdict.right, error))
            continue
        reason = f"the total residual is {tuple_of(total)} at {tuple_of(eta)} for targets of mean {tuple_of(mean)}"
        checks.append(PartCheck(name, PartVerdict.wrong, error, reason))
    holding = [words for (words, _), check in zip(subsets, checks) if check.verdict == PartVerdict.right]
    if checks[0].verdict == PartVerdict.right or not holding:
        return checks[0]
    reason = f"holds for {holding[0]} alone ({checks[0].reason}): state which targets are valid(y)"
    return undecided(name, reason)
