"""`train` and `train_many`: what is checked before a training begins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.training import lanes
from lr_nn.training.checkpoints import Checkpoints
from lr_nn.training.feeds import Feed, InMemory, Streamed
from lr_nn.training.hooks import Hook, HookCalls
from lr_nn.training.identity import identity
from lr_nn.training.keeper import Keeper
from lr_nn.training.loop import Run, Training
from lr_nn.training.privacy import Accountant, Private
from lr_nn.training.progress import Progress
from lr_nn.training.settings import admit_data, admit_settings, first_state, task_of, unordered
from lr_nn.training.steps import Noise
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
    private: Private | None = None,
    hook: Hook | None = None,
) -> Training:
    """Train by any optax optimiser, on the hand-written gradient.

    Each epoch sees every row once, in an order drawn from (key, epoch), in mini-batches of `batch_size` (None:
    all rows; 1: stochastic gradient descent), the last one ragged. Steps run compiled, many in one call; results
    do not depend on how many. A mini-batch divides by its rows times the mean weight, so that its gradient is an
    unbiased estimate of that of J.

    validation: evaluated after every epoch. patience: stop after this many epochs without a lower validation cost,
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

    private: DP-SGD with these settings. A mini-batch is a Poisson sample, each row with probability batch_size / n, and
    a step uses the sum of clipped gradients with noise, divided by `batch_size`; data are arrays without weights.
    `params`, `opt_state` and `status` are private, and so is all that is computed from them; the costs in the history,
    what a hook sees, and checkpoints, which hold the key, are not. Validation data count as public. ε counts the steps
    of this training, those before a resumption too, not those of an earlier one. A cost that overflows ends nothing.

    hook: a function that is called with parameters and a pass at regular steps, see `Hook`.

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
    data = admit_data(net, params, data)
    validation = None if validation is None else admit_data(net, params, validation)
    n = len(data) if isinstance(data, Rows) else len(data.x)
    if batch_size is None and isinstance(data, Rows):
        raise ValueError(f"{n} rows that are read block by block need a batch_size")
    state, batch_size = first_state(params, n, optimizer, batch_size, key, opt_state)
    accountant, noise = None, None
    if private is not None:
        _check_private(private, data, key)
        accountant = Accountant(private, batch_size / n, epochs * -(-n // batch_size))
        noise = Noise(*(np.asarray(number, float) for number in (private.max_norm, accountant.multiplier)))
    elif batch_size == n:
        key = None
    feed: InMemory | Streamed
    if isinstance(data, Rows):
        feed = Streamed(net, optimizer, state.params, data, batch_size, key, penalty)
    else:
        feed = InMemory(net, optimizer, task_of(data, penalty, key, noise), batch_size)
        state = state._replace(order=unordered(n, batch_size) if private is None else key)
    keeper = None
    if checkpoints is not None:
        schema = checkpoints.schema
        config = identity(net, data, validation, batch_size, key, penalty, optimizer, state, schema, noise=noise)
        keeper = Keeper(checkpoints, config, state, feed.per_epoch, epochs, resume)
    with nullcontext() if keeper is None else closing(keeper):
        if keeper is not None and accountant is not None:
            accountant.check_spent(keeper.newest)
        result = Run(
            net,
            feed,
            state,
            epochs,
            validation=validation,
            patience=patience,
            progress=progress,
            keeper=keeper,
            hook=None if hook is None else HookCalls(hook, net, feed.batch),
            budget=None if accountant is None else accountant.steps,
        ).to_the_end()
    return result if accountant is None else _accounted(result, accountant, feed)


def _check_private(private: Private, data: Batch | Rows, key: jax.Array | None) -> None:
    """Validate what private training needs besides the settings."""
    if not isinstance(private, Private):
        raise TypeError(f"private must be a training.Private(max_norm=..., ...); got {private!r}")
    if isinstance(data, Rows):
        raise TypeError("private training draws single rows: it needs a Batch of arrays, not Rows of files")
    if data.weight is not None:
        raise ValueError("private training counts every example once: leave out the weights")
    if key is None:
        raise ValueError("private training draws batches and noise: pass key=jax.random.key(...), and keep it secret")


def _accounted(result: Training, accountant: Accountant, feed: Feed) -> Training:
    """The training with the ε that it spent, on two steps more than it returns where its status is non_finite."""
    steps = result.steps + 2 * (result.status == "non_finite")
    column = accountant.column(len(result.history["cost"]), feed.per_epoch, steps)
    return replace(result, history=result.history | column)


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
    validation: Batch | Rows | None = None,
    patience: int | None = None,
    opt_state: Any = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
) -> Training:
    """Train m networks in one program of batched matrix products: `train`, with a leading axis m on `params`.

    Any other argument is per lane if its rank is one more than in `train`: x (m, n, d); y (m, n) for one output
    or class labels, (m, n, k) otherwise; weight (m, n); offset (m, n, k); strengths (m,); keys (m,). With one key
    all lanes see the same mini-batches, and the first layer of all of them is one matrix product. `opt_state`, if
    given, has lanes; learning rates per lane go in by `optax.inject_hyperparams`. A lane that turns NaN leaves
    the others alone: it keeps the parameters before the step that failed, its status is non_finite and its costs
    are NaN from there on. In the result every leaf and every column of the history has the lane axis.

    validation: one set for all lanes, or per lane by the same rule. patience: a lane without a lower validation cost
    for this many epochs stops: it keeps its best parameters, its status is early_stopped and its history NaN from
    there on; the training ends when all have stopped. checkpoints, resume: as in `train`, of all lanes together.

    Raises as `train` does, and ValueError where `params` have no lane axis.
    """
    check.on_host("train_many", (params, data, validation, key, penalty, opt_state), "training.step")
    if key is not None:
        check.key(key, lanes=True)
    epochs, patience = admit_settings(net, penalty, epochs, patience, validation, checkpoints, resume, lanes=True)
    data, axes = lanes.admit(net, params, data, penalty, key)
    validation_axes = None
    if validation is not None:
        validation, validation_axes = lanes.admit_validation(net, params, validation)
    n = data.x.shape[-2]
    state, batch_size = first_state(params, n, optimizer, batch_size, key, opt_state, jax.vmap)
    key = key if batch_size < n else None
    lead = () if key is None or axes.key is None else key.shape[:1]
    state = state._replace(order=unordered(n, batch_size, lead))
    feed = InMemory(net, optimizer, task_of(data, penalty, key), batch_size, axes)
    keeper = None
    if checkpoints is not None:
        schema = checkpoints.schema
        config = identity(net, data, validation, batch_size, key, penalty, optimizer, state, schema, lanes=True)
        keeper = Keeper(checkpoints, config, state, feed.per_epoch, epochs, resume)
    with nullcontext() if keeper is None else closing(keeper):
        return Run(
            net,
            feed,
            state,
            epochs,
            lanes=True,
            validation=validation,
            validation_axes=validation_axes,
            patience=patience,
            progress=progress,
            keeper=keeper,
        ).to_the_end()
