"""The audit of an activation: are its derivatives those of its value?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.activations import Activation
from lr_nn.referee.derivative_checks import (
    CANCELLED,
    EPS,
    Truth,
    autodiff_check,
    derivative_check,
    truth_of,
    typical_size,
)
from lr_nn.referee.far_field import NEEDED, TYPES, far_checks
from lr_nn.referee.part_checks import equality_check, identity_check, randomness, shape_check, undecided
from lr_nn.referee.part_report import PartCheck, PartReport
from lr_nn.referee.report import Verdict
from lr_nn.referee.slopes import STEPS, Slopes, slopes
from lr_nn.referee.traced_parts import evaluate, quiet, shape_problem

# Points: within ±RANGE at random, half-integers up to WHOLE (where kinks often are), and close to zero.
RANGE, WHOLE, RANDOM = 40.0, 10, 200
# Within ±CENTRE an activation is not saturated: the size of its terms is read there.
CENTRE = 2
NEAR = (1e-3, 1e-2)
FAR = np.array([100.0, -100.0, 300.0, -300.0, 1e4, -1e4])
# The shape of z at which shapes and dtypes are compared.
SHAPE = (2, 3)
# The shape of the weights that the initializer makes: fan in and out.
WEIGHTS = (48, 32)


def audit_activation(activation: Activation, *, key: jax.Array | None = None) -> PartReport:
    """Whether the derivatives that an activation states are those of its value.

    In float64, at numbers up to ±40, at 0 and at whole and half numbers: `derivative` against the slope of `value` and
    `second_derivative`, if it is stated, against that of `derivative`, both by `jax.grad` and by differences of the
    values, as functions of what `keeps` says, σ(z) or z. At a kink any value between the one-sided derivatives is
    right; where `value` itself jumps, as `step` does at 0, any number is.

    Also: `value` is elementwise and keeps shape and dtype (float32, bfloat16); everything is free of NaN at |z| = 100,
    300 and 1e4 in float32 and bfloat16, and of infinities that float64 does not have; `initializer` gives finite
    weights of the shape and dtype that it is asked for; a copy is equal and has the same hash.

    Args:
        activation: the activation.
        key: of the random points; None is a fixed one.

    Returns:
        PartReport: `.ok`, `.checks` (name, verdict, error, reason), the same as `.leaves`, `.worst`, `.undecided`;
        `print(report)` is a table, `.to_json()`. A part that raises is wrong, for the reason that it gives.

    Raises:
        TypeError: `activation` is no Activation, `key` no key.

    The derivative of a sine is no function of its output, whose root loses the sign:

    >>> import jax.numpy as jnp, lr_nn
    >>> class Sine(lr_nn.activations.Activation):
    ...     def value(self, z):
    ...         return jnp.sin(z)
    ...
    ...     def derivative(self, a):
    ...         return jnp.sqrt(1 - a * a)
    >>> report = lr_nn.audit_activation(Sine())
    >>> report.ok, report.worst.name, report.worst.reason[:25]
    (False, 'derivative', '-1 times the slope of val')
    """
    if not isinstance(activation, Activation):
        is_class = isinstance(activation, type) and issubclass(activation, Activation)
        hint = f": pass an instance, {activation.__name__}()" if is_class else ""
        raise TypeError(f"audit_activation needs an Activation; got {activation!r:.100}{hint}")
    key, rng = randomness("audit_activation", key)
    audit = _Audit(activation, *_points(rng))
    if activation.keeps in ("a", "z"):
        checks = [PartCheck("keeps", Verdict.right), *audit.checks(), *audit.far_checks()]
    else:
        checks = [PartCheck("keeps", Verdict.wrong, reason=f'must be "a" or "z"; got {activation.keeps!r}')]
    checks.append(shape_check(_shape_problems(activation)))
    checks += [_initializer_check(activation, key), equality_check(activation)]
    if not activation.states("second_derivative"):
        reason = "curvature.hessian would need second_derivative"
        checks.append(PartCheck("second_derivative", Verdict.not_stated, reason=reason))
    return PartReport(activation.name, tuple(checks), required=("value", "derivative"))


def _points(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers at which derivatives are compared, (n,), and steps (3, n)."""
    near = np.array([0.0, *NEAR, *(-step for step in NEAR)])
    whole = np.arange(-2 * WHOLE, 2 * WHOLE + 1) / 2
    random = [2 * rng.normal(size=RANDOM), *(rng.uniform(-size, size, RANDOM) for size in (WHOLE, RANGE))]
    z = np.concatenate([near, whole, *random])
    z = z[: len(z) // 2 * 2]
    return z, np.asarray(STEPS)[:, None] * np.maximum(1, np.abs(z))


def _parts(activation: Activation) -> dict[str, Callable]:
    """What the activation states, as functions of z."""

    def of_kept(method: Callable) -> Callable:
        return lambda z: method(activation.kept(z, activation.value(z)))

    parts: dict[str, Callable] = {"value": activation.value, "derivative": of_kept(activation.derivative)}
    if activation.states("second_derivative"):
        parts["second_derivative"] = of_kept(activation.second_derivative)

    def of_one_shape(name: str, part: Callable) -> Callable:
        return lambda z: check.of_shape(name, part(z), z.shape)

    return {name: of_one_shape(name, part) for name, part in parts.items()}


@dataclass
class _Audit:
    """An activation at numbers z (n,) and around them."""

    activation: Activation
    z: np.ndarray
    steps: np.ndarray

    def __post_init__(self) -> None:
        """Evaluate everything in one program."""
        value = self.activation.value

        def slope(z: Any) -> Any:
            return jax.grad(lambda z: value(z).sum())(z)

        parts: dict[str, Callable] = {
            **_parts(self.activation),
            "slope": slope,
            "bend": lambda z: jax.jvp(slope, (z,), (jnp.ones_like(z),))[1],
            "in rows": lambda z: value(z[: self.z.size].reshape(-1, 2)).reshape(-1),
        }
        around = [self.z, (self.z + self.steps).ravel(), (self.z - self.steps).ravel(), FAR]
        with quiet(x64=True):
            self.found = evaluate(parts, np.concatenate(around))

    def at(self, row: int, entry: int = 0) -> str:
        """The text of a point, for messages."""
        return f"z = {self.z[row]:.3g}"

    def _slopes(self, name: str) -> Slopes | None:
        if name not in self.found:
            return None
        values, n = self.found[name], self.z.size
        ahead, behind = values[n : n + 2 * self.steps.size].reshape(2, len(STEPS), n, 1)
        unit = max(EPS, self.found.units[name])
        here = values[:n, None]
        terms = typical_size(here[np.abs(self.z) <= CENTRE])
        return slopes(here, ahead, behind, self.steps[..., None], unit, terms)

    def _autodiff(self, name: str) -> np.ndarray | None:
        return self.found[name][: self.z.size, None] if name in self.found else None

    def checks(self) -> list[PartCheck]:
        """Value, `jax.grad` of it, and the derivatives."""
        found, n = self.found, self.z.size
        checks = [PartCheck(name, Verdict.wrong, reason=found.failures[name]) for name in found.failures]
        checks = [check for check in checks if check.name in _parts(self.activation)]
        if "value" not in found:
            return checks
        value, unit = found["value"], max(EPS, found.units["value"])
        bad = np.flatnonzero(~np.isfinite(value[:n]))
        if len(bad):
            checks.append(PartCheck("value", Verdict.wrong, reason=f"{value[bad[0]]} at {self.at(int(bad[0]))}"))
        elif "in rows" not in found:
            checks.append(PartCheck("value", Verdict.wrong, reason=found.failures["in rows"]))
        else:
            difference = "not elementwise: alone and among others"
            checks.append(identity_check("value", found["in rows"], value[:n], self.at, difference, unit / EPS))
        of_value = self._slopes("value")
        first = truth_of((n, 1), self._autodiff("slope"), of_value, unit)
        if "slope" in found:
            checks.append(autodiff_check("jax.grad of value", first, found["slope"][:n, None], self.at))
        if "derivative" not in found:
            return checks
        derivative = self._derivative_check("derivative", first, of_value, None, "the slope of value")
        checks.append(derivative)
        if "second_derivative" in found:
            checks.append(self._second_check(derivative, first, of_value))
        return checks

    def _second_check(self, derivative: PartCheck, first: Truth, of_value: Slopes | None) -> PartCheck:
        """The second derivative against `jax.grad` of the slope, and against differences of a right derivative."""
        is_right = derivative.verdict < Verdict.undecided
        of_derivative = self._slopes("derivative") if is_right else None
        bend = None if (first.autodiff_wrong & ~first.irregular).any() else self._autodiff("bend")
        if bend is None and of_derivative is None:
            return undecided("second_derivative", "the derivative is wrong, and jax.grad is of no help")
        unit = max(EPS, self.found.units["value"], self.found.units["derivative"])
        truth = truth_of((self.z.size, 1), bend, of_derivative, unit, CANCELLED * first.typical)
        skip = None if of_value is None else of_value.irregular
        return self._derivative_check("second_derivative", truth, of_derivative, skip, "the slope of derivative")

    def _derivative_check(
        self, name: str, truth: Truth, around: Slopes | None, skip: np.ndarray | None, of: str
    ) -> PartCheck:
        stated = self.found[name][: self.z.size, None]
        found = derivative_check(name, stated, truth, around, self.at, skip, of)
        if found.verdict == Verdict.wrong and self.activation.keeps == "a":
            return replace(found, reason=f'{found.reason}; is it a function of the output? else keeps = "z"')
        return found

    def far_checks(self) -> list[PartCheck]:
        """The parts that ran in float64, at the far points in narrow types."""
        parts = {name: part for name, part in _parts(self.activation).items() if name in self.found}
        truth = {name: self.found[name][-len(FAR) :] for name in parts}
        return far_checks(parts, (FAR,), truth, lambda row: f"z = {FAR[row]:g}")


def _shape_problems(activation: Activation) -> list[str]:
    """One message per part that changes shape or dtype."""
    problems: dict[str, str] = {}
    for dtype, x64 in ((np.dtype(np.float64), True), *((dtype, None) for dtype in TYPES)):
        with quiet(x64):
            for name, part in _parts(activation).items():
                problem, found = shape_problem(part, (np.zeros(SHAPE, dtype),), SHAPE)
                if problem and dtype.itemsize >= NEEDED:  # of a narrower type the far field says it
                    problems.setdefault(name, f"{name} in {dtype}: {problem}")
                elif not problem and found != dtype:
                    problems.setdefault(name, f"{name} returns {found} for {dtype}")
    return list(problems.values())


def _initializer_check(activation: Activation, key: jax.Array) -> PartCheck:
    """Initial weights are finite, and have the shape and the dtype that were asked for."""
    name = "initializer"

    def weights(key: Any) -> Any:
        return activation.initializer()(key, WEIGHTS, jnp.float32)

    with quiet():
        reason, dtype = shape_problem(weights, (key,), WEIGHTS)
        if not reason and dtype != np.float32:
            reason = f"returns {dtype} for float32"
        if not reason:
            found = evaluate({name: weights}, key)
            reason = found.failures.get(name, "")
            if not reason and not np.isfinite(found[name]).all():
                reason = "weights are not finite"
    return PartCheck(name, Verdict.wrong if reason else Verdict.right, reason=reason)
