"""Training on rows over devices: mini-batches of as many rows from every shard, one all-reduce a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.sharded import mesh as meshes
from lr_nn.sharded.world import agree, digest, from_first
from lr_nn.training import run, steps
from lr_nn.training.progress import Progress
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
) -> run.Training:
    """`RowParallel.train`."""
    check.on_host("train", (params, data, validation, key, penalty, opt_state), "training.step")
    check_penalty(penalty)
    epochs = check.positive_integer("epochs", epochs)
    if patience is not None:
        patience = check.positive_integer("patience", patience)
        if validation is None:
            raise ValueError("patience needs validation data to judge by; pass validation=Batch(x, y)")
    params, batch = parallel.admit(net, params, data)
    n = len(batch.x)
    batch_size = _batch_size(parallel, batch_size, n)
    task, state, _ = run.prepare(params, batch, optimizer, batch_size, key, penalty, opt_state, axes=None)
    state = state._replace(order=_orders(parallel, n, batch_size))
    judged = None if validation is None else parallel.admit(net, params, validation)[1]
    agree(
        "the training",
        network=repr(net),
        parameters=digest(params),
        optimizer=digest(state.opt_state),
        key=None if key is None else digest(jax.random.key_data(key)),
        epochs=epochs,
        batch_size=batch_size,
        shards=parallel.shards,
        penalty=[float(strength) for strength in penalty or ()],
        validation=[validation is not None, patience],
    )
    place = partial(meshes.replicated, parallel.mesh)
    state = state._replace(params=place(state.params), opt_state=place(state.opt_state), step=place(state.step))
    task = task._replace(penalty=place(task.penalty), key=place(task.key), mean_weight=place(task.mean_weight))
    running = run.Run(net, optimizer, task, state, batch_size, epochs, None, judged, patience, progress)
    running.advance = partial(advance, parallel, net, optimizer, batch_size=batch_size, room=running.room)
    return running.to_the_end()


def advance(
    parallel: RowParallel,
    net: Network,
    optimizer: optax.GradientTransformation,
    state: State,
    task: Task,
    count: Any,
    *,
    batch_size: int,
    room: int,
) -> tuple[State, jax.Array, jax.Array]:
    """`training.steps.advance` over devices; the number of steps is that which process 0 asks for, by its clock."""
    count = from_first(np.asarray(count, np.int32))
    return _advance(parallel, net, optimizer, state, task, count, batch_size=batch_size, room=room)


@partial(jax.jit, static_argnames=("parallel", "net", "optimizer", "batch_size", "room"))
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
        return steps.step(net, optimizer, params, opt_state, batch, task.penalty, total, parallel.add_up)

    def local(state, task, count, numbers):
        def order(key: jax.Array, epoch: jax.Array, number: jax.Array) -> jax.Array:
            alone = parallel.shards == 1  # then it is that of `lr_nn.train`
            return steps.order(key if alone else jax.random.fold_in(key, number), epoch, n, each)

        def shuffle(key: jax.Array, epoch: jax.Array) -> jax.Array:
            # JAX takes what is drawn by a key for the same on all devices, if the key was, whatever was folded in.
            return jax.vmap(order, (None, None, 0))(key, epoch, numbers) + 0 * numbers[:, None]

        return steps.loop(one, shuffle, steps.steps_per_epoch(n, each), state, task, count, room)

    everywhere: Any = P()
    held = State(everywhere, everywhere, parallel.rows, everywhere)
    read = Task(parallel.rows, everywhere, everywhere, everywhere)
    run = parallel.map(local, (held, read, everywhere, parallel.rows), (held, everywhere, everywhere))
    return run(state, task, count, jnp.arange(parallel.shards, dtype=jnp.int32))


def _batch_size(parallel: RowParallel, batch_size: int | None, n: int) -> int:
    """Rows of a mini-batch, as many from every shard; all n of them where it is not less."""
    if batch_size is None or check.positive_integer("batch_size", batch_size) >= n:
        return n
    if batch_size % parallel.shards:
        raise ValueError(f"batch_size must be a multiple of the {parallel.shards} shards; got {batch_size}")
    return batch_size


def _orders(parallel: RowParallel, n: int, batch_size: int) -> jax.Array | None:
    """Room for the order of the rows of every shard."""
    if batch_size == n:
        return None
    own = parallel.shards // jax.process_count()
    length = steps.steps_per_epoch(n, batch_size) * batch_size // parallel.shards
    return meshes.laid(parallel.mesh, parallel.rows, np.zeros((own, length), np.int32))
