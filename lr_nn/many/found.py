"""What lanes found, collected as they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lr_nn.network import Network
from lr_nn.types import Layer, Params, Solution, Status

__all__ = ["COLUMNS", "Found"]

# The fields of a solution that are one number, or one text, a lane.
COLUMNS = ("status", "steps", "cost", "gradient_norm", "certificate", "message")


@dataclass
class Found:
    """The fields of the solutions of m lanes, lanes first; `direction` is None until a lane is separated."""

    params: Params
    status: np.ndarray
    steps: np.ndarray
    cost: np.ndarray
    gradient_norm: np.ndarray
    certificate: np.ndarray
    message: np.ndarray
    direction: Params | None = None

    @classmethod
    def empty(cls, net: Network, m: int) -> Found:
        """Nothing yet: NaN in float64."""

        def layer(a: int, b: int) -> Layer:
            nan: Any = np.full((m, a + 1, b), np.nan)
            return Layer(nan[:, :a], nan[:, a] if net.bias else None)

        cost, gradient_norm, certificate = np.full((3, m), np.nan)
        status, message = np.full(m, Status.max_steps, np.int8), np.full(m, "", object)
        params = tuple(layer(*shape) for shape in net.shapes)
        return cls(params, status, np.zeros(m, int), cost, gradient_norm, certificate, message)

    def store_converged(self, ids: np.ndarray, theta: np.ndarray, **given: np.ndarray) -> None:
        """θ (·, q, k) and the columns of lanes that converged."""
        layer: Any = self.params[0]
        d = layer.w.shape[1]
        layer.w[ids], self.status[ids] = theta[:, :d], Status.converged
        if layer.b is not None:
            layer.b[ids] = theta[:, d]
        for name, values in given.items():
            getattr(self, name)[ids] = values

    def store(self, lane: int, solution: Solution | None) -> None:
        """The solution of a lane; None of one whose x is not finite."""
        if solution is None:
            self.status[lane], self.message[lane] = Status.non_finite, "x of this lane is not finite"
            return
        _assign(self.params, lane, solution.params)
        for name in COLUMNS:
            getattr(self, name)[lane] = getattr(solution, name)
        if solution.direction is not None:
            if self.direction is None:
                self.direction = jax.tree.map(np.zeros_like, self.params)
            _assign(self.direction, lane, solution.direction)


def _assign(whole: Params, lane: int, own: Params) -> None:
    for there, here in zip(jax.tree.leaves(whole), jax.tree.leaves(own)):
        there[lane] = here
