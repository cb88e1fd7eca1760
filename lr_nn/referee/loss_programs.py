"""What the audit of a loss computes with JAX at its points: shapes, then every part in one program in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.losses import Loss
from lr_nn.losses.optional import OPTIONAL
from lr_nn.referee.far_field import cast
from lr_nn.referee.loss_points import LossPoints
from lr_nn.referee.loss_targets import Targets
from lr_nn.referee.traced_parts import Evaluation, evaluate, quiet, shape_problem

# The optional methods of every loss. A Separable's elementwise ones give three of them.
PARTS = tuple(name for name in OPTIONAL if name not in ("curvature", "information"))
# Rows of which the value is computed a second time, without the others.
ALONE = 3


class Arguments(NamedTuple):
    """Arrays at which parts are evaluated.

    At points: η (n, k), `y` as `value` takes it, directions v (n, k) and encoded targets `rows` (n, k). `targets`: of
    each target, y and its encoded row. `labels`: η (m, k) and labels (m,), or None.
    """

    eta: Any
    y: Any
    v: Any
    rows: Any
    targets: tuple[Any, Any]
    labels: tuple[Any, Any] | None


@dataclass
class Computed:
    """Results by part, and the problem of each part that has one: an exception or a wrong shape."""

    parts: Evaluation
    problems: dict[str, str]
    dtypes: list[str]

    def has(self, *names: str) -> bool:
        """Whether these parts ran."""
        return all(name in self.parts for name in names)

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]


def stated_parts(loss: Loss) -> dict[str, Callable]:
    """The methods of a loss that it states, as functions of (η, y, v)."""
    parts: dict[str, Callable] = {
        "value": lambda eta, y, v: loss.value(eta, y),
        "residual": lambda eta, y, v: loss.residual(eta, y),
        "hessian_multiply": loss.hessian_multiply,
        "fisher_multiply": lambda eta, y, v: loss.fisher_multiply(eta, v),
        "fisher_factor": lambda eta, y, v: loss.fisher_factor(eta),
        "fisher_diagonal": lambda eta, y, v: loss.fisher_diagonal(eta),
        "mean": lambda eta, y, v: loss.mean(eta),
    }
    stated = {name for name in (*PARTS, "fisher_diagonal") if loss.states(name)} | {"value", "residual"}
    if "fisher_factor" in stated:
        stated.add("fisher_diagonal")  # by default the sum of squares of the factor
    return {name: part for name, part in parts.items() if name in stated}


def points_first(parts: dict[str, Callable]) -> dict[str, Callable]:
    """The parts with points on the first axis of the result: a factor (k, n, k) becomes (n, k, k)."""

    def turned(eta: Any, y: Any, v: Any) -> Any:
        return jnp.swapaxes(parts["fisher_factor"](eta, y, v), 0, 1)

    return parts | ({"fisher_factor": turned} if "fisher_factor" in parts else {})


def shape_problems(loss: Loss, targets: Targets) -> tuple[dict[str, str], list[str]]:
    """Parts that raise or return a wrong shape in float64; messages on wrong dtypes, and on what float32 raises."""
    problems: dict[str, str] = {}
    dtypes: list[str] = []
    few, k = min(4, len(targets.y)), targets.k
    shapes = {"value": (few,), "fisher_factor": (k, few, k)}

    def compare(name: str, part: Callable, args: tuple[Any, ...], shape: tuple[int, ...], dtype: Any) -> None:
        problem, found = shape_problem(part, args, shape)
        if problem and dtype == np.float64:
            problems.setdefault(name, problem)
        elif problem and name not in problems:
            dtypes.append(f"{name} in {dtype}: {problem}")
        elif not problem and found != dtype:
            dtypes.append(f"{name} returns {found} for {dtype}")

    for dtype, x64 in ((np.dtype(np.float64), True), (np.dtype(np.float32), None)):
        with quiet(x64):
            eta, y = np.zeros((few, k), dtype), cast(targets.y[:few], dtype)
            for name, part in stated_parts(loss).items():
                for lead in ((), (2, 3)) if name.endswith("multiply") else ((),):
                    v = np.zeros((*lead, few, k), dtype)
                    compare(name, part, (eta, y, v), (*lead, *shapes.get(name, (few, k))), dtype)
            if loss.states("sample"):
                compare("sample", loss.sample, (eta, jax.random.key(0)), (few, k), dtype)
            if loss.states("constant"):
                compare("constant", loss.constant, (np.full(k, 1 / k, dtype),), (k,), dtype)
    return problems, dtypes


def compute(loss: Loss, targets: Targets, points: LossPoints, rng: np.random.Generator) -> Computed:
    """Every part, and autodiff of `value`, at every point in float64. Products are with the k unit vectors, then v."""
    problems, dtypes = shape_problems(loss, targets)
    stated = points_first({name: part for name, part in stated_parts(loss).items() if name not in problems})
    parts = {name: _at_points(name, part, points.k) for name, part in stated.items()}
    parts["lowest"] = lambda at: loss.lowest(at.rows)
    if "value" in parts:
        parts |= _autodiff_parts(loss)
    if loss.states("constant") and not {"constant", "residual"} & set(problems):
        parts["constant"] = _constant_residuals(loss, targets)
    if targets.labels is not None and not {"value", "residual"} & set(problems):
        parts["labels"] = _label_results(loss)
    v, y, rows = _directions(points, rng), targets.y[points.target], targets.rows[points.target]
    labels = targets.labels
    of_labels = None if labels is None else (rng.normal(size=(len(labels), points.k)), labels)
    with quiet(x64=True):
        found = evaluate(parts, Arguments(points.eta, y, v, rows, (targets.y, targets.rows), of_labels))
    found.results["v"] = v
    return Computed(found, found.failures | problems, dtypes)


def _at_points(name: str, part: Callable, k: int) -> Callable:
    """A part as a function of `Arguments`; a product gets the unit vectors and v on a leading axis."""
    if not name.endswith("multiply"):
        return lambda at: part(at.eta, at.y, at.v)

    def products(at: Arguments) -> Any:
        units = jnp.broadcast_to(jnp.eye(k, dtype=at.eta.dtype)[:, None, :], (k, *at.eta.shape))
        return part(at.eta, at.y, jnp.concatenate([units, at.v[None]]))

    return products


def _autodiff_parts(loss: Loss) -> dict[str, Callable]:
    """The value of the first points alone, and derivatives of the value: D³ℓ[v, v] if `concordance` bounds it."""

    def gradient(eta: Any, y: Any) -> Any:
        return jax.grad(lambda eta: loss.value(eta, y).sum())(eta)

    def along(eta: Any, y: Any, u: Any) -> Any:
        return jax.jvp(lambda eta: gradient(eta, y), (eta,), (jnp.broadcast_to(u, eta.shape),))[1]

    parts: dict[str, Callable] = {
        "alone": lambda at: loss.value(at.eta[:ALONE], at.y[:ALONE]),
        "gradient": lambda at: gradient(at.eta, at.y),
        "hessian": lambda at: jax.vmap(along, (None, None, 0))(at.eta, at.y, jnp.eye(at.eta.shape[1])),
    }
    if loss.concordance < np.inf:
        parts["third"] = lambda at: jax.grad(lambda eta: (along(eta, at.y, at.v) * at.v).sum())(at.eta)
    return parts


def _constant_residuals(loss: Loss, targets: Targets) -> Callable:
    """For each subset of the targets, `constant` of their mean and their residuals there."""

    def residuals(at: Arguments) -> Any:
        found = []
        for _, mask in targets.subsets():
            y, rows = (array[mask] for array in at.targets)
            eta = loss.constant(rows.mean(axis=0))
            found.append((eta, loss.residual(jnp.broadcast_to(eta, rows.shape), y)))
        return found

    return residuals


def _label_results(loss: Loss) -> Callable:
    """Value and residual at labels, as `target_rows` gives them and as encoded rows."""

    def results(at: Arguments) -> Any:
        assert at.labels is not None
        eta, y = at.labels
        return [
            (loss.value(eta, each), loss.residual(eta, each))
            for each in (loss.target_rows(y, eta), loss.encode(y, eta))
        ]

    return results


def _directions(points: LossPoints, rng: np.random.Generator) -> np.ndarray:
    """Random directions v (n, k); half of those near are along one output or the difference of two.

    There a Hessian changes fastest. Far out, where a product overflows, 0 times infinity is no mistake.
    """
    v = rng.normal(size=points.eta.shape)
    units = np.concatenate([np.eye(points.k), np.eye(points.k) - np.roll(np.eye(points.k), 1, axis=0)])
    some = np.arange(len(v)) % 2 == 0
    some[points.blocks["far"]] = False
    v[some] = units[rng.integers(len(units), size=some.sum())]
    return v
