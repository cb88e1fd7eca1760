"""The best state of a training by its validation cost, lane by lane."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.training.steps import State


class Best:
    """The lowest validation cost so far, its epoch and its state: of shape (), or (m,) in lanes."""

    def __init__(self, state: State, patience: int | None, lanes: tuple[int, ...]) -> None:
        """`state` is the best one until the first call of `judge`."""
        self.state, self.patience, self.judged = state, patience, 0
        self.cost, self.epoch = np.full(lanes, np.inf), np.zeros(lanes, int)

    def judge(self, cost: np.ndarray, state: State) -> None:
        """Compare the cost after one more epoch, where NaN, the cost of a lane that has stopped, counts as ∞."""
        better = (cost < self.cost) | (self.judged == 0)
        self.cost = np.where(better & ~np.isnan(cost), cost, self.cost)
        self.epoch = np.where(better, self.judged, self.epoch)
        self.state = chosen(better, state, self.state)
        self.judged += 1

    @property
    def stopped(self) -> np.ndarray:
        """True in lanes without a lower cost for `patience` epochs."""
        if self.patience is None:
            return np.zeros_like(self.epoch, bool)
        return np.asarray(self.judged - 1 - self.epoch >= self.patience)

    @property
    def end(self) -> np.ndarray:
        """The number of epochs until a lane stopped, ∞ for one that has not."""
        return np.where(self.stopped, self.epoch + (self.patience or 0) + 1, np.inf)


def chosen(where: np.ndarray, new: State, old: State) -> State:
    """`new` in the lanes where `where` is true, else `old`."""
    if where.all():
        return new
    if not where.any():
        return old
    params, opt_state = _chosen(where, new[:2], old[:2])
    return old._replace(params=params, opt_state=opt_state)


@jax.jit
def _chosen(where, new, old):
    def leaf(a, b):
        return jnp.where(where.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)
