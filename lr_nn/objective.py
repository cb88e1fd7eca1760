"""The cost J = Σ s_i ℓ_i / Σ s_i + penalty, and its gradient: sums over examples, and one division after."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.backward import contract, example_losses, sweep, without_overflow
from lr_nn.network import Network, propagate
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.row_sums import counted, rows_per_product, wants_blocks
from lr_nn.trees import add, cast, compiled, divide, dtypes_of, row_shards, widened
from lr_nn.types import Batch, Params

__all__ = ["Totals", "cost", "totals", "value_and_gradient"]


def __dir__() -> list[str]:
    return __all__


# A function from a tree of sums over some rows to the same sums over all rows, such as a `psum`.
AddUp = Callable[[Any], Any]


class Totals(NamedTuple):
    """Sums over examples: a monoid, so that blocks of rows, devices and files add up to the same triple."""

    weight: jax.Array
    loss: jax.Array
    gradient: Params


def totals(net: Network, params: Params, batch: Batch) -> Totals:
    """(Σ s_i, Σ s_i ℓ_i, Σ s_i ∇ℓ_i) over the rows of `batch`."""
    return _compiled_totals(net, params, admit(net, params, batch, allow_no_weight=True))


def cost(net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> jax.Array:
    """J = Σ s_i ℓ_i / Σ s_i + penalty, a scalar (float32 where the parameters are of half precision).

    Raises ValueError or TypeError for data that do not fit the network and for a negative penalty.
    """
    batch = admit(net, params, batch)
    check_penalty(penalty, net)
    return _cost(net, params, batch, penalty)


def evaluate_cost(
    net: Network, params: Params, batch: Batch, penalty: Penalty | None = None, add_up: AddUp | None = None
) -> jax.Array:
    """`cost` on an admitted batch; `add_up` as in `evaluate`."""
    eta = propagate(net, params, batch).eta
    y = net.loss.target_rows(batch.y, eta)
    eta = without_overflow(net, eta, y, batch.weight)
    sums = _weighted_sum(example_losses(net, eta, y), batch.weight)
    total, loss = sums if add_up is None else add_up(sums)
    return _with_penalty(divide(loss, total), penalty, params)


_cost = compiled(evaluate_cost)


def weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Σ s_i v_i / Σ s_i of admitted weights, in float32 for half precision."""
    total, weighted = _weighted_sum(values, weight)
    return divide(weighted, total)


def value_and_gradient(
    net: Network, params: Params, batch: Batch, penalty: Penalty | None = None, block_size: int | None = None
) -> tuple[jax.Array, Params]:
    """J and its gradient, shaped like the parameters, by one forward and one backward pass written by hand.

    block_size: rows taken forward and backward together, in a loop, so that activations take memory for one
    block only; a last ragged block and weights are exact. None chooses by the shapes, as `automatic_block_size`
    says.

    If every weight of a traced batch is zero the mean is taken as zero. Raises ValueError or TypeError for data
    that do not fit the network, a negative penalty, or a block size below one.

    >>> import jax, jax.numpy as jnp, lr_nn
    >>> net = lr_nn.logistic_regression(2)
    >>> batch = lr_nn.Batch(x=jnp.eye(2), y=jnp.array([1.0, 0.0]))
    >>> value, (layer,) = lr_nn.value_and_gradient(net, lr_nn.init(net, jax.random.key(0)), batch)
    >>> print(f"{value:.6f}", layer.w.tolist(), layer.b.tolist())
    0.693147 [[-0.25], [0.25]] [0.0]
    """
    batch = admit(net, params, batch)
    check_penalty(penalty, net)
    if block_size is None:
        block_size = automatic_block_size(net, batch.x)
    else:
        block_size = check.positive_integer("block_size", block_size)
    return _value_and_gradient(net, params, batch, penalty, block_size)


@partial(compiled, static_argnames="block_size")
def _value_and_gradient(
    net: Network, params: Params, batch: Batch, penalty: Penalty | None, block_size: int | None
) -> tuple[jax.Array, Params]:
    return evaluate(net, params, batch, penalty, block_size)


def evaluate(
    net: Network,
    params: Params,
    batch: Batch,
    penalty: Penalty | None = None,
    block_size: int | None = None,
    total: jax.Array | None = None,
    add_up: AddUp | None = None,
) -> tuple[jax.Array, Params]:
    """`value_and_gradient` on an admitted batch: the one division, by `total` or else by Σ s_i.

    add_up: makes of sums over these rows those over all, where others hold the rest: a `psum` inside `shard_map`.
    """
    sums = fold(lambda block: _totals(net, params, block), batch, block_size)
    sums = sums if add_up is None else add_up(sums)
    total = sums.weight if total is None else total
    gradient = divide(sums.gradient, total)
    if penalty is not None:
        gradient = add(gradient, penalty.gradient(widened(params)))
    gradient = cast(gradient, dtypes_of(params))
    return _with_penalty(divide(sums.loss, total), penalty, params), gradient


def fold(function: Callable[[Batch], Any], batch: Batch, block_size: int | None) -> Any:
    """Σ function(block) over blocks of rows, the last one ragged.

    Rows over an explicit mesh: a block is as many consecutive rows from every device.
    """
    shards = row_shards(batch.x)
    n = batch.x.shape[0] // shards
    size = n if block_size is None else -(-block_size // shards)
    if size >= n:
        return function(batch)

    def block(start, size):
        def take(a):
            if shards == 1:
                return lax.dynamic_slice_in_dim(a, start, size)
            each = lax.dynamic_slice_in_dim(a.reshape(shards, n, *a.shape[1:]), start, size, axis=1)
            return each.reshape(-1, *a.shape[1:])

        return jax.tree.map(take, batch)

    whole = n // size
    total = lax.fori_loop(
        1, whole, lambda i, total: add(total, function(block(i * size, size))), function(block(0, size))
    )
    return add(total, function(block(whole * size, n % size))) if n % size else total


def _totals(net: Network, params: Params, batch: Batch) -> Totals:
    # The recursion is linear in its seed: weights multiply the residual once, at the top.
    bp = sweep(net, params, batch, weigh=True)
    y = net.loss.target_rows(batch.y, bp.eta)
    weight, loss = _weighted_sum(example_losses(net, bp.eta, y), batch.weight)
    return Totals(weight, loss, contract(bp))


_compiled_totals = compiled(_totals)


def _weighted_sum(values: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Σ s_i and Σ s_i v_i, in float32 for half precision."""
    values = widened(values)
    if weight is None:
        return jnp.asarray(values.shape[0], values.dtype), values.sum()
    return weight.sum(), (weight.astype(values.dtype) * counted(values, weight)).sum()


def _with_penalty(value: jax.Array, penalty: Penalty | None, params: Params) -> jax.Array:
    return value if penalty is None else value + penalty.value(params).astype(value.dtype)


def automatic_block_size(net: Network, x: jax.Array) -> int | None:
    """Rows to take forward and backward together, or None to take all rows at once.

    Only on a CPU with one device. Where the hidden layers outweigh the input, rows whose activations and errors
    fill `BLOCK_BYTES`: that saves memory and, the cache being small, time. For a thin model with so many rows that
    `weight_gradient` would block them, but a number that no block divides, rows of `x` of twice as much. Elsewhere
    the loop's copy of each block of `x` costs more than it gives.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return None
    per_row = 2 * sum(net.sizes[1:])
    rows = max(LEAST_ROWS, BLOCK_BYTES // (per_row * x.dtype.itemsize))
    if len(net.sizes) == 2:
        thin = wants_blocks(x, net.sizes[1]) and rows_per_product(x, net.sizes[1]) is None
        return max(1, 2 * BLOCK_BYTES // (x.shape[1] * x.dtype.itemsize)) if thin else None
    return rows if per_row >= net.sizes[0] and x.shape[0] >= 2 * rows else None


BLOCK_BYTES, LEAST_ROWS = 2**21, 1024
