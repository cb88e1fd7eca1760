"""The audit of a loss: is each part that it states right, and is each promise kept?"""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.losses import Loss
from lr_nn.referee.far_field import far_checks
from lr_nn.referee.loss_checks import LossAudit, derivative_checks, labels_check
from lr_nn.referee.loss_flags import flag_checks
from lr_nn.referee.loss_law import constant_check, fisher_checks, mean_check, sample_check
from lr_nn.referee.loss_points import make_points
from lr_nn.referee.loss_programs import PARTS, compute, points_first, stated_parts
from lr_nn.referee.loss_samples import Draws, compute_samples, draw
from lr_nn.referee.loss_targets import Targets, default_outputs, example_targets, given_targets
from lr_nn.referee.part_checks import equality_check, randomness, shape_check
from lr_nn.referee.part_report import PartCheck, PartReport
from lr_nn.referee.report import Verdict


def audit_loss(
    loss: Loss, *, y: ArrayLike | None = None, k: int | None = None, key: jax.Array | None = None
) -> PartReport:
    """Whether every part that a loss states is right, and every promise is kept.

    Everything is compared in float64, at random η, at ties η = y, at η = 0 and up to |η| = 30, for several targets:

    - `residual` with the derivative of `value`, and `hessian_multiply` with that of `residual`, both by `jax.grad` and
      by differences of the values. At a kink any value between the one-sided derivatives is right.
    - `fisher_multiply` = E[residual residualᵀ] over targets from `sample`, within five standard errors; symmetric and
      positive semidefinite; `fisher_factor` and `fisher_diagonal` with it. E[residual] = 0 and E[y] = `mean`.
    - `constant(mean)` is where the residuals of targets of that mean sum to zero; `lowest(y)` is below every value.
    - `convex`, `canonical`, `shift_invariant`, `concordance`, `smooth`, where they promise something.
    - Shapes and dtypes; no NaN at |η| = 100, 300 and 1e4 in float32 and bfloat16, and no infinity where float64 has a
      number that fits.

    Targets are drawn from `sample` where the loss states it. Else numbers, counts, labels and rows of classes are
    offered, as `task` says, and those that `targets` admits are taken. The audit takes one to two seconds, most of
    them compilation, and leaves JAX's configuration as it is.

    Args:
        loss: the loss.
        y: example targets (n,) or (n, k), as `fit` takes them; None: made by the audit.
        k: the number of outputs; None: that of `y`, else 3 or the loss's `least_outputs`.
        key: of the random points; None is a fixed one.

    Returns:
        PartReport: `.ok`, `.checks` (name, verdict, error, reason), the same as `.leaves`, `.worst`, `.undecided`;
        `print(report)` is a table, `.to_json()`. A part that raises is wrong, for the reason that it gives. Parts that
        are not stated are listed with what needs them.

    Raises:
        TypeError: `loss` is no Loss, `k` no integer, `key` no key.
        ValueError: no example target is admitted by the loss: pass `y`.

    >>> import jax.numpy as jnp, lr_nn
    >>> class LogCosh(lr_nn.losses.Separable):
    ...     convex = True
    ...
    ...     def term(self, eta, y):
    ...         r = jnp.where(eta > y, eta - y, y - eta)
    ...         return r + jnp.log1p(jnp.exp(-2 * r)) - jnp.log(2)
    ...
    ...     def slope(self, eta, y):
    ...         return 2 * jnp.tanh(eta - y)
    >>> report = lr_nn.audit_loss(LogCosh())
    >>> report.ok, report.worst.name, report.worst.reason[:22]
    (False, 'residual', '2 times the derivative')

    Sources: Bach (2010), Self-concordant analysis for logistic regression, for `concordance`; Bartlett (1953),
    Approximate confidence intervals, for the moments of the residual.
    """
    if not isinstance(loss, Loss):
        hint = f": pass an instance, {loss.__name__}()" if isinstance(loss, type) and issubclass(loss, Loss) else ""
        raise TypeError(f"audit_loss needs a Loss; got {loss!r:.100}{hint}")
    k = None if k is None else check.positive_integer("k", k)
    check.on_host("audit_loss", y)
    key, rng = randomness("audit_loss", key)
    targets, draws = _targets_and_draws(loss, y, k, rng, key)
    points = make_points(targets, rng)
    computed = compute(loss, targets, points, rng)
    audit = LossAudit(loss, targets, points, computed)
    samples = compute_samples(loss, draws) if computed.has("residual") else "the residual cannot be evaluated"

    checks = [_targets_row(targets), *derivative_checks(audit), *fisher_checks(audit, samples)]
    if loss.states("mean"):
        checks.append(audit.failed("mean") or mean_check(audit, samples))
    if loss.states("sample"):
        checks.append(audit.failed("sample") or sample_check(audit, samples))
    if loss.states("constant") and computed.has("residual"):
        checks.append(audit.failed("constant") or constant_check(audit))
    if targets.labels is not None and computed.has("value", "residual"):
        checks.append(audit.failed("labels") or labels_check(audit))
    checks += flag_checks(audit)
    checks.append(shape_check(computed.dtypes))
    checks += _far_checks(audit)
    checks.append(equality_check(loss))
    missing = [name for name in PARTS if not loss.states(name)]
    checks += [PartCheck(name, Verdict.not_stated, reason=f"no {loss.describe(name)}") for name in missing]
    return PartReport(loss.name, tuple(checks), required=("value", "residual"))


def _targets_and_draws(
    loss: Loss, y: ArrayLike | None, k: int | None, rng: np.random.Generator, key: jax.Array
) -> tuple[Targets, Draws | str]:
    """The targets of the audit, and draws from the law of the loss, or why there are none."""
    if y is not None:
        targets = given_targets(loss, y, k, rng)
        return targets, draw(loss, targets.k, rng, key)
    k = default_outputs(loss) if k is None else k
    draws = draw(loss, k, rng, key)
    rows = draws.y.reshape(-1, k) if isinstance(draws, Draws) else None
    return example_targets(loss, k, rng, rows), draws


def _targets_row(targets: Targets) -> PartCheck:
    """Which targets the loss was audited with."""
    source = f"{len(targets.y)} rows: {targets.source}"
    if targets.left_out:
        return PartCheck("targets", Verdict.not_stated, reason=f"{source}; {targets.left_out}")
    return PartCheck("targets", Verdict.right, reason=source)


def _far_checks(audit: LossAudit) -> list[PartCheck]:
    """The parts that ran in float64, at the far points in narrow types."""
    computed, points, far = audit.computed, audit.points, audit.points.blocks["far"]
    parts = points_first({name: part for name, part in stated_parts(audit.loss).items() if computed.has(name)})
    truth = {name: computed[name][-1] if name.endswith("multiply") else computed[name] for name in parts}
    arrays = (points.eta[far], audit.targets.y[points.target[far]], computed["v"][far])
    return far_checks(
        parts, arrays, {name: array[far] for name, array in truth.items()}, lambda row: audit.at(far.start + row)
    )
