"""The compiled part of training: one step, and a loop of steps over mini-batches, shuffled or Poisson-sampled.

What an epoch draws is a function of (key, epoch) alone: `draw` below. So neither how many steps run in one call, nor
an interruption, changes what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lr_nn.admission import admit
from lr_nn.backward import sweep
from lr_nn.network import Network
from lr_nn.objective import AddUp, automatic_block_size, evaluate, evaluate_cost
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.private import poisson_batch, poisson_capacity, private_gradient
from lr_nn.trees import accumulator, add, all_finite, cast, dtypes_of, rows_sharding, widened
from lr_nn.types import Batch, Params

__all__ = ["step"]


# The probability that a Poisson batch exceeds the room for it; `privacy` adds it to δ, at every step.
OVERFLOW = 1e-15


class State(NamedTuple):
    """What the next step needs. `order` is what the running epoch drew, at its first step."""

    params: Params
    opt_state: Any
    order: jax.Array | None
    step: jax.Array


class Noise(NamedTuple):
    """The numbers of private steps: the bound on each example's gradient and the noise multiplier."""

    max_norm: Any
    multiplier: Any


class Task(NamedTuple):
    """What every step reads and none changes, all of it arrays. `mean_weight` is Σ s_i / n, None without weights.

    `noise` makes the steps private: Poisson batches, and noise added to the sum of clipped gradients.
    """

    data: Batch
    mean_weight: Any
    penalty: Penalty | None
    key: Any
    noise: Noise | None = None


def step(
    net: Network,
    params: Params,
    opt_state: Any,
    batch: Batch,
    *,
    optimizer: optax.GradientTransformation,
    penalty: Penalty | None = None,
    total: jax.Array | None = None,
    add_up: AddUp | None = None,
) -> tuple[Params, Any, jax.Array]:
    """One optimiser step on one batch: (params, opt_state, J), J the cost before the step.

    A pure function to `jit`, with the optimizer bound first, `jax.jit(partial(step, optimizer=optimizer))`, and to
    `vmap` over initial values, learning rates (`optax.inject_hyperparams`), strengths or data. J is a mean over the
    batch: sums are divided by Σ s_i, or by `total` if given. (For a batch of m rows out of a weighted set of n,
    m · Σ s / n makes the gradient unbiased.) add_up: for a batch that is spread over devices, inside `shard_map`:
    `lambda sums: jax.lax.psum(sums, axes)`. Raises ValueError or TypeError as `lr_nn.value_and_gradient` does.
    """
    batch = admit(net, params, batch)
    check_penalty(penalty, net)
    value, gradient = evaluate(net, params, batch, penalty, automatic_block_size(net, batch.x), total, add_up)
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        gradient,
        opt_state,
        params,
        value=value,
        grad=gradient,
        value_fn=lambda params: evaluate_cost(net, params, batch, penalty, add_up),
    )
    return optax.apply_updates(params, updates), strong(opt_state), value


def private_step(
    net: Network,
    params: Params,
    opt_state: Any,
    batch: Batch,
    key: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    penalty: Penalty | None,
    noise: Noise,
    expected_batch_size: int,
) -> tuple[Params, Any, jax.Array]:
    """One step of DP-SGD on a Poisson batch: (params, opt_state, J), J the mean over the rows drawn, before the step.

    The optimiser sees the private gradient, to which that of the penalty is added, and nothing else of the data. J is
    finite exactly where `params` are, since it may end the training, and an end that a single row causes is not
    private: a J that overflows is the largest number instead.
    """
    gradient = private_gradient(
        sweep(net, params, batch),
        key,
        max_norm=noise.max_norm,
        noise_multiplier=noise.multiplier,
        expected_batch_size=expected_batch_size,
    )
    if penalty is not None:
        gradient = cast(add(widened(gradient), penalty.gradient(widened(params))), dtypes_of(params))
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    value = evaluate_cost(net, params, batch, penalty)
    value = jnp.where(jnp.isfinite(value), value, jnp.finfo(value.dtype).max) / all_finite(params).astype(value.dtype)
    return optax.apply_updates(params, updates), strong(opt_state), value


def strong(tree: Any) -> Any:
    """Leaves of the types that a checkpoint keeps: after it a weak one would be another program, rounded otherwise."""
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype) if getattr(leaf, "weak_type", False) else leaf, tree)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """⌈n / batch_size⌉; every row is seen once an epoch."""
    return -(-n // batch_size)


def order(key: jax.Array, epoch: jax.Array, n: int, batch_size: int) -> jax.Array:
    """The rows of one epoch, a permutation of range(n) drawn from (key, epoch), padded to whole batches."""
    rows = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    return jnp.pad(rows.astype(jnp.int32), (0, steps_per_epoch(n, batch_size) * batch_size - n))


def draw(task: Task, key: jax.Array, epoch: jax.Array, n: int, batch_size: int) -> jax.Array:
    """What one epoch draws: the order of its rows; for private steps a key, since each draws rows of its own."""
    return order(key, epoch, n, batch_size) if task.noise is None else jax.random.fold_in(key, epoch)


def take(task: Task, drawn: jax.Array, position: jax.Array, n: int, batch_size: int) -> tuple[Batch, jax.Array]:
    """Mini-batch number `position` of an epoch and the total to divide by; padding rows get weight zero."""
    dtype = accumulator(task.data.x.dtype)
    if task.noise is not None:
        key, capacity = jax.random.fold_in(drawn, 2 * position), poisson_capacity(n, batch_size / n, OVERFLOW)
        rows, mask, _ = poisson_batch(key, n, batch_size / n, capacity)
        return _gather(task.data, rows)._replace(weight=mask.astype(dtype)), jnp.asarray(batch_size, dtype)
    start = position * batch_size
    batch = _gather(task.data, lax.dynamic_slice_in_dim(drawn, start, batch_size))
    real = jnp.minimum(batch_size, n - start)
    if n % batch_size:
        mask = (jnp.arange(batch_size) < real).astype(dtype)
        batch = batch._replace(weight=mask if batch.weight is None else mask * batch.weight)
    total = real.astype(dtype)
    return batch, total if task.mean_weight is None else total * task.mean_weight


def _gather(data: Batch, rows: jax.Array) -> Batch:
    """The rows of these numbers, which are in range."""

    def gathered(array: jax.Array) -> jax.Array:
        return array.at[rows].get(mode="promise_in_bounds", out_sharding=rows_sharding(array, len(rows)))

    return jax.tree.map(gathered, data)


def _frozen_on_failure(step: Callable) -> Callable:
    """`step` that keeps parameters and optimiser state where the cost or the new parameters are not finite.

    The cost is then divided by zero: it is not finite, and no constant NaN is made for those that are.
    """

    def guarded(params, opt_state, *rest):
        new_params, new_state, value = step(params, opt_state, *rest)
        ok = jnp.isfinite(value) & all_finite(new_params)

        def keep(new, old):
            return jnp.where(ok, new, old)

        kept = jax.tree.map(keep, (new_params, new_state), (params, opt_state))
        return *kept, value / ok.astype(value.dtype)

    return guarded


@partial(jax.jit, static_argnames=("optimizer", "batch_size", "axes", "room"))
def advance(
    net: Network,
    optimizer: optax.GradientTransformation,
    state: State,
    task: Task,
    count: jax.Array,
    *,
    batch_size: int,
    axes: Task | None,
    room: int,
) -> tuple[State, jax.Array, jax.Array]:
    """Up to `count` ≤ `room` steps: (state, costs (room, ...), steps taken). Costs of steps not taken are zero.

    Ends with a step whose cost is not finite (with lanes: in no lane), that cost being the last one noted.
    `axes` says which leaves of `task` have a lane axis, and that state has one; None is a single training. A lane
    whose cost or parameters would leave the floats keeps the parameters it has.
    """
    n = task.data.x.shape[-2]

    def one(params, opt_state, drawn, task, position):
        batch, total = (task.data, None) if drawn is None else take(task, drawn, position, n, batch_size)
        if task.noise is None:
            return step(net, params, opt_state, batch, optimizer=optimizer, penalty=task.penalty, total=total)
        options = {"penalty": task.penalty, "noise": task.noise, "expected_batch_size": batch_size}
        key = jax.random.fold_in(drawn, 2 * position + 1)
        return private_step(net, params, opt_state, batch, key, optimizer=optimizer, **options)

    def shuffle(key, epoch):
        return draw(task, key, epoch, n, batch_size)

    if axes is not None:
        one = jax.vmap(_frozen_on_failure(one), in_axes=(0, 0, axes.key, axes, None))
        if axes.key == 0:
            shuffle = jax.vmap(shuffle, in_axes=(0, None))

    lanes = () if axes is None else state.params[0].w.shape[:1]
    return loop(one, shuffle, steps_per_epoch(n, batch_size), state, task, count, room, lanes)


@partial(jax.jit, static_argnames=("batch_size", "axes"))
def draw_of_step(task: Task, step: jax.Array, *, batch_size: int, axes: Task | None) -> jax.Array:
    """What the epoch of a step draws, with a lane axis where keys have one."""
    n = task.data.x.shape[-2]

    def drawn(key):
        return draw(task, key, step // steps_per_epoch(n, batch_size), n, batch_size)

    return drawn(task.key) if axes is None or axes.key is None else jax.vmap(drawn)(task.key)


@partial(jax.jit, static_argnames="batch_size")
def batch_at(task: Task, step: jax.Array, *, batch_size: int) -> Batch:
    """The mini-batch of a step of a single training."""
    n = task.data.x.shape[-2]
    epoch, position = jnp.divmod(step, steps_per_epoch(n, batch_size))
    return take(task, draw(task, task.key, epoch, n, batch_size), position, n, batch_size)[0]


def loop(
    one: Callable,
    shuffle: Callable,
    per_epoch: int,
    state: State,
    task: Task,
    count: jax.Array,
    room: int,
    lanes: tuple[int, ...] = (),
) -> tuple[State, jax.Array, jax.Array]:
    """`advance` by steps `one(params, opt_state, order, task, position)`, orders of epochs by `shuffle(key, epoch)`."""

    def body(carry):
        state, costs, taken, _ = carry
        epoch, position = state.step // per_epoch, state.step % per_epoch
        rows = state.order
        if rows is not None:
            rows = lax.cond(position == 0, lambda: shuffle(task.key, epoch), lambda: rows)
        params, opt_state, value = one(state.params, state.opt_state, rows, task, position)
        new = State(params, opt_state, rows, state.step + 1)
        return new, costs.at[taken].set(value), taken + 1, jnp.isfinite(value).any()

    def go_on(carry):
        _, _, taken, finite = carry
        return (taken < count) & finite

    costs = jnp.zeros((room, *lanes), accumulator(state.params[0].w.dtype))
    state, costs, taken, _ = lax.while_loop(go_on, body, (state, costs, jnp.zeros((), jnp.int32), jnp.array(True)))
    return state, costs, taken
