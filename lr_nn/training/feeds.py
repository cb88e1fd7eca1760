"""Where the loop of a training gets its steps from: arrays in memory, or rows that are read as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.data import stream
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.training import steps
from lr_nn.training.steps import State, Task
from lr_nn.trees import accumulator
from lr_nn.types import Batch, Params


class Feed(Protocol):
    """Steps of a training, any of which can be asked for at any time: they are functions of the state alone."""

    per_epoch: int

    def advance(self, state: State, count: int) -> tuple[State, np.ndarray]:
        """Up to `count` steps, and the cost before each; ends with a cost that is not finite (in any lane left)."""

    def rows(self, epoch: int) -> np.ndarray:
        """How many rows each step of an epoch sees."""

    def order(self, step: int) -> jax.Array | None:
        """What the state holds as its order before `step`."""

    def asked(self, signal: str | None) -> str | None:
        """The signal by which this process is to end the training: its own, or that of another that trains with it."""

    def close(self) -> None:
        """Nothing more will be asked for."""


class InMemory:
    """Mini-batches of shuffled rows, many steps in one compiled call; lanes, if `axes` says so."""

    room = 4096

    def __init__(
        self,
        net: Network,
        optimizer: optax.GradientTransformation,
        task: Task,
        batch_size: int,
        axes: Task | None = None,
    ) -> None:
        """Bind what every call needs."""
        self.task, self.batch_size, self.n = task, batch_size, task.data.x.shape[-2]
        self.per_epoch, self.axes = steps.steps_per_epoch(self.n, batch_size), axes
        self._advance = partial(steps.advance, net, optimizer, batch_size=batch_size, axes=axes, room=self.room)

    def advance(self, state: State, count: int) -> tuple[State, np.ndarray]:
        state, costs, taken = self._advance(state, self.task, jnp.asarray(min(count, self.room), jnp.int32))
        costs = np.asarray(costs)[: int(taken)]
        return state, np.where(np.isfinite(costs), costs, np.nan)

    def rows(self, epoch: int) -> np.ndarray:
        rows = np.full(self.per_epoch, self.batch_size)
        if self.task.noise is None:
            rows[-1] = self.n - (self.per_epoch - 1) * self.batch_size
        return rows

    def order(self, step: int) -> jax.Array | None:
        if self.task.key is None:
            return None
        return steps.draw_of_step(self.task, np.asarray(step, np.int32), batch_size=self.batch_size, axes=self.axes)

    def batch(self, step: int) -> Batch:
        """The mini-batch of a step of a single training."""
        if self.task.key is None:
            return self.task.data
        return steps.batch_at(self.task, np.asarray(step, np.int32), batch_size=self.batch_size)

    def asked(self, signal: str | None) -> str | None:
        return signal

    def close(self) -> None:
        pass


class Streamed:
    """Mini-batches that are blocks of consecutive rows, the next one read and copied while a step is computed."""

    def __init__(
        self,
        net: Network,
        optimizer: optax.GradientTransformation,
        params: Params,
        rows: Rows,
        batch_size: int,
        key: jax.Array | None,
        penalty: Penalty | None,
    ) -> None:
        """Look at every weight, if there are any, for their mean."""
        self.net, self.optimizer, self.penalty = net, optimizer, penalty
        self.source, self.batch_size, self.key = rows, batch_size, key
        self.per_epoch = stream.count(rows, batch_size)
        self.admit = admission(net, params)
        self.dtype = accumulator(jnp.result_type(params[0].w))
        self.mean_weight = _mean_weight(rows, batch_size)
        self.reading: Iterator[Batch] | None = None
        self.following = -1
        self.ahead: tuple[int, Batch] | None = None

    def advance(self, state: State, count: int) -> tuple[State, np.ndarray]:
        step, (params, opt_state) = int(state.step), state[:2]
        costs: list[jax.Array] = []
        while len(costs) < count and (len(costs) < 2 or np.isfinite(costs[-2])):
            batch = self._batch(step + len(costs))
            options = {"optimizer": self.optimizer, "penalty": self.penalty, "total": self._total(batch)}
            params, opt_state, value = _step(self.net, params, opt_state, batch, **options)
            costs.append(value)
        told = np.array(costs, self.dtype)
        finite = np.isfinite(told)
        told = told if finite.all() else told[: finite.argmin() + 1]
        return State(params, opt_state, None, jnp.asarray(step + len(costs), jnp.int32)), told

    def rows(self, epoch: int) -> np.ndarray:
        starts = self._blocks(epoch) * self.batch_size
        return np.minimum(starts + self.batch_size, len(self.source)) - starts

    def order(self, step: int) -> None:
        return None

    def batch(self, step: int) -> Batch:
        """The mini-batch of a step, read once though the step itself may follow."""
        batch = self._batch(step)
        self.ahead = step, batch
        return batch

    def asked(self, signal: str | None) -> str | None:
        return signal

    def close(self) -> None:
        if self.reading is not None:
            self.reading.close()  # type: ignore[attr-defined]
        self.reading, self.following, self.ahead = None, -1, None

    def _batch(self, step: int) -> Batch:
        """The mini-batch of a step: the next one of those being read, unless another is asked for."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == step:
            return ahead[1]
        if self.reading is None or step != self.following:
            self.close()
            self.reading = stream.read_ahead(self._reads(step))
        try:
            batch = next(self.reading)
        except BaseException:
            self.close()
            raise
        self.following = step + 1
        return batch

    def _reads(self, step: int) -> Iterator[Callable[[], Batch]]:
        """Reads of the mini-batches of `step` and all that follow, epoch after epoch."""
        epoch, position = divmod(step, self.per_epoch)
        while True:
            for block in self._blocks(epoch)[position:]:
                yield partial(self._read, int(block) * self.batch_size)
            epoch, position = epoch + 1, 0

    def _blocks(self, epoch: int) -> np.ndarray:
        if self.key is None:
            return np.zeros(1, int)
        return stream.order(self.key, epoch, self.per_epoch).astype(int)

    def _read(self, start: int) -> Batch:
        return self.admit(start, self.source.read(start, min(start + self.batch_size, len(self.source))))

    def _total(self, batch: Batch) -> np.ndarray | None:
        """What the sums over a mini-batch are divided by: its rows times the mean weight of all rows."""
        return None if self.mean_weight is None else np.asarray(len(batch.x) * self.mean_weight, self.dtype)


_step = jax.jit(steps.step, static_argnames="optimizer")


def admission(net: Network, params: Params) -> Callable[[int, Batch], Batch]:
    """A function (first row, block) -> the block checked against the network and copied to the device.

    It may run in another thread, where JAX would not know that float64 is on here. The weights of a block may all be
    zero.
    """
    x64 = bool(jnp.result_type(float) == jnp.float64)

    def admitted(start: int, batch: Batch) -> Batch:
        with check.numbered(range(start, start + len(batch.x))), jax.enable_x64(x64):
            return admit(net, params, batch, allow_no_weight=True)

    return admitted


def _mean_weight(rows: Rows, size: int) -> float | None:
    """Σ s_i / n, in one look at all rows; None if they have no weights."""
    if rows.read(0, 1).weight is None:
        return None
    sums = []
    with closing(stream.blocks(rows, size)) as blocks:
        for number, block in enumerate(blocks):
            weight = check.numeric("weight", block.weight)
            with check.numbered(range(number * size, len(rows))):
                check.require("weight", weight, check.is_not_negative, "finite and not negative")
            sums.append(float(np.sum(weight, dtype=np.float64)))
    if not sum(sums) > 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    return sum(sums) / len(rows)
