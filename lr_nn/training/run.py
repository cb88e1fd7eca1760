"""`train` and `train_many`: what is checked before a training begins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.data.rows import Rows
from lr_nn.network import Network, check_params
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.training import lanes
from lr_nn.training.checkpoints import Checkpoints
from lr_nn.training.feeds import Feed, InMemory, Streamed, admission
from lr_nn.training.identity import identity
from lr_nn.training.keeper import Keeper
from lr_nn.training.loop import Run, Training
from lr_nn.training.progress import Progress
from lr_nn.training.steps import State, Task, steps_per_epoch
from lr_nn.types import Batch, Params

__all__ = ["train", "train_many"]


def train(
    net: Network,
    params: Params,
    data: Batch | Rows,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    penalty: Penalty | None = None,
    validation: Batch | Rows | None = None,
    patience: int | None = None,
    opt_state: Any = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
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

    data may be `Rows` that do not fit into memory. Then a mini-batch is a block of consecutive rows, in the order of
    `data.mini_batches`: rows that are sorted by what they say have to be shuffled once, on disk. The next block is
    read while a step is computed. Rows with weights are read once before, for the mean weight.

    checkpoints: where to write them, see `Checkpoints`. resume: go on from the newest there, as if nothing had
    happened: to the last bit on the same kind of device, in the middle of an epoch too, or with more epochs; `params`
    and `opt_state` then give shapes alone, and an empty folder starts anew. Ctrl-C and SIGTERM end a training with
    checkpoints after the call of steps that runs, and a checkpoint; a second one ends it at once. So does an error in
    reading rows; one in writing raises `NotSavedError`, an OSError with the `training` so far.

    Raises ValueError or TypeError, before anything is compiled, for data that do not fit the network, epochs,
    patience or a batch size below one, and mini-batches without a key; the ValueErrors `ForeignError`, for a
    checkpoint of another training or format, and `DamagedError`, for one that is not as it was written; ValueError
    for checkpoints in the folder without `resume`; OSError for a folder that cannot be written to; TypeError under
    `jit` and `vmap`, where `training.step` is the function to call.

    >>> import jax, lr_nn, optax
    >>> net = lr_nn.linear_regression(1)
    >>> data = lr_nn.Batch(x=jax.numpy.arange(4.0)[:, None], y=1 + 2 * jax.numpy.arange(4.0))
    >>> result = lr_nn.train(net, lr_nn.init(net, jax.random.key(0)), data, optimizer=optax.sgd(0.2), epochs=200)
    >>> print(result.status, [f"{leaf.item():.3f}" for leaf in jax.tree.leaves(result.params)])
    completed ['2.000', '1.000']
    """
    check.on_host("train", (params, data, validation, key, penalty, opt_state), "training.step")
    if key is not None:
        check.key(key)
    epochs, patience = admit_settings(net, penalty, epochs, patience, validation, checkpoints, resume)
    data = _admitted(net, params, data)
    validation = None if validation is None else _admitted(net, params, validation)
    n = len(data) if isinstance(data, Rows) else len(data.x)
    if batch_size is None and isinstance(data, Rows):
        raise ValueError(f"{n} rows that are read block by block need a batch_size")
    state, batch_size = first_state(params, n, optimizer, batch_size, key, opt_state)
    key = key if batch_size < n else None
    feed: Feed
    if isinstance(data, Rows):
        feed = Streamed(net, optimizer, state.params, data, batch_size, key, penalty)
    else:
        feed = InMemory(net, optimizer, task_of(data, penalty, key), batch_size)
        state = state._replace(order=_unordered(n, batch_size))
    keeper = None
    if checkpoints is not None:
        config = identity(net, data, validation, batch_size, key, penalty, optimizer, state, checkpoints.schema)
        keeper = Keeper(checkpoints, config, state, feed.per_epoch, epochs, resume)
    with nullcontext() if keeper is None else closing(keeper):
        return Run(net, feed, state, epochs, False, validation, patience, progress, keeper).to_the_end()


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
    if key is not None:
        check.key(key, lanes=True)
    data, axes = lanes.admit(net, params, data, penalty, key)
    epochs = check.positive_integer("epochs", epochs)
    n = data.x.shape[-2]
    state, batch_size = first_state(params, n, optimizer, batch_size, key, opt_state, jax.vmap)
    key = key if batch_size < n else None
    lead = () if key is None or axes.key is None else key.shape[:1]
    state = state._replace(order=_unordered(n, batch_size, lead))
    feed = InMemory(net, optimizer, task_of(data, penalty, key), batch_size, axes)
    return Run(net, feed, state, epochs, True, progress=progress).to_the_end()


def _admitted(net: Network, params: Params, data: Any) -> Any:
    """Data checked against the network; of rows of files, which are read later, the first one."""
    if not isinstance(data, Rows):
        return admit(net, params, data)
    check_params(net, params)
    if len(data) == 0:
        raise ValueError("data have no rows; training needs at least one example")
    admission(net, params)(0, data.read(0, 1))
    return data


def admit_settings(
    net: Network,
    penalty: Penalty | None,
    epochs: int,
    patience: int | None,
    validation: Any,
    checkpoints: Any,
    resume: bool,
) -> tuple[int, int | None]:
    """Epochs and patience as numbers, of settings that go together."""
    check_penalty(penalty, net)
    if patience is not None:
        patience = check.positive_integer("patience", patience)
        if validation is None:
            raise ValueError("patience needs validation data to judge by; pass validation=Batch(x, y)")
    if resume and checkpoints is None:
        raise ValueError("resume needs to know where from; pass checkpoints=Checkpoints(folder)")
    return check.positive_integer("epochs", epochs), patience


def first_state(
    params: Params,
    n: int,
    optimizer: optax.GradientTransformation,
    batch_size: int | None,
    key: jax.Array | None,
    opt_state: Any,
    over_lanes: Callable[[Callable], Callable] = lambda function: function,
) -> tuple[State, int]:
    """The first state, without an order of rows, and the batch size as a number."""
    if not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be an optax one, such as optax.adam(1e-3); got {optimizer!r}")
    batch_size = n if batch_size is None else min(check.positive_integer("batch_size", batch_size), n)
    if batch_size < n and key is None:
        raise ValueError("mini-batches need a key to be drawn by; pass key=jax.random.key(0)")
    params = jax.tree.map(jnp.asarray, params)
    if opt_state is None:
        opt_state = over_lanes(optimizer.init)(params)
    return State(params, opt_state, None, jnp.zeros((), jnp.int32)), batch_size


def task_of(data: Batch, penalty: Penalty | None, key: jax.Array | None) -> Task:
    """What every step reads."""
    return Task(data, None if data.weight is None else data.weight.mean(axis=-1), penalty, key)


def _unordered(n: int, batch_size: int, lead: tuple[int, ...] = ()) -> jax.Array | None:
    """Room for the order of an epoch, if rows are shuffled."""
    return jnp.zeros((*lead, steps_per_epoch(n, batch_size) * batch_size), jnp.int32) if batch_size < n else None
