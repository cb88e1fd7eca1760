"""Training on rows over devices: mini-batches of as many rows from every shard, one all-reduce a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.sharded import mesh as meshes
from lr_nn.sharded import world
from lr_nn.training import steps
from lr_nn.training.checkpoints import Checkpoints
from lr_nn.training.identity import identity
from lr_nn.training.keeper import Keeper
from lr_nn.training.loop import Run, Training
from lr_nn.training.progress import Progress
from lr_nn.training.settings import admit_settings, first_state, task_of
from lr_nn.training.signals import SIGNALS
from lr_nn.training.steps import State, Task
from lr_nn.types import Batch, Params

if TYPE_CHECKING:
    from lr_nn.sharded.rows import RowParallel


def train(
    parallel: RowParallel,
    net: Network,
    params: Params,
    data: Batch | Rows,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int | None,
    key: jax.Array | None,
    penalty: Penalty | None,
    validation: Batch | Rows | None,
    patience: int | None,
    opt_state: Any,
    progress: Callable[[Progress], None] | None,
    checkpoints: Checkpoints | None,
    resume: bool,
) -> Training:
    """`RowParallel.train`."""
    check.on_host("train", (params, data, validation, key, penalty, opt_state), "training.step")
    if key is not None:
        check.key(key)
    epochs, patience = admit_settings(net, penalty, epochs, patience, validation, checkpoints, resume)
    params, batch = parallel.admit(net, params, data)
    judged = None if validation is None else parallel.admit(net, params, validation)[1]
    n = len(batch.x)
    state, batch_size = first_state(params, n, optimizer, _batch_size(parallel, batch_size, n), key, opt_state)
    config = identity(
        net,
        shards_of(parallel, batch),
        None if judged is None else shards_of(parallel, judged),
        batch_size,
        key,
        penalty,
        optimizer,
        state,
        None if checkpoints is None else checkpoints.schema,
    )
    start = world.digest((state.params, state.opt_state))
    world.agree("the training", **config, epochs=epochs, shards=parallel.shards, patience=patience, start=start)
    state = meshes.replicated(parallel.mesh, state)
    feed = Spread(parallel, net, optimizer, task_of(batch, penalty, key if batch_size < n else None), batch_size)
    state = state._replace(order=feed.order(0))
    keeper = None
    if checkpoints is not None:
        # The first process makes the folder ready before others look into it; and all have to see the same one.
        keep = partial(Keeper, checkpoints, config, state, feed.per_epoch, epochs, resume)
        keeper = world.first_then_others(keep)
        world.agree("their checkpoints, or the folder is not the same for all", step=keeper.newest)
    with nullcontext() if keeper is None else closing(keeper):
        run = Run(net, feed, state, epochs, validation=judged, patience=patience, progress=progress, keeper=keeper)
        return run.to_the_end()


class Spread:
    """A `Feed` of mini-batches over devices. What clocks and signals decide, the first process decides for all."""

    room = 4096

    def __init__(
        self, parallel: RowParallel, net: Network, optimizer: optax.GradientTransformation, task: Task, batch_size: int
    ) -> None:
        """Bind what every call needs."""
        self.parallel, self.n, self.batch_size = parallel, len(task.data.x), batch_size
        self.per_epoch = steps.steps_per_epoch(self.n, batch_size)
        self.task = Task(task.data, *meshes.replicated(parallel.mesh, tuple(task[1:])))
        self._advance = partial(_advance, parallel, net, optimizer, batch_size=batch_size, room=self.room)

    def advance(self, state: State, count: int) -> tuple[State, np.ndarray]:
        count = int(world.from_first(np.asarray(min(count, self.room), np.int32)))
        state = meshes.replicated(self.parallel.mesh, state._replace(order=None))._replace(order=state.order)
        state, costs, taken = self._advance(state, self.task, np.asarray(count, np.int32))
        return state, np.asarray(costs)[: int(taken)]

    def rows(self, epoch: int) -> np.ndarray:
        rows = np.full(self.per_epoch, self.batch_size)
        rows[-1] = self.n - (self.per_epoch - 1) * self.batch_size
        return rows

    def order(self, step: int) -> jax.Array | None:
        if self.batch_size == self.n:
            return None
        each = (self.n // self.parallel.shards, self.batch_size // self.parallel.shards)
        epoch = np.asarray(step // self.per_epoch, np.int32)
        return _orders(self.parallel, self.task.key, epoch, *each)

    def asked(self, signal: str | None) -> str | None:
        number = 0 if signal is None else SIGNALS.index(signal) + 1
        told = int(world.largest(np.asarray(number, np.int32)))
        return None if told == 0 else SIGNALS[told - 1]

    def close(self) -> None:
        pass


def shards_of(parallel: RowParallel, batch: Batch) -> str:
    """A digest of every shard, in their order: the same however many devices and processes hold them."""
    own = parallel.shards // parallel.mesh.size
    found: dict[int, Any] = {}
    for array in batch:
        for part in [] if array is None else array.addressable_shards:
            first = (part.index[0].start or 0) // (len(array) // parallel.shards)
            for i, rows in enumerate(np.split(np.asarray(part.data), own)):
                digest = found.setdefault(first + i, hashlib.sha256())
                digest.update(f"{rows.dtype}{rows.shape}".encode() + np.ascontiguousarray(rows).tobytes())
    told: dict[str, str] = {}
    for each in world.told({number: digest.hexdigest() for number, digest in found.items()}):
        told |= each
    return world.digest([np.array(told[number]) for number in sorted(told, key=int)])


@partial(jax.jit, static_argnames=("parallel", "optimizer", "batch_size", "room"))
def _advance(parallel, net, optimizer, state, task, count, *, batch_size, room):
    n, each = len(task.data.x) // parallel.shards, batch_size // parallel.shards
    own = parallel.shards // parallel.mesh.size

    def take(data: Batch, order: jax.Array, task: Task, position: jax.Array) -> tuple[Batch, jax.Array]:
        return steps.take(task._replace(data=data), order, position, n, each)

    def one(params, opt_state, orders, task, position):
        batch, total = task.data, None
        if orders is not None:
            shards = jax.tree.map(lambda a: a.reshape(own, n, *a.shape[1:]), task.data)
            batch, total = jax.vmap(take, (0, 0, None, None), (0, None))(shards, orders, task, position)
            batch = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batch)
            total = parallel.shards * total
        options = {"penalty": task.penalty, "total": total, "add_up": parallel.add_up}
        return steps.step(net, params, opt_state, batch, optimizer=optimizer, **options)

    def local(state, task, count, numbers):
        def shuffle(key: jax.Array, epoch: jax.Array) -> jax.Array:
            orders = jax.vmap(lambda number: _order(parallel, key, epoch, number, n, each))(numbers)
            # JAX takes what is drawn by a key for the same on all devices, if the key was, whatever was folded in.
            return orders + 0 * numbers[:, None]

        return steps.loop(one, shuffle, steps.steps_per_epoch(n, each), state, task, count, room)

    everywhere: Any = P()
    held = State(everywhere, everywhere, parallel.rows, everywhere)
    read = Task(parallel.rows, everywhere, everywhere, everywhere)
    run = parallel.map(local, (held, read, everywhere, parallel.rows), (held, everywhere, everywhere))
    return run(state, task, count, jnp.arange(parallel.shards, dtype=jnp.int32))


def _order(parallel, key, epoch, number, n, each):
    """That of the rows of one shard in an epoch; of a single one that of `lr_nn.train`."""
    return steps.order(key if parallel.shards == 1 else jax.random.fold_in(key, number), epoch, n, each)


def _orders(parallel: RowParallel, key: jax.Array, epoch: np.ndarray, n: int, each: int) -> jax.Array:
    """Those of all shards, over the devices."""
    numbers = jnp.arange(parallel.shards, dtype=jnp.int32)
    over = NamedSharding(parallel.mesh, parallel.rows)

    def orders(key, epoch):
        return jax.vmap(lambda number: _order(parallel, key, epoch, number, n, each))(numbers)

    return jax.jit(orders, out_shardings=over)(key, epoch)


def _batch_size(parallel: RowParallel, batch_size: int | None, n: int) -> int:
    """Rows of a mini-batch, as many from every shard; all n of them where it is not less."""
    if batch_size is None or check.positive_integer("batch_size", batch_size) >= n:
        return n
    if batch_size % parallel.shards:
        raise ValueError(f"batch_size must be a multiple of the {parallel.shards} shards; got {batch_size}")
    return batch_size
