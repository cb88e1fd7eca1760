"""Sums over the rows of all devices, compiled: on each device those over its own, then one `psum` and one division."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lr_nn import per_example
from lr_nn.backward import contract, squared, sweep
from lr_nn.objective import evaluate, evaluate_cost
from lr_nn.trees import accumulator, cast, divide
from lr_nn.types import Batch

__all__ = ["NewtonSystem"]


class NewtonSystem(NamedTuple):
    """J, ∇J (p,) and ∇²J (p, p), in the order of `ravel_pytree(params)`: a step solves hessian · step = -gradient."""

    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array


_jit = partial(jax.jit, static_argnames="parallel")


@_jit
def cost(parallel, net, params, batch, penalty):
    """`RowParallel.cost`."""

    def local(params, batch, penalty):
        return evaluate_cost(net, params, batch, penalty, parallel.add_up)

    return parallel.map(local, (P(), parallel.rows, P()), P())(params, batch, penalty)


@partial(jax.jit, static_argnames=("parallel", "block_size"))
def value_and_gradient(parallel, net, params, batch, penalty, block_size):
    """`RowParallel.value_and_gradient`."""

    def local(params, batch, penalty):
        return evaluate(net, params, batch, penalty, block_size, add_up=parallel.add_up)

    return parallel.map(local, (P(), parallel.rows, P()), P())(params, batch, penalty)


@_jit
def layer_squared_norms(parallel, net, params, batch):
    """`RowParallel.layer_squared_norms`."""

    def local(params, batch):
        return per_example.layer_squared_norms(sweep(net, params, batch))

    return parallel.map(local, (P(), parallel.rows), parallel.rows)(params, batch)


@_jit
def clipped_gradient(parallel, net, params, batch, max_norm):
    """`RowParallel.clipped_gradient`."""

    def local(params, batch, max_norm):
        bp = sweep(net, params, batch)
        sums = parallel.add_up((_weight(batch), per_example.clipped_sum(bp, max_norm, batch.weight)))
        return cast(divide(sums[1], sums[0]), bp.dtypes)

    return parallel.map(local, (P(), parallel.rows, P()), P())(params, batch, max_norm)


@_jit
def second_moment(parallel, net, params, batch):
    """`RowParallel.second_moment`."""

    def local(params, batch):
        total, moment = parallel.add_up((_weight(batch), contract(squared(sweep(net, params, batch)), batch.weight)))
        return divide(moment, total)

    return parallel.map(local, (P(), parallel.rows), P())(params, batch)


@_jit
def newton_system(parallel, net, params, batch, penalty):
    """`RowParallel.newton_system`."""

    def local(params, batch, penalty):
        (layer,) = jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), params)
        dtype = layer.w.dtype
        x, offset = batch.x.astype(dtype), None if batch.offset is None else batch.offset.astype(dtype)
        weight = jnp.ones(len(x), dtype) if batch.weight is None else batch.weight
        inputs = jnp.concatenate([x, jnp.ones((len(x), int(net.bias)), dtype)], axis=1)
        eta = inputs @ jnp.concatenate([layer.w, *([] if layer.b is None else [layer.b[None]])])
        eta = eta if offset is None else eta + offset
        cost = (weight * net.loss.value(eta, batch.y)).sum()
        slope = inputs.T @ (weight[:, None] * net.loss.residual(eta, batch.y))
        rows = jnp.einsum("na,cnk->cnak", inputs, net.loss.fisher_factor(eta)).reshape(-1, len(x), slope.size)
        hessian = jnp.einsum("cnp,n,cnr->pr", rows, weight, rows)
        total, *parts = parallel.add_up((weight.sum(), cost, slope.reshape(-1), hessian))
        value, gradient, hessian = divide(tuple(parts), total)
        ridge = jnp.where(jnp.arange(slope.size) < layer.w.size, jnp.asarray(penalty.l2, dtype), jnp.zeros((), dtype))
        pull = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(penalty.gradient((layer,)))])
        return NewtonSystem(value + penalty.value((layer,)), gradient + pull, hessian + jnp.diag(ridge))

    return parallel.map(local, (P(), parallel.rows, P()), P())(params, batch, penalty)


def _weight(batch: Batch) -> jax.Array:
    """Σ s_i of these rows."""
    if batch.weight is None:
        return jnp.asarray(batch.x.shape[0], accumulator(batch.x.dtype))
    return batch.weight.sum()
