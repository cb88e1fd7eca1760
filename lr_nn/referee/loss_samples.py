"""Targets drawn from the law of a loss, and the residuals, the Fisher and the mean that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.losses import Loss
from lr_nn.referee.traced_parts import described, evaluate, quiet

# Points η at which targets are drawn, and draws at each: enough that a second moment wrong by a tenth is seen.
POINTS, DRAWS = 4, 8192
# The step of differences whose mean over samples is the mean Hessian.
STEP = 1e-4


@dataclass(frozen=True)
class Draws:
    """Targets y (p, m, k) drawn at p points η (p, k)."""

    eta: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Samples:
    """Draws with their residuals (p, m, k), Hessians by differences (p, m, k, k), Fisher (p, k, k) and mean (p, k).

    The last two are None where the loss does not state them or they raise.
    """

    draws: Draws
    residuals: np.ndarray
    hessians: np.ndarray
    fisher: np.ndarray | None
    mean: np.ndarray | None


def draw(loss: Loss, k: int, rng: np.random.Generator, key: jax.Array) -> Draws | str:
    """Targets at a few moderate η; the error message if there are none."""
    if not loss.states("sample"):
        return "no sample"
    eta = np.clip(0.7 * rng.normal(size=(POINTS, k)), -1.5, 1.5)
    many = np.repeat(eta, DRAWS, axis=0)
    with quiet(x64=True):
        found = evaluate({"sample": loss.sample}, many, key)
    if "sample" not in found:
        return found.failures["sample"]
    y = found["sample"]
    if np.shape(y) != many.shape:
        return f"returns shape {np.shape(y)}; expected {many.shape}"
    try:
        refused = ~(np.isfinite(y) & np.asarray(loss.valid(y), bool))
    except Exception as error:  # whatever a user's function says
        return f"valid {described(error)}"
    if refused.any():
        return f"draws {y[refused][0]:.3g}, which is not valid(y)"
    return Draws(eta, y.reshape(POINTS, DRAWS, k))


def compute_samples(loss: Loss, draws: Draws | str) -> Samples | str:
    """Residuals, Hessians, Fisher and mean at the draws; the error message if there are none or the residual raises."""
    if isinstance(draws, str):
        return draws
    k = draws.eta.shape[1]
    moves = STEP * np.concatenate([np.zeros((1, k)), np.eye(k), -np.eye(k)])

    def residuals(eta: Any, moves: Any, y: Any) -> Any:
        many = jnp.repeat(eta, DRAWS, axis=0)
        around = (many[None] + moves[:, None, :]).reshape(-1, k)
        rows = loss.target_rows(y.reshape(-1, k), many)
        return loss.residual(around, jnp.tile(rows, (len(moves), *(1 for _ in rows.shape[1:]))))

    parts: dict[str, Callable] = {"residual": residuals}
    if loss.states("fisher_multiply"):
        units = np.broadcast_to(np.eye(k)[:, None, :], (k, POINTS, k))
        parts["fisher"] = lambda eta, moves, y: loss.fisher_multiply(eta, jnp.asarray(units))
    if loss.states("mean"):
        parts["mean"] = lambda eta, moves, y: loss.mean(eta)
    with quiet(x64=True):
        found = evaluate(parts, draws.eta, moves, draws.y)
    if "residual" not in found:
        return f"at drawn targets residual {found.failures['residual']}"
    r = found["residual"].reshape(len(moves), POINTS, DRAWS, k)
    hessians = ((r[1 : k + 1] - r[k + 1 :]) / (2 * STEP)).transpose(1, 2, 0, 3)
    fisher = found["fisher"].swapaxes(0, 1) if "fisher" in found else None
    return Samples(draws, r[0], hessians, fisher, found.results.get("mean"))
