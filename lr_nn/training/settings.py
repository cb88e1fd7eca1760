"""Checked settings and the first state of a training, for one network, for lanes and for many devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.data.rows import Rows
from lr_nn.network import Network, check_params
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.training.feeds import admission
from lr_nn.training.steps import Noise, State, Task, steps_per_epoch
from lr_nn.types import Batch, Params


def admit_data(net: Network, params: Params, data: Any) -> Any:
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
    lanes: bool = False,
) -> tuple[int, int | None]:
    """Epochs and patience as checked numbers; raises for settings that contradict each other."""
    check_penalty(penalty, net, lanes)
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


def task_of(data: Batch, penalty: Penalty | None, key: jax.Array | None, noise: Noise | None = None) -> Task:
    """What every step reads."""
    return Task(data, None if data.weight is None else data.weight.mean(axis=-1), penalty, key, noise)


def unordered(n: int, batch_size: int, lead: tuple[int, ...] = ()) -> jax.Array | None:
    """Room for the order of an epoch, if rows are shuffled."""
    return jnp.zeros((*lead, steps_per_epoch(n, batch_size) * batch_size), jnp.int32) if batch_size < n else None
