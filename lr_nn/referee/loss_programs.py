"""Everything that the audit of a loss computes with JAX: shapes, one program in float64, the samples, the far field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.losses import Loss
from lr_nn.referee.loss_points import LossPoints
from lr_nn.referee.loss_targets import Targets
from lr_nn.referee.traced_parts import Evaluation, evaluate, quiet, shapes_of

OPTIONAL = ("hessian_multiply", "fisher_multiply", "fisher_factor", "mean", "sample", "constant")
# Parts that state the Fisher a second time, so that they exist where it does.
OF_FACTOR = "fisher_diagonal"


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
    calls: dict[str, Callable] = {
        "value": lambda eta, y, v: loss.value(eta, y),
        "residual": lambda eta, y, v: loss.residual(eta, y),
        "hessian_multiply": loss.hessian_multiply,
        "fisher_multiply": lambda eta, y, v: loss.fisher_multiply(eta, v),
        "fisher_factor": lambda eta, y, v: loss.fisher_factor(eta),
        OF_FACTOR: lambda eta, y, v: loss.fisher_diagonal(eta),
        "mean": lambda eta, y, v: loss.mean(eta),
    }
    asked = {name: "fisher_factor" if name == OF_FACTOR else name for name in calls}
    own_diagonal = loss.states("fisher_multiply") and loss.states(OF_FACTOR)
    return {
        name: call
        for name, call in calls.items()
        if asked[name] not in OPTIONAL or loss.states(asked[name]) or (name == OF_FACTOR and own_diagonal)
    }


def shape_problems(loss: Loss, targets: Targets) -> tuple[dict[str, str], list[str]]:
    """Parts that raise or return a wrong shape, and sentences on wrong dtypes, without running anything."""
    problems: dict[str, str] = {}
    dtypes: list[str] = []
    few, k = min(4, len(targets.y)), targets.k
    for dtype, x64 in ((np.float64, True), (np.float32, None)):
        with quiet(x64):
            eta, y = np.zeros((few, k), dtype), _cast(targets.y[:few], dtype)
            expected = {"value": (few,), "fisher_factor": (k, few, k)}
            for name, part in stated_parts(loss).items():
                leads = ((), (2, 3)) if name.endswith("multiply") else ((),)
                for lead in leads:
                    shape = (*lead, *expected.get(name, (few, k)))
                    found = shapes_of(part, eta, y, np.zeros((*lead, few, k), dtype))
                    _note(name, found, shape, dtype, problems, dtypes)
            if loss.states("sample"):
                _note("sample", shapes_of(loss.sample, eta, jax.random.key(0)), (few, k), dtype, problems, dtypes)
            if loss.states("constant"):
                _note("constant", shapes_of(loss.constant, np.full(k, 1 / k, dtype)), (k,), dtype, problems, dtypes)
    return problems, dtypes


def _note(
    name: str, found: Any, shape: tuple[int, ...], dtype: Any, problems: dict[str, str], dtypes: list[str]
) -> None:
    """Keep what is wrong with the result of a part. What only float32 raises is no problem of the float64 audit."""
    kind = np.dtype(dtype)
    wide = kind == np.float64
    if isinstance(found, str):
        text = found
    elif not hasattr(found, "shape"):
        text = f"returns {type(found).__name__}, not an array"
    elif found.shape != shape:
        text = f"returns shape {found.shape}; expected {shape}"
    else:
        if found.dtype != kind:
            dtypes.append(f"{name} returns {found.dtype} for {kind}")
        return
    if wide:
        problems.setdefault(name, text)
    elif name not in problems:
        dtypes.append(f"{name} in {kind}: {text}")


def _cast(y: np.ndarray, dtype: Any) -> np.ndarray:
    return y.astype(dtype) if y.dtype.kind == "f" else y


def compute(loss: Loss, targets: Targets, points: LossPoints, rng: np.random.Generator) -> Computed:
    """Every part, and autodiff of `value`, at every point in float64. Products are with the k unit vectors, then v."""
    problems, dtypes = shape_problems(loss, targets)
    k = points.k
    stated = {name: part for name, part in stated_parts(loss).items() if name not in problems}
    parts: dict[str, Callable] = {name: _of_rows(name, part, k) for name, part in stated.items()}
    few = min(3, len(targets.y))

    def total(eta: Any, y: Any) -> Any:
        return loss.value(eta, y).sum()

    def gradient(eta: Any, y: Any) -> Any:
        return jax.grad(total)(eta, y)

    def hessian(eta: Any, y: Any) -> Any:
        def along(unit: Any) -> Any:
            return jax.jvp(lambda eta: gradient(eta, y), (eta,), (jnp.broadcast_to(unit, eta.shape),))[1]

        return jax.vmap(along)(jnp.eye(k, dtype=eta.dtype))

    def third(eta: Any, y: Any, u: Any) -> Any:
        def curvature(eta: Any) -> Any:
            return (jax.jvp(lambda eta: gradient(eta, y), (eta,), (u,))[1] * u).sum()

        return jax.grad(curvature)(eta)

    if "value" not in problems:
        parts["gradient"] = lambda eta, y, v, rows: gradient(eta, y)
        parts["hessian"] = lambda eta, y, v, rows: hessian(eta, y)
        parts["alone"] = lambda eta, y, v, rows: loss.value(eta[:few], y[:few])
        if loss.concordance < np.inf:
            parts["third"] = lambda eta, y, v, rows: third(eta, y, v)
    parts["lowest"] = lambda eta, y, v, rows: loss.lowest(rows)
    v = rng.normal(size=points.eta.shape)
    # Some directions along one output or the difference of two, where a Hessian changes fastest.
    units = np.concatenate([np.eye(k), np.eye(k) - np.roll(np.eye(k), 1, axis=0)])
    some = np.arange(len(v)) % 2 == 0
    some[len(v) - points.far :] = False  # where a product overflows, 0 times infinity is no mistake
    v[some] = units[rng.integers(len(units), size=some.sum())]
    with quiet(x64=True):
        found = evaluate(parts, points.eta, targets.y[points.target], v, targets.rows[points.target])
    found.results["v"] = v
    problems |= {name: text for name, text in found.failures.items() if name not in problems}
    return Computed(found, problems, dtypes)


def _of_rows(name: str, part: Callable, k: int) -> Callable:
    """A part as a function of (η, y, v, encoded rows); a product gets the unit vectors and v on a leading axis."""
    if not name.endswith("multiply"):
        return lambda eta, y, v, rows: part(eta, y, v)

    def products(eta: Any, y: Any, v: Any, rows: Any) -> Any:
        units = jnp.broadcast_to(jnp.eye(k, dtype=eta.dtype)[:, None, :], (k, *eta.shape))
        return part(eta, y, jnp.concatenate([units, v[None]]))

    return products


def compute_constants(loss: Loss, targets: Targets, masks: list[np.ndarray]) -> Evaluation:
    """The total residual over targets at `constant` of their mean, and the sum of magnitudes; one for each mask."""

    def totals(rows: Any, y: Any) -> Any:
        found = []
        for mask in masks:
            eta = loss.constant(rows[mask].mean(axis=0))
            residual = loss.residual(jnp.broadcast_to(eta, rows[mask].shape), y[mask])
            found.append((eta, residual.sum(axis=0), jnp.abs(residual).sum(axis=0)))
        return found

    with quiet(x64=True):
        return evaluate({"constant": totals}, targets.rows, targets.y)


def compute_labels(loss: Loss, labels: np.ndarray, k: int, rng: np.random.Generator) -> Evaluation:
    """Value and residual at integer labels (m,) and at the same targets encoded."""

    def both(eta: Any, y: Any) -> Any:
        rows = loss.encode(y, eta)
        return [(loss.value(eta, each), loss.residual(eta, each)) for each in (y, rows)]

    with quiet(x64=True):
        return evaluate({"labels": both}, rng.normal(size=(len(labels), k)), labels)


def compute_far(
    loss: Loss, targets: Targets, points: LossPoints, v: np.ndarray, names: list[str], dtype: Any
) -> Evaluation:
    """Parts at the points of the far field in a narrow type."""
    stated = stated_parts(loss)
    rows = slice(len(points.eta) - points.far, None)
    with quiet():
        arrays = (points.eta[rows], targets.y[points.target[rows]], v[rows])
        return evaluate({name: stated[name] for name in names}, *(_cast(array, dtype) for array in arrays))
