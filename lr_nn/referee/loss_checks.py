"""Checks of a loss's value, residual and Hessian product against its values and `jax.grad`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lr_nn.losses import Loss, Separable
from lr_nn.referee.derivative_checks import (
    CANCELLED,
    EPS,
    Truth,
    autodiff_check,
    derivative_check,
    truth_of,
    typical_size,
)
from lr_nn.referee.loss_points import LossPoints
from lr_nn.referee.loss_programs import Computed
from lr_nn.referee.loss_targets import Targets
from lr_nn.referee.part_checks import identity_check, tuple_of, undecided, worst_of
from lr_nn.referee.part_report import PartCheck
from lr_nn.referee.report import Verdict
from lr_nn.referee.slopes import Slopes, slopes


@dataclass
class LossAudit:
    """A loss at the points of its audit, with the derivatives that its checks compare with."""

    loss: Loss
    targets: Targets
    points: LossPoints
    computed: Computed

    @property
    def base(self) -> int:
        """The number of points at which derivatives are compared."""
        return self.points.base

    @property
    def k(self) -> int:
        """The number of outputs."""
        return self.points.k

    def at(self, row: int, output: int | None = None) -> str:
        """The text of a point, for messages; of a loss that is a sum over outputs, that of one coordinate."""
        eta, y = self.points.eta[row], self.targets.rows[self.points.target[row]]
        if output is not None and (isinstance(self.loss, Separable) or self.k == 1):
            return f"eta = {eta[output]:.3g}, y = {y[output]:.3g}"
        where = f"eta = {tuple_of(eta)}, y = {tuple_of(y)}"
        return where if output is None else f"output {output}, {where}"

    def unit(self, name: str) -> float:
        """The epsilon of the narrowest type to which a part rounds."""
        return max(EPS, self.computed.parts.units.get(name, EPS))

    def matrices(self, name: str) -> np.ndarray:
        """The products of a part with the unit vectors at base points, (base, k, k): point, unit vector, output."""
        return self.computed[name][: self.k, : self.base].swapaxes(0, 1)

    @cached_property
    def value_slopes(self) -> Slopes | None:
        """Slopes of the value along each coordinate, (base, k)."""
        return self._slopes("value")

    @cached_property
    def residual_slopes(self) -> Slopes | None:
        """Slopes of the residual, (base, k k): entry c k + j is that of output j along coordinate c."""
        return self._slopes("residual") if self.residual_check.verdict < Verdict.undecided else None

    def _slopes(self, name: str) -> Slopes | None:
        if not self.computed.has(name):
            return None
        values = self.computed[name]
        ahead, behind = self.points.moved(values).reshape(2, len(self.points.steps), self.base, -1)
        steps, here = self.points.steps, np.repeat(values[: self.base, None], self.k, axis=1).reshape(self.base, -1)
        if values.ndim == 2:
            steps = np.repeat(steps, self.k, axis=2)
        reach = np.maximum(1, np.abs(self.points.eta[: self.base]).max(axis=1, keepdims=True))
        terms = typical_size(values[: self.base]) * reach
        return slopes(here, ahead, behind, steps, self.unit(name), terms)

    def _autodiff(self, name: str) -> np.ndarray | None:
        if not self.computed.has(name):
            return None
        found = self.computed[name]
        if found.ndim == 3:  # (k, n, k): unit vector, point, output
            found = found.swapaxes(0, 1)
        return found[: self.base].reshape(self.base, -1)

    @cached_property
    def gradient(self) -> Truth:
        """The true gradient of the value at base points, (base, k)."""
        return truth_of((self.base, self.k), self._autodiff("gradient"), self.value_slopes, self.unit("value"))

    @cached_property
    def hessian(self) -> Truth:
        """The true Hessian of the value at base points, (base, k k)."""
        trusted = not (self.gradient.autodiff_wrong & ~self.gradient.irregular).any()
        unit = max(self.unit("value"), self.unit("residual"))
        autodiff = self._autodiff("hessian") if trusted else None
        rounding = CANCELLED * self.gradient.typical
        return truth_of((self.base, self.k**2), autodiff, self.residual_slopes, unit, rounding)

    @cached_property
    def kinks(self) -> np.ndarray:
        """Base points at which the value has a kink or a jump along some coordinate, (base, 1)."""
        found = self.value_slopes
        return np.zeros((self.base, 1), bool) if found is None else np.any(found.irregular, axis=1, keepdims=True)

    @cached_property
    def residual_check(self) -> PartCheck:
        """The residual against the slope of the value."""
        if (failed := self.failed("residual")) is not None:
            return failed
        if not self.computed.has("value"):
            return undecided("residual", "value cannot be evaluated")
        stated, found = self.computed["residual"][: self.base], self.value_slopes
        return derivative_check("residual", stated, self.gradient, found, self.at, of="the derivative of value")

    def failed(self, name: str) -> PartCheck | None:
        """The check of a part that raised or has a wrong shape."""
        problem = self.computed.problems.get(name)
        if problem is None:
            return None
        if "shape" in problem and name in ("value", "residual"):
            problem += f" (audited with k = {self.k} outputs; pass k=... if the loss needs another number)"
        return PartCheck(name, Verdict.wrong, reason=problem)


def value_check(audit: LossAudit) -> PartCheck:
    """The value is finite in float64, and that of an example does not depend on the other examples."""
    value, few = audit.computed["value"], len(audit.computed["alone"])
    near = np.abs(audit.points.eta[: audit.base]).max(axis=1) <= 9
    bad = np.argwhere(near & ~np.isfinite(value[: audit.base]))
    if len(bad):
        row = int(bad[0, 0])
        return PartCheck("value", Verdict.wrong, reason=f"{value[row]} in float64 at {audit.at(row)}")
    difference = f"the value of an example depends on the others: among {few} rows and among all of them it is"
    return identity_check("value", audit.computed["alone"], value[:few], audit.at, difference, 10)


def derivative_checks(audit: LossAudit) -> list[PartCheck]:
    """Checks of value, `jax.grad` of it, the residual and the Hessian product."""
    found, checks = audit.computed, [audit.failed("value") or value_check(audit)]
    if not found.has("value"):
        return [*checks, audit.residual_check]
    if found.has("gradient"):
        checks.append(autodiff_check("jax.grad of value", audit.gradient, found["gradient"], audit.at))
    else:
        reason = found.problems.get("gradient", "")
        checks.append(PartCheck("jax.grad of value", Verdict.autodiff_wrong, reason=reason))
    checks.append(audit.residual_check)
    if audit.loss.states("hessian_multiply"):
        checks.append(audit.failed("hessian_multiply") or hessian_check(audit))
    return checks


def hessian_check(audit: LossAudit) -> PartCheck:
    """The Hessian product with unit vectors against the second derivative; symmetric, and linear in v."""
    name = "hessian_multiply"
    if not audit.hessian.decided.any() and audit.residual_slopes is None:
        return undecided(name, "the residual is wrong, and jax.grad does not give the Hessian of value")
    stated, of = audit.matrices(name).reshape(audit.base, -1), "the derivative of residual"

    def describe(row: int, entry: int) -> str:
        column, output = divmod(entry, audit.k)
        return audit.at(row, output) + ("" if column == output else f", along output {column}")

    exact = derivative_check(name, stated, audit.hessian, audit.residual_slopes, describe, audit.kinks, of)
    return exact if exact.verdict == Verdict.wrong else worst_of([exact, *linear_and_symmetric(audit, name)])


def linear_and_symmetric(audit: LossAudit, name: str) -> list[PartCheck]:
    """Whether the product of a part is linear in v and its matrix symmetric, to the roundings of its type."""
    matrices, coarse = audit.matrices(name), audit.unit(name) / EPS
    product = audit.computed[name][audit.k, : audit.base]
    expected = np.einsum("nc,ncj->nj", audit.computed["v"][: audit.base], matrices)
    difference = "not linear in v: with v and with its entries"
    return [
        identity_check(name, product, expected, audit.at, difference, coarse),
        identity_check(name, matrices, matrices.swapaxes(1, 2), audit.at, "not symmetric", coarse),
    ]


def labels_check(audit: LossAudit) -> PartCheck:
    """Value and residual of labels, as `target_rows` gives them, are those of their encoded rows."""
    labels = audit.targets.labels
    assert labels is not None
    checks = [
        identity_check("labels", of_labels, of_rows, lambda row: f"label {labels[row]}", f"{part} of label and row")
        for part, of_labels, of_rows in zip(("value", "residual"), *audit.computed["labels"])
    ]
    return worst_of(checks)
