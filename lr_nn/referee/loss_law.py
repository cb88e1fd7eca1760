"""Checks of the law of a loss: its Fisher, its factor, its samples, its mean and its best constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_nn.referee.derivative_checks import EPS, common_factor
from lr_nn.referee.loss_checks import LossAudit, linear_and_symmetric
from lr_nn.referee.loss_flags import over_subsets
from lr_nn.referee.loss_programs import stated_parts
from lr_nn.referee.loss_samples import STEP, Samples
from lr_nn.referee.part_checks import IDENTITY, eigenvalues, identity_check, tuple_of, undecided, worst_of
from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict

STANDARD_ERRORS = 5
# What rounding may add to a mean over samples, relative to its terms.
SAMPLE_ROUNDING = 1e-6
CONSTANT_TOLERANCE = 1e-6
# A residual that changes by more, relative to its size, over a step of `loss_samples` has a jump: no mean Hessian.
JUMP = 0.05


def fisher_checks(audit: LossAudit, samples: Samples | str) -> list[PartCheck]:
    """The Fisher product against samples and by itself; its factor and its diagonal against it."""
    found, stated = audit.computed, stated_parts(audit.loss)
    fisher = product = diagonal = None
    if found.has("fisher_factor"):
        factor = found["fisher_factor"][: audit.base]
        fisher = product = np.einsum("nci,ncj->nij", factor, factor)
    if found.has("fisher_multiply"):
        fisher = audit.matrices("fisher_multiply")
    if found.has("fisher_diagonal"):
        diagonal = found["fisher_diagonal"][: audit.base]
    checks = []
    if "fisher_multiply" in stated:
        checks.append(audit.failed("fisher_multiply") or _product_check(audit, samples))
    if "fisher_factor" in stated:
        difference = "its product with its transpose and fisher_multiply differ"
        checks.append(_same(audit, "fisher_factor", product, fisher, difference))
    if "fisher_diagonal" in stated:
        of_fisher = None if fisher is None else np.einsum("nii->ni", fisher)
        checks.append(_same(audit, "fisher_diagonal", diagonal, of_fisher, "it and the diagonal of the Fisher differ"))
    return checks


def _same(audit: LossAudit, name: str, left: Any, right: Any, difference: str) -> PartCheck:
    """Whether two statements of the Fisher agree at base points; None is one that there is not."""
    if (failed := audit.failed(name)) is not None:
        return failed
    if right is None:
        return undecided(name, "there is no fisher_multiply to compare it with")
    large = np.isfinite(left) & np.isfinite(right) & (np.abs(right) > 1e-6)
    factor = common_factor(left[large], right[large])
    times = "" if factor is None else f" by {factor:.4g} times"
    return identity_check(name, left, right, audit.at, difference + times, audit.unit(name) / EPS)


def _product_check(audit: LossAudit, samples: Samples | str) -> PartCheck:
    """Symmetric, linear in v, positive semidefinite, and the second moment of the residuals of samples."""
    name = "fisher_multiply"
    matrices, checks = audit.matrices(name), linear_and_symmetric(audit, name)
    finite = np.flatnonzero(np.isfinite(matrices).all(axis=(1, 2)))
    if len(finite):
        spectrum = eigenvalues(matrices[finite])
        size = np.abs(spectrum).max(axis=1)
        low = spectrum[:, 0] + audit.unit(name) / EPS * IDENTITY * (size + np.median(size))
        if (low < 0).any():
            row = int(np.argmin(low))
            reason = f"not positive semidefinite: the eigenvalue {spectrum[row, 0]:.3g} at {audit.at(int(finite[row]))}"
            checks.append(PartCheck(name, Verdict.wrong, float(-spectrum[row, 0]), reason))
    if isinstance(samples, Samples) and samples.fisher is not None:
        checks.append(_second_moment(name, samples.residuals, samples.fisher, samples.draws.eta, "it is"))
    return worst_of(checks)


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
    if Verdict.wrong not in (entries.verdict, pooled.verdict):
        return PartCheck(name, Verdict.right, max(entries.error, pooled.error))
    times = trace.sum() / total.mean(axis=1).sum() if total.any() else np.inf
    if abs(times - 1) > 0.03:
        reason = f"{said} {times:.3g} times the second moment of residuals at drawn targets"
    else:
        reason = f"{said} not the second moment of residuals at drawn targets {entries.reason or pooled.reason}"
    return PartCheck(name, Verdict.wrong, abs(times - 1), reason)


def _mean_check(name: str, excess: np.ndarray, size: np.ndarray, said: str, where: list[str]) -> PartCheck:
    """Whether samples (p, m, ...) have mean 0 within five standard errors; `size` (p, ...) scales their rounding."""
    with np.errstate(all="ignore"):
        mean = excess.mean(axis=1)
        error = excess.std(axis=1) / excess.shape[1] ** 0.5
        allowed = STANDARD_ERRORS * error + SAMPLE_ROUNDING * (size + size.max(initial=0.0))
        standard = np.abs(mean) / np.maximum(allowed, 1e-300)
    if not np.isfinite(mean).all():
        return PartCheck(name, Verdict.wrong, reason=f"{said} NaN or infinite at drawn targets")
    worst = np.unravel_index(int(np.argmax(standard)), standard.shape)
    relative = float(np.abs(mean).max() / max(float(size.max(initial=0.0)), 1e-300))
    if standard[worst] <= 1:
        return PartCheck(name, Verdict.right, relative)
    errors = standard[worst] * STANDARD_ERRORS
    reason = f"{said} {mean[worst]:.4g} over {excess.shape[1]} samples, {errors:.1f} standard errors, {where[worst[0]]}"
    return PartCheck(name, Verdict.wrong, relative, reason.strip())


def sample_check(audit: LossAudit, samples: Samples | str) -> PartCheck:
    """Under drawn targets the residual has mean 0, and its second moment is the mean Hessian."""
    name = "sample"
    if not audit.computed.has("residual"):
        return undecided(name, "the residual cannot be evaluated")
    if isinstance(samples, str):
        return PartCheck(name, Verdict.wrong, reason=samples)
    residuals, eta = samples.residuals, samples.draws.eta
    size = np.sqrt((residuals**2).mean(axis=1))
    where = [f"at eta = {tuple_of(row)}" for row in eta]
    checks = [_mean_check(name, residuals, size, "the mean of residuals at drawn targets is", where)]
    changes = np.abs(samples.hessians).max() * STEP
    continuous = audit.loss.smooth and changes <= JUMP * np.sqrt((residuals**2).mean())
    if continuous and checks[0].verdict != Verdict.wrong:
        said = "the law is not that of the loss: the mean Hessian is"
        expected = samples.hessians.mean(axis=1)
        checks.append(_second_moment(name, residuals, expected, eta, said, samples.hessians))
    return worst_of(checks)


def mean_check(audit: LossAudit, samples: Samples | str) -> PartCheck:
    """The mean of sampled targets is `mean`, which is finite."""
    name = "mean"
    found = audit.computed[name][: audit.base]
    if np.isnan(found).any():
        row = int(np.argwhere(np.isnan(found))[0, 0])
        return PartCheck(name, Verdict.wrong, reason=f"NaN at {audit.at(row)}")
    if not isinstance(samples, Samples) or samples.mean is None:
        return PartCheck(name, Verdict.right, reason="finite; no samples to compare it with")
    mean, where = samples.mean, [f"at eta = {tuple_of(row)}" for row in samples.draws.eta]
    excess = samples.draws.y - mean[:, None]
    return _mean_check(name, excess, np.abs(mean), "the mean of drawn targets less it is", where)


def constant_check(audit: LossAudit) -> PartCheck:
    """The total residual at `constant` of the mean target is zero."""
    name = "constant"
    results = zip(audit.targets.subsets(), audit.computed[name])
    return over_subsets((words, _total_check(name, audit, mask, *result)) for (words, mask), result in results)


def _total_check(name: str, audit: LossAudit, mask: np.ndarray, eta: np.ndarray, residual: np.ndarray) -> PartCheck:
    """Whether residuals (m, k) at `constant` of the mean of some targets, η (k,), sum to zero."""
    total, size = residual.sum(axis=0), np.abs(residual).sum(axis=0)
    error = float(np.max(np.abs(total) / np.maximum(size, 1e-300)))
    if error <= CONSTANT_TOLERANCE:
        return PartCheck(name, Verdict.right, error)
    mean = tuple_of(audit.targets.rows[mask].mean(axis=0))
    reason = f"the total residual is {tuple_of(total)} at {tuple_of(eta)} for targets of mean {mean}"
    return PartCheck(name, Verdict.wrong, error, reason)
