"""The host's part of training: checks, chunks of compiled steps, history, early stopping, interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lr_nn import check
from lr_nn.network import Network, admit
from lr_nn.objective import cost
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.training import lanes
from lr_nn.training.metrics import metrics
from lr_nn.training.progress import Progress
from lr_nn.training.steps import State, Task, advance, steps_per_epoch
from lr_nn.trees import accumulator, all_finite
from lr_nn.types import Batch, Params

Ending = Literal["completed", "early_stopped", "interrupted", "non_finite"]


@dataclass(frozen=True)
class Training:
    """What a training leaves: `params` and `opt_state`, ready to go on from, and its record.

    history: NumPy arrays with one row an epoch (and a column a lane): `cost`, the mean over the epoch of the cost
    before each step; with validation data also `validation_cost` (without penalty) and the metrics of the task.
    status: completed, early_stopped, interrupted or non_finite, in lanes an array (m,) of these; message says it
    in words. steps: optimiser steps taken.
    """

    params: Params
    opt_state: Any
    history: dict[str, np.ndarray]
    status: Ending | np.ndarray
    message: str
    steps: int


def train(
    net: Network,
    params: Params,
    data: Batch,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    penalty: Penalty | None = None,
    validation: Batch | None = None,
    patience: int | None = None,
    opt_state: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Train by any optax optimiser, on the hand-written gradient.

    Each epoch sees every row once, in an order drawn from (key, epoch), in mini-batches of `batch_size` (None:
    all rows; 1: stochastic gradient descent), the last one ragged. Steps run compiled, many in one call; results
    do not depend on how many. A mini-batch divides by its rows times the mean weight, so that its gradient is an
    unbiased estimate of that of J.

    validation: evaluated after every epoch. patience: stop after so many epochs without a lower validation cost,
    and return the parameters of the lowest. opt_state: go on from an earlier training (with a new key, for new
    orders of the rows). An optimiser made anew compiles anew: make it once. progress: called a few
    times a second with a `Progress`; `training.bar()` makes one. Ctrl-C returns what there is. A cost or
    parameter that turns NaN or infinite ends the training with the last parameters whose cost was finite.

    Raises ValueError or TypeError, before anything is compiled, for data that do not fit the network, epochs,
    patience or a batch size below one, and mini-batches without a key; TypeError under `jit` and `vmap`, where
    `training.step` is the function to call.

    >>> import jax, lr_nn, optax
    >>> net = lr_nn.linear_regression(1)
    >>> data = lr_nn.Batch(x=jax.numpy.arange(4.0)[:, None], y=1 + 2 * jax.numpy.arange(4.0))
    >>> result = lr_nn.train(net, lr_nn.init(net, jax.random.key(0)), data, optimizer=optax.sgd(0.2), epochs=200)
    >>> print(result.status, [f"{leaf.item():.3f}" for leaf in jax.tree.leaves(result.params)])
    completed ['2.000', '1.000']
    """
    check.on_host("train", (params, data, validation, key, penalty, opt_state), "training.step")
    data = admit(net, params, data)
    check_penalty(penalty)
    task, state, batch_size = _prepare(params, data, optimizer, batch_size, key, penalty, opt_state, axes=None)
    epochs = check.positive_integer("epochs", epochs)
    if patience is not None:
        patience = check.positive_integer("patience", patience)
        if validation is None:
            raise ValueError("patience needs validation data to judge by; pass validation=Batch(x, y)")
    if validation is not None:
        validation = admit(net, params, validation)
    run = _Run(net, optimizer, task, state, batch_size, epochs, None, validation, patience, progress)
    return run.to_the_end()


def train_many(
    net: Network,
    params: Params,
    data: Batch,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    penalty: Penalty | None = None,
    opt_state: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Train m networks in one program of batched matrix products: `train`, with a leading axis m on `params`.

    Any other argument is per lane if its rank is one more than in `train`: x (m, n, d); y (m, n) for one output
    or class labels, (m, n, k) otherwise; weight (m, n); offset (m, n, k); strengths (m,); keys (m,). With one key
    all lanes see the same mini-batches, and the first layer of all of them is one matrix product. `opt_state`, if
    given, has lanes; learning rates per lane go in by `optax.inject_hyperparams`. A lane that turns NaN leaves
    the others alone: it keeps the parameters before the step that failed, its status is non_finite and its costs
    are NaN from there on. In the result every leaf and every column of the history has the lane axis.

    Raises as `train` does, and ValueError where `params` have no lane axis.
    """
    check.on_host("train_many", (params, data, key, penalty, opt_state), "training.step")
    data, axes = lanes.admit(net, params, data, penalty, key)
    task, state, batch_size = _prepare(params, data, optimizer, batch_size, key, penalty, opt_state, axes)
    epochs = check.positive_integer("epochs", epochs)
    return _Run(net, optimizer, task, state, batch_size, epochs, axes, None, None, progress).to_the_end()


def _prepare(
    params: Params,
    data: Batch,
    optimizer: optax.GradientTransformation,
    batch_size: int | None,
    key: jax.Array | None,
    penalty: Penalty | None,
    opt_state: Any,
    axes: Task | None,
) -> tuple[Task, State, int]:
    """The constant part of the work, its first state, and the batch size as a number."""
    if not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be an optax one, such as optax.adam(1e-3); got {optimizer!r}")
    n = data.x.shape[-2]
    batch_size = n if batch_size is None else min(check.positive_integer("batch_size", batch_size), n)
    params = jax.tree.map(jnp.asarray, params)
    mean_weight = None if data.weight is None else data.weight.mean(axis=-1)
    task = Task(data, mean_weight, penalty, key if batch_size < n else None)
    rows = None
    if batch_size < n:
        if key is None:
            raise ValueError("mini-batches need a key to be drawn by; pass key=jax.random.key(0)")
        lead = key.shape[:1] if axes is not None and axes.key == 0 else ()
        rows = jnp.zeros((*lead, steps_per_epoch(n, batch_size) * batch_size), jnp.int32)
    if opt_state is None:
        opt_state = optimizer.init(params) if axes is None else jax.vmap(optimizer.init)(params)
    return task, State(params, opt_state, rows, jnp.zeros((), jnp.int32)), batch_size


@partial(jax.jit, static_argnums=0)
def _judge(net: Network, params: Params, validation: Batch) -> dict[str, jax.Array]:
    scores = metrics(net, params, validation)
    scores.pop("log_loss", None)  # that is the cost
    return {"validation_cost": cost(net, params, validation)} | {f"validation_{name}": s for name, s in scores.items()}


_finite = jax.jit(all_finite)


class _Run:
    """One training in progress: the only mutable thing here, and it does not outlive the call."""

    room = 4096
    chunk_seconds = 0.25

    def __init__(self, net, optimizer, task, state, batch_size, epochs, axes, validation, patience, progress):
        self.net, self.task, self.validation, self.patience = net, task, validation, patience
        self.state, self.kept = state, (state, state)
        self.axes, self.epochs, self.progress = axes, epochs, progress
        self.n = task.data.x.shape[-2]
        self.batch_size, self.per_epoch = batch_size, steps_per_epoch(self.n, batch_size)
        self.steps = 0
        self.costs: list[np.ndarray] = []
        self.scores: list[dict[str, np.ndarray]] = []
        self.best = (np.inf, 0, state)
        self.advance = partial(advance, net, optimizer, batch_size=batch_size, axes=axes, room=self.room)

    def to_the_end(self) -> Training:
        try:
            return self._result(*self._loop())
        except KeyboardInterrupt:
            return self._result("interrupted", f"interrupted after step {self.steps}")

    def _loop(self) -> tuple[Ending, str]:
        count = 8
        while self.steps < self.epochs * self.per_epoch:
            count = min(count, self._steps_ahead())
            began = time.perf_counter()
            failed = self._advance(count)
            seconds = time.perf_counter() - began
            if failed:
                return self._step_back() if self.axes is None else ("non_finite", f"no lane left at step {self.steps}")
            if self.progress is not None:
                self.progress(self._report())
            if self.validation is not None and self.steps % self.per_epoch == 0 and self._out_of_patience():
                score, epoch, self.state = self.best
                return (
                    "early_stopped",
                    f"no better validation cost since epoch {epoch} ({score:.6g}); its parameters kept",
                )
            count = int(np.clip(count * self.chunk_seconds / seconds, 1, min(16 * count, self.room)))
        if self.axes is None and not bool(_finite(self.state.params)):
            return self._step_back()
        if self.patience is not None:
            self.state = self.best[2]
        return "completed", f"{self.epochs} epochs of {self.per_epoch} steps"

    def _steps_ahead(self) -> int:
        """Steps that one call may take: to the end of the epoch if it is judged, else of the training."""
        if self.validation is not None:
            return self.per_epoch - self.steps % self.per_epoch
        return self.epochs * self.per_epoch - self.steps

    def _advance(self, count: int) -> bool:
        """Take `count` steps; True if the cost of the last one was not finite (in any lane left)."""
        state, costs, taken = self.advance(self.state, self.task, jnp.asarray(count, jnp.int32))
        costs = np.asarray(costs)[: int(taken)]
        self.kept, self.state = (self.kept[1], self.state), state
        self.costs.append(costs)
        self.steps += len(costs)
        return not np.isfinite(costs[-1]).any()

    def _step_back(self) -> tuple[Ending, str]:
        """Run again from a kept state to the last parameters whose cost was finite."""
        costs = np.concatenate(self.costs)
        bad = self.steps - 1 if not np.isfinite(costs[-1]).any() else self.steps
        self.costs, self.steps = [costs[:bad]], max(bad - 1, 0)
        older, newer = self.kept
        start = newer if int(newer.step) <= self.steps else older
        self.state, _, _ = self.advance(start, self.task, jnp.asarray(self.steps, jnp.int32) - start.step)
        if self.patience is not None and self.scores:
            self.state = self.best[2]
        what = "the cost" if bad < len(costs) else "a parameter"
        hint = "lower the learning rate, scale the inputs, or clip the gradient (optax.clip_by_global_norm)"
        return "non_finite", f"{what} was not finite at step {bad} (epoch {bad // self.per_epoch}): {hint}"

    def _out_of_patience(self) -> bool:
        scores = {
            name: np.asarray(score) for name, score in _judge(self.net, self.state.params, self.validation).items()
        }
        self.scores.append(scores)
        score, epoch = float(scores["validation_cost"]), len(self.scores) - 1
        if score < self.best[0] or epoch == 0:
            self.best = (score, epoch, self.state)
        return self.patience is not None and epoch - self.best[1] >= self.patience

    def _report(self) -> Progress:
        total = self.epochs * self.per_epoch
        return Progress(self.steps, total, self.steps // self.per_epoch, self.epochs, self.costs[-1][-1])

    def _result(self, status: Ending, message: str) -> Training:
        history = {"cost": self._epoch_costs()}
        if self.scores:
            history |= {name: np.array([scores[name] for scores in self.scores]) for name in self.scores[0]}
        if self.axes is None:
            return Training(self.state.params, self.state.opt_state, history, status, message, self.steps)
        failed = ~np.isfinite(np.concatenate(self.costs)[-1]) if self.costs else np.zeros(1, bool)
        each = np.where(failed, "non_finite", "completed" if status == "non_finite" else status)
        message += f"; {failed.sum()} of {failed.size} lanes not finite" if failed.any() else ""
        return Training(self.state.params, self.state.opt_state, history, each, message, self.steps)

    def _epoch_costs(self) -> np.ndarray:
        """Mean over the rows of each epoch of the cost before each step; a last epoch may be incomplete."""
        lanes = () if self.axes is None else (len(self.state.params[0].w),)
        costs = np.concatenate([np.zeros((0, *lanes), accumulator(self.state.params[0].w.dtype)), *self.costs])
        rows = np.full(self.per_epoch, float(self.batch_size))
        rows[-1] = self.n - (self.per_epoch - 1) * self.batch_size
        epochs = [costs[i : i + self.per_epoch] for i in range(0, len(costs), self.per_epoch)]
        return np.array([np.average(epoch, axis=0, weights=rows[: len(epoch)]) for epoch in epochs]).reshape(-1, *lanes)
